"""What is read: boxes and scattered points, drawn at random from a seed. Axes are z, y, x throughout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CHUNK = 64
POINTS = 10_000

Box = tuple[slice, slice, slice]
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Points:
    """Voxels by their coordinates, one array an axis; no voxel twice."""

    z: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    x: npt.NDArray[np.int64]


Selection = Box | Points


def draw(kind: str, shape: Shape, seed: int) -> list[Selection]:
    """The selections of one timed pass over a volume of `shape` (zyx); the same seed gives the same."""
    return KINDS[kind](shape, np.random.default_rng(seed))


def voxels_in(selection: Selection) -> int:
    """How many voxels a read of `selection` gives."""
    if isinstance(selection, Points):
        return len(selection.z)
    return int(np.prod([part.stop - part.start for part in selection]))


def _part(*fractions: int) -> Callable[[Shape, np.random.Generator], list[Selection]]:
    """The first 1/n of each axis."""
    return lambda shape, _rng: [_box((0, 0, 0), tuple(n // f for n, f in zip(shape, fractions, strict=True)))]


def _boxes(shape: Shape, rng: np.random.Generator) -> list[Selection]:
    """Boxes of 256^3, none of whose sides lies between two chunks."""
    size = [min(256, n // 2) for n in shape]
    return [_box(_unaligned(shape, size, rng), size) for _ in range(2)]


def _unaligned(shape: Shape, size: list[int], rng: np.random.Generator) -> list[int]:
    return [int(rng.choice([i for i in range(1, n - s) if i % CHUNK])) for n, s in zip(shape, size, strict=True)]


def _planes(axis: int) -> Callable[[Shape, np.random.Generator], list[Selection]]:
    """Planes across `axis`."""

    def planes(shape: Shape, rng: np.random.Generator) -> list[Selection]:
        drawn: list[Selection] = []
        for i in rng.choice(shape[axis], 4, replace=False):
            start, size = [0, 0, 0], list(shape)
            start[axis], size[axis] = int(i), 1
            drawn.append(_box(start, size))
        return drawn

    return planes


def _chunks(shape: Shape, rng: np.random.Generator) -> list[Selection]:
    """Single whole chunks, asked for one after another."""
    return [_box([int(rng.integers(n // CHUNK)) * CHUNK for n in shape], [CHUNK] * 3) for _ in range(32)]


def _points(shape: Shape, rng: np.random.Generator) -> list[Selection]:
    size = int(np.prod(shape))
    flat = rng.choice(size, min(POINTS, size // 8), replace=False)
    return [Points(*(axis.astype(np.int64) for axis in np.unravel_index(flat, shape)))]


def _box(start: tuple[int, ...] | list[int], size: tuple[int, ...] | list[int]) -> Box:
    z, y, x = (slice(i, i + n) for i, n in zip(start, size, strict=True))
    return z, y, x


KINDS: dict[str, Callable[[Shape, np.random.Generator], list[Selection]]] = {
    "whole": _part(1, 1, 1),
    "box": _boxes,
    "slice_z": _planes(0),
    "slice_y": _planes(1),
    "slice_x": _planes(2),
    "chunk": _chunks,
    "points": _points,
    "half": _part(2, 1, 1),
    "quarter": _part(2, 2, 1),
    "eighth": _part(2, 2, 2),
}
