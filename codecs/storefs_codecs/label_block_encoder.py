"""Encoding of DVID label blocks with numpy, in one form for equal labels.

The table and every list ascend and hold what occurs, nothing else; a block of a single label ends behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from storefs_codecs.block_labels import labels_and_indices
from storefs_codecs.label_block_layout import (
    GROUP,
    GROUPS,
    HEADER,
    SIDE,
    VOXELS,
    WIDTHS,
    Labels,
    Numbers,
    grid,
)

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

TILE_VOXELS = 1 << 16
BYTE = 8


def encode_block(block: Array) -> bytes:
    """The label block of labels (z, y, x), sides multiples of 8."""
    gz, gy, gx = grid((block.shape[0], block.shape[1], block.shape[2]))
    counts = np.ones(gz * gy * gx, np.int64)
    found: list[tuple[Numbers, Labels]] = []
    packed: list[tuple[Numbers, Array]] = []
    for first, voxels in _tiles(block):
        least, greatest = voxels.min(axis=1), voxels.max(axis=1)
        same = np.flatnonzero(least == greatest)
        found.append((first + same, least[same, None]))
        mixed = np.flatnonzero(least != greatest)
        for which, labels, indices in labels_and_indices(voxels[mixed], least[mixed], greatest[mixed]):
            blocks = first + mixed[which]
            counts[blocks] = labels.shape[1]
            found.append((blocks, labels))
            packed.append((blocks, _pack(indices, int(WIDTHS[labels.shape[1]]))))
    lists = np.empty(int(counts.sum()), "<u8")
    firsts = np.cumsum(counts) - counts
    for blocks, labels in found:
        lists[firsts[blocks, None] + np.arange(labels.shape[1])] = labels
    table, places = np.unique(lists, return_inverse=True)
    head = HEADER.pack(gx, gy, gz, table.size) + table.tobytes()
    if table.size == 1:
        return head
    head += counts.astype("<u2").tobytes() + places.astype("<u4").tobytes()
    return head + _lay_out(packed, counts).tobytes()


def _tiles(block: Array) -> Iterator[tuple[int, Array]]:
    """The sub-blocks a tile at a time: the number of its first one and their voxels, (sub-blocks, voxels)."""
    gz, gy, gx = grid((block.shape[0], block.shape[1], block.shape[2]))
    ny = max(1, TILE_VOXELS // (gx * VOXELS))
    nz = max(1, TILE_VOXELS // (gx * gy * VOXELS))
    for z in range(0, gz, nz):
        for y in range(0, gy, ny):
            part = np.ascontiguousarray(block[z * SIDE : (z + nz) * SIDE, y * SIDE : (y + ny) * SIDE])
            rows = part.view((np.void, SIDE * part.itemsize))
            rows = rows.reshape(len(part) // SIDE, SIDE, part.shape[1] // SIDE, SIDE, gx)
            rows = np.ascontiguousarray(rows.transpose(0, 2, 4, 1, 3))
            yield (z * gy + y) * gx, rows.view(part.dtype).reshape(-1, VOXELS)


def _pack(codes: Array, bits: int) -> Array:
    """The codes of sub-blocks of equal code width as bytes, (sub-blocks, bytes)."""
    if bits == 1:
        return np.packbits(codes, axis=1)
    groups = codes.reshape(len(codes), GROUPS, GROUP).astype(np.uint16)
    octets = np.zeros((len(codes), GROUPS, bits), np.uint8)
    for code in range(GROUP):
        first, bit = divmod(code * bits, BYTE)
        pair = groups[..., code] << (2 * BYTE - bit - bits)
        octets[..., first] |= (pair >> BYTE).astype(np.uint8)
        if bit + bits > BYTE:
            octets[..., first + 1] |= pair.astype(np.uint8)
    return octets.reshape(len(codes), GROUPS * bits)


def _lay_out(packed: list[tuple[Numbers, Array]], counts: Numbers) -> Array:
    """The bytes of all codes in their places."""
    lengths = WIDTHS[counts] * GROUPS
    starts = np.cumsum(lengths) - lengths
    codes = np.empty(int(lengths.sum()), np.uint8)
    for blocks, rows in packed:
        sliding_window_view(codes, rows.shape[1], writeable=True)[starts[blocks]] = rows
    return codes
