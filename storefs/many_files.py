"""Many files of mere voxels at a time: the kernel reads just what is wanted of them, to where it goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from storefs.grid import Grid
from storefs.kernels import file_parts
from storefs.window import Part, Piece, Scattered
from storefs.workers import MOST_SCRATCH, pool

if TYPE_CHECKING:
    from storefs.backend import SupportsObjects
    from storefs.kernels.file_parts import Kernel, Read
    from storefs.model import ArrayNode, ChunkId
    from storefs.tally import Tally
    from storefs_codecs.chunk_codec import Array

# of what is read in one call, an interrupt waits for the end
MOST_AT_ONCE, MOST_BYTES_AT_ONCE = 16, 32 << 20


class ManyFiles:
    """Reads parts of chunks of one array from files. Whatever is no such file, or not as long as it should be, is left.

    `path_of` is where the object at a path is in the file system; `flipped` where the array is shown transposed.
    """

    def __init__(
        self,
        node: ArrayNode,
        objects: SupportsObjects,
        path_of: Callable[[str], str],
        tally: Tally,
        *,
        flipped: bool,
    ) -> None:
        self._grid = Grid(node.shape, node.chunk_shape)
        self._dtype = np.dtype(node.dtype)
        self._objects = objects
        self._path_of = path_of
        self._tally = tally
        self._order = -1 if flipped else 1
        self._chunk_bytes = math.prod(node.chunk_shape) * self._dtype.itemsize

    def takes(self, result: Array) -> bool:
        """Whether parts of chunks can be read into `result`."""
        fits = result.dtype == self._dtype and result.ndim <= file_parts.MOST_AXES and result.flags.writeable
        return fits and file_parts.load() is not None

    def at_once(self, count: int, width: int) -> int:
        """How many of `count` chunks to read in one call, where `width` threads share them."""
        return max(1, min(MOST_AT_ONCE, MOST_BYTES_AT_ONCE // self._chunk_bytes, count // (2 * width)))

    def read(self, chunks: Sequence[ChunkId], pieces: Sequence[Part], result: Array) -> bytes:
        """Which of `pieces`, one a chunk, now lie in `result`, which is taken: 1 or 0 each."""
        nothing = bytes(len(chunks))
        kernel, scratch = file_parts.load(), pool().scratch(min(MOST_SCRATCH, self._chunk_bytes))
        boxes = [piece for piece in pieces if isinstance(piece, Piece)]
        points = [piece for piece in pieces if isinstance(piece, Scattered) and _are_points(piece.inside)]
        if kernel is None or scratch is None or len(chunks) not in (len(boxes), len(points)):
            return nothing
        try:
            if boxes:
                done, nbytes = self._read_boxes(kernel, chunks, boxes, result, scratch)
            else:
                done, nbytes = self._read_points(kernel, chunks, points, result, scratch)
        except ValueError:  # what can be no path
            return nothing
        count = sum(done)
        self._tally.add(requests=count, bytes_received=nbytes, chunks_decoded=count)
        return done

    def _paths(self, chunks: Sequence[ChunkId]) -> list[str]:
        requests = map(self._objects.object_of, chunks)
        return [self._path_of(request.path) for request in requests if request is not None]

    def _read_boxes(
        self, kernel: Kernel, chunks: Sequence[ChunkId], pieces: Sequence[Piece], result: Array, scratch: memoryview
    ) -> Read:
        alongs: list[int] = []
        for chunk, piece in zip(chunks, pieces, strict=True):
            for inside, target, length in zip(piece.inside, piece.target, self._grid.extent(chunk.index), strict=True):
                alongs += (inside.start, inside.stop, inside.step, target.start, length)
        return kernel.boxes(self._paths(chunks), alongs, result, scratch)

    def _read_points(
        self, kernel: Kernel, chunks: Sequence[ChunkId], pieces: Sequence[Scattered], result: Array, scratch: memoryview
    ) -> Read:
        itemsize = self._dtype.itemsize
        extents = np.array([self._grid.extent(chunk.index) for chunk in chunks], np.int64)
        counts = [len(piece.inside[0]) for piece in pieces]
        offsets = np.zeros(sum(counts), np.int64)
        for axis, along in enumerate(zip(*[piece.inside[:: self._order] for piece in pieces], strict=True)):
            at, lengths = np.concatenate(along), np.repeat(extents[:, axis], counts)
            if ((at < 0) | (at >= lengths)).any():
                raise ValueError("points lie in their chunks")
            offsets = offsets * lengths + at
        sizes = (extents.prod(axis=1) * itemsize).tolist()
        voxels = np.empty(len(offsets), self._dtype)
        read = kernel.points(self._paths(chunks), sizes, counts, offsets * itemsize, voxels, scratch)
        first = 0
        for is_read, count, piece in zip(read.done, counts, pieces, strict=True):
            if is_read:
                result[piece.target] = voxels[first : first + count]
            first += count
        return read


def _are_points(inside: Any) -> bool:  # noqa: ANN401  # in the words of numpy
    """Whether `inside` are coordinates, one array an axis."""
    if not isinstance(inside, tuple) or not all(isinstance(at, np.ndarray) for at in inside):
        return False
    return {at.ndim for at in inside} == {1} and len({len(at) for at in inside}) == 1 and inside[0].dtype.kind in "iu"
