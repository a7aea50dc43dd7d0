"""Room for chunks that is used again: fresh memory costs as much as decoding."""

from __future__ import annotations

import functools
import math
import weakref
from collections import deque
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# what is smaller costs little to ask for
SMALLEST, MOST = 1 << 16, 32 << 20


class Recycled:
    """Lends memory; what nobody looks at any more is lent again, up to `MOST` bytes of every size.

    Safe across threads without a lock, which the garbage collector could run into.
    """

    def __init__(self) -> None:
        self._free: dict[int, deque[bytearray]] = {}
        self._lent: dict[int, weakref.ref[Array]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """What `np.empty` gives in C order. It is lent again once the array and all views of it are gone."""
        nbytes = math.prod(shape) * dtype.itemsize
        if not SMALLEST <= nbytes <= MOST:
            return np.empty(shape, dtype)
        free = self._free.setdefault(nbytes, deque(maxlen=MOST // nbytes))
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
