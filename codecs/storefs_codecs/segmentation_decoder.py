"""Decoding of compressed_segmentation with numpy.

Blocks of equal extent are decoded together, a tile at a time: all indices of one width are unpacked at once
as small integers, brought into raster order, and only then exchanged for labels, straight into the chunk.
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from storefs_codecs.segmentation_blocks import (
    INDEX_OUTSIDE,
    WORD_BITS,
    Headers,
    Region,
    Triple,
    Words,
    broken,
    read_headers,
    regions,
)

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

TILE_VOXELS = 1 << 18
SLAB_VOXELS = 1 << 15
BYTE = 8
SPARSE = 4  # unpack a clipped block voxel by voxel where less than 1 in 4 of its range is inside


def decode_channel(words: Words, start: int, block: Triple, out: Array) -> None:
    """Decode the channel whose headers begin at word `start` into `out` (z, y, x; any strides).

    `words` is the whole file; the headers are known to fit. Raises DecodeError; `out` is then undefined.
    """
    z, y, x = out.shape
    headers = read_headers(words, start, (z, y, x), block, out.itemsize // 4)
    labels = label_view(words, out.dtype)
    for region in regions((z, y, x), block):
        for tile in region.tiles(TILE_VOXELS):
            decode_tile(words, labels, headers, tile, out[tile.voxels])


def label_view(words: Words, dtype: np.dtype[Any]) -> Array:
    """All labels that could stand in the data: 64-bit ones at even words first, then those at odd words."""
    if dtype.itemsize == words.itemsize:
        return words
    pairs = words.size // 2
    odd = words[1 : 1 + (words.size - 1) // 2 * 2]
    return np.concatenate([words[: 2 * pairs].view(dtype), odd.view(dtype)])


def decode_tile(words: Words, labels: Array, headers: Headers, tile: Region, out: Array) -> None:
    """Decode the blocks of `tile` into `out`, which has just its voxels. Raises DecodeError."""
    tables = headers.tables[tile.blocks].astype(np.int64) + headers.start
    label_words = labels.itemsize // words.itemsize
    room = (words.size - tables.ravel()) // label_words
    indices = _indices(words, headers, room, tile)
    if label_words > 1:
        tables = (tables >> 1) + (tables & 1) * (words.size // 2)
    (gz, gy, gx), (ez, ey, ex) = tile.counts, tile.extent
    first = np.repeat(tables, ex, axis=2).reshape(gz, 1, gy, 1, gx * ex)
    rows = indices.view((np.void, ex * indices.itemsize)).reshape(gz, gy, gx, ez, ey)
    rows = np.ascontiguousarray(rows.transpose(0, 3, 1, 4, 2))
    raster = rows.view(indices.dtype).reshape(gz, ez, gy, ey, gx * ex)
    row = ez * ey * gx * ex
    nz, ny = max(1, SLAB_VOXELS // (row * gy)), max(1, SLAB_VOXELS // row)
    for z, y in itertools.product(range(0, gz, nz), range(0, gy, ny)):
        places = first[z : z + nz, :, y : y + ny] + raster[z : z + nz, :, y : y + ny]
        into = out[z * ez : (z + nz) * ez, y * ey : (y + ny) * ey]
        if into.flags.c_contiguous:
            labels.take(places.reshape(into.shape), out=into, mode="clip")  # clip alone writes unbuffered
        else:
            into[...] = labels.take(places.reshape(into.shape), mode="clip")


def _indices(words: Words, headers: Headers, room: Array, tile: Region) -> Array:
    """The table indices of every block, (blocks, voxels of a block).

    Raises DecodeError where an index is not below its block's `room`.
    """
    widths = headers.widths[tile.blocks].ravel()
    values = headers.values[tile.blocks].ravel().astype(np.int64) + headers.start
    present = np.flatnonzero(np.bincount(widths)).tolist()
    size = 1 if present[-1] <= BYTE else present[-1] // BYTE
    indices = np.zeros((widths.size, math.prod(tile.extent)), f"u{size}")
    for bits in present:
        if bits == 0:
            continue
        rows = np.flatnonzero(widths == bits)
        unpacked = _unpack(words, values[rows], bits, tile)
        short = np.flatnonzero(room[rows] < 1 << bits)
        if short.size and (unpacked[short].max(axis=1) >= room[rows[short]]).any():
            raise broken(INDEX_OUTSIDE, 0)
        indices[rows] = unpacked
    return indices


def _unpack(words: Words, starts: npt.NDArray[np.int64], bits: int, tile: Region) -> Array:
    """The indices of equally wide blocks, (blocks, voxels inside the chunk), for values at words `starts`."""
    needed = tile.words_read(bits)
    voxels = math.prod(tile.extent)
    if needed * WORD_BITS > SPARSE * max(voxels * bits, WORD_BITS):
        return _unpack_sparse(words, starts, bits, tile)
    windows = np.ndarray((words.size - needed + 1, needed), words.dtype, words, 0, words.strides * 2)
    packed = windows[starts]
    unpacked = _unpack_words(packed, bits)
    if tile.extent[1:] == tile.block[1:]:
        return unpacked[:, :voxels]
    along_block, step = unpacked.strides
    shape = (len(starts), *tile.extent)
    inside = as_strided(unpacked, shape, (along_block, *(step * n for n in tile.strides)), writeable=False)
    return inside.reshape(len(starts), voxels)


def _unpack_words(packed: Words, bits: int) -> Array:
    """The indices in rows of whole words, as the smallest unsigned type that holds them."""
    if bits >= BYTE:
        return packed.view(f"<u{bits // BYTE}")
    octets = packed.view(np.uint8)
    if bits == 1:
        return np.unpackbits(octets, axis=1, bitorder="little")
    return _spread(bits).take(octets).view(np.uint8)


@cache
def _spread(bits: int) -> Array:
    """For every byte its 8 / bits indices as bytes, seen as one integer."""
    per_byte = BYTE // bits
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    spread = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.ascontiguousarray(spread).view(f"u{per_byte}").ravel()


def _unpack_sparse(words: Words, starts: npt.NDArray[np.int64], bits: int, tile: Region) -> Array:
    """The indices of blocks that lie mostly outside the chunk, each fetched by itself."""
    z, y, x = (np.arange(n) * stride for n, stride in zip(tile.extent, tile.strides, strict=True))
    at = (z[:, None, None] + y[:, None] + x).ravel() * bits
    fetched = words[starts[:, None] + (at >> 5)] >> (at & 31).astype(np.uint32)
    return fetched & np.uint32((1 << bits) - 1)
