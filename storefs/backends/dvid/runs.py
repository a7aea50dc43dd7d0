"""Runs along x: int32 rows (z, y, x, length), from every form in which a server sends sparse volumes.

rles     byte 0, then uint8 dimensions (3), run dimension (0), reserved; uint32 0, uint32 count; then runs
srles    runs only: int32 x, y, z, length
blocks   uint32 sub-blocks along x, y, z, uint64 label; then blocks: int32 x, y, z of the first voxel and a byte
0 (none), 1 (all) or 2, then for each sub-block such a byte, and for 2 a mask of 64 bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from storefs.backends.dvid.boxes import Box
from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

_HEAD = struct.Struct("<BBBBII")
_BLOCKS_HEAD = struct.Struct("<IIIQ")
_BLOCK_HEAD = struct.Struct("<iiiB")
_RUN = 16
_LARGEST = (1 << 31) - 1
_SUB, _SUB_VOXELS, _SUB_BYTES = 8, 512, 64
_EMPTY_FLAG, _FULL, _MIXED = 0, 1, 2
_CODEC = "dvid.sparsevol"


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
