"""Shapes of single labels: sparse volumes as runs along x, or as coordinates.

Runs are int32 rows (z, y, x, length). The server's own runs of a label in a block with negative y or z end its
process, so runs are made here from the binary blocks, which are also shorter; its run formats are asked for by name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from storefs.backends.dvid import calls
from storefs.backends.dvid.boxes import Axes, Box, BoxLike, read_box
from storefs.backends.dvid.info import parse_json
from storefs.backends.dvid.labels import as_label, check_indexed
from storefs.backends.dvid.part import Part, asked
from storefs.plan import Call
from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from storefs.plan import Plan
    from storefs_codecs.chunk_codec import Array

SparseFormat = Literal["blocks", "rles", "srles"]

_ABSENT = 404
_EMPTY = 204
_HEAD = struct.Struct("<BBBBII")
_BLOCKS_HEAD = struct.Struct("<IIIQ")
_BLOCK_HEAD = struct.Struct("<iiiB")
_RUN = 16
_LARGEST = (1 << 31) - 1
_SUB, _SUB_VOXELS, _SUB_BYTES = 8, 512, 64
_EMPTY_FLAG, _FULL, _MIXED = 0, 1, 2
_CODEC = "dvid.sparsevol"


@dataclass(frozen=True, slots=True)
class SparseSize:
    """Voxels and blocks of a label, and the box of its blocks: first and last voxel, x, y, z."""

    voxels: int
    blocks: int
    min_voxel_xyz: tuple[int, int, int]
    max_voxel_xyz: tuple[int, int, int]


class SparseVolumes(Part):
    """Shapes of labels of a labelmap that keeps an index."""

    @asked
    def exists(self, uuid: str, name: str, label: int, *, supervoxels: bool = False) -> Plan[bool]:
        """Whether the version has such a label."""
        path = calls.node(uuid, name, "sparsevol", str(as_label(label)))
        reply = yield from self._ask(Call(path, _flags(supervoxels), "HEAD"), {calls.OK, _EMPTY, _ABSENT})
        return reply.status == calls.OK

    @asked
    def size(self, uuid: str, name: str, label: int, *, supervoxels: bool = False) -> Plan[SparseSize | None]:
        """Voxels, blocks and box of a label; None where there is no such label."""
        return (yield from self._size(uuid, name, label, supervoxels=supervoxels))

    @asked
    def runs(
        self,
        uuid: str,
        name: str,
        label: int,
        *,
        box: BoxLike | None = None,
        axes: Axes = "zyx",
        scale: int = 0,
        supervoxels: bool = False,
        sparse_format: SparseFormat = "blocks",
    ) -> Plan[Array]:
        """Runs of a label (z, y, x, length), in `box` or everywhere, sorted; none where there is no such label.

        "rles" and "srles" ask for the server's own runs, and yield to "blocks" where those would end the server.
        Raises Unsupported where there is no index, DecodeError.
        """
        place = None if box is None else read_box(box, axes)
        query = [*_flags(supervoxels), *([("scale", str(scale))] if scale else []), *_bounds(place)]
        if sparse_format not in ("blocks", "rles", "srles"):
            raise ValueError(f"sparse_format: expected blocks, rles or srles, got {sparse_format!r}")
        if sparse_format != "blocks":
            whole = yield from self._size(uuid, name, label, supervoxels=supervoxels)
            if whole is not None and min(whole.min_voxel_xyz[1:]) < 0:
                sparse_format = "blocks"
        path = calls.node(uuid, name, "sparsevol", str(as_label(label)))
        data = yield from self._get(uuid, name, path, (*query, ("format", sparse_format)))
        if data is None:
            return np.zeros((0, 4), np.int32)
        if sparse_format == "blocks":
            block = (yield from self._voxels(uuid, name)).block_size
            return joined(clipped(runs_of_blocks(data, block), place))
        return joined(clipped(runs_with_header(data) if sparse_format == "rles" else plain_runs(data), place))

    @asked
    def coordinates(self, /, uuid: str, name: str, label: int, **options: Any) -> Plan[Array]:  # noqa: ANN401  # as for `runs`
        """Voxels of a label, int32 rows (z, y, x), sorted; options as for `runs`."""
        return coordinates((yield from SparseVolumes.runs.__wrapped__(self, uuid, name, label, **options)))  # type: ignore[attr-defined]  # the plan

    @asked
    def coarse(self, uuid: str, name: str, label: int, *, supervoxels: bool = False) -> Plan[Array]:
        """Runs (z, y, x, length) of the blocks that hold a label, in blocks, sorted."""
        path = calls.node(uuid, name, "sparsevol-coarse", str(as_label(label)))
        data = yield from self._get(uuid, name, path, _flags(supervoxels))
        return np.zeros((0, 4), np.int32) if data is None else joined(runs_with_header(data))

    # plans

    def _get(
        self, uuid: str, name: str, path: tuple[str, ...], query: tuple[tuple[str, str], ...]
    ) -> Plan[bytes | None]:
        reply = yield from self._ask(Call(path, query), {calls.OK, _EMPTY, _ABSENT})
        if reply.status == calls.OK:
            return reply.data
        check_indexed((yield from self._voxels(uuid, name)), self._connection.url)
        return None

    def _size(self, uuid: str, name: str, label: int, *, supervoxels: bool) -> Plan[SparseSize | None]:
        path = calls.node(uuid, name, "sparsevol-size", str(as_label(label)))
        data = yield from self._get(uuid, name, path, _flags(supervoxels))
        if data is None:
            return None
        found = parse_json(data, "/".join(path), self._connection.url)
        low, high = found["minvoxel"], found["maxvoxel"]
        return SparseSize(int(found["voxels"]), int(found["numblocks"]), _xyz(low), _xyz(high))


def runs_with_header(data: bytes) -> Array:
    """Runs of `format=rles` and of coarse volumes. Raises DecodeError."""
    if len(data) < _HEAD.size:
        raise DecodeError(_CODEC, "cut short", f"at least {_HEAD.size} bytes", len(data))
    kind, dims, along, _, _, count = _HEAD.unpack_from(data)
    if (kind, dims, along) != (0, 3, 0) or len(data) != _HEAD.size + _RUN * count:
        raise DecodeError(_CODEC, "not runs along x", f"{_HEAD.size + _RUN * count} bytes", len(data))
    return plain_runs(data[_HEAD.size :])


def plain_runs(data: bytes) -> Array:
    """Runs of `format=srles`. Raises DecodeError."""
    if len(data) % _RUN:
        raise DecodeError(_CODEC, "not a whole number of runs", f"a multiple of {_RUN} bytes", len(data))
    runs = np.frombuffer(data, "<i4").reshape(-1, 4)[:, [2, 1, 0, 3]]
    if (runs[:, 3] < 1).any() or (runs[:, 2].astype(np.int64) + runs[:, 3] > _LARGEST).any():
        raise DecodeError(_CODEC, "a run without voxels, or beyond 32 bits")
    return runs.astype(np.int32)


def runs_of_blocks(data: bytes, block_xyz: tuple[int, int, int]) -> Array:
    """Runs of `format=blocks`: masks of sub-blocks of 8x8x8 voxels. Raises DecodeError."""
    masks = _masks(data, block_xyz)
    return np.concatenate([np.zeros((0, 4), np.int32), *(_mask_runs(at, mask) for at, mask in masks)])


def _masks(data: bytes, block_xyz: tuple[int, int, int]) -> Iterator[tuple[tuple[int, int, int], Array]]:
    if len(data) < _BLOCKS_HEAD.size:
        raise DecodeError(_CODEC, "cut short", f"at least {_BLOCKS_HEAD.size} bytes", len(data))
    gx, gy, gz, _ = _BLOCKS_HEAD.unpack_from(data)
    if (gx * _SUB, gy * _SUB, gz * _SUB) != tuple(block_xyz):
        raise DecodeError(_CODEC, "another block size", block_xyz, (gx * _SUB, gy * _SUB, gz * _SUB))
    at = _BLOCKS_HEAD.size
    while at < len(data):
        if len(data) - at < _BLOCK_HEAD.size:
            raise DecodeError(_CODEC, "a block is cut short")
        x, y, z, flag = _BLOCK_HEAD.unpack_from(data, at)
        at += _BLOCK_HEAD.size
        if flag == _FULL:
            yield (x, y, z), np.broadcast_to(np.True_, (gz * _SUB, gy * _SUB, gx * _SUB))
        elif flag == _MIXED:
            rows, at = _sub_blocks(data, at, gx * gy * gz)
            bits = np.unpackbits(rows, axis=1, bitorder="little").reshape(gz, gy, gx, _SUB, _SUB, _SUB)
            yield (x, y, z), bits.transpose(0, 3, 1, 4, 2, 5).reshape(gz * _SUB, gy * _SUB, gx * _SUB).astype(bool)
        elif flag != _EMPTY_FLAG:
            raise DecodeError(_CODEC, "unknown kind of block", "0, 1 or 2", flag)


def _sub_blocks(data: bytes, at: int, count: int) -> tuple[Array, int]:
    if len(data) - at < count:  # a flag for each at least
        raise DecodeError(_CODEC, "a block is cut short")
    rows = np.zeros((count, _SUB_BYTES), np.uint8)
    for number in range(count):
        flag = data[at] if at < len(data) else -1
        at += 1
        if flag == _MIXED and at + _SUB_BYTES <= len(data):
            rows[number] = np.frombuffer(data, np.uint8, _SUB_BYTES, at)
            at += _SUB_BYTES
        elif flag == _FULL:
            rows[number] = 255
        elif flag != _EMPTY_FLAG:
            raise DecodeError(_CODEC, "a sub-block is cut short or of an unknown kind", "0, 1 or 2", flag)
    return rows, at


def _mask_runs(corner_xyz: tuple[int, int, int], mask: Array) -> Array:
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (0, 0), (1, 1))), axis=2)
    z, y, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[2]
    x0, y0, z0 = corner_xyz
    return np.stack([z + z0, y + y0, first + x0, last - first], axis=1).astype(np.int32)


def clipped(runs: Array, place: Box | None) -> Array:
    """What of `runs` lies in the box."""
    if place is None or not len(runs):
        return runs
    (x0, y0, z0), (x1, y1, z1) = place.offset, place.stop
    z, y, x, length = (runs[:, n].astype(np.int64) for n in range(4))
    start, stop = np.maximum(x, x0), np.minimum(x + length, x1)
    inside = (z >= z0) & (z < z1) & (y >= y0) & (y < y1) & (start < stop)
    kept: Array = np.stack([z, y, start, stop - start], axis=1)[inside].astype(np.int32)
    return kept


def joined(runs: Array) -> Array:
    """`runs` sorted, those that touch or overlap along x made one."""
    if not len(runs):
        return runs
    runs = runs[np.lexsort((runs[:, 2], runs[:, 1], runs[:, 0]))]
    stops = runs[:, 2].astype(np.int64) + runs[:, 3]
    fresh = np.r_[True, (runs[1:, :2] != runs[:-1, :2]).any(axis=1) | (runs[1:, 2] > stops[:-1])]
    starts = np.flatnonzero(fresh)
    ends = np.maximum.reduceat(stops, starts)
    return np.concatenate([runs[starts, :3], (ends - runs[starts, 2])[:, None]], axis=1).astype(np.int32)


def coordinates(runs: Array) -> Array:
    """The voxels of `runs`, int32 rows (z, y, x)."""
    lengths = runs[:, 3].astype(np.int64)
    found = np.repeat(runs[:, :3], lengths, axis=0)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    found[:, 2] += (np.arange(len(found)) - starts).astype(np.int32)
    return found


def _flags(supervoxels: bool) -> tuple[tuple[str, str], ...]:  # noqa: FBT001  # one option, passed on
    return (("supervoxels", "true"),) if supervoxels else ()


def _bounds(place: Box | None) -> tuple[tuple[str, str], ...]:
    if place is None:
        return ()
    low = [(f"min{axis}", str(n)) for axis, n in zip("xyz", place.offset, strict=True)]
    return (*low, *((f"max{axis}", str(n - 1)) for axis, n in zip("xyz", place.stop, strict=True)))


def _xyz(values: list[int]) -> tuple[int, int, int]:
    x, y, z = (int(n) for n in values)
    return x, y, z
