"""Boxes of voxels as callers write them, and as DVID does.

A box is `(start, stop)`, stop exclusive, in the order of `axes`: z, y, x by default.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Triple = tuple[int, int, int]
Axes = Literal["zyx", "xyz"]
BoxLike = tuple[Sequence[int], Sequence[int]]

_SMALLEST, _LARGEST = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Box:
    """First voxel and size, x, y, z."""

    offset: Triple
    size: Triple

    @property
    def shape(self) -> Triple:
        """Of an array that holds the box: z, y, x."""
        return self.size[::-1]

    @property
    def voxels(self) -> int:
        """How many there are."""
        return math.prod(self.size)

    @property
    def stop(self) -> Triple:
        """The voxel behind the last on each axis."""
        x, y, z = (o + s for o, s in zip(self.offset, self.size, strict=True))
        return x, y, z

    def is_aligned(self, block: Triple) -> bool:
        """Whether the box is made of whole blocks."""
        return all(not o % b and not s % b for o, s, b in zip(self.offset, self.size, block, strict=True))

    def cells(self, block: Triple) -> tuple[Triple, Triple]:
        """First block that the box touches, and how many along each axis."""
        x, y, z = (o // b for o, b in zip(self.offset, block, strict=True))
        nx, ny, nz = (-(-e // b) - f for e, b, f in zip(self.stop, block, (x, y, z), strict=True))
        return (x, y, z), (nx, ny, nz)


def read_box(box: BoxLike, axes: Axes = "zyx") -> Box:
    """`box` as DVID counts. Raises ValueError for an empty box, and for one that int32 cannot name."""
    start, stop = (triple(corner, axes) for corner in box)
    return sized_box(start, tuple(e - s for s, e in zip(start, stop, strict=True)))


def sized_box(offset_xyz: Sequence[int], size_xyz: Sequence[int]) -> Box:
    """The box of `size_xyz` voxels from `offset_xyz` on. Raises ValueError."""
    ox, oy, oz = offset_xyz
    sx, sy, sz = size_xyz
    if min(sx, sy, sz) < 1:
        raise ValueError(f"a box holds at least one voxel; this one has size {sx}, {sy}, {sz} (x, y, z)")
    if min(ox, oy, oz) < _SMALLEST or max(ox + sx, oy + sy, oz + sz) > _LARGEST:
        raise ValueError(f"a coordinate of this box does not fit DVID's 32 bits: {tuple(offset_xyz)}")
    return Box((ox, oy, oz), (sx, sy, sz))


def triple(values: Sequence[int], axes: Axes = "zyx") -> Triple:
    """Three whole numbers in the order of `axes`, as x, y, z. Raises ValueError."""
    if axes not in ("zyx", "xyz"):
        raise ValueError(f"axes: expected 'zyx' or 'xyz', got {axes!r}")
    if len(values) != 3:  # noqa: PLR2004  # x, y and z
        raise ValueError(f"expected three numbers {', '.join(axes)}, got {tuple(values)}")
    a, b, c = (operator.index(n) for n in values)
    return (c, b, a) if axes == "zyx" else (a, b, c)
