"""The levels of a stack: how many, how big, and which slices are broken at each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from storefs.backends.catmaid.info import StackInfo, Triple
from storefs.errors import MetadataError


@dataclass(frozen=True, slots=True)
class Level:
    """One level: its number, which stands in addresses of tiles, its factors over level 0, and its size."""

    number: int
    factor_xyz: Triple
    shape_zyx: Triple


def levels_of(info: StackInfo) -> tuple[Level, ...]:
    """The levels of the stack, finest first; those too small for one pixel are left out. Raises MetadataError.

    Factors keep the top left corner. Tiles hold whole pixels only, hence floor in x and y; every slice is shown by
    some slice of each level, hence ceil in z.
    """
    width, height, depth = info.dimension_xyz
    levels = tuple(
        Level(number, (fx, fy, fz), (-(-depth // fz), height // fy, width // fx))
        for number, (fx, fy, fz) in enumerate(_factors(info))
        if height // fy and width // fx
    )
    if not levels:
        raise MetadataError("stack info: downsample_factors: at every level the stack is smaller than a pixel")
    return levels


def broken_at(info: StackInfo, level: Level) -> frozenset[int]:
    """The broken slices of a level: those of which every slice at full resolution is broken."""
    depth, step = info.dimension_xyz[2], level.factor_xyz[2]
    counts = Counter(z // step for z in info.broken_slices if 0 <= z < depth)
    return frozenset(d for d, n in counts.items() if n == min(step, depth - d * step))


def _factors(info: StackInfo) -> tuple[Triple, ...]:
    if info.downsample_factors is not None:
        return info.downsample_factors
    sides = [side for mirror in info.mirrors for side in (mirror.tile_width, mirror.tile_height)]
    longest = max(info.dimension_xyz[0] - 1, info.dimension_xyz[1] - 1)
    last = 0
    # halved until the last pixel of the longest side lies within the smallest tile
    while sides and longest > min(sides) << last:
        last += 1
    return tuple((1 << level, 1 << level, 1) for level in range(last + 1))
