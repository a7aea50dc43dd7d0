"""Parts of single chunks, for codecs that fetch their chunks themselves, as zarr's own pipeline lets them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from storefs.chunk_reader import ChunkReader
from storefs.keys import CHUNK_FOLDER
from storefs.lane import Lane
from storefs.model import ChunkId
from storefs.workers import cores

if TYPE_CHECKING:
    from storefs.source import Source
    from storefs_codecs.chunk_codec import Array


class Parts:
    """Reads parts of the chunks that keys name; `resolve` gives the volume that a path lies in, and the zarr key.

    Safe across threads, event loops and fork.
    """

    def __init__(self, resolve: Callable[[str], Awaitable[tuple[Source, str]]]) -> None:
        self._resolve = resolve
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._arrays: dict[str, _Array] = {}
        self._lanes: dict[Source, Lane] = {}

    async def read(self, path: str, selection: Any) -> Array | None:  # noqa: ANN401  # zarr's selectors are untyped
        """The voxels at `selection` of the chunk (zarr v3) at `path` as it is shown; None where it is absent.

        Raises DecodeError, Unsupported, MissingChunk or a TransportError, each naming chunk and URL.
        """
        if self._pid != os.getpid():
            self._reset()  # the threads of a lane stay with the parent
        folder, _, numbers = f"/{path}".rpartition(f"/{CHUNK_FOLDER}")
        array = self._arrays.get(folder)
        if array is None:
            array = await self._open(path)
            if array is None:
                return None
            self._arrays[folder] = array
        chunk = array.chunk(numbers)
        return None if chunk is None else await array.read(chunk, selection)

    async def _open(self, path: str) -> _Array | None:
        source, key = await self._resolve(path)
        volume = await source.opened()
        chunk = volume.chunk(key)
        if chunk is None:
            return None
        reader = ChunkReader(source, volume, volume.node(chunk))
        width = cores() if reader.local else int(volume.transport.concurrency)
        lane = Lane(width, inline=reader.local)
        return _Array(reader, lane if reader.local else self._lanes.setdefault(source, lane))


class _Array:
    """One array. What merges the ranges that are asked for at once does so on the event loop."""

    def __init__(self, reader: ChunkReader, lane: Lane) -> None:
        self.reader = reader
        self.lane = lane
        self.cells = reader.grid.cells
        shares = reader.batch is not None and reader.batch.batches([self._first]) is not None
        self.merges = shares and not reader.volume.transport.blocking

    @property
    def _first(self) -> ChunkId:
        return ChunkId(self.reader.node.path, (0,) * len(self.cells))

    def chunk(self, numbers: str) -> ChunkId | None:
        """The chunk of that place in the grid, written as in a key; None outside."""
        index = self.reader.volume.presentation.flip(tuple(map(int, numbers.split("/"))))
        inside = len(index) == len(self.cells) and all(0 <= i < n for i, n in zip(index, self.cells, strict=True))
        return ChunkId(self.reader.node.path, index) if inside else None

    async def read(self, chunk: ChunkId, selection: Any) -> Array | None:  # noqa: ANN401  # zarr's selectors are untyped
        """The voxels at `selection` of `chunk`."""
        reader = self.reader
        found: Array | None
        if self.merges and not (reader.decoded is not None and chunk in reader.decoded):
            stored = await reader.source.stored_async(reader.volume, chunk)
            found = await self.lane.run(partial(reader.part_of, chunk, stored, selection))
        else:
            found = await self.lane.run(partial(reader.part, chunk, selection))
        return found
