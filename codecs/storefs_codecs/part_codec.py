"""PartCodec: chunk encodings of which a part can be decoded without the rest, as boxes or single voxels."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from storefs_codecs.chunk_codec import Array, Bytes, ChunkCodec

Box = tuple[slice, ...]
Points = tuple[npt.NDArray[np.int64], ...]


class PartCodec(ChunkCodec):
    """Decodes parts of a chunk.

    Only what the part needs is looked at: damage elsewhere is not noticed. Where the whole chunk decodes, a part is
    what selecting from it gives.
    """

    @abstractmethod
    def _decode_box(self, payload: memoryview, extent: tuple[int, ...], box: Box, out: Array) -> None:
        """Write the voxels in `box`, which lies inside `extent` and is not empty, into `out` (any strides)."""

    @abstractmethod
    def _decode_points(self, payload: memoryview, extent: tuple[int, ...], points: Points, out: Array) -> None:
        """Write the voxels at `points`, contiguous coordinates along every axis, into `out` (flat, contiguous).

        Raises IndexError for points outside `extent`.
        """

    def decode_box(
        self,
        payload: Bytes,
        box: Box,
        *,
        extent: tuple[int, ...] | None = None,
        out: Array | None = None,
    ) -> Array:
        """The voxels in `box`, a slice of any positive step along every axis; `extent` as for `decode_chunk`.

        With `out` (the shape of the box, this dtype, any strides) they are written there. Raises DecodeError;
        IndexError where the box does not lie inside the chunk.
        """
        view, extent, absent = self.opened(payload, extent)
        shape = _lengths(box, extent)
        if out is None:
            out = np.empty(shape, self.dtype)
        elif out.shape != shape or out.dtype != self.dtype:
            raise ValueError(f"{self.codec_id}: out must be {shape} {self.dtype}, got {out.shape} {out.dtype}")
        elif not out.flags.writeable:
            raise ValueError(f"{self.codec_id}: out is read-only")
        if absent:
            out[...] = 0
        elif out.size:
            self._decode_box(view, extent, box, out)
        return out

    def decode_points(
        self,
        payload: Bytes,
        points: tuple[npt.NDArray[Any], ...],
        *,
        extent: tuple[int, ...] | None = None,
    ) -> Array:
        """The voxels at `points`: arrays of coordinates, one for every axis, that are broadcast against each other.

        `extent` as for `decode_chunk`. Raises DecodeError; IndexError where a point lies outside the chunk.
        """
        view, extent, absent = self.opened(payload, extent)
        if len(points) != len(extent) or any(along.dtype.kind not in "iu" for along in points):
            raise IndexError(f"{self.codec_id}: points need whole coordinates along {len(extent)} axes")
        shape = points[0].shape
        if any(along.shape != shape for along in points):
            points = np.broadcast_arrays(*points)
            shape = points[0].shape
        out = np.empty(shape, self.dtype)
        if absent:
            out[...] = 0
        elif out.size:
            flat = tuple([np.ascontiguousarray(along, np.int64).reshape(-1) for along in points])
            self._decode_points(view, extent, flat, out.reshape(-1))
        return out


def _lengths(box: Box, extent: tuple[int, ...]) -> tuple[int, ...]:
    """Voxels of `box` along every axis. Raises IndexError where it does not lie inside `extent`."""
    if len(box) != len(extent):
        raise IndexError(f"a box along {len(box)} axes in a chunk of {extent}")
    lengths = []
    for along, n in zip(box, extent, strict=True):
        step = 1 if along.step is None else along.step
        if not 0 <= along.start <= along.stop <= n or step < 1:
            raise IndexError(f"{along} lies outside an axis of {n}")
        lengths.append(-((along.start - along.stop) // step))
    return tuple(lengths)
