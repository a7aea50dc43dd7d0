"""Decoding of DVID label blocks with numpy.

The codes of all sub-blocks of equal code width are unpacked and proven at once, as small integers; these are
brought into raster order, and only then exchanged for labels, straight into the block.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from storefs_codecs.label_block_layout import (
    CODE_OUTSIDE,
    GROUP,
    GROUPS,
    SIDE,
    VOXELS,
    Layout,
    Numbers,
    Triple,
    broken,
    grid,
    is_solid,
    read_layout,
    read_table,
)

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

SLAB_VOXELS = 1 << 15
BYTE = 8


def decode_block(payload: memoryview, out: Array) -> None:
    """Decode a label block into `out` (z, y, x; any strides). Raises DecodeError, `out` being as before."""
    z, y, x = out.shape
    table = read_table(payload, (z, y, x))
    if is_solid(payload, table):
        out[...] = table[0]
        return
    layout = read_layout(payload, (z, y, x), table)
    _place(_codes(payload, layout, (z, y, x)), layout, out)


def _codes(payload: memoryview, layout: Layout, extent: Triple) -> Array:
    """The codes of every sub-block, (sub-blocks, voxels); raises DecodeError where one is no place in its list."""
    widths, counts = layout.widths, layout.counts
    present = np.flatnonzero(np.bincount(widths)).tolist()
    codes = np.zeros((widths.size, VOXELS), np.uint16 if present[-1] > BYTE else np.uint8)
    outside = np.zeros(widths.size, np.bool_)
    for bits in present:
        if bits == 0:
            continue
        rows = np.flatnonzero(widths == bits)
        unpacked = _unpack(payload, layout.starts[rows], bits)
        short = rows[counts[rows] < 1 << bits]
        codes[rows] = unpacked
        if short.size:
            outside[short] = codes[short].max(axis=1) >= counts[short]
    if outside.any():
        raise broken(CODE_OUTSIDE, int(np.argmax(outside)), payload, extent)
    return codes


def _unpack(payload: memoryview, starts: Numbers, bits: int) -> Array:
    """The codes of sub-blocks of equal code width, (sub-blocks, voxels)."""
    length = GROUPS * bits
    octets = np.frombuffer(payload, np.uint8)
    packed = np.ndarray((octets.size - length + 1, length), np.uint8, octets, 0, octets.strides * 2)[starts]
    if bits == 1:
        return np.unpackbits(packed, axis=1)
    groups = packed.reshape(starts.size, GROUPS, bits)
    codes = np.empty((starts.size, GROUPS, GROUP), np.uint16 if bits > BYTE else np.uint8)
    for code in range(GROUP):
        first, bit = divmod(code * bits, BYTE)
        end = bit + bits
        if end <= BYTE:
            codes[..., code] = groups[..., first] >> (BYTE - end) & (1 << bits) - 1
        else:
            pair = groups[..., first].astype(np.uint16) << BYTE | groups[..., first + 1]
            codes[..., code] = pair >> (2 * BYTE - end) & (1 << bits) - 1
    return codes.reshape(starts.size, VOXELS)


def _place(codes: Array, layout: Layout, out: Array) -> None:
    """Write the labels that the codes stand for."""
    gz, gy, gx = grid((out.shape[0], out.shape[1], out.shape[2]))
    firsts = np.repeat(layout.firsts.reshape(gz, 1, gy, 1, gx), SIDE, axis=4)
    rows = codes.view((np.void, SIDE * codes.itemsize)).reshape(gz, gy, gx, SIDE, SIDE)
    rows = np.ascontiguousarray(rows.transpose(0, 3, 1, 4, 2))
    raster = rows.view(codes.dtype).reshape(gz, SIDE, gy, SIDE, gx * SIDE)
    row = VOXELS * gx
    nz, ny = max(1, SLAB_VOXELS // (row * gy)), max(1, SLAB_VOXELS // row)
    for z, y in itertools.product(range(0, gz, nz), range(0, gy, ny)):
        places = firsts[z : z + nz, :, y : y + ny] + raster[z : z + nz, :, y : y + ny]
        into = out[z * SIDE : (z + nz) * SIDE, y * SIDE : (y + ny) * SIDE]
        if into.flags.c_contiguous:
            layout.labels.take(places.reshape(into.shape), out=into, mode="clip")  # clip alone writes unbuffered
        else:
            into[...] = layout.labels.take(places.reshape(into.shape), mode="clip")
