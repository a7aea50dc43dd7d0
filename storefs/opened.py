"""Opened: a described volume and the transport that reaches it; and how a volume is described, redirects and all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from storefs.backend import Backend, Opener, Redirect, Transport
from storefs.errors import StorefsError, TransportError, UrlError
from storefs.grid import Grid
from storefs.keys import parse_chunk_key
from storefs.metadata import documents
from storefs.model import ArrayNode, ChunkId, Presentation
from storefs.plans import drive, drive_async
from storefs_codecs.errors import DecodeError

T = TypeVar("T")

MAX_REDIRECTS = 10
# pickles are to be small
_MOST_LAYOUTS = 16


class Opened:
    """A described volume and the transport that reaches it; `url` is the address it was asked for under."""

    def __init__(self, backend: Backend, transport: Transport, presentation: Presentation, url: str) -> None:
        self.backend = backend
        self.transport = transport
        self.presentation = presentation
        self.url = url
        self.nbytes = 0  # part of no budget

    @cached_property
    def layouts(self) -> dict[str, str]:
        """What a reader of each array's chunks relies on, as a short digest by path; nothing of volumes of many."""
        arrays = self.backend.hierarchy.arrays_by_path
        if len(arrays) > _MOST_LAYOUTS:
            return {}
        return {path: _layout(node) for path, node in arrays.items()}

    @cached_property
    def documents(self) -> dict[str, bytes]:
        """The metadata documents by key."""
        return documents(self.backend.hierarchy, self.presentation)

    def chunk(self, key: str) -> ChunkId | None:
        """The chunk that `key` names, None where it names none."""
        return parse_chunk_key(key, self.backend.hierarchy, self.presentation)

    def node(self, chunk: ChunkId) -> ArrayNode:
        """The array of `chunk`."""
        return self.backend.hierarchy.arrays_by_path[chunk.array]

    def extent(self, chunk: ChunkId) -> tuple[int, ...]:
        """True shape of `chunk`, clipped at the array's edges."""
        node = self.node(chunk)
        return Grid(node.shape, node.chunk_shape).extent(chunk.index)

    def decode(self, chunk: ChunkId, decode: Callable[[], T]) -> T:
        """`decode()`, whose DecodeError names the chunk."""
        try:
            return decode()
        except DecodeError as error:
            raise self.located(error, chunk) from error

    def located(self, error: StorefsError | DecodeError, chunk: ChunkId) -> Exception:
        """The same failure, naming the chunk; never a FileNotFoundError, which zarr reads as the fill value."""
        name = self.backend.name(chunk)
        if isinstance(error, DecodeError):
            return error.located(f"chunk {name} of {self.url}")
        if isinstance(error, FileNotFoundError):
            return TransportError(error.message, url=error.url, chunk=name)
        return error.at_chunk(name)


def _layout(node: ArrayNode) -> str:
    encoding = (node.encoding.name, sorted(node.encoding.configuration.items()))
    told = repr((node.chunk_shape, node.dtype, encoding, node.voxel_offset_xyz))
    return hashlib.blake2b(told.encode(), digest_size=4).hexdigest()


def describe(transport: Transport, opener: Opener, presentation: Presentation) -> Opened:
    """The volume that `transport` reaches, described in this thread. Raises NoSuchVolume, MetadataError, UrlError."""
    hops = _Hops(transport)
    while True:
        found = drive(opener(hops.transport.url), hops.transport.fetch)
        if not isinstance(found, Redirect):
            return Opened(found, hops.transport, presentation, transport.url)
        hops.follow(found)


async def describe_async(transport: Transport, opener: Opener, presentation: Presentation) -> Opened:
    """The same on the running event loop."""
    hops = _Hops(transport)
    while True:
        found = await drive_async(opener(hops.transport.url), hops.transport.fetch_async)
        if not isinstance(found, Redirect):
            return Opened(found, hops.transport, presentation, transport.url)
        hops.follow(found)


class _Hops:
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
