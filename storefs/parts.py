"""Parts of single chunks, for codecs that fetch their chunks themselves, as zarr's own pipeline lets them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from storefs.chunk_reader import ChunkReader
from storefs.errors import StorefsError
from storefs.keys import CHUNK_FOLDER
from storefs.lane import Answer, Lane
from storefs.model import ChunkId
from storefs.spans import LONGEST
from storefs.workers import cores
from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from storefs.backend import Stored
    from storefs.source import Source
    from storefs.spans import Span
    from storefs.together import Together
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
            opened = await self._open(path)
            if opened is None:
                return None
            array = self._arrays.setdefault(folder, opened)  # others may have been quicker
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


class _Asked(NamedTuple):
    """A part of a chunk that somebody waits for."""

    chunk: ChunkId
    selection: Any
    answer: Answer


class _Array:
    """One array. Chunks that share objects, and are asked for at the same moment, are read together."""

    def __init__(self, reader: ChunkReader, lane: Lane) -> None:
        self.reader = reader
        self.lane = lane
        self.cells = reader.grid.cells
        self._waiting: dict[asyncio.AbstractEventLoop, list[_Asked]] = {}

    def chunk(self, numbers: str) -> ChunkId | None:
        """The chunk of that place in the grid, written as in a key; None outside."""
        index = self.reader.volume.presentation.flip(tuple(map(int, numbers.split("/"))))
        inside = len(index) == len(self.cells) and all(0 <= i < n for i, n in zip(index, self.cells, strict=True))
        return ChunkId(self.reader.node.path, index) if inside else None

    def read(self, chunk: ChunkId, selection: Any) -> asyncio.Future[Array | None]:  # noqa: ANN401  # zarr's selectors are untyped
        """The voxels at `selection` of `chunk`, awaited on the running event loop."""
        reader = self.reader
        if reader.together is None or reader.local or (reader.decoded is not None and chunk in reader.decoded):
            return self.lane.run(partial(reader.part, chunk, selection))
        loop = asyncio.get_running_loop()
        waiting = self._waiting.setdefault(loop, [])
        if not waiting:
            loop.call_soon(self._send, loop)
        waiting.append(_Asked(chunk, selection, Answer(loop)))
        return waiting[-1].answer.future

    # chunks that lie together; what is done in other threads never raises, as nobody would hear it

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting.pop(loop)
        self.lane.add(partial(_or_fail, waiting, partial(self._find, waiting)))

    def _find(self, waiting: list[_Asked]) -> None:
        shared = self.reader.together
        if shared is None:
            raise AssertionError("only what lies together waits")
        tasks: list[Callable[[], None]] = []
        for group in shared.groups([asked for asked in waiting if not asked.answer.future.done()]):
            try:
                absent, found = shared.find(group, LONGEST)
            except (StorefsError, DecodeError):  # one by one it shows which chunk it is about
                self._read_alone(group)
                continue
            for asked in absent:
                self._unpack(asked, None)
            for span in found:
                members = [asked for _, asked in span.members]
                tasks.append(partial(_or_fail, members, partial(self._fetch, shared, span, members)))
        self._spread(tasks)

    def _fetch(self, shared: Together, span: Span[_Asked], members: list[_Asked]) -> None:
        tasks: list[Callable[[], None]] = []
        try:
            for asked, stored in shared.fetch(span):
                tasks.append(partial(self._unpack, asked, stored))
        except DecodeError:  # of one, which is no fault of the others
            self._read_alone(members[len(tasks) :])
        self._spread(tasks)

    def _spread(self, tasks: list[Callable[[], None]]) -> None:
        """Have `tasks` done, the last of them here: changing threads takes time."""
        for task in tasks[:-1]:
            self.lane.add(task)
        if tasks:
            tasks[-1]()

    def _unpack(self, asked: _Asked, stored: Stored | None) -> None:
        asked.answer.give(partial(self.reader.part_of, asked.chunk, stored, asked.selection))

    def _read_alone(self, several: list[_Asked]) -> None:
        for asked in several:
            self.lane.add(partial(asked.answer.give, partial(self.reader.part, asked.chunk, asked.selection)))


def _or_fail(waiting: list[_Asked], work: Callable[[], None]) -> None:
    """Do `work`; whatever goes wrong is told to all who wait."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001  # handed to those who wait
        for asked in waiting:
            asked.answer.fail(error)
