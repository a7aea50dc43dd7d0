"""What a basic selection wants of every chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storefs.grid import Grid
from storefs.window import basic_window, lie


@st.composite
def selections(draw: Any) -> tuple[Grid, tuple[Any, ...]]:
    """A grid, and integers and slices that lie in it."""
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.integers(1, 12)) for _ in range(rank))
    chunk = tuple(draw(st.integers(1, 7)) for _ in range(rank))
    one = [st.integers(-n, n - 1) for n in shape]
    ends = [st.none() | st.integers(-n - 3, n + 3) for n in shape]
    chosen = [
        draw(one[i] if draw(st.booleans()) else st.builds(slice, ends[i], ends[i], st.none() | st.integers(1, 9)))
        for i in range(rank)
    ]
    return Grid(shape, chunk), tuple(chosen)


@given(selections())
def test_pieces_make_up_the_selection(case):
    """Copying every piece of every chunk to its target gives what numpy's indexing gives, each voxel once."""
    grid, selection = case
    whole = np.arange(1, np.prod(grid.shape) + 1).reshape(grid.shape)
    window = basic_window(selection, grid.shape)
    assert window is not None
    out = np.zeros(window.lengths, whole.dtype)
    for piece in window.pieces(grid):
        extent = grid.extent(piece.cell)
        chunk = whole[tuple(slice(o, o + n) for o, n in zip(grid.origin(piece.cell), extent, strict=True))]
        part = chunk[piece.inside]
        assert part.size
        assert not piece.whole or part.shape == extent
        assert not out[piece.target].any()
        out[piece.target] = part
        lies = lie(piece.inside, extent, whole.itemsize)
        data = np.ascontiguousarray(chunk).tobytes()[lies.start : lies.start + lies.nbytes]
        assert np.array_equal(np.ndarray(lies.shape, whole.dtype, data, 0, lies.strides), part)
    assert np.array_equal(out.reshape(window.shape), whole[selection])


@pytest.mark.parametrize("at", range(4))
def test_an_ellipsis_stands_for_the_axes_left_out(at):
    """Wherever it stands, also for no axis at all."""
    items = (slice(1, 2), 3, slice(None, None, 2))
    for count in range(at, 4):
        selection = (*items[:at], Ellipsis, *items[at:count])
        window = basic_window(selection, (5, 6, 7))
        assert window is not None
        assert window.shape == np.empty((5, 6, 7))[selection].shape


@pytest.mark.parametrize(
    "selection",
    [
        (5,),
        (-6,),
        (0, 0, 0, 0),
        (..., ...),
        slice(None, None, -1),
        slice(1.5, None),
        True,
        1.0,
        None,
        [1, 2],
        np.array([1]),
        np.ones((5, 6, 7), bool),
        "field",
    ],
)
def test_the_rest_is_left_to_zarr(selection):
    """What is outside, or no basic selection, is not judged here."""
    assert basic_window(selection, (5, 6, 7)) is None


def test_cost_does_not_depend_on_the_array():
    """A small part of an array of any size is found at once."""
    grid = Grid((1 << 40, 1 << 40), (64, 64))
    window = basic_window((1 << 39, slice(1 << 38, (1 << 38) + 100)), grid.shape)
    assert window is not None
    assert [piece.cell[1] for piece in window.pieces(grid)] == [1 << 32, (1 << 32) + 1]
