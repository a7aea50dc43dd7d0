"""A roi instance as a uint8 mask array: 1 inside, 0 outside. All chunks come from the spans, read once on opening."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from storefs.backends.dvid import calls
from storefs.backends.dvid.info import NANOMETERS, is_voxels
from storefs.backends.dvid.roi import parse_block, parse_spans
from storefs.errors import MetadataError
from storefs.grid import Grid
from storefs.model import ArrayNode, ChunkId, Encoding, Hierarchy
from storefs.plans import Call

if TYPE_CHECKING:
    from storefs.backends.dvid.versions import Version
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

CHUNK_SIDE = 128
_LARGEST_SIDE = 1 << 31


def describe_roi(url: str, version: Version, name: str, attributes: Mapping[str, Any]) -> Plan[RoiBackend]:
    """The roi `name` as a group with the one array "0". Raises MetadataError, TransportError."""
    info = yield from calls.ask_json(Call(calls.node(version.uuid, name, "info")), url)
    block = parse_block(info, url)
    spans = parse_spans((yield from calls.ask_json(Call(calls.node(version.uuid, name, "roi")), url)), url)
    size, origin_of_size = voxel_size_of(version)
    node = _node(name, spans, block, size, origin_of_size, url)
    hierarchy = Hierarchy(name, (node,), {**attributes, "info": info})
    return RoiBackend(url, hierarchy, spans, block)


class RoiBackend:
    """A described roi."""

    def __init__(self, url: str, hierarchy: Hierarchy, spans: Array, block_xyz: tuple[int, int, int]) -> None:
        self.url = url
        self.hierarchy = hierarchy
        self._spans = spans
        self._block = block_xyz[::-1]

    def name(self, chunk: ChunkId) -> str:
        """Name of the roi, and the chunk's place in the grid."""
        return f"{self.hierarchy.name} {chunk.index}"

    def read(self, chunk: ChunkId) -> Plan[bytes | None]:
        """The chunk's voxels, None where no span touches it; nothing is asked for."""
        mask = self._blocks(chunk)
        if not mask.any():
            return None
        for axis, side in enumerate(self._block):
            mask = mask.repeat(side, axis)
        return mask.tobytes()
        yield  # a plan that asks for nothing

    def exists(self, chunk: ChunkId) -> Plan[bool]:
        """Whether any span touches the chunk; nothing is asked for."""
        return bool(self._blocks(chunk).any())
        yield  # a plan that asks for nothing

    def _blocks(self, chunk: ChunkId) -> Array:
        """One cell a block of the chunk, 1 inside."""
        node = self.hierarchy.arrays[0]
        grid = Grid(node.shape, node.chunk_shape)
        offset = node.voxel_offset_xyz[::-1]
        first = [(o + at) // b for o, at, b in zip(offset, grid.origin(chunk.index), self._block, strict=True)]
        count = [n // b for n, b in zip(grid.extent(chunk.index), self._block, strict=True)]
        mask = np.zeros(count, np.uint8)
        low, high = np.searchsorted(self._spans[:, 0], [first[0], first[0] + count[0]])
        near = self._spans[low:high].astype(np.int64) - [first[0], first[1], first[2], first[2]]
        near = near[(near[:, 1] >= 0) & (near[:, 1] < count[1]) & (near[:, 3] >= 0) & (near[:, 2] < count[2])]
        for z, y, x, last in near:
            mask[z, y, max(0, x) : last + 1] = 1
        return mask


def voxel_size_of(version: Version) -> tuple[tuple[float, float, float], str]:
    """Voxel size (x, y, z, nm) that most voxel instances of the repo have, and the first of those.

    A roi itself knows none. 1 nm and "" where the repo has no voxels.
    """
    found: list[tuple[tuple[float, ...], str]] = []
    for name, item in sorted((version.repo.get("DataInstances") or {}).items()):
        extended = item.get("Extended") if isinstance(item, dict) else None
        if not is_voxels(version.instances.get(name, "")) or not isinstance(extended, dict):
            continue
        size, units = extended.get("VoxelSize") or (), extended.get("VoxelUnits") or ()
        if len(size) == len(units) == 3 and all(isinstance(n, int | float) and n > 0 for n in size):  # noqa: PLR2004  # x, y and z
            factors = (NANOMETERS.get(str(unit).lower(), 1.0) for unit in units)
            found.append((tuple(float(n) * f for n, f in zip(size, factors, strict=True)), name))
    if not found:
        return (1.0, 1.0, 1.0), ""
    x, y, z = Counter(size for size, _ in found).most_common(1)[0][0]
    return (x, y, z), next(name for size, name in found if size == (x, y, z))


def _node(
    name: str,
    spans: Array,
    block_xyz: tuple[int, int, int],
    size_xyz: tuple[float, float, float],
    like: str,
    url: str,
) -> ArrayNode:
    block = block_xyz[::-1]
    if len(spans):
        low = [int(spans[:, axis].min()) for axis in (0, 1, 2)]
        stop = [int(spans[:, axis].max()) + 1 for axis in (0, 1, 3)]
    else:
        low = stop = [0, 0, 0]
    origin = tuple(n * b for n, b in zip(low, block, strict=True))
    shape = tuple((s - n) * b for s, n, b in zip(stop, low, block, strict=True))
    if any(abs(n) > _LARGEST_SIDE for n in (*origin, *shape)):
        raise MetadataError("roi: a span lies beyond what 32 bits can name in voxels", url=url)
    chunk = tuple(b * max(1, CHUNK_SIDE // b) for b in block)
    note = f"a roi knows no voxel size; this is that of {like!r}" if like else "a roi knows no voxel size"
    details: dict[str, Any] = {"instance": name, "type": "roi", "block_size": list(block_xyz), "note": note}
    scale = size_xyz[::-1]
    return ArrayNode(
        path="0",
        shape=shape,
        chunk_shape=chunk,
        dtype="uint8",
        encoding=Encoding("raw"),
        dimension_names=("z", "y", "x"),
        scale_nm=scale,
        translation_nm=tuple((o + 0.5) * r for o, r in zip(origin, scale, strict=True)),
        voxel_offset_xyz=(origin[2], origin[1], origin[0]),
        resolution_xyz=size_xyz,
        attributes=details,
    )
