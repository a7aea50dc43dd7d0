"""A stack's info of every age and shape is understood, or said to be wrong and where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from storefs.backends.catmaid.info import Mirror, parse_stack_info
from storefs.errors import MetadataError, NoSuchVolume, Refused, ServerFault
from tests.backends.catmaid.golden_files import ABSENT, GOLDEN, body, names, response
from tests.backends.catmaid.stack_infos import mirror, stack_info

SERVER = "https://catmaid.example.org/l1"
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=ABSENT)


def is_good(name: str) -> bool:
    answer = response(name)
    return answer["status"] == 200 and "sid" in answer["body_text"] and "broken: " not in note(name)


def note(name: str) -> str:
    return str(json.loads((GOLDEN / f"{name}.json").read_text()).get("note", ""))


@golden
@pytest.mark.parametrize("name", [name for name in names("info_*") if is_good(name)])
def test_recorded(name: str):
    """Each recorded info: its values are those of the document."""
    document = body(name)
    info = parse_stack_info(document, f"{SERVER}/1/2")
    assert (info.project_id, info.stack_id) == (int(document["pid"]), int(document["sid"]))
    assert info.title == document["stitle"]
    assert dict(zip("xyz", info.dimension_xyz, strict=True)) == document["dimension"]
    assert dict(zip("xyz", info.resolution_xyz, strict=True)) == document["resolution"]
    assert dict(zip("xyz", info.translation_xyz, strict=True)) == document["translation"]
    assert info.orientation == document["orientation"]
    assert info.broken_slices == {int(z) for z in document["broken_slices"]}
    assert info.metadata == document["metadata"]
    assert len(info.mirrors) == len(document.get("mirrors", [document]))
    assert list(info.mirrors) == sorted(info.mirrors, key=lambda m: (m.position, m.title))
    factors = document.get("downsample_factors")
    if factors:
        assert [dict(zip("xyz", factor, strict=True)) for factor in info.downsample_factors or ()] == factors
    assert info.document == document


@golden
def test_servers_of_2016():
    """A stack without mirrors is its own, without id; the number of levels is that of the last."""
    info = parse_stack_info(body("server_constructed/info_2016_overlay"), SERVER)
    base = "https://tiles.example.org/type4_jpg_rect/"
    assert info.mirrors == (Mirror(None, "", base, "jpg", 64, 48, 4, 0),)
    assert info.canary_xyz == (0, 0, 0)
    assert info.downsample_factors == ((1, 1, 1), (2, 2, 1), (4, 4, 1))
    assert parse_stack_info(body("server_constructed/info_2016"), SERVER).downsample_factors is None


@golden
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("info_no_dimension", "dimension"),
        ("info_negative_dimension", r"dimension\.x.*-5"),
        ("info_zero_factor", r"downsample_factors\[1\]\.x.*0"),
        ("info_zero_tile_width", r"mirrors\[0\]\.tile_width.*0"),
    ],
)
def test_what_makes_no_sense(name: str, key: str):
    """The error names the key."""
    with pytest.raises(MetadataError, match=key):
        parse_stack_info(body(f"server_constructed/{name}"), SERVER)


@golden
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("error200_permission", Refused),
        ("error200_missing_stack", NoSuchVolume),
        ("error200_bare_2016", NoSuchVolume),
    ],
)
def test_errors_that_came_as_answers(name: str, kind: type[Exception]):
    """An error with status 200 is an error, and shows nothing of the server's traceback."""
    with pytest.raises(kind) as caught:
        parse_stack_info(body(f"server_constructed/{name}"), SERVER)
    assert "Traceback" not in str(caught.value)


def test_an_unknown_error():
    """Any object with an error and no stack is a fault of the server."""
    with pytest.raises(ServerFault, match="oh dear"):
        parse_stack_info({"error": "oh dear", "type": "Exception"}, SERVER)


@pytest.mark.parametrize(
    ("base", "absolute"),
    [
        ("https://h/a/", "https://h/a/"),
        ("gs://b/%SCALE_DATASET%/0_1_2", "gs://b/%SCALE_DATASET%/0_1_2"),
        ("//h/a/", "https://h/a/"),
        ("/tiles/a/", "https://catmaid.example.org/tiles/a/"),
        ("tiles/a/", "https://catmaid.example.org/l1/tiles/a/"),
        ("/get?path=../a//b", "https://catmaid.example.org/get?path=../a//b"),
    ],
)
@pytest.mark.parametrize("url", [SERVER, f"{SERVER}/", f"{SERVER}/1/22"])
def test_relative_bases(base: str, absolute: str, url: str):
    """A base that is no whole address begins at the server, as a browser would have it; nothing else is touched."""
    info = parse_stack_info(stack_info((1, 1, 1), mirror(4, base)), url)
    assert info.mirrors[0].image_base == absolute


@pytest.mark.parametrize("base", ["/tiles/", "//h/a/", "tiles"])
def test_relative_bases_without_a_server(base: str):
    """Where there is no server a base has to be a whole address."""
    with pytest.raises(MetadataError, match=r"mirrors\[0\]\.image_base.*file:///"):
        parse_stack_info(stack_info((1, 1, 1), mirror(4, base)), "tiles")


@pytest.mark.parametrize("kind", [3, 13])
def test_bases_that_are_names(kind: int):
    """What the CATMAID server is told as a name stays as it is."""
    info = parse_stack_info(stack_info((1, 1, 1), mirror(kind, "vol")), "tiles")
    assert info.mirrors[0].image_base == "vol"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"orientation": 3}, "orientation"),
        ({"orientation": "xy"}, "orientation"),
        ({"dimension": [1, 2, 3]}, "dimension"),
        ({"dimension": {"x": 1.5, "y": 1, "z": 1}}, r"dimension\.x"),
        ({"dimension": {"x": True, "y": 1, "z": 1}}, r"dimension\.x"),
        ({"dimension": {"x": 1 << 60, "y": 1, "z": 1}}, r"dimension\.x"),
        ({"resolution": None}, "resolution"),
        ({"resolution": {"x": -1, "y": 1, "z": 1}}, r"resolution\.x"),
        ({"resolution": {"x": float("nan"), "y": 1, "z": 1}}, r"resolution\.x"),
        ({"translation": {"x": "a", "y": 1, "z": 1}}, r"translation\.x"),
        ({"downsample_factors": 3}, "downsample_factors"),
        ({"downsample_factors": [{"x": 1, "y": 1, "z": 1}] * 65}, "downsample_factors"),
        ({"downsample_factors": [[1, 1, 1]]}, r"downsample_factors\[0\]"),
        ({"broken_slices": {"a": 1}}, "broken_slices"),
        ({"broken_slices": 5}, "broken_slices"),
        ({"mirrors": {}}, "mirrors"),
        ({"mirrors": ["https://h/"]}, r"mirrors\[0\]"),
        ({"mirrors": [mirror(4, "https://h/", tile_height=-1)]}, r"mirrors\[0\]\.tile_height"),
        ({"mirrors": [mirror(4, "https://h/", side=1 << 16)]}, r"mirrors\[0\]\.tile_width.*impossibly big"),
        ({"mirrors": [mirror(4, "https://h/", tile_source_type=None)]}, r"mirrors\[0\]\.tile_source_type"),
        ({"mirrors": [mirror(4, "https://h/", image_base=None)]}, r"mirrors\[0\]\.image_base"),
        ({"sid": "x7"}, "sid"),
    ],
)
def test_values_out_of_place(change: dict[str, Any], key: str):
    """Whatever is wrong, the error names it."""
    with pytest.raises(MetadataError, match=f"stack info: {key}"):
        parse_stack_info(stack_info((1, 1, 1), mirror(4, "https://h/")) | change, SERVER)


@pytest.mark.parametrize("document", [None, [], "stack", 5])
def test_no_object(document: Any):
    """Other JSON is no stack."""
    with pytest.raises(MetadataError, match="expected an object"):
        parse_stack_info(document, SERVER)


def test_what_may_be_absent():
    """A stack without what older servers leave out has the defaults."""
    document = stack_info((1, 2, 3))
    for key in ("metadata", "canary_location", "downsample_factors", "num_zoom_levels", "mirrors", "broken_slices"):
        del document[key]
    info = parse_stack_info(document, SERVER)
    assert (info.metadata, info.canary_xyz, info.downsample_factors, info.mirrors) == (None, (0, 0, 0), None, ())
    assert info.broken_slices == frozenset()


def test_broken_slices_as_a_list():
    """The importer's form of a stack lists them."""
    assert parse_stack_info(stack_info((9, 1, 1), broken_slices=[3, 4]), SERVER).broken_slices == {3, 4}
