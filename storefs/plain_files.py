"""Plain files: chunks that are files of mere voxels, of which just what is wanted is read, to where it goes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np

from storefs.backend import SupportsObjects, Transport
from storefs.fetching import Fetching
from storefs.grid import Grid
from storefs.model import ArrayNode, ChunkId
from storefs.tally import Tally
from storefs.window import Lie, Slices, lie
from storefs_codecs.chunk_codec import Array
from storefs_codecs.recycled import recycled

_BYTE = np.dtype(np.uint8)


class PlainFiles:
    """Reads chunks of one array from files. Whatever is no such file, or not as long as it should be, is left alone."""

    def __init__(self, node: ArrayNode, objects: SupportsObjects, transport: Fetching, tally: Tally) -> None:
        self._grid = Grid(node.shape, node.chunk_shape)
        self._dtype = np.dtype(node.dtype)
        self._objects = objects
        self._fill = transport.fill
        self._tally = tally

    def fill(self, chunk: ChunkId, target: Array) -> bool:
        """Read all of `chunk` into `target`; False where that is not done."""
        found = self._objects.object_of(chunk)
        if found is None or not target.flags.c_contiguous or target.dtype != self._dtype:
            return False
        filled = self._fill(found.path, target.reshape(-1).view(np.uint8).data, 0, target.nbytes)
        if filled:
            self._tally.add(chunks_decoded=1)
        return filled

    def whole(self, chunk: ChunkId) -> Array | None:
        """All of `chunk`, of its true extent in stored order; None where that is not read."""
        voxels = recycled().empty(self._grid.extent(chunk.index), self._dtype)
        return voxels if self.fill(chunk, voxels) else None

    def part(
        self, chunk: ChunkId, inside: Slices, memory_for: Callable[[int], memoryview | None] | None = None
    ) -> Array | None:
        """The voxels `inside`, in memory that is asked for by its bytes; None where that is not read."""
        found = self._objects.object_of(chunk)
        extent, itemsize = self._grid.extent(chunk.index), self._dtype.itemsize
        lies: Lie = lie(inside, extent, itemsize)
        memory = (memory_for or _lent)(lies.nbytes)
        size = math.prod(extent) * itemsize
        if found is None or memory is None or not self._fill(found.path, memory, lies.start, size):
            return None
        self._tally.add(chunks_decoded=1)
        voxels: Array = np.ndarray(lies.shape, self._dtype, memory, 0, lies.strides)
        return voxels


def plain_files(
    node: ArrayNode, objects: SupportsObjects | None, transport: Transport, tally: Tally
) -> PlainFiles | None:
    """How to read chunks of the array as plain files; None where they are none in this machine's byte order."""
    plain = node.encoding.name == "raw" and sys.byteorder == "little"
    if objects is None or not plain or not isinstance(transport, Fetching) or not transport.local:
        return None
    return PlainFiles(node, objects, transport, tally)


def _lent(nbytes: int) -> memoryview:
    return recycled().empty((nbytes,), _BYTE).data
