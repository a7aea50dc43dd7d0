"""Neighbours: volumes of other formats that a volume's plans ask for, such as the DVID instance behind its tiles.

Formats do not know each other. Which one opens an address says the address, through fsspec's registry.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import fsspec
import numpy as np

from storefs.backend import Forgetful, Transport
from storefs.chunk_reader import ChunkReader
from storefs.errors import MetadataError, UrlError
from storefs.filesystem import VirtualFileSystem
from storefs.grid import Grid
from storefs.model import ArrayNode, ChunkId, Hierarchy
from storefs.once import OnceCache
from storefs.plans import Volume, VolumeBox
from storefs.source import Source
from storefs.workers import Job
from storefs_codecs.chunk_codec import Array

CACHE_BYTES = 128 << 20

_TOKENS = ("token", "admin_token")
_NETWORK = ("https://", "http://", "gs://", "s3://")


class Neighbours:
    """`transport`, and beside it what answers Volume and VolumeBox; each volume is opened once.

    `options` are those of the other volumes: no credentials, which are meant for the volume's own server. A volume
    that came from the network (not `local_volumes`) leads to no files of this machine.
    """

    def __init__(self, transport: Transport, options: Mapping[str, Any], *, local_volumes: bool) -> None:
        self.transport = transport
        # as of the transport
        self.url, self.blocking = transport.url, transport.blocking
        self.local, self.concurrency = transport.local, transport.concurrency
        self.options = dict(options)
        self._places = (*_NETWORK, "file://") if local_volumes else _NETWORK
        self._local_volumes = local_volumes
        self._sources: dict[str, Source] = {}
        self._lock = threading.Lock()
        self._chunks = OnceCache(CACHE_BYTES)

    def connect(self, url: str) -> Neighbours:
        """The same around the transport of the volume that this one redirects to."""
        return Neighbours(self.transport.connect(url), self.options, local_volumes=self._local_volumes)

    def fetch(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched in this thread. Raises StorefsError, DecodeError."""
        match request:
            case Volume():
                return self.source(request.url).open().backend.hierarchy
            case VolumeBox():
                return self._read(request)
        return self.transport.fetch(request)

    async def fetch_async(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched on the running event loop. Raises StorefsError, DecodeError."""
        match request:
            case Volume():
                return (await self.source(request.url).open_async()).backend.hierarchy
            case VolumeBox():
                return await asyncio.to_thread(self._read, request)
        return await self.transport.fetch_async(request)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The volumes that have been opened."""
        with self._lock:
            return tuple(self._sources.values())

    def clear(self) -> None:
        """Forget the images and chunks that are kept here; not what the other volumes keep."""
        self._chunks.clear()
        if isinstance(self.transport, Forgetful):
            self.transport.clear()

    def chunks(self, box: VolumeBox) -> tuple[Source, list[ChunkId]]:
        """The volume that holds `box`, and which of its chunks the box touches. Raises StorefsError."""
        source = self.source(box.url)
        return source, [piece.chunk for piece in _pieces(_array(source.open().backend.hierarchy, box), box)]

    def source(self, url: str) -> Source:
        """The Source of the volume at `url`. Raises UrlError for what is no address of one; no I/O."""
        with self._lock:
            if url not in self._sources:
                self._sources[url] = self._open(url)
            return self._sources[url]

    def _open(self, url: str) -> Source:
        scheme, _, address = url.partition("://")
        if not address.startswith(self._places) or "::" in address:
            raise UrlError(f"{self.url} leads to {url}, which is no web server or bucket", url=self.url)
        try:
            filesystem = fsspec.get_filesystem_class(scheme)
        except (ValueError, ImportError) as error:
            raise UrlError(f"{self.url} leads to {url}, whose format is unknown", url=self.url) from error
        if not issubclass(filesystem, VirtualFileSystem):
            raise UrlError(f"{self.url} leads to {url}, which is no volume", url=self.url)
        # the environment's tokens are for servers that the user named
        options = self.options | {name: "" for name in _TOKENS if name in filesystem.own_options}
        source: Source = filesystem(**options).open_source(address, options)
        return source

    # boxes

    def _read(self, box: VolumeBox) -> Array | None:
        source = self.source(box.url)
        volume = source.open()
        node = _array(volume.backend.hierarchy, box)
        reader = ChunkReader(source, volume, node)
        pieces = _pieces(node, box)
        found: list[Array | None] = [None] * len(pieces)

        def read(number: int) -> None:
            found[number] = self._voxels(reader, pieces[number])

        # this thread takes part, so that there always is one, however many wait for volumes behind volumes
        Job(int(volume.transport.concurrency), take_part=True).run([partial(read, n) for n in range(len(pieces))])
        return _assembled(node, box, pieces, found)

    def _voxels(self, reader: ChunkReader, piece: _Piece) -> Array | None:
        chunk, inside = piece.chunk, tuple(slice(a, b, 1) for a, b in zip(piece.start, piece.stop, strict=True))
        if piece.stop == reader.grid.extent(chunk.index) and not any(piece.start):
            return reader.voxels(chunk)
        cut_out = reader.cut_out(chunk, inside)
        if cut_out is not None:
            return cut_out
        key = reader.source.url, chunk
        held: _Held = self._chunks.get(key, lambda: _Held(reader.voxels(chunk)))
        return held.part(inside)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one chunk has of a box: `start` to `stop` in the chunk, to be put at `at` in the box."""

    chunk: ChunkId
    start: tuple[int, ...]
    stop: tuple[int, ...]
    at: tuple[slice, ...]


class _Held:
    """A decoded chunk, kept for the boxes that have other parts of it; None where absent."""

    def __init__(self, voxels: Array | None) -> None:
        self._voxels = voxels

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return 0 if self._voxels is None else int(self._voxels.nbytes)

    def part(self, inside: tuple[slice, ...]) -> Array | None:
        """The voxels `inside`."""
        return None if self._voxels is None else self._voxels[inside]


def _array(hierarchy: Hierarchy, box: VolumeBox) -> ArrayNode:
    node = hierarchy.array(box.array)
    if node is None or len(node.shape) != len(box.start):
        raise MetadataError(f"there is no array {box.array!r} of {len(box.start)} axes", url=box.url)
    return node


def _pieces(node: ArrayNode, box: VolumeBox) -> list[_Piece]:
    """The chunks that the box touches, C order; none where it lies outside."""
    grid = Grid(node.shape, node.chunk_shape)
    low = tuple(max(0, n) for n in box.start)
    high = tuple(min(n, size) for n, size in zip(box.stop, node.shape, strict=True))
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return []
    cells = (range(a // c, -(-b // c)) for a, b, c in zip(low, high, node.chunk_shape, strict=True))
    pieces = []
    for index in itertools.product(*cells):
        origin, extent = grid.origin(index), grid.extent(index)
        start = tuple(max(0, a - o) for a, o in zip(low, origin, strict=True))
        stop = tuple(min(n, b - o) for b, o, n in zip(high, origin, extent, strict=True))
        at = (slice(o + a - s, o + b - s) for o, a, b, s in zip(origin, start, stop, box.start, strict=True))
        pieces.append(_Piece(ChunkId(node.path, index), start, stop, tuple(at)))
    return pieces


def _assembled(node: ArrayNode, box: VolumeBox, pieces: list[_Piece], found: list[Array | None]) -> Array | None:
    shape = tuple(b - a for a, b in zip(box.start, box.stop, strict=True))
    stored = [(piece, voxels) for piece, voxels in zip(pieces, found, strict=True) if voxels is not None]
    if not stored:
        return None
    if stored[0][1].shape == shape:
        return stored[0][1]
    out = np.full(shape, box.fill_value, np.dtype(node.dtype).newbyteorder("<"))
    for piece, voxels in stored:
        out[piece.at] = voxels
    return out
