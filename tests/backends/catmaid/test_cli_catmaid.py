"""`storefs info` and `storefs tree` of CATMAID servers, projects and stacks."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from storefs import cli
from tests.backends.catmaid.emulator import TOKEN, Group, Link, Mirror, Project
from tests.backends.catmaid.scene import SHAPE, Scene, Shown
from tests.backends.catmaid.specimen import pyramid, tissue
from tests.backends.catmaid.tile_hosts import TileHost, dead_host
from tests.backends.dvid.faults import Fault

QUICK = ("-o", "retries=0", "-o", "timeout=10")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Lines of what the command prints, with single blanks; nothing goes to stderr."""
    assert cli.main([*arguments, *QUICK]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [" ".join(line.split()) for line in out.splitlines()]


@pytest.fixture
def stack(em: Scene) -> Iterator[Shown]:
    """A stack with a mirror that is read, one that fails, one that is dead, one of an unknown type."""
    levels = pyramid(tissue(SHAPE))
    with TileHost() as failing, dead_host() as dead:
        failing.faults = [Fault(status=500, text="out of order")]
        mirrors = [
            Mirror(f"{dead}/y/", 99, "bin", title="future", position=0, id=57),
            em.mirror(levels, title="tiles here", position=1),
            em.mirror(levels, failing, title="elsewhere", position=2, kind=5, size=(32, 32)),
            Mirror(f"{dead}/x/", 1, "jpg", title="", position=3, id=55),
        ]
        facts = {"broken_slices": (1, 2, 4, 99)}
        made = em.stack(tissue(SHAPE), mirrors=mirrors, facts=facts, translation=(10, 20, 30.5), orientation=1)
        made.stack.title = "L1 CNS\t"
        em.project.groups.append(Group(4, "both", [(made.stack.id, "view")]))
        yield made


def test_info_of_a_stack(stack: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """Scales, place in the project, broken slices, and every mirror with type, tile size, and whether it answers."""
    lines = shown(capsys, "info", stack.url)
    number = stack.stack.id
    for expected in (
        f"stack {number} L1 CNS",
        "project 1 Demo",
        "lies xz, from x y z 10 20 30.5 nm in the project",
        "broken 3 of 5 slices: 1-2, 4",
        "1 5 50 75 1 48 64 40 8 8 0 0 0 18.8 kB",
    ):
        assert expected in lines
    rows = {line.split(" ")[0]: line for line in lines[next(n for n, x in enumerate(lines) if "mirror" in x) :]}
    assert "64 x 48 png ok, read" in rows["tiles"]
    assert "4 (file-based" in rows["tiles"]
    assert "32 x 32 png not ok" in rows["elsewhere"]
    assert "99 (unknown) 64 x 64 bin not ok" in rows["future"]
    assert rows["-"].startswith("- 55 1 (file-based) 64 x 64 jpg not ok")
    told = " ".join(lines)
    assert "mirror 12 elsewhere: the server answered 500" in told
    assert "mirror 55: no connection" in told
    assert "mirror 57 future: its tile source type is 99" in told


def test_info_asks_each_mirror_for_one_tile(em: Scene, stack: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """Opening and probing takes a few requests, none of them for another tile than the canary."""
    shown(capsys, "info", stack.url)
    assert len(em.server.seen) == 1
    assert len(em.host.seen) <= 2
    assert len(set(em.host.asked)) == 1


def test_tree_of_a_stack(stack: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """Levels as arrays, then the mirrors, each ok or with its reason."""
    lines = shown(capsys, "tree", stack.url)
    assert lines[0] == f"{stack.stack.id} L1 CNS catmaid, 3 scales"
    assert lines[1].startswith("├── 0 (5, 101, 150) uint8, tile, 40 x 4 x 4 nm")
    assert any("tiles here 4 (file-based" in line and line.endswith("64 x 48 png, ok, read") for line in lines)
    assert any("elsewhere" in line and "not ok: the server answered 500" in line for line in lines)


def test_a_project(em: Scene, stack: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """Every stack of a project is shown by number and title; one that cannot be opened says why."""
    other, bad = em.stack(tissue((2, 50, 60))), em.stack(mirrors=[])
    lines = shown(capsys, "tree", f"{em.url}/1")
    text = "\n".join(lines)
    assert f"├── {stack.stack.id} L1 CNS catmaid, 3 scales" in lines
    assert f"├── {other.stack.id} stack {other.stack.id} catmaid, 3 scales" in lines
    assert f"└── {bad.stack.id} stack {bad.stack.id} cannot be opened: stack info: mirrors" in text
    lines = shown(capsys, "info", f"{em.url}/1")
    assert f"{stack.stack.id} L1 CNS" in lines
    assert f"{other.stack.id}/1 2 25 30 1 48 64 40 8 8 0 0 0 1.5 kB" in lines
    assert any(line.startswith(f"{bad.stack.id}: stack info: mirrors") for line in lines)


def test_a_stack_group(em: Scene, stack: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """A stack group has its title and its stacks."""
    lines = shown(capsys, "tree", f"{em.url}/1/stackgroup/4")
    assert lines[0] == "4 both"
    assert lines[1] == f"└── {stack.stack.id} L1 CNS catmaid, 3 scales"


@pytest.mark.parametrize("command", ["info", "tree"])
def test_a_server(em: Scene, stack: Shown, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The projects that one may see and their stacks, with sizes; no tile host is asked."""
    em.server.projects += [Project(2, "Another"), Project(3, "Hidden", [Link(stack.stack)], public=False)]
    text = "\n".join(shown(capsys, command, em.url))
    assert "L1 CNS" in text
    assert "Another" in text
    assert ("150 101 5" if command == "info" else "150 x 101 x 5 voxels") in text
    assert "Hidden" not in text
    assert "Hidden" in "\n".join(shown(capsys, command, em.url, "-o", f"token={TOKEN}"))
    assert em.host.seen == []


def test_json(stack: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` has the mirrors with their state."""
    assert cli.main(["info", stack.url, "--json", *QUICK]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["title"]) == (str(stack.stack.id), "L1 CNS")
    told = {mirror["title"]: mirror for mirror in facts["mirrors"]}
    assert told["tiles here"]["problem"] is None
    assert told["tiles here"]["is_read"]
    assert told["tiles here"]["tile_size"] == [64, 48]
    assert "500" in told["elsewhere"]["problem"]


@pytest.mark.parametrize(
    ("place", "said"),
    [("/1/999", "No Stack matches"), ("/77", "Project matching query"), ("/3", "CATMAID_API_TOKEN")],
)
def test_failures_are_one_paragraph(
    em: Scene, stack: Shown, capsys: pytest.CaptureFixture[str], place: str, said: str
) -> None:
    """Wrong ids and missing permissions are told in words."""
    em.server.projects.append(Project(3, "Hidden", public=False))
    assert cli.main(["info", em.url + place]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert said in " ".join(err.split())
    assert "Traceback" not in err


def test_no_secret_is_printed(em: Scene, stack: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """Tokens and passwords given are not in the output, nor passwords in the addresses of mirrors."""
    stack.stack.mirrors[2].image_base = stack.stack.mirrors[2].image_base.replace("://", "://me:s3cr3t@")
    for form in ((), ("--json",)):
        assert cli.main(["info", stack.url, *form, "-o", f"token={TOKEN}", *QUICK]) == 0
        out, err = capsys.readouterr()
        assert TOKEN not in out + err
        assert "s3cr3t" not in out + err
