"""A DVID server, version or instance as plans: describe it, read a chunk, ask whether a chunk exists."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storefs.backend import Reach, Tiling
from storefs.backends.dvid import calls
from storefs.backends.dvid.histories import describe_server, history
from storefs.backends.dvid.info import IMAGE_TYPES, Instance, is_voxels, parse_instance
from storefs.backends.dvid.roi_array import RoiBackend, describe_roi
from storefs.backends.dvid.tile_arrays import TileBackend, describe_tiles
from storefs.backends.dvid.url import Address
from storefs.backends.dvid.versions import Version, find_version, why_it_changes
from storefs.backends.dvid.voxels import Level, blocks_at_once, chunk_blocks, read_box, read_chunk
from storefs.backends.dvid.writing import blocks_in, check_writable, cover, write_box
from storefs.errors import MetadataError, Unsupported
from storefs.grid import Grid
from storefs.model import ArrayNode, ChunkId, Hierarchy
from storefs.plans import Call, Once
from storefs_codecs.chunk_codec import Array

if TYPE_CHECKING:
    from storefs.plans import Plan

_SPATIAL_AXES = 3
_Describe = Callable[[str, Version, str, Mapping[str, Any]], "Plan[RoiBackend] | Plan[TileBackend]"]
_OTHER_ARRAYS: Mapping[str, _Describe] = {"roi": describe_roi, "imagetile": describe_tiles}


@dataclass(frozen=True, slots=True)
class Reading:
    """The options that bear on what is read."""

    supervoxels: bool = False
    roi: str | None = None
    throttle: bool = False
    chunk_shape: tuple[int, int, int] | None = None


def describe(url: str, address: Address, reading: Reading) -> Plan[DvidBackend | RoiBackend | TileBackend]:
    """What `address` names: an instance, all voxel instances of a version, or the repos of a server.

    Raises NoSuchVolume, MetadataError, Unsupported, TransportError.
    """
    if not address.version:
        repos = yield from calls.ask_json(Call(("api", "repos", "info")), url)
        return DvidBackend(url, describe_server(url, repos), {})
    version = yield from find_version(address.version, url)
    if not address.instance:
        return (yield from _describe_version(url, version, reading))
    typename = version.require(address.instance, url)
    if typename in _OTHER_ARRAYS:
        return (yield from _OTHER_ARRAYS[typename](url, version, address.instance, _attributes(url, version)))
    if not is_voxels(typename):
        hint = "; its values are files for fsspec, and a zarr store as storefs.dvid.KeyValueStore"
        message = f"{address.instance!r} is of type {typename}, which holds no voxels"
        raise Unsupported(message + hint * (typename == "keyvalue"), url=url)
    levels = yield from _levels(version, address.instance, "", reading, url)
    return DvidBackend(url, _group(url, version, levels, address.instance, ""), {level.path: level for level in levels})


def _describe_version(url: str, version: Version, reading: Reading) -> Plan[DvidBackend]:
    groups: list[Hierarchy] = []
    levels: dict[str, Level] = {}
    levels_of_others = {sibling for name in version.instances for sibling in _siblings(version, name)}
    for name, typename in sorted(version.instances.items()):
        if not is_voxels(typename) or name in levels_of_others:
            continue
        found = yield from _levels(version, name, name, reading, url)
        groups.append(_group(url, version, found, name, name))
        levels |= {level.path: level for level in found}
    attributes = _attributes(url, version) | {
        "alias": version.alias,
        "description": version.repo.get("Description"),
        "instances": dict(version.instances),
        "versions": history(version.repo),
    }
    return DvidBackend(url, Hierarchy(version.alias or version.uuid, (), attributes, "", tuple(groups)), levels)


def _levels(version: Version, name: str, path: str, reading: Reading, url: str) -> Plan[list[Level]]:
    """The scales of an instance: the server's own, or sibling instances `name_1`, `name_2` and so on."""
    first = yield from _instance(version, name, url)
    if reading.roi is not None:
        yield from _check_roi(version, first, reading.roi, url)
    members = [(first, scale) for scale in range(first.max_scale + 1)]
    for sibling in _siblings(version, name):
        lower = yield from _instance(version, sibling, url)
        members.append((lower, 0))
    return [
        _level(first, instance, scale, number, version, path, reading, url)
        for number, (instance, scale) in enumerate(members)
    ]


def _check_roi(version: Version, first: Instance, roi: str, url: str) -> Plan[None]:
    """Raise where masking by `roi` would hit the wrong blocks: the server compares block indices without scaling."""
    if version.require(roi, url) != "roi":
        raise Unsupported(f"{roi!r} is of type {version.instances[roi]}, not roi", url=url)
    info = yield from calls.ask_json(Call(calls.node(version.uuid, roi, "info")), url)
    block = (info.get("Extended") or {}).get("BlockSize") if isinstance(info, dict) else None
    if block != list(first.block_size):
        raise Unsupported(f"roi {roi!r} has blocks of {block}, {first.name!r} of {list(first.block_size)}", url=url)


def _siblings(version: Version, name: str) -> list[str]:
    """The instances that hold the lower scales of the images `name`."""
    typename = version.instances[name]
    found: list[str] = []
    while typename in IMAGE_TYPES and version.instances.get(f"{name}_{len(found) + 1}") == typename:
        found.append(f"{name}_{len(found) + 1}")
    return found


def _level(
    first: Instance,
    instance: Instance,
    scale: int,
    number: int,
    version: Version,
    path: str,
    reading: Reading,
    url: str,
) -> Level:
    try:
        blocks = chunk_blocks(instance, reading.chunk_shape)
    except ValueError as error:
        raise MetadataError(str(error), url=url) from error
    # some sites leave the first level's voxel size on all levels: the name tells the factor
    unset = number > 0 and (scale > 0 or instance.voxel_size == first.voxel_size)
    return Level(
        instance=instance,
        uuid=version.uuid,
        path=f"{path}/{number}" if path else str(number),
        scale=scale,
        factor=2**number if unset else 1,
        chunk_blocks=blocks,
        supervoxels=reading.supervoxels,
        roi=reading.roi,
        throttle=reading.throttle,
    )


def _instance(version: Version, name: str, url: str) -> Plan[Instance]:
    document = yield from calls.ask_json(Call(calls.node(version.uuid, name, "info")), url)
    return parse_instance(document, url)


def _group(url: str, version: Version, levels: list[Level], name: str, path: str) -> Hierarchy:
    attributes = _attributes(url, version) | {"info": levels[0].instance.document}
    return Hierarchy(name, tuple(level.node() for level in levels), attributes, path)


def _attributes(url: str, version: Version) -> dict[str, Any]:
    node = history(version.repo)[version.uuid]
    return {
        "source": url,
        "format": "dvid",
        "resolved_uuid": version.uuid,
        "branch": node["branch"],
        "locked": version.locked,
        "note": node["note"],
    }


class DvidBackend:
    """A described DVID address; `levels` are its arrays by path."""

    def __init__(self, url: str, hierarchy: Hierarchy, levels: Mapping[str, Level]) -> None:
        self.url = url
        self.hierarchy = hierarchy
        self.levels = levels

    @property
    def changes(self) -> str | None:
        """Why voxels may change: the version is open, or an instance has no versions."""
        if any(not level.instance.versioned for level in self.levels.values()):
            return "the voxels of an instance without versions may change"
        return why_it_changes(self.hierarchy.attributes) if self.levels else None

    def _node(self, chunk: ChunkId) -> ArrayNode:
        return self.hierarchy.arrays_by_path[chunk.array]

    def name(self, chunk: ChunkId) -> str:
        """Instance, scale and first voxel (x, y, z) of the chunk."""
        level = self.levels[chunk.array]
        node = self._node(chunk)
        start = Grid(node.shape, node.chunk_shape).origin(chunk.index)[-3:][::-1]
        x, y, z = (o + s for o, s in zip(level.origin, start, strict=True))
        scale = f" scale {level.scale}" if level.scale else ""
        return f"{level.instance.name}{scale} at voxel {x},{y},{z}"

    def read(self, chunk: ChunkId) -> Plan[memoryview | None]:
        """The chunk's voxels; None where no block of it is stored. Raises TransportError, DecodeError."""
        node = self._node(chunk)
        z, y, x = chunk.index[-3:]
        extent = Grid(node.shape, node.chunk_shape).extent(chunk.index)
        return (yield from read_chunk(self.levels[chunk.array], (x, y, z), extent, self.url))

    def read_box(self, chunk: ChunkId, start: tuple[int, ...], stop: tuple[int, ...]) -> Plan[Array] | None:
        """Just the voxels from `start` to `stop` in the chunk; None where the chunk as a whole is as cheap.

        Raises TransportError, DecodeError.
        """
        level = self.levels[chunk.array]
        node = self._node(chunk)
        grid = Grid(node.shape, node.chunk_shape)
        origin = grid.origin(chunk.index)
        low = self._place(level, tuple(o + s for o, s in zip(origin, start, strict=True)))
        high = self._place(level, tuple(o + s for o, s in zip(origin, stop, strict=True)))
        whole = self._place(level, tuple(o + n for o, n in zip(origin, grid.extent(chunk.index), strict=True)))
        same_blocks = cover(level, low, high) == cover(level, self._place(level, origin), whole)
        if same_blocks and stop == grid.extent(chunk.index):
            return None
        channels = slice(start[0], stop[0]) if len(start) > _SPATIAL_AXES else slice(None)
        return self._read_channels(level, low, high, channels)

    def _read_channels(
        self, level: Level, low: tuple[int, int, int], high: tuple[int, int, int], channels: slice
    ) -> Plan[Array]:
        voxels: Array = yield from read_box(level, low, high, self.url)
        if level.instance.channels > 1:
            voxels = voxels[channels]
        return voxels

    def boxes(self, array: str, start: tuple[int, ...], stop: tuple[int, ...], nbytes: int) -> Tiling:
        """Boxes of whole blocks in which the voxels from `start` to `stop` come in about `nbytes` each."""
        level = self.levels[array]
        low, high = self._place(level, start), self._place(level, stop)
        blocks = blocks_at_once(level, low, high, nbytes)
        size = level.instance.block_size
        shape = tuple(n * b for n, b in zip(blocks, size, strict=True))[::-1]
        origin = tuple(p // b * b - o for p, b, o in zip(low, size, level.origin, strict=True))[::-1]
        channels = self.hierarchy.arrays_by_path[array].shape[:-_SPATIAL_AXES]
        return Tiling((0,) * len(channels) + origin, channels + shape)

    def read_across(self, array: str, start: tuple[int, ...], stop: tuple[int, ...]) -> Plan[Array]:
        """The voxels from `start` to `stop`, in one request. Raises TransportError, DecodeError."""
        level = self.levels[array]
        channels = slice(start[0], stop[0]) if len(start) > _SPATIAL_AXES else slice(None)
        return self._read_channels(level, self._place(level, start), self._place(level, stop), channels)

    def exists(self, chunk: ChunkId) -> Plan[bool]:
        """Whether any block of the chunk is stored."""
        return (yield from self.read(chunk)) is not None

    def check_writable(self, chunk: ChunkId) -> Plan[None]:
        """Raise where the chunk's array cannot be written; asked once. Raises Unsupported, TransportError."""
        level = self.levels[chunk.array]
        yield Once(("writable", chunk.array), lambda: check_writable(level, self.url))

    def parts(self, chunk: ChunkId) -> frozenset[Hashable]:
        """The chunk's blocks, by server, version, instance and place."""
        level = self.levels[chunk.array]
        node = self._node(chunk)
        grid = Grid(node.shape, node.chunk_shape)
        start = self._place(level, grid.origin(chunk.index))
        x, y, z = (s + n for s, n in zip(start, grid.extent(chunk.index)[-3:][::-1], strict=True))
        return blocks_in(level, cover(level, start, (x, y, z)), self.url)

    def write(self, chunk: ChunkId, start: tuple[int, ...], voxels: Array, reach: Reach) -> Plan[None]:
        """Write `voxels` at `start` in the chunk. Raises TransportError, DecodeError."""
        level = self.levels[chunk.array]
        node = self._node(chunk)
        origin = Grid(node.shape, node.chunk_shape).origin(chunk.index)
        place = self._place(level, tuple(o + s for o, s in zip(origin, start, strict=True)))
        channels = slice(start[0], start[0] + len(voxels)) if len(start) > _SPATIAL_AXES else slice(None)
        yield from write_box(level, place, voxels, channels, self.url, reach)

    def _place(self, level: Level, position: tuple[int, ...]) -> tuple[int, int, int]:
        """The absolute voxel (x, y, z) of a position (zyx or czyx) in the array."""
        x, y, z = (o + p for o, p in zip(level.origin, position[-_SPATIAL_AXES:][::-1], strict=True))
        return x, y, z
