"""Source: drives a backend over a transport. The only thing with state.

Everything a zarr store or a filesystem needs of a volume: its documents, its chunks, and whether a chunk is there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from storefs.backend import Choosing, Opener, Payload, Stored, Transport, Volatile
from storefs.chunk_cache import ChunkCache
from storefs.errors import Changing, MissingChunk, NoSuchVolume, StorefsError, TransportError, Unsupported, UrlError
from storefs.face import show, show_absent, shows_absent
from storefs.fetching import Fetching
from storefs.listing import batches, chunk_keys_under, documents_under, names_below
from storefs.model import ChunkId, Presentation
from storefs.once import OnceCache
from storefs.opened import Opened, describe, describe_async
from storefs.options import Keeping
from storefs.plans import Once, Plan, Request, drive, drive_async
from storefs.progress import Progress, progress_of
from storefs.tally import Tally
from storefs_codecs.errors import DecodeError

T = TypeVar("T")

INDEX_CACHE_BYTES = 256 << 20
LISTED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """What a process has seen of a volume: options by which it `chose` among mirrors, and `layouts` of arrays."""

    chose: Mapping[str, str]
    layouts: Mapping[str, str]


class Source:
    """One volume, read through `transport`, shown as `presentation` says, kept as `keeping` says.

    `decoded` is the cache of decoded chunks, None where there is none, `indexes` that of shard indexes; `tally` counts
    what is asked for, `disk_tally` how the cache on disk serves.

    `expected` are layouts of arrays that another process has seen: others are an error, as zarr knows no better.

    Lazy: the first question opens the volume with one request. Safe across threads, event loops and fork.
    """

    def __init__(
        self,
        transport: Transport,
        opener: Opener,
        presentation: Presentation,
        *,
        missing: str = "fill",
        keeping: Keeping = Keeping(),  # noqa: B008  # it is frozen
    ) -> None:
        self.tally = Tally()
        self.disk_tally = Tally()
        self.keeping = keeping
        self.transport = Fetching(transport, keeping, self.tally, self.disk_tally)
        self.opener = opener
        self.presentation = presentation
        self.missing = missing
        self._opening = OnceCache(1)
        self.indexes = OnceCache(INDEX_CACHE_BYTES)
        self.decoded = ChunkCache(keeping.memory_cache) if keeping.memory_cache else None
        self._progress = os.getpid(), progress_of(keeping.progress)
        self._volume: Opened | None = None
        self.expected: Mapping[str, str] = {}

    @property
    def progress(self) -> Progress | None:
        """Who is told of long reads, None where nobody is; in a fork, by means of its own."""
        if self._progress[0] != os.getpid():
            self._progress = os.getpid(), progress_of(self.keeping.progress)
        return self._progress[1]

    @property
    def url(self) -> str:
        """Address of the volume, without secrets."""
        return self.transport.url

    # opening

    async def open_async(self) -> Opened:
        """The described volume. Raises NoSuchVolume, MetadataError, TransportError."""
        if self._volume is None:
            self._volume = await self._opening.get_async("volume", self._open_async)
        return self._volume

    async def opened(self) -> Opened:
        """The described volume, for those who read it: NoSuchVolume comes as TransportError.

        Zarr takes a FileNotFoundError for "nothing here", fills in zeros and loses the message.
        """
        try:
            return await self.open_async()
        except NoSuchVolume as error:
            raise TransportError(error.message, url=error.url) from error

    def open(self) -> Opened:
        """The described volume, opened in this thread. Raises NoSuchVolume, MetadataError, TransportError."""
        if self._volume is None:
            self._volume = self._opening.get("volume", self._open)
        return self._volume

    async def _open_async(self) -> Opened:
        self._prepare()
        return self._settled(await describe_async(self.transport, self.opener, self.presentation))

    def _open(self) -> Opened:
        self._prepare()
        return self._settled(describe(self.transport, self.opener, self.presentation))

    def _prepare(self) -> None:
        disk = self.transport.disk
        if disk is not None and not self.keeping.offline:
            try:
                disk.prepare()
            except OSError as error:
                raise UrlError(f"option cache: {disk.root} cannot be written: {error}", url=self.url) from error

    def _settled(self, volume: Opened) -> Opened:
        reason = volume.backend.changes if isinstance(volume.backend, Volatile) else None
        if reason and self.keeping.cache is not None:
            raise Changing(f"{reason}, so they cannot be kept: leave out cache=", url=self.url)
        changed = [path for path, layout in self.expected.items() if volume.layouts.get(path, layout) != layout]
        if changed:
            raise TransportError(
                f"array {changed[0]!r} does not look as it did when it was opened in another process, such as on "
                "another mirror: its chunks would be taken for others; open it anew",
                url=self.url,
            )
        if isinstance(volume.transport, Fetching):
            volume.transport = volume.transport.settled()
        return volume

    @property
    def seen(self) -> Seen:
        """What another process needs to see the same volume; nothing before this one has."""
        if self._volume is None:
            return Seen({}, self.expected)
        backend = self._volume.backend
        return Seen(backend.chosen if isinstance(backend, Choosing) else {}, self._volume.layouts)

    # keys

    async def get(self, key: str) -> Payload | None:
        """The bytes under a zarr key: a document or a chunk; None where there are none."""
        volume = await self.opened()
        document = volume.documents.get(key)
        if document is not None:
            return document
        chunk = volume.chunk(key)
        return None if chunk is None else await self.read(chunk)

    async def exists(self, key: str) -> bool:
        """Whether `key` names a document, or a chunk that the source has."""
        volume = await self.opened()
        chunk = volume.chunk(key)
        if key in volume.documents or chunk is None:
            return key in volume.documents
        if shows_absent(self.presentation) and self.missing == "fill":
            return True
        return await self._run_async(volume, volume.backend.exists(chunk), chunk)

    async def is_leaf(self, key: str) -> bool:
        """Whether `key` names a document, or a chunk of the grid whether stored or not."""
        volume = await self.opened()
        return key in volume.documents or volume.chunk(key) is not None

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Every key that begins with `prefix`: documents first, then the chunks that the source has."""
        volume = await self.opened()
        for key in documents_under(volume, prefix):
            yield key
        for batch in batches(chunk_keys_under(volume, prefix), LISTED_AT_ONCE):
            for key, stored in zip(batch, await asyncio.gather(*map(self.exists, batch)), strict=True):
                if stored:
                    yield key

    async def list_dir(self, folder: str) -> list[str]:
        """Names directly below `folder`: of documents and groups, and of chunks by their place in the grid."""
        return names_below(await self.opened(), folder)

    # chunks

    async def read(self, chunk: ChunkId) -> Payload | None:
        """The chunk as its zarr codec reads it; None where it is absent and zarr is to fill it.

        Raises DecodeError, Unsupported, MissingChunk or a TransportError, each naming chunk and URL.
        """
        volume = await self.opened()
        if volume.transport.blocking:
            return await asyncio.to_thread(self.read_in_thread, volume, chunk)
        stored = await self.stored_async(volume, chunk)
        if callable(stored) or self.presentation.face == "portable":
            return await asyncio.to_thread(self._show, volume, chunk, stored)
        return self._show(volume, chunk, stored)

    async def stored_async(self, volume: Opened, chunk: ChunkId) -> Stored | None:
        """The chunk as the source has it, fetched on the running event loop; None where absent. Raises as `read`."""
        self._check_supported(volume, chunk)
        return await self._run_async(volume, volume.backend.read(chunk), chunk)

    def stored_in_thread(self, volume: Opened, chunk: ChunkId) -> Stored | None:
        """The chunk as the source has it, fetched in this thread; None where absent. Raises as `read` does."""
        self._check_supported(volume, chunk)
        return self.run(volume, volume.backend.read(chunk), chunk)

    def read_in_thread(self, volume: Opened, chunk: ChunkId) -> Payload | None:
        """What `read` gives, fetched and shown in this thread."""
        return self._show(volume, chunk, self.stored_in_thread(volume, chunk))

    def _check_supported(self, volume: Opened, chunk: ChunkId) -> None:
        reason = volume.node(chunk).unsupported
        if reason:
            raise Unsupported(reason, url=self.url, chunk=volume.backend.name(chunk))

    def _show(self, volume: Opened, chunk: ChunkId, stored: Stored | None) -> Payload | None:
        node = volume.node(chunk)
        if stored is not None:
            extent = volume.extent(chunk)
            return volume.decode(chunk, lambda: show(_made(stored), node, extent, self.presentation))
        self.check_absence(volume, chunk)
        return show_absent(node, self.presentation)

    def check_absence(self, volume: Opened, chunk: ChunkId) -> None:
        """Count `chunk`, which is absent. Raises MissingChunk where it may not be."""
        self.tally.add(chunks_absent=1)
        if self.missing == "error":
            raise MissingChunk(
                'the chunk is not stored (missing="fill" reads it as the fill value)',
                url=self.url,
                chunk=volume.backend.name(chunk),
            )

    # driving

    def run(self, volume: Opened, plan: Plan[T], chunk: ChunkId) -> T:
        """Run a plan about `chunk` in this thread; errors name the chunk."""

        def answer(request: Request) -> Any:  # noqa: ANN401  # answers differ by request
            if isinstance(request, Once):
                return self.indexes.get(request.key, lambda: drive(request.plan(), answer))
            return transport.fetch(request)

        transport = about(volume.transport, chunk.array)
        try:
            return drive(plan, answer)
        except (StorefsError, DecodeError) as error:
            raise volume.located(error, chunk) from error

    async def _run_async(self, volume: Opened, plan: Plan[T], chunk: ChunkId) -> T:
        async def answer(request: Request) -> Any:  # noqa: ANN401  # answers differ by request
            if isinstance(request, Once):
                return await self.indexes.get_async(request.key, lambda: drive_async(request.plan(), answer))
            return await transport.fetch_async(request)

        transport = about(volume.transport, chunk.array)
        try:
            return await drive_async(plan, answer)
        except (StorefsError, DecodeError) as error:
            raise volume.located(error, chunk) from error

    def written(self, chunk: ChunkId) -> None:
        """Forget what writing to `chunk` changes; to be told before it is written."""
        if self.decoded is not None:
            self.decoded.written(chunk)


def about(transport: Transport, array: str) -> Transport:
    """`transport` for requests about one array."""
    return transport.about(array) if isinstance(transport, Fetching) else transport


def _made(stored: Stored) -> Payload:
    return stored() if callable(stored) else stored
