"""Source: drives a backend over a transport. The only thing with state.

Everything a zarr store or a filesystem needs of a volume: its documents, its chunks, and whether a chunk is there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from storefs.errors import MissingChunk, NoSuchVolume, StorefsError, TransportError, Unsupported, UrlError
from storefs.face import show, show_absent, shows_absent
from storefs.grid import Grid
from storefs.keys import chunk_folder, chunk_key, parse_chunk_key
from storefs.metadata import documents
from storefs.model import ChunkId, Hierarchy, Presentation
from storefs.once import OnceCache
from storefs.plan import Get, Head, Names, Once, Plan, Request, drive, drive_async
from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from storefs.plan import Body

T = TypeVar("T")
Payload = bytes | memoryview

INDEX_CACHE_BYTES = 256 << 20
MAX_REDIRECTS = 10
MAX_LISTED_CHUNKS = 10_000_000
LISTED_AT_ONCE = 64


class Backend(Protocol):
    """A described volume: pure, no I/O."""

    @property
    def hierarchy(self) -> Hierarchy:
        """What the volume looks like."""

    def name(self, chunk: ChunkId) -> str:
        """What the source calls `chunk`, for messages."""

    def read(self, chunk: ChunkId) -> Plan[Payload | None]:
        """The chunk's payload as its codec reads it, None where the source has no such chunk."""

    def exists(self, chunk: ChunkId) -> Plan[bool]:
        """Whether the source has the chunk."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The volume lives elsewhere: `url`, absolute or relative to the volume's own."""

    url: str


class Opener(Protocol):
    """How a backend describes a volume: one plan."""

    def __call__(self, url: str) -> Plan[Backend | Redirect]: ...


class Transport(Protocol):
    """Fetches the requests of one volume. Absent objects are None, every other failure raises a TransportError."""

    url: str
    blocking: bool  # True: fetching belongs in a worker thread (files), False: on the event loop (network)

    def fetch(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched in this thread."""

    async def fetch_async(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched on the running event loop."""

    def connect(self, url: str) -> Transport:
        """The transport of another volume with the same options; `url` absolute or relative to this one's."""


class Source:
    """One volume, read through `transport`, shown as `presentation` says.

    Lazy: the first question opens the volume with one request. Safe across threads, event loops and fork.
    """

    def __init__(
        self,
        transport: Transport,
        opener: Opener,
        presentation: Presentation,
        *,
        missing: str = "fill",
    ) -> None:
        self.transport = transport
        self.opener = opener
        self.presentation = presentation
        self.missing = missing
        self._cache = OnceCache(INDEX_CACHE_BYTES)
        self._volume: Opened | None = None

    @property
    def url(self) -> str:
        """Address of the volume, without secrets."""
        return self.transport.url

    # opening

    async def open_async(self) -> Opened:
        """The described volume. Raises NoSuchVolume, MetadataError, TransportError."""
        if self._volume is None:
            self._volume = await self._cache.get_async("volume", self._open_async)
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
            self._volume = self._cache.get("volume", self._open)
        return self._volume

    async def _open_async(self) -> Opened:
        hops = Hops(self.transport)
        while True:
            found = await drive_async(self.opener(hops.transport.url), hops.transport.fetch_async)  # type: ignore[arg-type]  # openers yield no Once
            if not isinstance(found, Redirect):
                return Opened(found, hops.transport, self.presentation)
            hops.follow(found)

    def _open(self) -> Opened:
        hops = Hops(self.transport)
        while True:
            found = drive(self.opener(hops.transport.url), hops.transport.fetch)  # type: ignore[arg-type]  # openers yield no Once
            if not isinstance(found, Redirect):
                return Opened(found, hops.transport, self.presentation)
            hops.follow(found)

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
        for key in volume.documents:
            if key.startswith(prefix):
                yield key
        for node in volume.backend.hierarchy.arrays_by_path.values():
            folder = chunk_folder(node.path, self.presentation)
            if not (folder.startswith(prefix) or prefix.startswith(folder)) or node.unsupported:
                continue
            grid = Grid(node.shape, node.chunk_shape)
            if grid.size > MAX_LISTED_CHUNKS:
                raise Unsupported(f"array {node.path} has {grid.size} chunks, too many to list", url=self.url)
            keys = (chunk_key(ChunkId(node.path, index), self.presentation) for index in grid)
            wanted = (key for key in keys if key.startswith(prefix))
            while batch := list(itertools.islice(wanted, LISTED_AT_ONCE)):
                for key, stored in zip(batch, await asyncio.gather(*map(self.exists, batch)), strict=True):
                    if stored:
                        yield key

    async def list_dir(self, folder: str) -> list[str]:
        """Names directly below `folder`: of documents and groups, and of chunks by their place in the grid."""
        volume = await self.opened()
        folder = folder.strip("/")
        prefix = folder + "/" if folder else ""
        names = {key[len(prefix) :].split("/")[0] for key in volume.documents if key.startswith(prefix)}
        for node in volume.backend.hierarchy.arrays_by_path.values():
            names |= _chunk_names(prefix, chunk_folder(node.path, self.presentation), self._shown_cells(node))
        return sorted(names)

    def _shown_cells(self, node: Any) -> tuple[int, ...]:  # noqa: ANN401
        return self.presentation.flip(Grid(node.shape, node.chunk_shape).cells)

    # chunks

    async def read(self, chunk: ChunkId) -> Payload | None:
        """The chunk as its zarr codec reads it; None where it is absent and zarr is to fill it.

        Raises DecodeError, Unsupported, MissingChunk or a TransportError, each naming chunk and URL.
        """
        volume = await self.opened()
        if volume.transport.blocking:
            return await asyncio.to_thread(self._read_in_thread, volume, chunk)
        self._check_supported(volume, chunk)
        stored = await self._run_async(volume, volume.backend.read(chunk), chunk)
        if self.presentation.face == "portable":
            return await asyncio.to_thread(self._show, volume, chunk, stored)
        return self._show(volume, chunk, stored)

    async def read_through(self, key: str, decode: Callable[[Payload], T], *, in_thread: bool) -> T | None:
        """`decode` of the chunk under `key`, None where it is absent; errors name the chunk.

        Fetching from files and decoding share one worker thread; `in_thread=False` says decoding is too cheap for
        a thread of its own.
        """
        volume = await self.opened()
        chunk = volume.chunk(key)
        if chunk is None:
            return None
        if volume.transport.blocking:
            return await asyncio.to_thread(self._read_through_in_thread, volume, chunk, decode)
        payload = await self.read(chunk)
        if payload is None:
            return None
        if in_thread:
            return await asyncio.to_thread(self._decode, volume, chunk, payload, decode)
        return self._decode(volume, chunk, payload, decode)

    def _read_in_thread(self, volume: Opened, chunk: ChunkId) -> Payload | None:
        self._check_supported(volume, chunk)
        return self._show(volume, chunk, self._run(volume, volume.backend.read(chunk), chunk))

    def _read_through_in_thread(self, volume: Opened, chunk: ChunkId, decode: Callable[[Payload], T]) -> T | None:
        payload = self._read_in_thread(volume, chunk)
        return None if payload is None else self._decode(volume, chunk, payload, decode)

    def _check_supported(self, volume: Opened, chunk: ChunkId) -> None:
        reason = volume.node(chunk).unsupported
        if reason:
            raise Unsupported(reason, url=self.url, chunk=volume.backend.name(chunk))

    def _show(self, volume: Opened, chunk: ChunkId, stored: Payload | None) -> Payload | None:
        node = volume.node(chunk)
        if stored is not None:
            extent = Grid(node.shape, node.chunk_shape).extent(chunk.index)
            return self._decode(volume, chunk, stored, lambda payload: show(payload, node, extent, self.presentation))
        if self.missing == "error":
            raise MissingChunk(
                'the chunk is not stored (missing="fill" reads it as the fill value)',
                url=self.url,
                chunk=volume.backend.name(chunk),
            )
        return show_absent(node, self.presentation)

    def _decode(self, volume: Opened, chunk: ChunkId, payload: Payload, decode: Callable[[Payload], T]) -> T:
        try:
            return decode(payload)
        except DecodeError as error:
            raise error.located(f"chunk {volume.backend.name(chunk)} of {self.url}") from error

    # driving

    def _run(self, volume: Opened, plan: Plan[T], chunk: ChunkId) -> T:
        def answer(request: Request) -> Any:  # noqa: ANN401  # answers differ by request
            if isinstance(request, Once):
                return self._cache.get(request.key, lambda: drive(request.plan(), answer))
            return volume.transport.fetch(request)

        try:
            return drive(plan, answer)
        except (StorefsError, DecodeError) as error:
            raise self._located(error, volume, chunk) from error

    async def _run_async(self, volume: Opened, plan: Plan[T], chunk: ChunkId) -> T:
        async def answer(request: Request) -> Any:  # noqa: ANN401  # answers differ by request
            if isinstance(request, Once):
                return await self._cache.get_async(request.key, lambda: drive_async(request.plan(), answer))
            return await volume.transport.fetch_async(request)

        try:
            return await drive_async(plan, answer)
        except (StorefsError, DecodeError) as error:
            raise self._located(error, volume, chunk) from error

    def _located(self, error: StorefsError | DecodeError, volume: Opened, chunk: ChunkId) -> Exception:
        name = volume.backend.name(chunk)
        if isinstance(error, DecodeError):
            return error.located(f"chunk {name} of {self.url}")
        if isinstance(error, FileNotFoundError):  # zarr would read it as the fill value
            return TransportError(error.message, url=error.url, chunk=name)
        return error.at_chunk(name)


class Opened:
    """A described volume and the transport that reaches it."""

    def __init__(self, backend: Backend, transport: Transport, presentation: Presentation) -> None:
        self.backend = backend
        self.transport = transport
        self.presentation = presentation
        self.nbytes = 0  # part of no budget

    @cached_property
    def documents(self) -> dict[str, bytes]:
        """The metadata documents by key."""
        return documents(self.backend.hierarchy, self.presentation)

    def chunk(self, key: str) -> ChunkId | None:
        """The chunk that `key` names, None where it names none."""
        return parse_chunk_key(key, self.backend.hierarchy, self.presentation)

    def node(self, chunk: ChunkId) -> Any:  # noqa: ANN401
        """The array of `chunk`."""
        return self.backend.hierarchy.arrays_by_path[chunk.array]


class Hops:
    """Follows redirects: not for ever, not in circles, never from the network into local files."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._seen = [transport.url]

    def follow(self, redirect: Redirect) -> None:
        """Go where `redirect` points. Raises UrlError."""
        origin = self.transport.url
        target = self.transport.connect(redirect.url)
        if target.url in self._seen:
            raise UrlError(f"the info redirects in a circle: {' -> '.join([*self._seen, target.url])}", url=origin)
        if len(self._seen) > MAX_REDIRECTS:
            raise UrlError(f"more than {MAX_REDIRECTS} redirects, the last to {target.url}", url=origin)
        if target.url.startswith("file:") and not origin.startswith("file:"):
            raise UrlError(f"the info redirects from the network to a local file: {target.url}", url=origin)
        self._seen.append(target.url)
        self.transport = target


def _chunk_names(prefix: str, folder: str, cells: tuple[int, ...]) -> set[str]:
    """Names below `prefix` among the chunk keys `<folder>i/j/k` of a grid of `cells`."""
    if folder.startswith(prefix):
        rest = folder[len(prefix) :]
        return {rest.split("/")[0]} if rest else _numbers(cells[0])
    if not prefix.startswith(folder):
        return set()
    parts = prefix[len(folder) :].rstrip("/").split("/")
    inside = len(parts) < len(cells) and all(
        part.isdecimal() and int(part) < n for part, n in zip(parts, cells, strict=False)
    )
    return _numbers(cells[len(parts)]) if inside else set()


def _numbers(count: int) -> set[str]:
    if count > MAX_LISTED_CHUNKS:
        raise Unsupported(f"{count} chunks along one axis are too many to list")
    return {str(i) for i in range(count)}
