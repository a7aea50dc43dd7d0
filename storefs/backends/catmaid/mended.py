"""Boxes of a stack that lies in a volume of another format, with other slices in place of broken ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

Position = tuple[int, ...]


class Readable(Protocol):
    """Voxels that come in boxes."""

    @property
    def dtype(self) -> str:
        """Of the voxels."""

    def read(self, start: Position, stop: Position, fill_value: int = 0) -> Plan[Array | None]:
        """Voxels from `start` to `stop` (zyx or czyx), None where there are none."""


def read_mended(
    view: Readable, start: Position, stop: Position, shown: Callable[[int], int | None], fill_value: int
) -> Plan[Array | None]:
    """Voxels from `start` to `stop` (zyx or czyx), None where there are none.

    `shown` says which slice stands for a slice, None for one that is filled, not asked for. Raises what reading does.
    """
    first, last = start[-3], stop[-3]
    slices = {depth: shown(depth) for depth in range(first, last)}
    if all(z is None for z in slices.values()):
        return None
    voxels: Array | None = yield from view.read(start, stop, fill_value)
    others = {depth: z for depth, z in slices.items() if z != depth}
    if not others:
        return voxels
    shape = tuple(b - a for a, b in zip(start, stop, strict=True))
    mended = np.full(shape, fill_value, view.dtype) if voxels is None else np.array(voxels, order="C")
    for depth, z in others.items():
        slab: Array | None = None
        if z is not None:
            low, high = (*start[:-3], z, *start[-2:]), (*stop[:-3], z + 1, *stop[-2:])
            slab = yield from view.read(low, high, fill_value)
        mended[..., depth - first : depth - first + 1, :, :] = fill_value if slab is None else slab
    return mended
