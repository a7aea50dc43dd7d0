"""What a basic selection wants of every chunk: integers, slices with any positive step, an ellipsis."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

from storefs.grid import Grid

Slices = tuple[slice, ...]
Along = tuple[int, slice, slice, bool]
"""Along one axis: index of the chunk, what is wanted of it, where that goes, and whether it is all there is."""


class Piece(NamedTuple):
    """What is wanted of the chunk at `cell`: the voxels `inside`, which go to `target`; `whole` where that is all."""

    cell: tuple[int, ...]
    inside: Slices
    target: Slices
    whole: bool


class Boxed(NamedTuple):
    """What is wanted across chunks: the voxels of the array from `start` to `stop`, which go to `target`.

    `cell` is the chunk in which it begins.
    """

    cell: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    target: Slices
    whole: bool = False


class Scattered(NamedTuple):
    """What is wanted of the chunk at `cell` in the words of numpy, of the whole chunk as zarr shows it.

    `dropped` are axes of the voxels `inside`, one long, that `target` does not have.
    """

    cell: tuple[int, ...]
    inside: Any
    target: Any
    dropped: tuple[int, ...]
    whole: bool = False


Part = Piece | Boxed | Scattered


class Axis(NamedTuple):
    """Start, stop and step along one axis, with `length` voxels; `single` where an integer was given, dropping it."""

    start: int
    stop: int
    step: int
    length: int
    single: bool

    def split(self, length: int, chunk: int) -> list[Along]:
        """What is wanted of every chunk of `chunk` voxels along an axis of `length`."""
        found: list[Along] = []
        at, stop, step = self.start, self.stop, self.step
        done = 0
        while at < stop:
            cell = at // chunk
            origin = cell * chunk
            end = min(length, origin + chunk)
            limit = min(stop, end)
            count = -((at - limit) // step)
            whole = step == 1 and at == origin and limit == end
            found.append((cell, slice(at - origin, limit - origin, step), slice(done, done + count), whole))
            done += count
            at += count * step
        return found


class Window(NamedTuple):
    """A basic selection, one Axis each."""

    axes: tuple[Axis, ...]

    # here and below lists, not generators: they are quicker, which shows where one chunk is read

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of voxels wanted along every axis, 1 along those that an integer drops."""
        return tuple([axis.length for axis in self.axes])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result, without dropped axes."""
        return tuple([axis.length for axis in self.axes if not axis.single])

    def flipped(self) -> Window:
        """The same selection of the transposed array."""
        return Window(self.axes[::-1])

    @property
    def box(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """First voxel and stop, where it is a solid box."""
        if any(axis.step != 1 or not axis.length for axis in self.axes):
            return None
        return tuple([axis.start for axis in self.axes]), tuple([axis.stop for axis in self.axes])

    def boxes(self, origin: tuple[int, ...], shape: tuple[int, ...], chunks: Grid) -> list[Boxed]:
        """A solid box in boxes of `shape`, side by side from voxel `origin` on, which does not lie behind it."""
        shifted = [a._replace(start=a.start - o, stop=a.stop - o) for a, o in zip(self.axes, origin, strict=True)]
        rest = tuple([n - o for n, o in zip(chunks.shape, origin, strict=True)])
        found = []
        for cell, inside, target, _ in Window(tuple(shifted)).pieces(Grid(rest, shape)):
            corner = [o + i * n for o, i, n in zip(origin, cell, shape, strict=True)]
            start = tuple([c + s.start for c, s in zip(corner, inside, strict=True)])
            stop = tuple([c + s.stop for c, s in zip(corner, inside, strict=True)])
            first = tuple([a // c for a, c in zip(start, chunks.chunk_shape, strict=True)])
            found.append(Boxed(first, start, stop, target))
        return found

    def pieces(self, grid: Grid) -> list[Piece]:
        """What is wanted of every chunk that has a part in the selection."""
        splits = [axis.split(n, c) for axis, n, c in zip(self.axes, grid.shape, grid.chunk_shape, strict=True)]
        found = []
        for along in itertools.product(*splits):
            cell, inside, target, whole = zip(*along, strict=True)
            found.append(Piece(cell, inside, target, False not in whole))
        return found


class Lie(NamedTuple):
    """How the voxels of a box lie in memory: `nbytes` from byte `start` on, in these strides (bytes)."""

    start: int
    nbytes: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def lie(inside: Slices, extent: tuple[int, ...], itemsize: int) -> Lie:
    """How the voxels `inside` a chunk of `extent` lie in its bytes, C order."""
    start = last = 0
    stride = itemsize
    shape: list[int] = []
    strides: list[int] = []
    for along, length in zip(reversed(inside), reversed(extent), strict=True):
        count = -((along.start - along.stop) // along.step)
        shape.append(count)
        strides.append(stride * along.step)
        start += along.start * stride
        last += (count - 1) * along.step * stride
        stride *= length
    return Lie(start, last + itemsize, tuple(reversed(shape)), tuple(reversed(strides)))


def basic_window(selection: Any, shape: tuple[int, ...]) -> Window | None:  # noqa: ANN401  # whatever stood in brackets
    """`selection` of an array of `shape`; None where it is no basic selection, or lies outside."""
    items = selection if isinstance(selection, tuple) else (selection,)
    if len(items) != len(shape) or any(item is Ellipsis for item in items):
        filled = _filled(items, len(shape))
        if filled is None:
            return None
        items = filled
    axes = []
    for item, length in zip(items, shape, strict=True):
        axis = _axis(item, length)
        if axis is None:
            return None
        axes.append(axis)
    return Window(tuple(axes))


def _filled(items: tuple[Any, ...], rank: int) -> tuple[Any, ...] | None:
    """`items` with whole axes in place of an ellipsis, or behind the last; None where there are too many."""
    gaps = [at for at, item in enumerate(items) if item is Ellipsis]
    missing = rank - (len(items) - len(gaps))
    if len(gaps) > 1 or missing < 0:
        return None
    at = gaps[0] if gaps else len(items)
    return (*items[:at], *(slice(None),) * missing, *items[at + 1 :])


def _axis(item: Any, length: int) -> Axis | None:  # noqa: ANN401  # whatever stood in brackets
    if isinstance(item, slice):
        try:
            start, stop, step = item.indices(length)
        except (TypeError, ValueError):  # zarr says what is wrong with it
            return None
        if step < 1:
            return None
        return Axis(start, stop, step, -((start - stop) // step) if start < stop else 0, single=False)
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        at = int(item)
        at = at + length if at < 0 else at
        return Axis(at, at + 1, 1, 1, single=True) if 0 <= at < length else None
    return None
