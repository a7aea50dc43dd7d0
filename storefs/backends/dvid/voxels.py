"""Voxel instances as arrays: where they lie, in which chunks they are read, and what to ask for one.

An array begins at the block that holds MinPoint and ends with MaxPoint; chunks are whole blocks, several of them,
so that one request brings a few MiB. Blocks that are absent are the fill value, zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from storefs.backends.dvid import calls
from storefs.backends.dvid.blocks import as_voxels, assemble, block_form, label_form, unlz4, within
from storefs.backends.dvid.frames import parse_frames
from storefs.backends.dvid.info import Instance
from storefs.model import ArrayNode, Encoding
from storefs.plans import Call
from storefs_codecs.chunk_codec import Array

if TYPE_CHECKING:
    from storefs.plans import Plan

Triple = tuple[int, int, int]

CHUNK_BYTES = 8 << 20
SLACK = 1 << 20
# how much smaller than its blocks a box must be to be asked for by itself: blocks come compressed
IMAGE_GAIN = 4
LABEL_GAIN = 64


@dataclass(frozen=True, slots=True)
class Level:
    """One scale: an instance at a version, and for label types the server's scale number."""

    instance: Instance
    uuid: str
    path: str
    scale: int
    factor: int
    chunk_blocks: Triple
    supervoxels: bool
    roi: str | None
    throttle: bool

    @property
    def first_block(self) -> Triple:
        """Coordinates (x, y, z) of the block in which the array begins."""
        low, _ = self.bounds
        x, y, z = (n // b for n, b in zip(low, self.instance.block_size, strict=True))
        return x, y, z

    @property
    def bounds(self) -> tuple[Triple, Triple]:
        """First voxel and stop (x, y, z) of what is said to be there, at this scale."""
        low, stop = self.instance.min_point, self.instance.stop_point
        if low is None or stop is None:
            return (0, 0, 0), (0, 0, 0)
        step = 1 << self.scale
        lx, ly, lz = (n // step for n in low)
        sx, sy, sz = ((n - 1) // step + 1 for n in stop)
        return (lx, ly, lz), (sx, sy, sz)

    @property
    def origin(self) -> Triple:
        """Voxel (x, y, z) at which the array begins."""
        x, y, z = (f * b for f, b in zip(self.first_block, self.instance.block_size, strict=True))
        return x, y, z

    def node(self) -> ArrayNode:
        """The array as zarr is to see it: zyx, or czyx with channels."""
        instance = self.instance
        _, stop = self.bounds
        spatial = tuple(max(0, s - o) for s, o in zip(stop, self.origin, strict=True))[::-1]
        chunk = tuple(n * b for n, b in zip(self.chunk_blocks, instance.block_size, strict=True))[::-1]
        channels = (instance.channels,) if instance.channels > 1 else ()
        x, y, z = (size * self.factor for size in instance.voxel_size)
        # DVID's positions are voxel corners, OME-Zarr means centres
        centres = tuple((o + 0.5) * r for o, r in zip(self.origin[::-1], (z, y, x), strict=True))
        details = {
            "instance": instance.name,
            "type": instance.typename,
            "block_size": list(instance.block_size),
            "min_point": instance.min_point and list(self.bounds[0]),
            "stop_point": instance.stop_point and list(self.bounds[1]),
        }
        if instance.min_point is None:
            details["note"] = "this instance holds no data yet, so the array is empty"
        return ArrayNode(
            path=self.path,
            shape=channels + spatial,
            chunk_shape=channels + chunk,
            dtype=instance.dtype,
            encoding=Encoding("raw"),
            dimension_names=("c", "z", "y", "x")[-len(channels + spatial) :],
            scale_nm=(1.0,) * len(channels) + (z, y, x),
            translation_nm=(0.0,) * len(channels) + centres,
            voxel_offset_xyz=self.origin,
            resolution_xyz=(x, y, z),
            attributes=details,
        )


def chunk_blocks(instance: Instance, chunk_shape: Triple | None) -> Triple:
    """How many blocks along x, y, z make a chunk: as `chunk_shape` (x, y, z voxels) says, or about CHUNK_BYTES.

    Raises ValueError where `chunk_shape` is no multiple of the block.
    """
    block = instance.block_size
    if chunk_shape is not None:
        if any(c < 1 or c % b for c, b in zip(chunk_shape, block, strict=True)):
            raise ValueError(f"chunk_shape {chunk_shape} is no multiple of the block {block}")
        x, y, z = (c // b for c, b in zip(chunk_shape, block, strict=True))
        return x, y, z
    counts = [1, 1, 1]
    size = math.prod(block) * np.dtype(instance.dtype).itemsize * instance.channels
    axis = 0  # x first: the server stores blocks along x together
    while size * math.prod(counts) * 2 <= CHUNK_BYTES:
        counts[axis] *= 2
        axis = (axis + 1) % 3
    return counts[0], counts[1], counts[2]


def read_chunk(level: Level, cell_xyz: Triple, extent: tuple[int, ...], url: str) -> Plan[memoryview | None]:
    """Voxels of one chunk of `extent` (zyx or czyx, clipped), C order, as bytes; None where no block is stored.

    Raises TransportError and its kinds, DecodeError.
    """
    first = tuple(f + c * n for f, c, n in zip(level.first_block, cell_xyz, level.chunk_blocks, strict=True))
    voxels = yield from _read_blocks(level, (first[0], first[1], first[2]), extent, url)
    return None if voxels is None else np.ascontiguousarray(voxels).reshape(-1).view(np.uint8).data


def read_box(level: Level, start: Triple, stop: Triple, url: str) -> Plan[Array]:
    """Voxels (zyx or czyx) from `start` to `stop` (absolute, x, y, z): the box itself, or its blocks, as is cheaper.

    Raises TransportError and its kinds, DecodeError.
    """
    block = level.instance.block_size
    first = tuple(s // b for s, b in zip(start, block, strict=True))
    low = tuple(f * b for f, b in zip(first, block, strict=True))
    high = tuple(-(-s // b) * b for s, b in zip(stop, block, strict=True))
    size = tuple(e - s for s, e in zip(start, stop, strict=True))
    channels = (level.instance.channels,) if level.instance.channels > 1 else ()
    covered = math.prod(h - lo for lo, h in zip(low, high, strict=True))
    if _is_cut_out(level, math.prod(size), covered):
        return (yield from _read_raw(level, size, start, channels + size[::-1], url))
    extent = channels + tuple(e - lo for e, lo in zip(stop, low, strict=True))[::-1]
    voxels = yield from _read_blocks(level, (first[0], first[1], first[2]), extent, url)
    if voxels is None:
        return np.zeros(channels + size[::-1], level.instance.dtype)
    return within(voxels, tuple(slice(s - lo, None) for s, lo in zip(start, low, strict=True))[::-1])


def blocks_at_once(level: Level, start: Triple, stop: Triple, nbytes: int) -> Triple:
    """How many blocks along x, y, z to ask for at a time, so that about `nbytes` of `start` to `stop` come at once."""
    block = level.instance.block_size
    needed = [-(-e // b) - s // b for s, e, b in zip(start, stop, block, strict=True)]
    size = [e - s for s, e in zip(start, stop, strict=True)]
    voxel = np.dtype(level.instance.dtype).itemsize * level.instance.channels

    def sent(blocks: list[int]) -> int:
        covered = [n * b for n, b in zip(blocks, block, strict=True)]
        box = math.prod(min(c, n) for c, n in zip(covered, size, strict=True))
        return voxel * (box if _is_cut_out(level, box, math.prod(covered)) else math.prod(covered))

    counts = [1, 1, 1]
    axis = waited = 0  # x first: the server stores blocks along x together
    while waited < len(counts):
        more = [min(2 * n, needed[a]) if a == axis else n for a, n in enumerate(counts)]
        grows = counts[axis] < needed[axis] and sent(more) <= nbytes
        counts, waited = (more, 0) if grows else (counts, waited + 1)
        axis = (axis + 1) % len(counts)
    x, y, z = (-(-n // -(-n // c)) for n, c in zip(needed, counts, strict=True))  # as many, but alike
    return x, y, z


def _is_cut_out(level: Level, voxels: int, covered: int) -> bool:
    """Whether a box of `voxels` is asked for by itself, not with all blocks around it, which have `covered`."""
    gain = LABEL_GAIN if level.instance.is_label else IMAGE_GAIN
    return level.roi is not None or voxels * gain <= covered


def _read_blocks(level: Level, first_xyz: Triple, extent: tuple[int, ...], url: str) -> Plan[Array | None]:
    """Voxels of `extent` (zyx or czyx) from block `first_xyz` on; None where no block is stored."""
    instance = level.instance
    x, y, z = (-(-n // b) for n, b in zip(extent[-3:][::-1], instance.block_size, strict=True))
    size = tuple(n * b for n, b in zip((x, y, z), instance.block_size, strict=True))
    offset = tuple(f * b for f, b in zip(first_xyz, instance.block_size, strict=True))
    if level.roi is not None or _blocks_are_useless(instance):
        return (yield from _read_raw(level, size, offset, extent, url))
    keyword = "blocks" if instance.is_label else "subvolblocks"
    path = calls.node(level.uuid, instance.name, keyword, calls.text(size), calls.text(offset))
    reply = yield from calls.ask(Call(path, query=_query(level), limit=_limit(level, size)), url)
    frames = parse_frames(reply.data, first_xyz, (x, y, z), "/".join(path))
    out = np.zeros(extent, np.dtype(instance.dtype).newbyteorder("<"))
    return out if assemble(frames, instance, first_xyz, out) else None


def _blocks_are_useless(instance: Instance) -> bool:
    """Label blocks stored with LZ4 or Snappy come as an error, whatever is asked for; `raw` is right."""
    return instance.typename in ("labelmap", "labelarray") and instance.compression in ("lz4", "go", "snappy")


def _query(level: Level) -> tuple[tuple[str, str], ...]:
    instance = level.instance
    query: list[tuple[str, str]] = []
    if instance.is_label:
        query.append(("compression", label_form(instance)))
    elif block_form(instance) == "plain":
        query.append(("compression", "uncompressed"))
    return tuple(query + _scale_query(level))


def _scale_query(level: Level) -> list[tuple[str, str]]:
    query = []
    if level.scale:
        query.append(("scale", str(level.scale)))
    if level.supervoxels and level.instance.typename == "labelmap":
        query.append(("supervoxels", "true"))
    if level.throttle:
        query.append(("throttle", "true"))
    return query


def _limit(level: Level, size: tuple[int, ...]) -> int:
    return 2 * math.prod(size) * np.dtype(level.instance.dtype).itemsize * level.instance.channels + SLACK


def _read_raw(
    level: Level, size: tuple[int, ...], offset: tuple[int, ...], extent: tuple[int, ...], url: str
) -> Plan[Array]:
    instance = level.instance
    if size == instance.block_size:
        # one aligned block that is missing is answered with an error, two blocks are not
        size = (size[0] * 2, *size[1:])
    path = calls.node(level.uuid, instance.name, "raw", "0_1_2", calls.text(size), calls.text(offset))
    query = [("compression", "lz4")] if instance.is_label else []
    query += _scale_query(level) + ([("roi", level.roi)] if level.roi else [])
    reply = yield from calls.ask(Call(path, query=tuple(query), limit=_limit(level, size)), url)
    length = math.prod(size) * np.dtype(instance.dtype).itemsize * instance.channels
    data = unlz4(reply.data, length) if instance.is_label else reply.data
    voxels = as_voxels(data, instance, size[::-1])
    return within(voxels, tuple(slice(n) for n in extent[-3:]))
