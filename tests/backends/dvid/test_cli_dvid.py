"""`storefs info` and `storefs tree` of DVID servers, versions and instances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from rich.console import Console
from rich.tree import Tree

import storefs
from storefs import cli
from storefs.history import draw
from storefs.summary import VersionSummary
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.emulator import DvidEmulator


class Made(NamedTuple):
    """A server with a history: `root` and `middle` are locked, `dev` leaves the trunk at the root, `leaf` is open."""

    url: str
    root: str
    middle: str
    dev: str
    leaf: str


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    with DvidEmulator() as server:
        lab = Lab(server)
        url = f"dvid://{server.url}"
        storefs.create(f"{url}/{lab.root}/gray", (64, 50, 40), "uint8", voxel_size=(4, 4, 40))
        storefs.create(f"{url}/{lab.root}/gray_1", (32, 25, 20), "uint8", voxel_size=(4, 4, 40))
        storefs.create(f"{url}/{lab.root}/gray_7", (9, 9, 9), "uint8")
        storefs.create(f"{url}/{lab.root}/seg", (64, 64, 64), type="labelmap", scales=2)
        storefs.create(f"{url}/{lab.root}/seg_1", (64, 64, 64), type="labelmap")
        lab.make("files", "keyvalue")
        lab.make("region", "roi")
        lab.make("empty", "uint16blk")
        lab.post("note", {"note": "first\nimport"})
        middle = lab.commit()
        dev = lab.post("branch", {"branch": "dev", "note": "try it"}).json["child"]
        leaf = lab.commit(middle)
        yield Made(url, lab.root, middle, dev, leaf)
        lab.ask.close()


def shown(capsys, *arguments: str) -> list[str]:
    """Lines of what the command prints, without blanks at their ends."""
    assert cli.main(arguments) == 0
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("command", ["info", "tree"])
def test_a_server_shows_repos_instances_and_the_history(made, capsys, command):
    """Versions of a branch stand one below the other, a branch hangs from where it leaves; locks and notes show."""
    lines = shown(capsys, command, made.url)
    start = next(n for n, line in enumerate(lines) if made.root in line)
    assert [line[-len(expected) :] for line, expected in zip(lines[start:], history(made), strict=False)] == history(
        made
    )
    columns = [line.index(made[n]) for n, line in zip((1, 3, 2, 4), lines[start:], strict=False)]
    assert columns[1] == columns[0] + 4
    assert columns[2] == columns[3] == columns[0]
    words = " ".join(lines)
    for expected in ("lab", "files", "keyvalue", "region", "gray_1", "labelmap"):
        assert expected in words


def history(made: Made) -> list[str]:
    return [
        f'{made.root}  master, locked  "first import"',
        f'{made.dev}  dev, open  "try it"',
        f"{made.middle}  master, locked",
        f"{made.leaf}  master, open",
    ]


def test_info_of_a_version_points_at_it(made, capsys):
    """The version is named with branch and lock, marked in the history, and every voxel instance has its table."""
    lines = shown(capsys, "info", f"{made.url}/{made.middle[:12]}")
    assert f"version    {made.middle}, branch master, locked" in lines
    assert [line for line in lines if line.endswith("<- here")] == [f"├── {made.middle}  master, locked  <- here"]
    assert "keyvalue   files" in lines
    assert "4 versions" in lines
    tables = [" ".join(line.split()) for line in lines]
    assert "gray/1 32 25 20 128 256 256 80 8 8 0 0 0 16 kB" in tables


def test_tree_of_a_version_has_every_instance_once(made, capsys):
    """Arrays come under their instance, pyramids of siblings as one, and instances without voxels by type."""
    lines = shown(capsys, "tree", f"{made.url}/{made.root[:8]}:dev")
    assert lines[0] == "lab"
    names = [line[4:] for line in lines[1:] if line[:1] in "├└"]
    assert names == [
        "empty  dvid, 1 scale",
        "gray  dvid, 2 scales",
        "gray_7  dvid, 1 scale",
        "seg  dvid, 2 scales",
        "seg_1  dvid, 1 scale",
        "files  keyvalue",
        "region  roi",
    ]
    assert any("1  (32, 25, 20)  uint8, blocks of 32x32x32, 80 x 8 x 8 nm, 16 kB" in line for line in lines)


def test_info_of_an_instance_names_type_version_and_notes(made, capsys):
    """Type, blocks, version and lock show; an instance without voxels says that it has none."""
    lines = shown(capsys, "info", f"{made.url}/{made.leaf}/seg")
    assert "what     dvid labelmap, uint64, 262 k voxels" in lines
    assert "stored   blocks of 64x64x64" in lines
    assert f"version  {made.leaf}, branch master, open" in lines
    empty = shown(capsys, "info", f"{made.url}/{made.leaf}/empty")
    assert "note     this instance holds no data yet, so the array is empty" in empty


@pytest.mark.parametrize("place", ["", "/{leaf}", "/{leaf}/gray", "/{leaf}/region"])
def test_json_has_the_history_and_the_version(made, capsys, place):
    """`--json` gives the same facts to machines."""
    address = made.url + place.format(leaf=made.leaf)
    facts = json.loads("\n".join(shown(capsys, "tree", address, "--json")))
    assert facts["url"] == address.removeprefix("dvid://")
    if not place:
        facts = facts["groups"][0]
        assert facts["name"] == "lab"
    else:
        assert facts["version"]["name"] == made.leaf
        assert facts["version"]["locked"] is False
    if place.count("/") < 2:
        assert [v["name"] for v in facts["versions"]] == [made.root, made.middle, made.dev, made.leaf]
        assert facts["instances"]["files"] == "keyvalue"


def test_zarr_attributes_hold_the_history(made):
    """What the command shows is in the group's attributes too."""
    told = storefs.open(f"{made.url}/{made.leaf}").attrs["storefs"]
    assert told["versions"][made.dev]["parents"] == [made.root]
    assert (told["branch"], told["locked"], told["alias"]) == ("master", False, "lab")
    server = storefs.open(made.url)
    assert server[f"{made.root}/{made.middle}"].attrs["storefs"]["children"] == [made.leaf]


@pytest.mark.parametrize(
    ("place", "said"),
    [("/0000", "no version '0000'"), ("/{leaf}/grey", "did you mean 'gray'?"), ("/{leaf}/files", "KeyValueStore")],
)
def test_failures_are_one_paragraph(made, capsys, place, said):
    """Unknown versions and instances, and those without voxels, are told in words."""
    assert cli.main(["info", made.url + place.format(leaf=made.leaf)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert said in " ".join(err.split())


def drawn(*versions: VersionSummary) -> list[str]:
    tree = Tree("top")
    draw(versions, tree)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(tree)
    return [line.rstrip() for line in capture.get().splitlines()[1:]]


def version(name: str, branch: str, *parents: str) -> VersionSummary:
    return VersionSummary(name, branch, locked=True, note="", parents=parents)


def test_merges_are_named():
    """A version with several parents stands below the first and names all."""
    lines = drawn(version("a", "m"), version("b", "m", "a"), version("c", "x", "a"), version("d", "m", "b", "c"))
    assert lines == ["├── a  m, locked", "│   └── c  x, locked", "├── b  m, locked", "└── d  m, locked  merges b, c"]


def test_strange_histories_end():
    """Circles, unknown parents and thousands of versions do no harm."""
    assert drawn(version("a", "m", "b"), version("b", "m", "a")) == []
    assert drawn(version("a", "m", "gone")) == ["└── a  m, locked"]
    chain = [version("0", "m"), *(version(str(n), f"b{n % 2}", str(n - 1)) for n in range(1, 3000))]
    draw(chain, Tree("top"))
