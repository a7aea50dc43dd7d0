"""The compressed_segmentation kernel, with the functions of segmentation_decoder, _part_decoder and _encoder."""

from __future__ import annotations

import ctypes
import math
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from storefs_codecs.kernels import holding, library
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

WORD = 4
INTERFACE = 2  # of the C source; a library left over from another version is not used
TOO_FAR, NO_MEMORY, BEYOND = 5, 6, 8

# so few voxels are decoded without releasing the GIL
QUICK = 1 << 12

Sizes = ctypes.c_uint64 * 3
Strides = ctypes.c_int64 * 3
Pointers = ctypes.c_void_p * 3


class Kernel:
    """The loaded library; its methods hold no state, so threads may share it."""

    def __init__(self, compiled: ctypes.CDLL) -> None:
        self._decode = compiled.storefs_cseg_decode
        quick = holding(compiled)
        boxes = compiled.storefs_cseg_decode_box, quick.storefs_cseg_decode_box
        points = compiled.storefs_cseg_decode_points, quick.storefs_cseg_decode_points
        self._decode_box, self._decode_box_quickly = boxes
        self._decode_points, self._decode_points_quickly = points
        self._encode = compiled.storefs_cseg_encode
        pointer, number, result = ctypes.c_void_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint64)
        self._decode.argtypes = [pointer, number, Sizes, Sizes, ctypes.c_int, pointer, Strides, result]
        channel = (pointer, number, Sizes, Sizes, ctypes.c_int)
        for decode in boxes:
            decode.argtypes = [*channel, Sizes, Sizes, Sizes, pointer, Strides, result]
        for decode in points:
            decode.argtypes = [*channel, number, Pointers, pointer, result]
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
        if problem:
            raise _failure(problem, culprit.value)

    def decode_box(self, words: Words, start: int, extent: Triple, block: Triple, box: Box, out: Array) -> None:
        """As `segmentation_part_decoder.decode_box`. Raises DecodeError, `out` being as before."""
        z, y, x = box
        culprit = ctypes.c_uint64()
        quick = out.size <= QUICK and math.prod(block) <= QUICK
        problem = (self._decode_box_quickly if quick else self._decode_box)(
            _address(words) + start * WORD,
            words.size - start,
            _sizes(extent),
            _sizes(block),
            out.itemsize,
            Sizes(z.start, y.start, x.start),
            Sizes(z.step or 1, y.step or 1, x.step or 1),
            Sizes(*out.shape),
            _address(out),
            Strides(*out.strides),
            culprit,
        )
        if problem:
            raise _failure(problem, culprit.value)

    def decode_points(
        self, words: Words, start: int, extent: Triple, block: Triple, points: Points, out: Array
    ) -> None:
        """As `segmentation_part_decoder.decode_points`."""
        z, y, x = points
        culprit = ctypes.c_uint64()
        problem = (self._decode_points_quickly if out.size <= QUICK else self._decode_points)(
            _address(words) + start * WORD,
            words.size - start,
            _sizes(extent),
            _sizes(block),
            out.itemsize,
            out.size,
            Pointers(_address(z), _address(y), _address(x)),
            _address(out),
            culprit,
        )
        if problem:
            raise _failure(problem, culprit.value)

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


@lru_cache(maxsize=256)
def _sizes(triple: Triple) -> ctypes.Array[ctypes.c_uint64]:
    """What nobody writes to, and so can be passed again."""
    return Sizes(*(min(n, FAR) for n in triple))


def _address(array: Array) -> int:
    # sooner than array.ctypes.data
    address: int = array.__array_interface__["data"][0]
    return address


def _failure(problem: int, culprit: int) -> Exception:
    """What a `problem` of decoding is."""
    if problem <= INDEX_OUTSIDE:
        return broken(problem, culprit)
    return outside() if problem == BEYOND else ValueError(f"{CODEC_ID}: the kernel was misused")


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
