"""Parts of a chunk that a codec decodes without the rest: boxes, and scattered voxels where they are few."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from storefs.selection import kept_axes, lattice
from storefs.window import Slices
from storefs_codecs.chunk_codec import Array, Bytes
from storefs_codecs.part_codec import PartCodec
from storefs_codecs.recycled import recycled

# where more is wanted, all is decoded as quickly: one voxel by itself takes as long as that many in rows
FEW = 16


class BoxPart(NamedTuple):
    """The voxels in `box`, stored order; shown with their axes turned around where `flipped`, at the index `kept`."""

    box: Slices
    kept: tuple[int | slice, ...]
    flipped: bool

    def decode(self, codec: PartCodec, payload: Bytes, extent: tuple[int, ...]) -> Array:
        """The voxels as the selection has them. Raises DecodeError."""
        lengths = tuple([-((s.start - s.stop) // s.step) for s in self.box])
        out = recycled().empty(lengths, codec.dtype)
        voxels = codec.decode_box(payload, self.box, extent=extent, out=out)
        shown: Array = (voxels.T if self.flipped else voxels)[self.kept]
        return shown


class PointsPart(NamedTuple):
    """The voxels at `points`, coordinates in the order of the stored axes."""

    points: tuple[Array, ...]

    def decode(self, codec: PartCodec, payload: Bytes, extent: tuple[int, ...]) -> Array | None:
        """The voxels as the selection has them; None where it reaches beyond `extent`. Raises DecodeError."""
        try:
            return codec.decode_points(payload, self.points, extent=extent)
        except IndexError:
            return None


def chunk_part(
    selection: Any,  # noqa: ANN401  # as numpy takes them
    chunk_shape: tuple[int, ...],
    extent: tuple[int, ...],
    *,
    flipped: bool,
) -> BoxPart | PointsPart | None:
    """The part of a chunk of `extent`, stored order, that `selection` takes of it as it is shown.

    None where it is best had from the whole chunk, or reaches beyond `extent`.
    """
    if isinstance(selection, tuple) and len(selection) == len(extent) and isinstance(selection[0], np.ndarray):
        return _points_part(selection, extent, flipped=flipped)
    order = -1 if flipped else 1
    shown = lattice(selection, chunk_shape[::order])
    if shown is None:
        return None
    box = shown[::order]
    if any(s.stop > n for s, n in zip(box, extent, strict=True)):
        return None
    if all(s.start == 0 and s.stop == n and s.step == 1 for s, n in zip(box, extent, strict=True)):
        return None
    return BoxPart(box, kept_axes(selection), flipped)


def _points_part(items: tuple[Any, ...], extent: tuple[int, ...], *, flipped: bool) -> PointsPart | None:
    if any(not isinstance(item, np.ndarray) or item.dtype.kind not in "iu" for item in items):
        return None
    count = items[0].size if len({item.shape for item in items}) == 1 else np.broadcast(*items).size
    if count * FEW > math.prod(extent):
        return None
    return PointsPart(items[::-1] if flipped else items)
