"""VirtualStore: a Source as a zarr store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

from storefs.kept import statistics
from storefs.options import picklable
from storefs.parts import Parts
from storefs.source import Seen
from storefs.writing import write_chunk, write_through

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

    from storefs.source import Source
    from storefs.tally import Statistics
    from storefs_codecs.chunk_codec import Array

Payload = bytes | memoryview
OpenSource = Callable[[str, Mapping[str, Any]], "Source"]


class VirtualStore(Store):
    """The volume at `url` as a zarr store; with `read_only=False` voxels can be written where the format allows.

    `open_source` makes the Source; a pickled store holds it by name, with the URL and the options, no secrets.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True
    supports_partial_writes = False

    def __init__(
        self,
        url: str,
        open_source: OpenSource,
        options: Mapping[str, Any] | None = None,
        *,
        read_only: bool = True,
        seen: Seen | None = None,
    ) -> None:
        super().__init__(read_only=read_only)
        self.url = url
        self.options = dict(options or {})
        self._open_source = open_source
        self._seen = seen
        self.source = open_source(url, {**self.options, **(seen.chose if seen else {})})
        self.source.expected = seen.layouts if seen else {}
        self._parts = Parts(self._own)

    def __repr__(self) -> str:
        return f"VirtualStore({self.source.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VirtualStore) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self.url)

    def _identity(self) -> tuple[Any, ...]:
        return type(self), self.url, picklable(self.options), self.read_only

    def __reduce__(self) -> tuple[Any, ...]:
        # zarr goes on with the metadata that it has, so that what is read has to be laid out alike
        seen = self.source.seen
        chose = seen.chose or (self._seen.chose if self._seen else {})
        told = (dict(chose), dict(seen.layouts))
        return _restore, (type(self), self.url, self._open_source, picklable(self.options), self.read_only, *told)

    def with_read_only(self, read_only: bool = False) -> VirtualStore:  # noqa: FBT001, FBT002  # the signature is zarr's
        """The same store, opened so. Whether the volume can be written shows at the first write."""
        return type(self)(self.url, self._open_source, self.options, read_only=read_only, seen=self._seen)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes under `key`, None where there are none. Raises StorefsError, DecodeError."""
        await self._ensure_open()
        payload = await self.source.get(key)
        if payload is None:
            return None
        prototype = prototype or default_buffer_prototype()
        return prototype.buffer.from_bytes(_part(payload, byte_range))

    def statistics(self) -> Statistics:
        """What reading has taken so far: requests, bytes, chunks, and how the caches have served."""
        return statistics(self.source)

    async def read_part(self, key: str, selection: Any) -> Array | None:  # noqa: ANN401  # zarr's selectors are untyped
        """The voxels at `selection` of the chunk under `key`, None where it is absent; for codecs that read parts."""
        await self._ensure_open()
        return await self._parts.read(key, selection)

    async def _own(self, key: str) -> tuple[Source, str]:
        return self.source, key

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """The parts asked for, in order, None where a key is absent."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def exists(self, key: str) -> bool:
        """Whether `key` is a document, or a chunk that the source has."""
        await self._ensure_open()
        return await self.source.exists(key)

    async def list(self) -> AsyncIterator[str]:
        """Every key: documents, then the chunks that the source has."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Every key that begins with `prefix`."""
        await self._ensure_open()
        async for key in self.source.keys(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below `prefix`."""
        await self._ensure_open()
        for name in await self.source.list_dir(prefix):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Write a whole chunk. Raises ValueError where opened read only, Unsupported, TransportError."""
        self._check_writable()
        await write_chunk(self.source, key, value.to_bytes())

    async def delete(self, key: str) -> None:
        """Write the fill value over a chunk. Raises as `set` does."""
        self._check_writable()
        await write_chunk(self.source, key, None)

    async def write_through(self, key: str, selection: Any, values: Any) -> None:  # noqa: ANN401  # zarr's selectors are untyped
        """Put `values` at `selection` of the chunk under `key`, for codecs that write parts. Raises as `set` does."""
        self._check_writable()
        await write_through(self.source, key, selection, values)


def _restore(
    kind: type[VirtualStore],
    url: str,
    open_source: OpenSource,
    options: Mapping[str, Any],
    read_only: bool,  # noqa: FBT001  # as pickled
    chose: Mapping[str, str],
    layouts: Mapping[str, str],
) -> VirtualStore:
    return kind(url, open_source, options, read_only=read_only, seen=Seen(chose, layouts))


def _part(payload: Payload, byte_range: ByteRequest | None) -> Payload:
    match byte_range:
        case None:
            return payload
        case RangeByteRequest(start, end):
            return payload[start:end]
        case OffsetByteRequest(offset):
            return payload[offset:]
        case SuffixByteRequest(suffix):
            return payload[max(0, len(payload) - suffix) :]
    raise TypeError(f"Unexpected byte_range, got {byte_range}.")
