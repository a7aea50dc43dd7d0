"""The kernel that copies the voxels of a chunk to where they go in a larger array."""

from __future__ import annotations

import ctypes
import struct
from functools import cache
from typing import TYPE_CHECKING

from storefs_codecs.kernels import library

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

INTERFACE = 1  # of the C source; a library left over from another version is not used
# numpy is as quick with less
SHORT = 1 << 16
NUMBERS = "uif"


def copy_voxels(voxels: Array, out: Array) -> None:
    """`out[...] = voxels`, where `voxels` may not overlap `out` and has its shape. Raises ValueError as numpy does."""
    compiled = library("voxel_copy") if voxels.nbytes >= SHORT else None
    copy = None if compiled is None else _bind(compiled)
    if copy is None or not _copies(voxels, out) or not _done(copy, voxels, out):
        out[...] = voxels


def _copies(voxels: Array, out: Array) -> bool:
    """Whether the bytes of `voxels` are those that `out` is to have."""
    same = voxels.shape == out.shape and voxels.dtype == out.dtype and voxels.dtype.kind in NUMBERS
    return same and out.flags.writeable


def _done(copy: ctypes._NamedFuncPointer, voxels: Array, out: Array) -> bool:
    axes = [number for axis in zip(voxels.shape, voxels.strides, out.strides, strict=True) for number in axis]
    packed = struct.pack(f"={len(axes)}q", *axes)
    return bool(copy(voxels.ctypes.data, out.ctypes.data, packed, voxels.ndim, voxels.itemsize))


@cache
def _bind(compiled: ctypes.CDLL) -> ctypes._NamedFuncPointer | None:
    try:
        if compiled.storefs_voxel_copy_interface() != INTERFACE:
            return None
        copy = compiled.storefs_voxel_copy
    except AttributeError:  # some other library
        return None
    copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int64]
    return copy
