"""Which chunks a selection touches: axis by axis, so that asking costs no more for a petavoxel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storefs.grid import Grid

Cells = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Touched:
    """The chunks that a selection touches in `grid`: the products of `cells` (chunk numbers along each axis).

    With `points`, the chunks of scattered voxels, one row each, instead. `voxels` are selected.
    """

    grid: Grid
    cells: tuple[Cells, ...]
    voxels: int
    points: Cells | None = None

    @property
    def count(self) -> int:
        """Number of chunks."""
        return math.prod(len(cells) for cells in self.cells) if self.points is None else len(self.points)

    @property
    def chunk_voxels(self) -> int:
        """Voxels in all these chunks, which are clipped at the array's edges."""
        if self.points is not None:
            return sum(math.prod(self.grid.extent(tuple(row))) for row in self.points.tolist())
        sides = zip(self.cells, self.grid.chunk_shape, self.grid.shape, strict=True)
        return math.prod(int(np.minimum(side, length - cells * side).sum()) for cells, side, length in sides)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """The chunks' indexes, C order."""
        if self.points is not None:
            return (tuple(row) for row in self.points.tolist())
        return itertools.product(*(cells.tolist() for cells in self.cells))

    def sample(self, most: int) -> Touched:
        """A compact part of these, of up to about `most` chunks; these themselves where they are few."""
        if self.count <= most:
            return self
        if self.points is not None:
            return Touched(self.grid, self.cells, self.voxels, self.points[:most])
        cells = list(self.cells)
        while math.prod(map(len, cells)) > most:
            longest = max(range(len(cells)), key=lambda axis: len(cells[axis]))
            cells[longest] = cells[longest][: (len(cells[longest]) + 1) // 2]
        return Touched(self.grid, tuple(cells), self.voxels)


def touched(selection: Any, grid: Grid) -> Touched:  # noqa: ANN401  # as numpy takes them
    """The chunks that `array[selection]` reads of an array in chunks of `grid`.

    `selection`: integers, slices and an ellipsis; integer or boolean arrays along axes, which as in zarr are taken
    point by point where there is one for every axis. Raises IndexError.
    """
    shape = grid.shape
    items = _filled(selection, shape)
    arrays = [np.asarray(item) for item in items if not isinstance(item, slice | int | np.integer)]
    if len(items) > 1 and len(arrays) == len(items) and all(a.dtype != bool for a in arrays):
        return _points(arrays, grid)
    cells, voxels = [], 1
    for axis, (item, length, side) in enumerate(zip(items, shape, grid.chunk_shape, strict=True)):
        found, count = _along(item, length, side, axis)
        cells.append(found)
        voxels *= count
    return Touched(grid, tuple(cells), voxels)


def _filled(selection: Any, shape: tuple[int, ...]) -> list[Any]:  # noqa: ANN401  # as numpy takes them
    """`selection` with one item an axis."""
    items = list(selection) if isinstance(selection, tuple) else [selection]
    at = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(at) > 1:
        raise IndexError("a selection has one ellipsis at most")
    if not at:
        at, items = [len(items)], [*items, Ellipsis]
    missing = len(shape) - (len(items) - 1)
    if missing < 0:
        raise IndexError(f"{len(items) - 1} indexes for an array of {len(shape)} axes")
    return items[: at[0]] + [slice(None)] * missing + items[at[0] + 1 :]


def _along(item: Any, length: int, side: int, axis: int) -> tuple[Cells, int]:  # noqa: ANN401  # as numpy takes them
    """The chunks touched along one axis, and how many voxels are selected along it."""
    if isinstance(item, slice):
        span = range(*item.indices(length))
        if not span:
            return np.empty(0, np.int64), 0
        if abs(span.step) >= side:
            return np.unique(np.arange(span.start, span.stop, span.step, dtype=np.int64) // side), len(span)
        low, high = min(span[0], span[-1]), max(span[0], span[-1])
        return np.arange(low // side, high // side + 1, dtype=np.int64), len(span)
    index = np.asarray(item)
    if index.dtype == bool:
        if index.shape != (length,):
            raise IndexError(f"a mask of shape {index.shape} for axis {axis} of length {length}")
        index = np.flatnonzero(index)
    index = _wrapped(index, length, axis)
    return np.unique(index // side), index.size


def _points(arrays: list[npt.NDArray[Any]], grid: Grid) -> Touched:
    rows = [
        _wrapped(array, length, axis).ravel()
        for axis, (array, length) in enumerate(zip(np.broadcast_arrays(*arrays), grid.shape, strict=True))
    ]
    cells = np.stack([row // side for row, side in zip(rows, grid.chunk_shape, strict=True)], axis=1)
    points = np.unique(cells, axis=0)
    return Touched(grid, (), len(cells), points)


def _wrapped(index: npt.NDArray[Any], length: int, axis: int) -> Cells:
    """Positions counted from the beginning. Raises IndexError."""
    if index.size and index.dtype.kind not in "iu":
        raise IndexError(f"cannot select by {index.dtype} along axis {axis}")
    positions = index.astype(np.int64)
    if positions.size and (positions.min() < -length or positions.max() >= length):
        raise IndexError(f"index out of bounds: axis {axis} has length {length}")
    return np.where(positions < 0, positions + length, positions)
