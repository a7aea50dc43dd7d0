"""The compressed_segmentation kernel, with the functions of segmentation_decoder, _part_decoder and _encoder."""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from storefs_codecs.kernels import library
from storefs_codecs.segmentation_blocks import (
    CODEC_ID,
    FAR,
    INDEX_OUTSIDE,
    MAX_OFFSET,
    WORD_BITS,
    Triple,
    Words,
    broken,
    grid,
    index_width,
    outside,
    regions,
    too_far,
)

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array
    from storefs_codecs.part_codec import Box, Points

INTERFACE = 2  # of the C source; a library left over from another version is not used
TOO_FAR, NO_MEMORY, BEYOND = 5, 6, 8

Sizes = ctypes.c_uint64 * 3
Strides = ctypes.c_int64 * 3
Pointers = ctypes.c_void_p * 3


class Kernel:
    """The loaded library; its methods hold no state, so threads may share it."""

    def __init__(self, compiled: ctypes.CDLL) -> None:
        self._decode = compiled.storefs_cseg_decode
        self._decode_box = compiled.storefs_cseg_decode_box
        self._decode_points = compiled.storefs_cseg_decode_points
        self._encode = compiled.storefs_cseg_encode
        pointer, number, result = ctypes.c_void_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint64)
        self._decode.argtypes = [pointer, number, Sizes, Sizes, ctypes.c_int, pointer, Strides, result]
        channel = (pointer, number, Sizes, Sizes, ctypes.c_int)
        self._decode_box.argtypes = [*channel, Sizes, Sizes, Sizes, pointer, Strides, result]
        self._decode_points.argtypes = [*channel, number, Pointers, pointer, result]
        self._encode.argtypes = [pointer, Sizes, Sizes, ctypes.c_int, pointer, number, result]

    def decode_channel(self, words: Words, start: int, block: Triple, out: Array) -> None:
        """Decode the channel whose headers begin at word `start` into `out` (z, y, x; any strides).

        `words` is the whole file; the headers are known to fit. Raises DecodeError, `out` being as before.
        """
        culprit = ctypes.c_uint64()
        problem = self._decode(
            words.ctypes.data + start * words.itemsize,
            words.size - start,
            Sizes(*out.shape),
            Sizes(*(min(n, FAR) for n in block)),
            out.itemsize,
            out.ctypes.data,
            Strides(*out.strides),
            ctypes.byref(culprit),
        )
        _raise(problem, culprit.value)

    def decode_box(self, words: Words, start: int, extent: Triple, block: Triple, box: Box, out: Array) -> None:
        """As `segmentation_part_decoder.decode_box`. Raises DecodeError, `out` being as before."""
        z, y, x = box
        culprit = ctypes.c_uint64()
        problem = self._decode_box(
            words.ctypes.data + start * words.itemsize,
            words.size - start,
            Sizes(*extent),
            Sizes(*[min(n, FAR) for n in block]),
            out.itemsize,
            Sizes(z.start, y.start, x.start),
            Sizes(z.step or 1, y.step or 1, x.step or 1),
            Sizes(*out.shape),
            out.ctypes.data,
            Strides(*out.strides),
            ctypes.byref(culprit),
        )
        _raise(problem, culprit.value)

    def decode_points(
        self, words: Words, start: int, extent: Triple, block: Triple, points: Points, out: Array
    ) -> None:
        """As `segmentation_part_decoder.decode_points`."""
        culprit = ctypes.c_uint64()
        problem = self._decode_points(
            words.ctypes.data + start * words.itemsize,
            words.size - start,
            Sizes(*extent),
            Sizes(*[min(n, FAR) for n in block]),
            out.itemsize,
            out.size,
            Pointers(*[along.ctypes.data for along in points]),
            out.ctypes.data,
            ctypes.byref(culprit),
        )
        _raise(problem, culprit.value)

    def encode_channel(self, chunk: Array, block: Triple) -> Words:
        """The words of one channel (z, y, x).

        Raises EncodeError where an offset would exceed 2**24 - 1 words.
        """
        z, y, x = chunk.shape
        chunk = np.ascontiguousarray(chunk)
        words = np.empty(_most_words((z, y, x), block, chunk.itemsize // 4), "<u4")
        written = ctypes.c_uint64()
        problem = self._encode(
            chunk.ctypes.data,
            Sizes(*chunk.shape),
            Sizes(*(min(n, FAR) for n in block)),
            chunk.itemsize,
            words.ctypes.data,
            words.size,
            ctypes.byref(written),
        )
        if problem == TOO_FAR:
            raise too_far()
        if problem == NO_MEMORY:
            raise MemoryError(f"{CODEC_ID}: no memory to encode blocks of {block[::-1]} in a chunk of {chunk.shape}")
        if problem:
            raise ValueError(f"{CODEC_ID}: the kernel was misused")
        return words[: written.value]


def _raise(problem: int, culprit: int) -> None:
    """Raise what a `problem` of decoding is, if it is one."""
    if 0 < problem <= INDEX_OUTSIDE:
        raise broken(problem, culprit)
    if problem == BEYOND:
        raise outside()
    if problem:
        raise ValueError(f"{CODEC_ID}: the kernel was misused")


def load() -> Kernel | None:
    """The kernel; None where it was not built, is not wanted, or is left over from another version."""
    compiled = library("compressed_segmentation")
    return None if compiled is None else _bind(compiled)


@cache
def _bind(compiled: ctypes.CDLL) -> Kernel | None:
    try:
        return Kernel(compiled) if compiled.storefs_cseg_interface() == INTERFACE else None
    except AttributeError:  # some other library
        return None


def _most_words(extent: Triple, block: Triple, label_words: int) -> int:
    """More words than encoding can need. Memory that is not written to costs nothing."""
    most, largest = 2 * math.prod(grid(extent, block)), 0
    for region in regions(extent, block):
        voxels = math.prod(region.extent)
        values = -(-math.prod(block) * index_width(voxels) // WORD_BITS)
        most += math.prod(region.counts) * (values + label_words * voxels)
        largest = max(largest, voxels)
    headers = 2 * math.prod(grid(extent, block))
    return min(most, headers + 2 * (MAX_OFFSET + 1) + label_words * largest)
