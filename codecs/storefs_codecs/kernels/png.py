"""The PNG kernel: undoes the row filters of images that are not interlaced, and puts the samples where they belong."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

from storefs_codecs.kernels import library

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

INTERFACE = 1  # of the C source; a library left over from another version is not used
UNKNOWN_FILTER = 1
USUAL, PLAIN = range(2)

Sizes = ctypes.c_uint64 * 4
Strides = ctypes.c_int64 * 4


class Kernel:
    """The loaded library; its methods hold no state, so threads may share it.

    `how` is for tests: PLAIN goes row by row, as where there are no vectors.
    """

    def __init__(self, compiled: ctypes.CDLL, how: int = USUAL) -> None:
        self._unfilter = compiled.storefs_png_unfilter
        self._how = how
        pointer, number, found = ctypes.c_void_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_int)
        sizes = [number, number, number, ctypes.c_int]
        self._unfilter.argtypes = [pointer, *sizes, pointer, Sizes, Strides, ctypes.c_int, found]

    def unfilter(self, filtered: Array, size: tuple[int, int], out: Array) -> int:
        """Put the samples of an image of `size` (height, width) into `out`.

        `out` is c, z, y, x, little-endian uint8 or uint16 of any strides; `filtered` is all bytes of the image, each
        row behind its filter, and is of no use afterwards. Returned is the greatest filter; where that is unknown
        nothing is written.
        """
        greatest = ctypes.c_int()
        problem = self._unfilter(
            filtered.ctypes.data,
            filtered.size,
            *size,
            out.itemsize * 8,
            out.ctypes.data,
            Sizes(*out.shape),
            Strides(*out.strides),
            self._how,
            ctypes.byref(greatest),
        )
        if problem not in (0, UNKNOWN_FILTER):
            raise ValueError("storefs.png: the kernel was misused")
        return greatest.value


def load() -> Kernel | None:
    """The kernel; None where it was not built, is not wanted, or is left over from another version."""
    compiled = library("png")
    return None if compiled is None else _bind(compiled)


@cache
def _bind(compiled: ctypes.CDLL) -> Kernel | None:
    try:
        return Kernel(compiled) if compiled.storefs_png_interface() == INTERFACE else None
    except AttributeError:  # some other library
        return None
