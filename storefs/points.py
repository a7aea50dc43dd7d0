"""Points: voxels named by their coordinates, sorted by the chunks in which they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from storefs.grid import Grid
from storefs.window import Scattered

Coordinates = tuple[np.ndarray[Any, Any], ...]

_MOST_CHUNKS = 1 << 62


def coordinates_of(selection: Any, shape: tuple[int, ...]) -> Coordinates | None:  # noqa: ANN401  # whatever stood in brackets
    """One integer array an axis, all of one shape; None where `selection` is something else, or lies outside."""
    if not isinstance(selection, tuple) or len(selection) != len(shape):
        return None
    if not all(isinstance(along, np.ndarray) and along.dtype.kind in "iu" and along.size for along in selection):
        return None
    if any(along.min() < 0 or along.max() >= length for along, length in zip(selection, shape, strict=True)):
        return None
    try:
        found: Coordinates = tuple(np.broadcast_arrays(*selection))
    except ValueError:  # zarr says what is wrong with it
        return None
    return found if found[0].ndim else None


def pieces_of(points: Coordinates, grid: Grid) -> list[Scattered] | None:
    """What is wanted of every chunk of `grid`, for a result of one axis; None where there are too many to number."""
    if grid.size > _MOST_CHUNKS:
        return None
    number = np.zeros(points[0].size, np.int64)
    flat = [along.reshape(-1).astype(np.int64) for along in points]
    for along, chunk, cells in zip(flat, grid.chunk_shape, grid.cells, strict=True):
        number = number * cells + along // chunk
    # small numbers are sorted more quickly
    order = np.argsort(number.astype(np.min_scalar_type(grid.size)), kind="stable")
    number = number[order]
    firsts = np.flatnonzero(np.diff(number, prepend=-1))
    cells_of_chunks = np.stack(np.unravel_index(number[firsts], grid.cells), axis=1).tolist()
    insides = [(along % chunk)[order] for along, chunk in zip(flat, grid.chunk_shape, strict=True)]
    found = []
    for cell, first, stop in zip(cells_of_chunks, firsts.tolist(), [*firsts[1:].tolist(), len(order)], strict=True):
        found.append(Scattered(tuple(cell), tuple([along[first:stop] for along in insides]), order[first:stop], ()))
    return found
