"""Coarser and coarser levels of a volume, each voxel aligned to those below in the volume's own coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Voxels = npt.NDArray[Any]
Triple = tuple[int, int, int]
Reduction = Callable[[Voxels], Voxels]


@dataclass(frozen=True, slots=True)
class Level:
    """One level: `voxels` (zyx) beginning at `offset_xyz` (voxels of this level), each `resolution_xyz` nm wide."""

    voxels: Voxels
    offset_xyz: Triple
    resolution_xyz: Triple


def build_pyramid(finest: Level, factors_xyz: list[Triple], reduction: Reduction) -> list[Level]:
    """`finest` and a level for each of `factors_xyz`, reduced from the one before: offsets floored, ends ceiled."""
    levels = [finest]
    for factor in factors_xyz:
        levels.append(_reduce(levels[-1], factor, reduction))
    return levels


def _reduce(level: Level, factor_xyz: Triple, reduction: Reduction) -> Level:
    factor = factor_xyz[::-1]
    padding = []
    for offset, size, f in zip(level.offset_xyz[::-1], level.voxels.shape, factor, strict=True):
        padding.append((offset % f, -(offset + size) % f))
    padded = np.pad(level.voxels, padding, mode="edge")
    z, y, x = (n // f for n, f in zip(padded.shape, factor, strict=True))
    blocks = padded.reshape(z, factor[0], y, factor[1], x, factor[2]).transpose(1, 3, 5, 0, 2, 4)
    offset_x, offset_y, offset_z = (o // f for o, f in zip(level.offset_xyz, factor_xyz, strict=True))
    nm_x, nm_y, nm_z = (r * f for r, f in zip(level.resolution_xyz, factor_xyz, strict=True))
    reduced = reduction(blocks.reshape(math.prod(factor), z, y, x))
    return Level(reduced, (offset_x, offset_y, offset_z), (nm_x, nm_y, nm_z))


def mean(blocks: Voxels) -> Voxels:
    """The rounded mean along the first axis: for images."""
    return np.asarray(np.rint(blocks.mean(axis=0, dtype=np.float32)).astype(blocks.dtype))


def mode(blocks: Voxels) -> Voxels:
    """The commonest value along the first axis, of equals the first: for labels, whose means mean nothing."""
    best = blocks[0].copy()
    most = np.zeros(best.shape, np.uint8)
    for candidate in blocks:
        votes = (blocks == candidate).sum(axis=0, dtype=np.uint8)
        best[votes > most] = candidate[votes > most]
        np.maximum(most, votes, out=most)
    return np.asarray(best)
