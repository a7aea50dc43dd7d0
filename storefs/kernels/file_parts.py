"""The kernel that reads parts of many files: one call for many chunks, so that threads need not wait for the GIL.

What it does not read it leaves: files that are not there, or not as long as they should be. POSIX.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from storefs_codecs.kernels import library

INTERFACE = 1  # of the C source; a library left over from another version is not used
MOST_AXES = 8

_FOLDER = Path(__file__).parent

Array = np.ndarray[Any, Any]


class Read(NamedTuple):
    """Of which files, in the order asked for, something was read, and how many bytes of all these."""

    done: bytes
    nbytes: int


class Kernel:
    """The loaded library; its methods hold no state, so threads may share it.

    Both raise ValueError for what can be no path.
    """

    def __init__(self, compiled: ctypes.CDLL) -> None:
        self._boxes = compiled.storefs_files_boxes
        self._points = compiled.storefs_files_points
        text, pointer, number = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64
        self._boxes.argtypes = [
            *(text, ctypes.c_uint64, ctypes.c_int, text, pointer),
            *(pointer, number, pointer, number, pointer),
        ]
        self._points.argtypes = [
            *(text, ctypes.c_uint64, text, text, pointer, pointer),
            *(number, pointer, number, pointer),
        ]
        self._boxes.restype = self._points.restype = ctypes.c_uint64

    def boxes(self, paths: Sequence[str], alongs: Sequence[int], out: Array, scratch: memoryview) -> Read:
        """A box out of every file, into `out` (any strides), of as many axes as the chunks, at most MOST_AXES.

        `alongs` has five numbers for every axis of every file: start, stop and step of what is wanted of the chunk, the
        position in `out` where that begins, and the length of the chunk.
        """
        done = bytearray(len(paths))
        nbytes = self._boxes(
            _in_a_row(paths),
            len(paths),
            out.ndim,
            struct.pack(f"={len(alongs)}q", *alongs),
            out.ctypes.data,
            out.ctypes.strides_as(ctypes.c_int64),
            out.itemsize,
            *_room(scratch),
            (ctypes.c_uint8 * len(done)).from_buffer(done),
        )
        return Read(bytes(done), nbytes)

    def points(
        self,
        paths: Sequence[str],
        sizes: Sequence[int],
        counts: Sequence[int],
        offsets: Array,
        out: Array,
        scratch: memoryview,
    ) -> Read:
        """Voxels out of every file, of `sizes`: `counts` of each, at `offsets` (int64, bytes), into `out`, one axis."""
        done = bytearray(len(paths))
        nbytes = self._points(
            _in_a_row(paths),
            len(paths),
            struct.pack(f"={len(sizes)}q", *sizes),
            struct.pack(f"={len(counts)}q", *counts),
            offsets.ctypes.data,
            out.ctypes.data,
            out.itemsize,
            *_room(scratch),
            (ctypes.c_uint8 * len(done)).from_buffer(done),
        )
        return Read(bytes(done), nbytes)


def _in_a_row(paths: Sequence[str]) -> bytes:
    row = b"".join([os.fsencode(path) + b"\0" for path in paths])
    if row.count(0) != len(paths):
        raise ValueError("no file has a null character in its path")
    return row


def _room(scratch: memoryview) -> tuple[Any, int]:
    return (ctypes.c_uint8 * len(scratch)).from_buffer(scratch), len(scratch)


def load() -> Kernel | None:
    """The kernel; None where it was not built, is not wanted, or is left over from another version."""
    compiled = library("file_parts", _FOLDER)
    return None if compiled is None else _bind(compiled)


@cache
def _bind(compiled: ctypes.CDLL) -> Kernel | None:
    try:
        return Kernel(compiled) if compiled.storefs_files_interface() == INTERFACE else None
    except AttributeError:  # some other library
        return None
