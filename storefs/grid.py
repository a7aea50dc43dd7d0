"""Chunk arithmetic: a regular grid of chunks over an array whose last chunks may be clipped. C order throughout."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grid:
    """The chunk grid of an array of `shape` in chunks of `chunk_shape`."""

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]

    @property
    def cells(self) -> tuple[int, ...]:
        """Number of chunks along every axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk_shape, strict=True))

    @property
    def size(self) -> int:
        """Number of chunks, which `len` could not always give."""
        return math.prod(self.cells)

    def __contains__(self, index: tuple[int, ...]) -> bool:
        return len(index) == len(self.shape) and all(0 <= i < n for i, n in zip(index, self.cells, strict=True))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(range(n) for n in self.cells))

    def origin(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """Position of the first voxel of chunk `index`, counted from the array's first voxel."""
        return tuple(i * c for i, c in zip(index, self.chunk_shape, strict=True))

    def extent(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """True shape of chunk `index`: the chunk shape, clipped at the upper edges of the array."""
        # no generator and no min, as every chunk of a bulk read comes by here
        sides = zip(index, self.chunk_shape, self.shape, strict=True)
        return tuple([c if (i + 1) * c <= n else n - i * c for i, c, n in sides])
