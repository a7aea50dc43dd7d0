"""Decoded chunks kept in memory: a number of bytes of them, those used longest ago dropped first."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from storefs.model import ChunkId
from storefs.tally import Tally
from storefs_codecs.chunk_codec import Array


class ChunkCache:
    """Decoded chunks of one volume, in stored order and of their true extent; a fork begins with none.

    Safe across threads. What is in it is read only.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.tally = Tally()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._chunks: OrderedDict[ChunkId, Array] = OrderedDict()
        self._nbytes = 0
        self._written: set[ChunkId] = set()
        self._written_arrays: set[str] = set()

    def get(self, chunk: ChunkId) -> Array | None:
        """The voxels of `chunk`, read only; None where they are not here."""
        with self._held():
            voxels = self._chunks.get(chunk)
            if voxels is not None:
                self._chunks.move_to_end(chunk)
        self.tally.add(
            hits=voxels is not None, misses=voxels is None, bytes_read=0 if voxels is None else voxels.nbytes
        )
        return voxels

    def __contains__(self, chunk: ChunkId) -> bool:
        with self._held():
            return chunk in self._chunks

    def put(self, chunk: ChunkId, voxels: Array) -> None:
        """Keep `voxels`, of the chunk's true extent in stored order.

        An array that owns its memory is kept as it is and becomes read only; of any other a copy is kept. Chunks that
        have been written through this store, and what a server may derive from them, are not kept any more.
        """
        if voxels.nbytes > self.max_bytes:
            return
        kept = _owned(voxels)
        with self._held():
            if chunk in self._written or self._written_arrays - {chunk.array}:
                return
            self._drop(chunk)
            self._chunks[chunk] = kept
            self._nbytes += kept.nbytes
            while self._nbytes > self.max_bytes:
                self._drop(next(iter(self._chunks)))
        self.tally.add(bytes_written=kept.nbytes)

    def written(self, chunk: ChunkId) -> None:
        """Forget `chunk`, which is written, and for good: somebody may be about to put what was there before.

        Other arrays are forgotten too, as lower scales follow at a time that the server chooses.
        """
        with self._held():
            self._written.add(chunk)
            self._written_arrays.add(chunk.array)
            for other in [c for c in self._chunks if c == chunk or c.array != chunk.array]:
                self._drop(other)

    def clear(self, dropped: Callable[[ChunkId], bool] | None = None) -> None:
        """Forget all chunks, or those that `dropped` says."""
        with self._held():
            for chunk in [c for c in self._chunks if dropped is None or dropped(c)]:
                self._drop(chunk)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        with self._held():
            return self._nbytes

    def __len__(self) -> int:
        with self._held():
            return len(self._chunks)

    def _held(self) -> threading.Lock:
        if self._pid != os.getpid():
            self._reset()  # the parent's lock may be held for ever
        return self._lock

    def _drop(self, chunk: ChunkId) -> None:
        voxels = self._chunks.pop(chunk, None)
        if voxels is not None:
            self._nbytes -= voxels.nbytes


def _owned(voxels: Array) -> Array:
    """`voxels` as a read-only array that keeps no other memory alive."""
    base = voxels if voxels.base is None else voxels.base
    owner = isinstance(base, np.ndarray) and base.base is None and base.nbytes == voxels.nbytes
    if not owner or not voxels.flags.c_contiguous:
        voxels = base = voxels.copy(order="C")
    base.flags.writeable = False
    voxels.flags.writeable = False
    return voxels
