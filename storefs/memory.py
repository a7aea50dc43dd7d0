"""Memory: results that begin with a cache line, and room for chunks that is used again."""

from __future__ import annotations

import functools
import math
import weakref
from collections import deque
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]

CACHE_LINE = 64
# what is smaller is written before it matters how it lies
_SMALLEST_ALIGNED = 1 << 20
# what is smaller costs little to ask for
SMALLEST_KEPT, MOST_KEPT = 1 << 16, 32 << 20


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], order: Literal["C", "F"]) -> Array:
    """What `np.empty` gives; where that is much, it begins with a cache line.

    Rows of chunks, which often are 64 voxels long, then fill whole lines instead of sharing them with their neighbours.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _SMALLEST_ALIGNED:
        return np.empty(shape, dtype, order)
    memory = np.empty(nbytes + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + nbytes].view(dtype).reshape(shape, order=order)


class Recycled:
    """Room for chunks: what nobody looks at any more is lent again, as fresh memory costs as much as decoding.

    Safe across threads without a lock, which the garbage collector could run into.
    """

    def __init__(self) -> None:
        self._free: dict[int, deque[bytearray]] = {}
        self._lent: dict[int, weakref.ref[Array]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """What `np.empty` gives in C order. It is lent again once the array and all views of it are gone."""
        nbytes = math.prod(shape) * dtype.itemsize
        if not SMALLEST_KEPT <= nbytes <= MOST_KEPT:
            return np.empty(shape, dtype)
        free = self._free.setdefault(nbytes, deque(maxlen=MOST_KEPT // nbytes))
        try:
            memory = free.pop()
        except IndexError:
            memory = bytearray(nbytes)
        # views of an array whose base is no array keep that array itself
        lent: Array = np.ndarray(shape, dtype, memory)
        number = id(lent)

        def back(_: object) -> None:
            self._lent.pop(number, None)
            free.append(memory)

        self._lent[number] = weakref.ref(lent, back)
        return lent


@functools.cache
def recycled() -> Recycled:
    """That of this process."""
    return Recycled()
