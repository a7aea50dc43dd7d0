"""Encoding of compressed_segmentation with numpy, in the form that all common writers share.

Blocks in order; for each its values, then its table of ascending labels, unless an equal table is there
already. The smallest index width that holds all labels of the block; voxels outside the chunk get index 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from storefs_codecs.block_labels import labels_and_indices
from storefs_codecs.segmentation_blocks import (
    MAX_OFFSET,
    WIDTHS,
    WORD_BITS,
    Region,
    Triple,
    Words,
    grid,
    index_width,
    regions,
    too_far,
)

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

TILE_VOXELS = 1 << 16
BYTE = 8
SPARSE = 4  # spread a clipped block's indices unless less than 1 in 4 of its range is inside


@dataclass(frozen=True, slots=True)
class Packed:
    """Values of some blocks: `rows[i]` belongs to block number `blocks[i]`, at words `at` of its values."""

    blocks: npt.NDArray[np.int64]
    rows: Words
    at: npt.NDArray[np.int64] | None


def encode_channel(chunk: Array, block: Triple) -> Words:
    """The words of one channel (z, y, x). Raises EncodeError where an offset would exceed 2**24 - 1 words."""
    z, y, x = chunk.shape
    counts = grid((z, y, x), block)
    numbers = np.arange(math.prod(counts)).reshape(counts)
    tables: list[bytes] = [b""] * numbers.size
    packed: list[Packed] = []
    for region in regions((z, y, x), block):
        for tile in region.tiles(TILE_VOXELS):
            packed += _encode_tile(chunk, tile, numbers[tile.blocks].ravel(), tables)
    return _lay_out(tables, packed, math.prod(block), chunk.itemsize)


def _lay_out(tables: list[bytes], packed: list[Packed], voxels: int, itemsize: int) -> Words:
    """Headers, values and tables in their places."""
    end = 2 * len(tables)
    places: dict[bytes, int] = {}
    headers: list[int] = []
    values_words = {bits: -(-bits * voxels // WORD_BITS) for bits in WIDTHS}
    for table in tables:
        bits = index_width(len(table) // itemsize)
        values = end
        end += values_words[bits]
        place = places.get(table)
        if place is None:
            place = places[table] = end
            end += len(table) // 4
        if place > MAX_OFFSET or (bits and values > MAX_OFFSET):
            raise too_far()
        headers += (place | bits << 24, values)
    words = np.zeros(end, "<u4")
    words[: len(headers)] = headers
    for part in packed:
        starts = words[2 * part.blocks + 1].astype(np.int64)
        if part.at is None:
            sliding_window_view(words, part.rows.shape[1], writeable=True)[starts] = part.rows
        else:
            words[starts[:, None] + part.at] = part.rows
    labels = np.frombuffer(b"".join(places), "<u4")
    lengths = np.fromiter(map(len, places), np.int64, len(places)) // 4
    shifts = np.fromiter(places.values(), np.int64, len(places)) - (np.cumsum(lengths) - lengths)
    words[np.repeat(shifts, lengths) + np.arange(labels.size)] = labels
    return words


def _encode_tile(chunk: Array, tile: Region, numbers: npt.NDArray[np.int64], tables: list[bytes]) -> list[Packed]:
    """Fill in the `tables` of the tile's blocks and give their values."""
    (gz, gy, gx), (ez, ey, ex) = tile.counts, tile.extent
    rows = np.ascontiguousarray(chunk[tile.voxels]).view((np.void, ex * chunk.itemsize))
    rows = np.ascontiguousarray(rows.reshape(gz, ez, gy, ey, gx).transpose(0, 2, 4, 1, 3))
    voxels = rows.view(chunk.dtype).reshape(len(numbers), ez * ey * ex)
    least, greatest = voxels.min(axis=1), voxels.max(axis=1)
    for number, label in zip(numbers.tolist(), least, strict=True):
        tables[number] = label.tobytes()
    mixed = np.flatnonzero(least != greatest)
    packed = []
    for which, labels, indices in labels_and_indices(voxels[mixed], least[mixed], greatest[mixed]):
        blocks = numbers[mixed[which]]
        for number, row in zip(blocks.tolist(), labels, strict=True):
            tables[number] = row.tobytes()
        packed.append(_pack(blocks, indices, index_width(labels.shape[1]), tile))
    return packed


def _pack(blocks: npt.NDArray[np.int64], indices: Array, bits: int, tile: Region) -> Packed:
    """The values of blocks with that index width, as far as the last voxel inside the chunk."""
    if bits * math.prod(tile.block) > MAX_OFFSET * WORD_BITS:
        raise too_far()  # the table comes behind these values
    reach = tile.last_voxel + 1
    if tile.extent[1:] == tile.block[1:]:
        return Packed(blocks, _pack_words(indices, bits), None)
    if reach > SPARSE * indices.shape[1]:
        return _pack_sparse(blocks, indices, bits, tile)
    spread = np.zeros((len(blocks), reach), indices.dtype)
    along_block, step = spread.strides
    shape = (len(blocks), *tile.extent)
    as_strided(spread, shape, (along_block, *(step * n for n in tile.strides)))[...] = indices.reshape(shape)
    return Packed(blocks, _pack_words(spread, bits), None)


def _pack_words(indices: Array, bits: int) -> Words:
    """Rows of indices as rows of whole words."""
    length = -(-indices.shape[1] * bits // WORD_BITS) * WORD_BITS // bits
    if length > indices.shape[1]:
        indices = np.pad(indices, ((0, 0), (0, length - indices.shape[1])))
    if bits >= BYTE:
        return np.ascontiguousarray(indices, f"<u{bits // BYTE}").view("<u4")
    if bits == 1:
        return np.packbits(indices, axis=1, bitorder="little").view("<u4")
    octets = np.zeros((len(indices), length * bits // BYTE), np.uint8)
    for at in range(BYTE // bits):
        octets |= indices[:, at :: BYTE // bits].astype(np.uint8) << np.uint8(at * bits)
    return octets.view("<u4")


def _pack_sparse(blocks: npt.NDArray[np.int64], indices: Array, bits: int, tile: Region) -> Packed:
    """The values of blocks that lie mostly outside the chunk: only the words that hold a voxel."""
    z, y, x = (np.arange(n) * stride for n, stride in zip(tile.extent, tile.strides, strict=True))
    at = (z[:, None, None] + y[:, None] + x).ravel() * bits
    word = at >> 5
    shifted = indices.astype(np.uint32) << (at & 31).astype(np.uint32)
    first = np.flatnonzero(np.diff(word, prepend=-1))
    return Packed(blocks, np.bitwise_or.reduceat(shifted, first, axis=1), word[first])
