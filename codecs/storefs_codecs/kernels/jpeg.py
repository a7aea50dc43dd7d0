"""The JPEG kernel: images without colours in sequential JPEG, with the samples that simplejpeg gives.

It takes only streams without any irregularity, and only where it is faster. Those that it leaves are simplejpeg's to
decode or to refuse.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from storefs_codecs.kernels import library

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

INTERFACE = 1  # of the C source; a library left over from another version is not used
DECODED, DECLINED, NEEDS_CONTIGUOUS = range(3)
WHERE_FASTER, VECTORS, PLAIN = range(3)

Sizes = ctypes.c_uint64 * 3
Strides = ctypes.c_int64 * 2


class Kernel:
    """The loaded library; its methods hold no state, so threads may share it.

    `how` is for tests: VECTORS and PLAIN decode images of any size, with AVX2 and without.
    """

    def __init__(self, compiled: ctypes.CDLL, how: int = WHERE_FASTER) -> None:
        self._decode = compiled.storefs_jpeg_decode
        self._how = how
        pointer, number = ctypes.c_void_p, ctypes.c_uint64
        self._decode.argtypes = [pointer, number, ctypes.c_int, pointer, Sizes, Strides, ctypes.c_int]

    def decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None, components: int) -> Array | None:
        """The samples of the image of that many `components`, in `out` where given (uint8, any strides).

        `extent` is z, y, x, maybe with a 1 in front. None where the image is left to simplejpeg; what is in `out` is of
        no use then.
        """
        if out is not None and not out.flags.writeable:
            return None
        data = np.frombuffer(payload, np.uint8)
        chunk = np.empty(extent, np.uint8) if out is None or out.strides[-1] != 1 else out
        verdict = self._read(data, components, chunk)
        if verdict == NEEDS_CONTIGUOUS:
            chunk = np.empty(extent, np.uint8)
            verdict = self._read(data, components, chunk)
        if verdict != DECODED:
            return None
        if out is None or chunk is out:
            return chunk
        out[...] = chunk
        return out

    def _read(self, data: Array, components: int, chunk: Array) -> int:
        verdict: int = self._decode(
            data.ctypes.data,
            data.size,
            components,
            chunk.ctypes.data,
            Sizes(*chunk.shape[-3:]),
            Strides(*chunk.strides[-3:-1]),
            self._how,
        )
        return verdict


def load() -> Kernel | None:
    """The kernel; None where it was not built, is not wanted, or is left over from another version."""
    compiled = library("jpeg")
    return None if compiled is None else _bind(compiled)


@cache
def _bind(compiled: ctypes.CDLL) -> Kernel | None:
    try:
        return Kernel(compiled) if compiled.storefs_jpeg_interface() == INTERFACE else None
    except AttributeError:  # some other library
        return None
