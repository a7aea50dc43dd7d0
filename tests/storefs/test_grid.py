"""Chunk arithmetic over clipped grids."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs.grid import Grid

AXES = st.integers(1, 3).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 12), min_size=n, max_size=n).map(tuple),
        st.lists(st.integers(1, 7), min_size=n, max_size=n).map(tuple),
    )
)


def test_clipped_edges():
    """The last chunks are clipped on every axis."""
    grid = Grid((70, 90, 100), (32, 64, 64))
    assert grid.cells == (3, 2, 2)
    assert grid.size == 12
    assert grid.origin((2, 1, 0)) == (64, 64, 0)
    assert grid.extent((0, 0, 0)) == (32, 64, 64)
    assert grid.extent((2, 1, 1)) == (6, 26, 36)


def test_what_lies_inside():
    """Only indexes of the right length within the grid are chunks."""
    grid = Grid((70, 90), (32, 64))
    assert (0, 0) in grid
    assert (2, 1) in grid
    assert (3, 0) not in grid
    assert (0, 2) not in grid
    assert (-1, 0) not in grid
    assert (0,) not in grid
    assert (0, 0, 0) not in grid


def test_empty_axis():
    """An array without voxels has no chunks."""
    grid = Grid((0, 5), (4, 4))
    assert grid.cells == (0, 2)
    assert list(grid) == []
    assert (0, 0) not in grid


def test_astronomic_grid():
    """The number of chunks may exceed what any machine can count to."""
    grid = Grid((1 << 60,) * 3, (16,) * 3)
    assert grid.size == 1 << 168
    assert grid.extent(((1 << 56) - 1, 0, 0)) == (16, 16, 16)


@settings(deadline=None, max_examples=50)
@given(AXES)
def test_chunks_tile_the_array(axes):
    """Origins and extents of all chunks cover every voxel exactly once."""
    shape, chunk_shape = axes
    grid = Grid(shape, chunk_shape)
    covered = np.zeros(shape, np.int8)
    indexes = list(grid)
    assert len(indexes) == len(set(indexes)) == grid.size
    assert sum(math.prod(grid.extent(index)) for index in indexes) == math.prod(shape)
    for index in indexes:
        assert index in grid
        assert all(1 <= n <= c for n, c in zip(grid.extent(index), chunk_shape, strict=True))
        covered[tuple(slice(o, o + n) for o, n in zip(grid.origin(index), grid.extent(index), strict=True))] += 1
    assert (covered == 1).all()
