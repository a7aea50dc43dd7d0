"""Memory that is lent again once nobody looks at it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from storefs_codecs.recycled import MOST, SMALLEST, Recycled

SHAPE = (64, 64, 64)
BYTE = np.dtype(np.uint8)


def test_it_is_lent_again_when_the_last_view_is_gone():
    """Views of views, of other types and axes, keep the memory; then it comes again."""
    lending = Recycled()
    lent = lending.empty(SHAPE, BYTE)
    lent[...] = 7
    where = lent.ctypes.data
    view = np.asarray(lent[3:9].T)[1:].view(np.int8)
    keeps = memoryview(lent)
    del lent
    other = lending.empty(SHAPE, BYTE)
    assert other.ctypes.data != where
    del keeps
    assert lending.empty(SHAPE, BYTE).ctypes.data != where
    assert (view == 7).all()
    del view
    assert lending.empty(SHAPE, BYTE).ctypes.data == where


@pytest.mark.parametrize("dtype", ["u1", "<u8", "<f4"])
def test_shape_and_type_are_those_asked_for(dtype):
    """Also where memory of another type of the same size is lent again."""
    lending = Recycled()
    nbytes = lending.empty((1 << 14, 4), np.dtype("<f8")).nbytes
    shape = (nbytes // np.dtype(dtype).itemsize // 16, 16)
    lent = lending.empty(shape, np.dtype(dtype))
    assert (lent.shape, lent.dtype, lent.flags.c_contiguous, lent.flags.writeable) == (
        shape,
        np.dtype(dtype),
        True,
        True,
    )


def test_no_two_share_memory():
    """Whoever asks at the same time, from many threads, has memory of their own."""
    lending = Recycled()

    def work(number: int) -> bool:
        right = True
        for _ in range(200):
            lent = lending.empty(SHAPE, BYTE)
            lent[0, 0, :8] = number
            lent[-1, -1, -8:] = number
            right &= bool((lent[0, 0, :8] == number).all() and (lent[-1, -1, -8:] == number).all())
        return right

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


def test_no_more_is_kept_than_that():
    """What is given back beyond the bound is let go, and small or very large arrays are numpy's own."""
    lending = Recycled()
    size = MOST // 4
    held = [lending.empty((size,), BYTE) for _ in range(10)]
    del held
    (free,) = lending._free.values()
    assert len(free) * size <= MOST
    assert not lending._lent
    for nbytes in (0, SMALLEST - 1, MOST + 1):
        assert lending.empty((nbytes,), BYTE).flags.owndata
