"""An imagetile pyramid as tile arrays: a group for each plane, in it an array for each scale, one chunk a tile.

Arrays are zyx. Within the plane a scale halves; along its normal all scales keep the finest slices. Where arrays end
is what the tiles' source says, or the metadata where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from storefs.backends.dvid import calls
from storefs.backends.dvid.info import is_voxels, parse_instance, parse_json
from storefs.backends.dvid.part import ask
from storefs.backends.dvid.tiles import NORMAL, PLANE_AXES, TileLevel, Triple, parse_levels, read_tile
from storefs.backends.dvid.versions import Version, why_it_changes
from storefs.errors import MetadataError
from storefs.grid import Grid
from storefs.model import ArrayNode, ChunkId, Encoding, Hierarchy
from storefs.plans import Call

if TYPE_CHECKING:
    from storefs.plans import Plan

Bounds = tuple[Triple, Triple]


def describe_tiles(url: str, version: Version, name: str, attributes: Mapping[str, Any]) -> Plan[TileBackend]:
    """The imagetile `name` as groups "xy", "xz" and "yz". Raises MetadataError, TransportError."""
    info = yield from calls.ask_json(Call(calls.node(version.uuid, name, "info")), url)
    document = yield from calls.ask_json(Call(calls.node(version.uuid, name, "metadata")), url)
    levels = parse_levels(document, url)
    extended = info.get("Extended") if isinstance(info, dict) else None
    source = str((extended or {}).get("Source") or "") if isinstance(extended, dict) else ""
    bounds = yield from _bounds(url, version, source)
    bounds = bounds or _bounds_of_tiles(document, levels[0], url)
    groups = tuple(
        Hierarchy(
            plane, tuple(_node(name, plane, n, level, levels[0], bounds) for n, level in enumerate(levels)), {}, plane
        )
        for plane in PLANE_AXES
    )
    hierarchy = Hierarchy(name, (), {**attributes, "info": info, "metadata": document}, "", groups)
    return TileBackend(url, version.uuid, hierarchy, levels)


class TileBackend:
    """A described imagetile pyramid."""

    def __init__(self, url: str, uuid: str, hierarchy: Hierarchy, levels: list[TileLevel]) -> None:
        self.url = url
        self.hierarchy = hierarchy
        self._uuid = uuid
        self._levels = levels

    @property
    def changes(self) -> str | None:
        """Why tiles may change: the version is open, or the instance has no versions."""
        info = self.hierarchy.attributes.get("info")
        base = info.get("Base") if isinstance(info, dict) else None
        if isinstance(base, dict) and base.get("Versioned") is False:
            return "the tiles of an instance without versions may change"
        return why_it_changes(self.hierarchy.attributes)

    def name(self, chunk: ChunkId) -> str:
        """Instance, plane, scale and coordinate (x, y, z) of the tile."""
        plane, level, tile = self._tile(chunk)
        return f"{self.hierarchy.name} tile {plane} {level.scale} {calls.text(tile)}"

    def read(self, chunk: ChunkId) -> Plan[bytes | None]:
        """The tile's pixels as one slice; None where it is not stored. Raises TransportError, DecodeError."""
        plane, level, tile = self._tile(chunk)
        pixels = yield from read_tile(self.url, self._uuid, self.hierarchy.name, plane, level, tile)
        if pixels is None:
            return None
        node = self.hierarchy.arrays_by_path[chunk.array]
        extent = list(Grid(node.shape, node.chunk_shape).extent(chunk.index))
        del extent[2 - NORMAL[plane]]
        return pixels[: extent[0], : extent[1]].tobytes()

    def exists(self, chunk: ChunkId) -> Plan[bool]:
        """Whether the tile is stored."""
        return (yield from self.read(chunk)) is not None

    def _tile(self, chunk: ChunkId) -> tuple[str, TileLevel, Triple]:
        plane, _, number = chunk.array.partition("/")
        node = self.hierarchy.arrays_by_path[chunk.array]
        origin = zip(node.voxel_offset_xyz, node.chunk_shape[::-1], chunk.index[::-1], strict=True)
        x, y, z = (o // side + at for o, side, at in origin)
        return plane, self._levels[int(number)], (x, y, z)


def _bounds(url: str, version: Version, source: str) -> Plan[Bounds | None]:
    """First voxel and stop of the instance that the tiles were made from, None where there is none."""
    if not is_voxels(version.instances.get(source, "")):
        return None
    reply = yield from ask(Call(calls.node(version.uuid, source, "info")), url)
    instance = parse_instance(parse_json(reply.data, "info", url), url)
    if instance.typename != "uint8blk" or instance.min_point is None or instance.stop_point is None:
        return None
    return instance.min_point, instance.stop_point


def _bounds_of_tiles(document: Mapping[str, Any], level: TileLevel, url: str) -> Bounds:
    corners = [document.get(key) or [0, 0, 0] for key in ("MinTileCoord", "MaxTileCoord")]
    for corner in corners:
        if not isinstance(corner, list) or len(corner) != 3 or not all(isinstance(n, int) for n in corner):  # noqa: PLR2004  # x, y and z
            raise MetadataError(f"metadata: MinTileCoord, MaxTileCoord: expected x, y, z, got {corner!r}", url=url)
    sides = level.tile_size
    low = tuple(min(a, b) * s for a, b, s in zip(*corners, sides, strict=True))
    stop = tuple((max(a, b) + 1) * s for a, b, s in zip(*corners, sides, strict=True))
    return (low[0], low[1], low[2]), (stop[0], stop[1], stop[2])


def _node(name: str, plane: str, number: int, level: TileLevel, finest: TileLevel, bounds: Bounds) -> ArrayNode:
    step = 1 << level.scale
    origin, stop, chunk, resolution = [0] * 3, [0] * 3, [1] * 3, [0.0] * 3
    for axis in range(3):
        low, end = bounds[0][axis], bounds[1][axis]
        if axis == NORMAL[plane]:
            origin[axis], stop[axis], resolution[axis] = low, end, finest.resolution[axis]
            continue
        side = level.tile_size[axis]
        chunk[axis], resolution[axis] = side, level.resolution[axis]
        origin[axis], stop[axis] = low // (side * step) * side, -(-end // step)
    shape = tuple(max(0, s - o) for s, o in zip(stop, origin, strict=True))[::-1]
    centres = tuple((o + 0.5) * r for o, r in zip(origin[::-1], resolution[::-1], strict=True))
    return ArrayNode(
        path=f"{plane}/{number}",
        shape=shape,
        chunk_shape=tuple(chunk[::-1]),
        dtype="uint8",
        encoding=Encoding("raw"),
        dimension_names=("z", "y", "x"),
        scale_nm=tuple(resolution[::-1]),
        translation_nm=centres,
        voxel_offset_xyz=(origin[0], origin[1], origin[2]),
        resolution_xyz=(resolution[0], resolution[1], resolution[2]),
        attributes={"instance": name, "type": "imagetile", "plane": plane, "scale": level.scale},
    )
