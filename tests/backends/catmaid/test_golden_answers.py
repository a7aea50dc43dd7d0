"""Every recorded answer of a server comes to a described volume, or to an error that says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from storefs.backends.catmaid.backend import describe
from storefs.backends.catmaid.reading import Reading
from storefs.backends.catmaid.stack import StackBackend
from storefs.backends.catmaid.url import parse_address
from storefs.errors import MetadataError, NoSuchVolume, Refused, ServerFault, StorefsError
from storefs.plans import Call, Reply, Volume
from tests.backends.catmaid.asking_by_hand import TILE, Asked, path_of
from tests.backends.catmaid.golden_files import ABSENT, GOLDEN, body, names, response

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=ABSENT)

SERVER = "https://catmaid.example.org"
STACK = f"{SERVER}/1/2"


def reply(name: str) -> Reply:
    told = response(name)
    return Reply(told["status"], told["body_text"].encode(), told["headers"].get("Content-Type", "").partition(";")[0])


def described(url: str, *recorded: str, reading: Reading | None = None) -> Any:
    """What `url` comes to where the server gives the recorded answers one after another, and every tile is there."""
    replies = iter(recorded)

    def answer(request: Any) -> Any:
        if isinstance(request, Call):
            return reply(next(replies))
        if isinstance(request, Volume):
            return ServerFault("no connection", url=request.url)
        return None if ".n5" in path_of(request) else TILE

    return Asked(answer).run(describe(parse_address(url), reading or Reading()))


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("server/info_private_anonymous", Refused, "CATMAID_API_TOKEN"),
        ("server/info_project_missing", NoSuchVolume, "Project matching"),
        ("server/info_stack_missing", NoSuchVolume, "No Stack matches"),
        ("server/info_stack_unlinked", NoSuchVolume, "There is no stack"),
        ("server/info_other_project", NoSuchVolume, "There is no stack"),
        ("server/info_stack_twice_linked", MetadataError, "linked multiple times"),
        ("server/info_slash", NoSuchVolume, "404"),
        ("server/no_route", NoSuchVolume, "404"),
        ("server/post_without_csrf", Refused, "403"),
        ("server_constructed/error200_permission", Refused, "CATMAID_API_TOKEN"),
        ("server_constructed/error200_missing_stack", NoSuchVolume, "does not exist"),
        ("server_constructed/error200_bare_2016", NoSuchVolume, "doesn't belong"),
        ("server_constructed/html_200_login", MetadataError, "web page"),
        ("server_constructed/truncated_json", MetadataError, "cut short"),
        ("server_constructed/info_no_dimension", MetadataError, "dimension"),
        ("server_constructed/info_negative_dimension", MetadataError, "dimension.x"),
        ("server_constructed/info_zero_factor", MetadataError, "downsample_factors"),
        ("server_constructed/info_zero_tile_width", MetadataError, "tile_width"),
        ("server/info_no_mirrors", MetadataError, "mirrors"),
        ("server/projects", MetadataError, "expected an object"),
    ],
)
def test_refusals(name: str, kind: type[StorefsError], said: str):
    """What is wrong with a stack is an error of the right kind in the server's words, without its traceback."""
    with pytest.raises(kind, match=said) as caught:
        described(STACK, name)
    assert type(caught.value) is kind
    assert "Traceback" not in str(caught.value)
    assert STACK in str(caught.value)


def test_a_wrong_token():
    """A refusal in spite of a token says that the token may be wrong, as the server does not."""
    with pytest.raises(Refused, match="ignores a wrong one"):
        described(STACK, "server/info_private_bad_token", reading=Reading(with_token=True))


@pytest.mark.filterwarnings("ignore::storefs.backends.catmaid.mirrors.MirrorWarning")
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in names("info_*")
        if '"sid"' in response(name)["body_text"].replace("\\", "")
        and not any(bad in name for bad in ("no_dim", "negative_dim", "zero_", "no_mirrors", "only_unsupported"))
    ],
)
def test_stacks(name: str):
    """Every good info is described: arrays by level, with the attributes that place it in its project."""
    found = described(STACK, name)
    assert isinstance(found, StackBackend)
    document, attributes = body(name), found.hierarchy.attributes
    assert attributes["orientation"] == document["orientation"]
    assert dict(zip("xyz", attributes["translation_xyz"], strict=True)) == document["translation"]
    assert attributes["broken_slices"] == sorted(int(z) for z in document["broken_slices"])
    assert attributes["info"] == document
    assert sum(mirror["in_use"] for mirror in attributes["mirrors"]) == 1
    for node in found.hierarchy.arrays:
        factor = node.attributes["factor_xyz"]
        resolution = [document["resolution"][axis] or 1.0 for axis in "xyz"]
        scale = tuple(r * f for r, f in zip(resolution, factor, strict=True))[::-1]
        assert node.scale_nm == scale
        assert node.translation_nm == tuple(n / 2 for n in scale)
        assert node.dimension_names == ("z", "y", "x")


def test_no_mirror_is_left():
    """Where no mirror will do, the error names each and what is wrong with it."""
    with pytest.raises(StorefsError, match=r"no mirror.*mirror 24 'n5'.*mirror 25 'precomputed'"):
        described(STACK, "server/info_only_unsupported")


def test_projects():
    """A server is a group of its projects and their stacks, by id; nothing else is asked."""
    found = described(SERVER, "server/projects")
    groups = {group.path: group for group in found.hierarchy.walk()}
    assert {"1", "3", "1/1", "1/25"} <= set(groups)
    assert groups["1"].attributes["project_title"] == "Medulla tiles"
    assert groups["1/1"].attributes["dimension_xyz"] == [200, 250, 8]
    assert not found.hierarchy.arrays_by_path


def test_projects_with_mirrors():
    """More than what is needed does no harm."""
    assert described(SERVER, "server/projects_with_mirrors").hierarchy.groups


@pytest.mark.parametrize(
    ("name", "kind"), [("server/projects_bad_token", Refused), ("server/projects_no_slash", ServerFault)]
)
def test_no_projects(name: str, kind: type[StorefsError]):
    """Refusals and redirects of the list of projects."""
    with pytest.raises(kind):
        described(SERVER, name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("server/stacks_private_anonymous", Refused),
        ("server/stacks_project_missing", NoSuchVolume),
        ("server/stacks_slash", NoSuchVolume),
        ("server/tags", MetadataError),
    ],
)
def test_no_stacks(name: str, kind: type[StorefsError]):
    """Refusals of the list of stacks."""
    with pytest.raises(kind):
        described(f"{SERVER}/1", name)


def test_a_project_without_stacks():
    """An empty project is an empty group."""
    assert described(f"{SERVER}/3", "server/stacks_empty_project").hierarchy.groups == ()


@pytest.mark.filterwarnings("ignore::storefs.backends.catmaid.mirrors.MirrorWarning")
def test_a_stack_group():
    """A stack group is a group of its stacks in their order, with their relations; a bad stack is told, not raised."""
    stacks = ["server/info_xz", "server/info_type1_jpg", "server/info_stack_missing"]
    found = described(f"{SERVER}/1/stackgroup/1", "server/stackgroup_info", *stacks)
    assert [group.path for group in found.hierarchy.groups] == ["11", "1", "5"]
    assert found.hierarchy.attributes["stackgroup_title"] == "Medulla views"
    assert [stack["relation"] for stack in found.hierarchy.attributes["stacks"]] == ["view", "view", "channel"]
    assert "11/0" in found.hierarchy.arrays_by_path
    assert "No Stack matches" in found.hierarchy.groups[2].attributes["error"]


def test_no_stack_group():
    """A group that does not exist is a 500 of the server, and no fault of it."""
    with pytest.raises(NoSuchVolume, match="StackGroup matching"):
        described(f"{SERVER}/1/stackgroup/9", "server/stackgroup_missing")
