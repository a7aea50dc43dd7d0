"""Addresses of tiles are those that CATMAID's own viewer asks for."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from storefs.backends.catmaid.info import Mirror, StackInfo
from storefs.backends.catmaid.levels import levels_of
from storefs.backends.catmaid.tile_sources import (
    Tile,
    is_turned,
    no_tiles,
    served,
    shown_url,
    tile_request,
    tile_url,
    without_secrets,
)
from storefs.plans import At, Call, Get
from tests.backends.catmaid.golden_files import ABSENT, GOLDEN

TILES: list[dict[str, Any]] = json.loads((GOLDEN / "tile_urls.json").read_text())["tiles"] if GOLDEN.is_dir() else []


def mirror(kind: int, base: str = "https://example.com/", extension: str = "png", side: int = 512) -> Mirror:
    return Mirror(5, "main", base, extension, side, side, kind, 0)


def stack(orientation: int = 0) -> StackInfo:
    return StackInfo(
        1, 2, "", "", (4096, 4096, 9), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), orientation,
        ((1, 1, 1), (2, 2, 1)), frozenset(), (), (0, 0, 0), None, {},
    )  # fmt: skip


def address(request: At | Call) -> str:
    """The address that a request is sent to; calls go to the CATMAID server."""
    if isinstance(request, At):
        return request.request.path
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in request.query)
    return f"https://catmaid.example.org/{'/'.join(request.path)}?{query}"


@pytest.mark.skipif(not TILES, reason=ABSENT)
@pytest.mark.parametrize(
    "told", TILES, ids=lambda t: f"{t['tile_source_type']}-{t['orientation']}-{t['level']}-{t['depth']}-{t['col']}"
)
def test_recorded(told: dict[str, Any]):
    """Each address of the table."""
    at = Mirror(
        1, "", told["image_base"], told["file_extension"], told["tile_width"], told["tile_height"],
        told["tile_source_type"], 0,
    )  # fmt: skip
    tile = Tile(told["level"], told["col"], told["row"], told["depth"])
    assert address(tile_request(at, stack(told["orientation"]), tile)) == told["url"]


@pytest.mark.parametrize("kind", [3, 13])
def test_catmaid_serves_some(kind: int):
    """Types 3 and 13 are asked of the CATMAID server, by Call, which carries its token; others never are."""
    assert isinstance(tile_request(mirror(kind, "vol"), stack(), Tile(0, 0, 0, 0)), Call)


@pytest.mark.parametrize("kind", [1, 2, 4, 5, 6, 7, 8, 9, 10, 12])
def test_sites_serve_the_others(kind: int):
    """All other types are asked of the mirror's site, with its own account."""
    request = tile_request(mirror(kind), stack(), Tile(0, 0, 0, 0), account="main")
    assert isinstance(request, At)
    assert request.account == "main"
    assert isinstance(request.request, Get)
    assert request.request.limit is not None


@pytest.mark.parametrize("kind", [1, 4, 5, 6, 7, 8, 9, 12])
def test_a_missing_slash_is_added(kind: int):
    """A base without its last slash means the same."""
    tile = Tile(1, 2, 3, 4)
    assert tile_url(mirror(kind, "https://h/a"), 0, tile) == tile_url(mirror(kind, "https://h/a/"), 0, tile)


@pytest.mark.parametrize("kind", [1, 4, 5, 7, 9])
def test_a_leading_dot_is_dropped(kind: int):
    """The extension ".png" is the extension "png"."""
    tile = Tile(1, 2, 3, 4)
    assert tile_url(mirror(kind, extension=".png"), 0, tile) == tile_url(mirror(kind), 0, tile)


def test_templates_are_left_alone():
    """No slash is added to a template, nor to a base that ends in a query."""
    template = mirror(10, "https://h/%SCALE_DATASET%/%AXIS_0%/%AXIS_1%/%AXIS_2%")
    assert tile_url(template, 0, Tile(1, 2, 3, 4)) == "https://h/s1/1024/1536/4.png"
    assert tile_url(mirror(4, "https://h/get?path=/a"), 0, Tile(0, 2, 3, 4)) == "https://h/get?path=/a4/0/3_2.png"
    assert tile_url(mirror(2, "https://h/cgi?v=1"), 0, Tile(0, 0, 0, 4)).startswith("https://h/cgi?v=1&x=0&")


def test_only_flix_servers_get_the_query():
    """The option for intensities goes to type 9 alone."""
    tile = Tile(0, 2, 3, 4)
    assert tile_url(mirror(9), 0, tile, query="min=0&max=9") == "https://example.com/4/3_2_0.png?min=0&max=9"
    assert tile_url(mirror(1), 0, tile, query="min=0&max=9") == "https://example.com/4/3_2_0.png"


@pytest.mark.parametrize("kind", [0, 11, 14, 15, 99, -1])
def test_types_without_tiles(kind: int):
    """Other types say so, and what they are."""
    assert str(kind) in (no_tiles(mirror(kind), 0) or "")


def test_what_must_be_square():
    """Boss serves square tiles only; those of DVID that come turned have to be."""
    oblong = Mirror(1, "", "https://h/", "png", 64, 48, 12, 0)
    assert no_tiles(oblong, 0)
    turned = Mirror(1, "", "https://h/", "png", 64, 48, 8, 0)
    assert no_tiles(turned, 2)
    assert no_tiles(turned, 1) is None


@pytest.mark.parametrize("extension", ["png?pack=rgba", "png?q=80&pack=graya"])
def test_packed_numbers(extension: str):
    """Images of h2n5 whose channels are bytes of one number are no colours, and not read as such."""
    packed = Mirror(1, "", "https://h/%AXIS_0%/%AXIS_1%/%AXIS_2%", extension, 64, 64, 10, 0)
    assert "packs" in (no_tiles(packed, 0) or "")


def test_turned_tiles():
    """Only DVID's tiles of a zy stack come turned."""
    assert [(kind, o) for kind in range(1, 15) for o in range(3) if is_turned(mirror(kind), o)] == [(6, 2), (8, 2)]


def test_levels_that_a_type_has():
    """Types that ignore the level have full resolution only."""
    levels = levels_of(stack())
    assert [kind for kind in range(1, 14) if len(served(mirror(kind), levels)) == 1] == [3, 6, 10]
    assert len(served(mirror(10, "https://h/%SCALE_DATASET%/%AXIS_0%"), levels)) == 2


def test_messages_show_no_secrets():
    """The address in messages has no password and no query."""
    shown = shown_url(mirror(2, "https://me:secret@h/cgi"), stack(), "https://c", Tile(0, 0, 0, 0))
    assert shown == "https://h/cgi"
    assert shown_url(mirror(3, "vol"), stack(), "https://c", Tile(0, 0, 0, 0)) == "https://c/1/stack/2/tile"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:p@w@h/a@b", "https://h/a@b"),
        ("precomputed://https://me:pw@h/a", "precomputed://https://h/a"),
        ("https://h:80/a?b=c@d", "https://h:80/a?b=c@d"),
        ("vol@1", "vol@1"),
    ],
)
def test_addresses_are_shown_without_passwords(address: str, shown: str):
    """User and password are left out of what is shown, and nothing else is."""
    assert without_secrets(address) == shown
