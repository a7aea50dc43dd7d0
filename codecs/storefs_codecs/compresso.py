"""compresso: labels as boundary bits in windows, and one label for every component between the boundaries.

The decoder is our own: the `compresso` package believes what a stream says of itself, so it only encodes.

Format: https://github.com/seung-lab/compresso (versions 0 and 1)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import compresso
import numpy as np

from storefs_codecs.chunk_codec import SPATIAL_AXES, ChunkCodec, as_czyx
from storefs_codecs.compresso_stream import CODEC_ID, CONNECTIVITIES, WINDOW_BITS, CompressoStream
from storefs_codecs.errors import DecodeError, EncodeError
from storefs_codecs.mask_components import Indices, Mask, MaskRuns, run_lengths
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    import numpy.typing as npt

    from storefs_codecs.chunk_codec import Array

MAX_EXTENT = 65535
ESCAPE = 6
FIRST_LABEL = 7
SLAB_VOXELS = 1 << 18


class Compresso(ChunkCodec):
    """Segmentation labels, one channel.

    Parameters
    ----------
    shape
        Full chunk shape, `(z, y, x)` or `(1, z, y, x)`, no axis longer than 65535.
    dtype
        `uint8`, `uint16`, `uint32` or `uint64`.
    steps
        Window shape `(x, y, z)` used when encoding, at most 64 voxels; by default `(4, 4, 1)` or, where that
        holds too many distinct windows, `(8, 8, 1)`.
    connectivity
        Used when encoding: 4 joins components within a slice, 6 across slices too.

    """

    codec_id = CODEC_ID
    dtypes = frozenset({"uint8", "uint16", "uint32", "uint64"})

    def __init__(
        self,
        shape: tuple[int, ...] | list[int],
        dtype: npt.DTypeLike,
        steps: tuple[int, int, int] | list[int] | None = None,
        connectivity: int = 4,
    ) -> None:
        super().__init__(shape, dtype)
        if as_czyx(self.shape)[0] != 1 or max(self.shape) > MAX_EXTENT:
            raise ValueError(f"{CODEC_ID}: one channel, axes up to {MAX_EXTENT}; got shape {self.shape}")
        if connectivity not in CONNECTIVITIES:
            raise ValueError(f"{CODEC_ID}: connectivity must be 4 or 6, got {connectivity}")
        self.steps = None if steps is None else tuple(int(n) for n in steps)
        self.connectivity = connectivity
        if self.steps is not None and not _are_steps(self.steps):
            raise ValueError(f"{CODEC_ID}: steps must be (x, y, z), at most {WINDOW_BITS} voxels; got {steps}")

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        stream = CompressoStream.parse(payload, as_czyx(extent)[1:], self.dtype)
        interior = stream.interior()
        labels = _component_labels(stream, interior)
        _fill_boundaries(labels, stream, interior)
        chunk = labels.reshape(extent)
        if out is None:
            return chunk
        out[...] = chunk
        return out

    def _encode(self, chunk: Array) -> bytes:
        volume = chunk.reshape(as_czyx(chunk.shape)[1:]).T
        options = {} if self.steps is None else {"steps": self.steps}
        indexed = self.connectivity == CONNECTIVITIES[0]
        try:
            payload = compresso.compress(
                volume, connectivity=self.connectivity, random_access_z_index=indexed, **options
            )
        except (compresso.EncodeError, RuntimeError, ValueError) as error:
            raise EncodeError(CODEC_ID, str(error)) from error
        return bytes(payload)


class CompressoCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.compresso"."""

    numcodec: ClassVar[type[ChunkCodec]] = Compresso


def _are_steps(steps: tuple[int, ...]) -> bool:
    return len(steps) == SPATIAL_AXES and min(steps) > 0 and math.prod(steps) <= WINDOW_BITS


def _component_labels(stream: CompressoStream, interior: Mask) -> Array:
    """Flat labels: right inside components and one voxel to their right, anything elsewhere."""
    labels = np.empty(interior.shape, stream.ids.dtype)
    across = stream.connectivity == CONNECTIVITIES[1]
    _, sy, sx = stream.shape
    slab = len(interior) if across else max(1, SLAB_VOXELS // (sy * sx))
    seen = 0
    for z in range(0, len(interior), slab):
        part = interior[z : z + slab]
        runs = MaskRuns.of(part, across_slices=across)
        ids = stream.ids[seen : seen + runs.count]
        seen += runs.count
        if ids.size == runs.count > 0:
            labels[z : z + slab].reshape(-1)[:] = np.repeat(ids[runs.components], run_lengths(runs.starts, part.size))
    if seen != stream.ids.size:
        raise DecodeError(CODEC_ID, "wrong count of labels", f"{seen} components", stream.ids.size)
    return labels.reshape(-1)


def _fill_boundaries(labels: Array, stream: CompressoStream, interior: Mask) -> None:
    """Settle the boundary voxels; those with a left neighbour inside a component are settled already."""
    undecided = ~interior
    np.greater(undecided[:, :, 1:], interior[:, :, :-1], out=undecided[:, :, 1:])
    at = np.flatnonzero(undecided)
    inside = interior.reshape(-1)
    _, sy, sx = stream.shape
    at = _copy_from_before(labels, inside, at, sx, at // sx % sy > 0)
    if stream.connectivity == CONNECTIVITIES[1]:
        at = _copy_from_before(labels, inside, at, sx * sy, at >= sx * sy)
    _follow_hints(labels, inside, at, stream)


def _copy_from_before(labels: Array, inside: Mask, at: Indices, distance: int, within: Mask) -> Indices:
    """Copy the label `distance` earlier where that voxel is inside a component; the positions left over."""
    known = within & inside[at - distance]
    settled = at[known]
    labels[settled] = labels[settled - distance]
    return at[~known]


def _follow_hints(labels: Array, inside: Mask, at: Indices, stream: CompressoStream) -> None:
    """Settle the voxels `at` (ascending) by the stream's locations: neighbours' labels, or labels told."""
    hints, told = _split_hints(stream.locations)
    if hints.size != at.size:
        raise DecodeError(CODEC_ID, "wrong count of locations", at.size, hints.size)
    literal = hints >= ESCAPE
    labels[at[literal]] = told[literal]

    pointing = np.flatnonzero(~literal)
    source = _neighbours(at[pointing], hints[pointing].astype(np.intp), stream.shape)
    chained = ~inside[source]
    if np.any(chained & (hints[pointing] % 2 == 1)):
        raise DecodeError(CODEC_ID, "a location points at a voxel that is not settled yet")
    labels[at[pointing[~chained]]] = labels[source[~chained]]
    if chained.any():
        _follow_chains(labels, at, pointing[chained], source[chained])


def _split_hints(locations: Array) -> tuple[Array, Array]:
    """One hint for every voxel, and the labels that they tell (meaningless where one points at a neighbour).

    A hint of 6 says that the next entry is the label; greater hints are the label plus 7.
    """
    escapes = locations == ESCAPE
    if not escapes.any():
        return locations, locations - FIRST_LABEL
    order = np.arange(locations.size)
    since_other = order - np.maximum.accumulate(np.where(escapes, -1, order))
    escapes &= since_other % 2 == 1
    if escapes[-1]:
        raise DecodeError(CODEC_ID, "the last location lacks its label")
    is_hint = np.ones(locations.size, np.bool_)
    is_hint[1:] = ~escapes[:-1]
    hint_at = np.flatnonzero(is_hint)
    hints = locations[hint_at]
    escaped = escapes[hint_at]
    told = hints - FIRST_LABEL
    told[escaped] = locations[hint_at[escaped] + 1]
    return hints, told


def _neighbours(at: Indices, hints: Indices, shape: tuple[int, int, int]) -> Indices:
    """The flat positions that hints 0 to 5 point at: x-1, x+1, y-1, y+1, z-1, z+1."""
    sz, sy, sx = shape
    axis, forward = hints // 2, hints % 2 == 1
    position = np.stack((at % sx, at // sx % sy, at // (sx * sy)))[axis, np.arange(at.size)]
    last = np.array((sx, sy, sz))[axis] - 1
    if np.any(position == np.where(forward, last, 0)):
        raise DecodeError(CODEC_ID, "a location points out of the chunk")
    distance = np.array((1, sx, sx * sy))[axis]
    return at + np.where(forward, distance, -distance)


def _follow_chains(labels: Array, at: Indices, pointing: Indices, source: Indices) -> None:
    """Settle the voxels `at[pointing]` from earlier boundary voxels, which may point further back."""
    found = np.searchsorted(at, source)
    in_chain = (found < at.size) & (at[np.minimum(found, at.size - 1)] == source)
    settled = pointing[~in_chain]
    labels[at[settled]] = labels[source[~in_chain]]
    back = np.arange(at.size)
    back[pointing[in_chain]] = found[in_chain]
    while not np.array_equal(further := back[back], back):
        back = further
    labels[at] = labels[at[back]]
