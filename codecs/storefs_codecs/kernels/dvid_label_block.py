"""The DVID label block kernel, with the functions of label_block_decoder and label_block_encoder."""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from storefs_codecs.kernels import library
from storefs_codecs.label_block_layout import (
    CODE_OUTSIDE,
    CODEC_ID,
    COUNT,
    GROUPS,
    HEADER,
    LABEL,
    PLACE,
    VOXELS,
    WIDTHS,
    broken,
)

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

INTERFACE = 1  # of the C source; a library left over from another version is not used
NO_MEMORY = CODE_OUTSIDE + 1

Sizes = ctypes.c_uint64 * 3
Strides = ctypes.c_int64 * 3


class Kernel:
    """The loaded library; its methods hold no state, so threads may share it."""

    def __init__(self, compiled: ctypes.CDLL) -> None:
        self._decode = compiled.storefs_dvid_decode
        self._encode = compiled.storefs_dvid_encode
        pointer, number, result = ctypes.c_void_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint64)
        self._decode.argtypes = [pointer, number, Sizes, pointer, Strides, result]
        self._encode.argtypes = [pointer, Sizes, pointer, number, result]

    def decode_block(self, payload: memoryview, out: Array) -> None:
        """Decode a label block into `out` (z, y, x; any strides). Raises DecodeError, `out` being as before."""
        culprit = ctypes.c_uint64()
        problem = self._decode(
            np.frombuffer(payload, np.uint8).ctypes.data,
            len(payload),
            Sizes(*out.shape),
            out.ctypes.data,
            Strides(*out.strides),
            ctypes.byref(culprit),
        )
        if 0 < problem <= CODE_OUTSIDE:
            z, y, x = out.shape
            raise broken(problem, culprit.value, payload, (z, y, x))
        if problem:
            raise ValueError(f"{CODEC_ID}: the kernel was misused")

    def encode_block(self, block: Array) -> bytes:
        """The label block of labels (z, y, x), sides multiples of 8."""
        z, y, x = block.shape
        block = np.ascontiguousarray(block)
        most = LABEL + PLACE + COUNT / VOXELS + GROUPS * int(WIDTHS[-1]) / VOXELS  # bytes of a voxel
        payload = np.empty(HEADER.size + math.ceil(most * block.size), np.uint8)
        written = ctypes.c_uint64()
        problem = self._encode(
            block.ctypes.data,
            Sizes(z, y, x),
            payload.ctypes.data,
            payload.size,
            ctypes.byref(written),
        )
        if problem == NO_MEMORY:
            raise MemoryError(f"{CODEC_ID}: no memory to encode a block of {block.shape}")
        if problem:
            raise ValueError(f"{CODEC_ID}: the kernel was misused")
        return payload[: written.value].tobytes()


def load() -> Kernel | None:
    """The kernel; None where it was not built, is not wanted, or is left over from another version."""
    compiled = library("dvid_label_block")
    return None if compiled is None else _bind(compiled)


@cache
def _bind(compiled: ctypes.CDLL) -> Kernel | None:
    try:
        return Kernel(compiled) if compiled.storefs_dvid_interface() == INTERFACE else None
    except AttributeError:  # some other library
        return None
