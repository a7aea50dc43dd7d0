"""Where each type of mirror keeps its tiles: one request for a tile. Pure.

In every type the columns of tiles go along stack x, the rows along stack y, and depth is the level's own slice. Only
DVID (6, 8) and Boss (12) name the orientation. Bases and extensions are joined as CATMAID's viewer joins them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import quote

from storefs.backends.catmaid.info import Mirror, StackInfo
from storefs.backends.catmaid.levels import Level
from storefs.plans import At, Call, Get

HDF5, IMAGEBLK, IMAGETILE, FLIX, H2N5, BOSS, CLOUDVOLUME = 3, 6, 8, 9, 10, 12, 13

TYPE_NAMES: Mapping[int, str] = {
    1: "file-based",
    2: "request query",
    3: "HDF5 through CATMAID",
    4: "file-based, a folder per level",
    5: "directory-based",
    6: "DVID imageblk",
    7: "render service",
    8: "DVID imagetile",
    9: "FlixServer",
    10: "h2n5",
    11: "N5 blocks",
    12: "Boss",
    13: "CloudVolume through CATMAID",
    14: "Neuroglancer precomputed",
}
_ZY = 2
_DVID_PLANES = ("xy", "xz", "yz")
_SCALE_TOKEN = "%SCALE_DATASET%"  # noqa: S105  # no password
_ACCOUNT = re.compile(r"://[^/?#]*@")
_PACKED = re.compile(r"[?&]pack=(?:graya|rgba)")
# more than noise takes in any format
_BYTES_PER_PIXEL = 32
_SMALLEST_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a level: column, row and depth (the level's slice), counted from 0."""

    level: int
    col: int
    row: int
    depth: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A tile of a mirror, with what its address may hold: base and extension tidied, first pixel, query."""

    mirror: Mirror
    tile: Tile
    orientation: int
    base: str
    extension: str
    query: str

    @property
    def x(self) -> int:
        return self.tile.col * self.mirror.tile_width

    @property
    def y(self) -> int:
        return self.tile.row * self.mirror.tile_height


def tile_request(mirror: Mirror, info: StackInfo, tile: Tile, *, account: str = "", query: str = "") -> At | Call:
    """What to ask for `tile`: of the CATMAID server for types 3 and 13, else of the mirror's site.

    `query` goes to servers of type 9. Raises KeyError for types that have no tiles.
    """
    limit = tile_limit(mirror)
    if mirror.tile_source_type in _THROUGH_CATMAID:
        path = (str(info.project_id), "stack", str(info.stack_id), "tile")
        return Call(path, _catmaid_query(mirror, tile), limit=limit)
    return At(Get(tile_url(mirror, info.orientation, tile, query=query), limit=limit), account)


def tile_limit(mirror: Mirror) -> int:
    """Bytes that a tile of `mirror` can take at most."""
    return max(_SMALLEST_LIMIT, _BYTES_PER_PIXEL * mirror.tile_width * mirror.tile_height)


def tile_url(mirror: Mirror, orientation: int, tile: Tile, *, query: str = "") -> str:
    """The address of `tile` at a mirror that is a site of its own. Raises KeyError for other types."""
    kind = mirror.tile_source_type
    base, extension = mirror.image_base, mirror.file_extension
    # where a query or a template ends the base, a slash would be part of something else
    if kind not in (2, H2N5) and "?" not in base and not base.endswith("/"):
        base += "/"
    if kind != H2N5:
        extension = extension.removeprefix(".")
    return _SITES[kind](_Place(mirror, tile, orientation, base, extension, query if kind == FLIX else ""))


def shown_url(mirror: Mirror, info: StackInfo, server: str, tile: Tile) -> str:
    """The address of `tile` for messages: no query, no password."""
    if mirror.tile_source_type in _THROUGH_CATMAID:
        return f"{server}/{info.project_id}/stack/{info.stack_id}/tile"
    return without_secrets(tile_url(mirror, info.orientation, tile)).partition("?")[0]


def without_secrets(address: str) -> str:
    """`address` without the user and password that may stand before its host, also where it is one within another."""
    return _ACCOUNT.sub("://", address)


def no_tiles(mirror: Mirror, orientation: int) -> str | None:
    """Why no tiles can be had from `mirror`, None where they can."""
    kind = mirror.tile_source_type
    if kind not in _SITES and kind not in _THROUGH_CATMAID:
        name = TYPE_NAMES.get(kind, "unknown")
        return f"its tile source type is {kind} ({name}), which has no tiles that storefs knows"
    if kind == H2N5 and _PACKED.search(mirror.image_base + mirror.file_extension):
        return "h2n5 packs numbers into the channels of its images here, which storefs does not unpack"
    square = mirror.tile_width == mirror.tile_height
    if kind == BOSS and not square:
        return f"Boss has square tiles only, not {mirror.tile_width} x {mirror.tile_height}"
    if is_turned(mirror, orientation) and not square:
        return f"DVID's zy tiles come turned and must be square, not {mirror.tile_width} x {mirror.tile_height}"
    return None


def is_turned(mirror: Mirror, orientation: int) -> bool:
    """Whether tiles come with rows and columns exchanged: DVID delivers yz where the stack is zy."""
    return orientation == _ZY and mirror.tile_source_type in (IMAGEBLK, IMAGETILE)


def served(mirror: Mirror, levels: Sequence[Level]) -> tuple[Level, ...]:
    """The levels that `mirror` has: some types know full resolution only, whatever is asked for."""
    kind = mirror.tile_source_type
    if kind in (HDF5, IMAGEBLK) or (kind == H2N5 and _SCALE_TOKEN not in mirror.image_base):
        return tuple(levels[:1])
    return tuple(levels)


def _catmaid_query(mirror: Mirror, tile: Tile) -> tuple[tuple[str, str], ...]:
    place = _Place(mirror, tile, 0, "", "", "")
    return (
        *_pixel_query(place),
        ("file_extension", mirror.file_extension),
        ("basename", mirror.image_base),
        ("type", "all"),
        ("format", _THROUGH_CATMAID[mirror.tile_source_type]),
    )


def _pixel_query(place: _Place) -> tuple[tuple[str, str], ...]:
    return (
        ("x", str(place.x)),
        ("y", str(place.y)),
        ("width", str(place.mirror.tile_width)),
        ("height", str(place.mirror.tile_height)),
        ("row", "y"),
        ("col", "x"),
        ("scale", f"{Decimal(2.0**-place.tile.level):f}"),
        ("z", str(place.tile.depth)),
    )


def _file_based(place: _Place) -> str:
    tile = place.tile
    query = f"?{place.query}" if place.query else ""
    return f"{place.base}{tile.depth}/{tile.row}_{tile.col}_{tile.level}.{place.extension}{query}"


def _request_query(place: _Place) -> str:
    query = "&".join(f"{name}={quote(value)}" for name, value in _pixel_query(place))
    return f"{place.base}{'&' if '?' in place.base else '?'}{query}"


def _folder_per_level(place: _Place) -> str:
    tile = place.tile
    return f"{place.base}{tile.depth}/{tile.level}/{tile.row}_{tile.col}.{place.extension}"


def _directory_based(place: _Place) -> str:
    tile = place.tile
    return f"{place.base}{tile.level}/{tile.depth}/{tile.row}/{tile.col}.{place.extension}"


def _render(place: _Place) -> str:
    tile, mirror = place.tile, place.mirror
    size = f"{mirror.tile_width}/{mirror.tile_height}"
    extension = place.extension
    return f"{place.base}largeDataTileSource/{size}/{tile.level}/{tile.depth}/{tile.row}/{tile.col}.{extension}"


def _imageblk(place: _Place) -> str:
    position = _oriented(place.orientation, place.x, place.y, place.tile.depth)
    return f"{place.base}{place.mirror.tile_width}_{place.mirror.tile_height}/{position}/{place.extension}"


def _imagetile(place: _Place) -> str:
    tile = place.tile
    position = _oriented(place.orientation, tile.col, tile.row, tile.depth)
    return f"{place.base}{_DVID_PLANES[place.orientation]}/{tile.level}/{position}"


def _oriented(orientation: int, across: int, down: int, depth: int) -> str:
    """A position in the order of DVID's own axes x, y, z."""
    orders = ((across, down, depth), (across, depth, down), (depth, down, across))
    return "_".join(str(n) for n in orders[orientation])


def _h2n5(place: _Place) -> str:
    address = place.base
    tokens = (_SCALE_TOKEN, "%AXIS_0%", "%AXIS_1%", "%AXIS_2%")
    values = (f"s{place.tile.level}", place.x, place.y, place.tile.depth)
    for token, value in zip(tokens, values, strict=True):
        address = address.replace(token, str(value), 1)
    return f"{address}.{place.extension}"


def _boss(place: _Place) -> str:
    tile = place.tile
    # zy keeps the order of xy, as CATMAID's viewer does
    last = f"{tile.depth}/{tile.row}" if place.orientation == 1 else f"{tile.row}/{tile.depth}"
    plane = _DVID_PLANES[place.orientation]
    return f"{place.base}{plane}/{place.mirror.tile_width}/{tile.level}/{tile.col}/{last}"


_SITES: Mapping[int, Callable[[_Place], str]] = {
    1: _file_based,
    2: _request_query,
    4: _folder_per_level,
    5: _directory_based,
    IMAGEBLK: _imageblk,
    7: _render,
    IMAGETILE: _imagetile,
    FLIX: _file_based,
    H2N5: _h2n5,
    BOSS: _boss,
}
_THROUGH_CATMAID: Mapping[int, str] = {HDF5: "hdf5", CLOUDVOLUME: "cloudvolume"}
