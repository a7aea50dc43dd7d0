"""Memory of results."""

from __future__ import annotations

import numpy as np
import pytest

from storefs.memory import CACHE_LINE, empty


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", "uint64", "float32"])
@pytest.mark.parametrize("shape", [(), (0, 3), (3, 5), (128, 128, 130)])
def test_it_is_what_numpy_gives(shape, dtype, order):
    """Shape, data type and order are those asked for; all of it can be written."""
    found, expected = empty(shape, np.dtype(dtype), order), np.empty(shape, dtype, order)
    assert (found.shape, found.dtype, found.strides) == (expected.shape, expected.dtype, expected.strides)
    found[...] = 3
    assert (found == 3).all()


def test_large_results_begin_with_a_cache_line():
    """However the system's memory begins."""
    kept = [empty((1024, 1024 + n), np.dtype("uint8"), "C") for n in range(8)]
    assert all(array.ctypes.data % CACHE_LINE == 0 for array in kept)
