"""Memory of results."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

CACHE_LINE = 64
# what is smaller is written before it matters how it lies
_SMALLEST = 1 << 20


def empty(shape: tuple[int, ...], dtype: np.dtype[Any], order: Literal["C", "F"]) -> np.ndarray[Any, Any]:
    """What `np.empty` gives; where that is much, it begins with a cache line.

    Rows of chunks, which often are 64 voxels long, then fill whole lines instead of sharing them with their neighbours.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _SMALLEST:
        return np.empty(shape, dtype, order)
    memory = np.empty(nbytes + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + nbytes].view(dtype).reshape(shape, order=order)
