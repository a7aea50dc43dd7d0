"""A keyvalue instance as a plain zarr store, to read and write.

A zarr key is kept under an escaped one (see keys.py), so that groups and nested chunks have a place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, default_buffer_prototype

from storefs.backends.dvid import keyvalue
from storefs.backends.dvid.keys import escape, unescape
from storefs.backends.dvid.keyvalue_map import connect, kept

if TYPE_CHECKING:
    from zarr.core.buffer import BufferPrototype

    from storefs.plans import Plan

T = TypeVar("T")


class KeyValueStore(Store):
    """The keyvalue instance at `dvid://host/uuid/instance` as a zarr store, below `path` in it.

    `options` as for `Client`. A pickled store holds URL and options, no secrets. Raises UrlError.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True
    supports_partial_writes = False

    def __init__(self, url: str, *, path: str = "", read_only: bool = False, **options: Any) -> None:  # noqa: ANN401  # the client's
        super().__init__(read_only=read_only)
        self.url = url
        self.path = path.strip("/")
        self.options = options
        self._client, uuid, name = connect(url, options)
        self._place = keyvalue.Place(self._client.url, uuid, name)

    def __repr__(self) -> str:
        return f"KeyValueStore({self.url!r}{f', path={self.path!r}' if self.path else ''})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyValueStore) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash((self.url, self.path))

    def _identity(self) -> tuple[Any, ...]:
        return self._place, self.path, kept(self.options), self.read_only

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.url, self.path, kept(self.options), self.read_only)

    def with_read_only(self, read_only: bool = False) -> KeyValueStore:  # noqa: FBT001, FBT002  # the signature is zarr's
        """The same store, read only or not."""
        return type(self)(self.url, path=self.path, read_only=read_only, **self.options)

    # keys

    def _prefix(self, prefix: str) -> str:
        return f"{self.path}/{prefix}" if self.path else prefix

    def _key(self, key: str) -> str:
        return escape(self._prefix(key))

    async def _run(self, plan: Plan[T]) -> T:
        await self._ensure_open()
        return await self._client.connection.run_async(plan)

    # reading

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The value under `key`, or part of it; None where there is none. Raises TransportError."""
        start, stop = _slice(byte_range)
        value = await self._run(keyvalue.get_value(self._place, self._key(key), start, stop))
        return None if value is None else (prototype or default_buffer_prototype()).buffer.from_bytes(value)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """The parts asked for, in order, None where a key has no value."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def exists(self, key: str) -> bool:
        """Whether `key` has a value."""
        return await self._run(keyvalue.has_key(self._place, self._key(key)))

    async def getsize(self, key: str) -> int:
        """Bytes of a value. Raises FileNotFoundError."""
        size = await self._run(keyvalue.get_size(self._place, self._key(key)))
        if size is None:
            raise FileNotFoundError(key)
        return size

    # writing

    async def set(self, key: str, value: Buffer) -> None:
        """Store a value. Raises ValueError for a read-only store, TypeError, TransportError."""
        self._check_writable()
        if not isinstance(value, Buffer):
            raise TypeError(f"KeyValueStore.set(): `value` must be a Buffer instance. Got {type(value)} instead.")
        await self._run(keyvalue.put_value(self._place, self._key(key), value.to_bytes()))

    async def delete(self, key: str) -> None:
        """Forget a value; nothing happens where there is none. Raises ValueError for a read-only store."""
        self._check_writable()
        await self._run(keyvalue.delete_key(self._place, self._key(key)))

    # listing

    async def list(self) -> AsyncIterator[str]:
        """Every key."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Every key that begins with `prefix`."""
        for key in await self._below(prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below `prefix`."""
        folder = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        for name in sorted({key[len(folder) :].split("/")[0] for key in await self._below(folder)}):
            yield name

    async def _below(self, prefix: str) -> Sequence[str]:
        whole = self._prefix(prefix)
        found = await self._run(keyvalue.list_keys(self._place, _escaped_prefix(whole)))
        paths = [path for path in map(unescape, found) if path is not None and path.startswith(whole)]
        start = len(self._prefix(""))
        return [path[start:] for path in paths]


def _escaped_prefix(prefix: str) -> str:
    """What the keys of all paths that begin with `prefix` begin with."""
    # those of "." and ".." do not begin with a dot
    return "" if prefix in ("", ".", "..") else escape(prefix)


def _slice(byte_range: ByteRequest | None) -> tuple[int | None, int | None]:
    match byte_range:
        case None:
            return None, None
        case RangeByteRequest(start, end):
            return start, end
        case OffsetByteRequest(offset):
            return offset, None
        case SuffixByteRequest(suffix):
            return (-suffix, None) if suffix else (0, 0)
    raise TypeError(f"Unexpected byte_range, got {byte_range}.")


def _restore(
    kind: Callable[..., KeyValueStore],
    url: str,
    path: str,
    options: dict[str, Any],
    read_only: bool,  # noqa: FBT001  # as pickled
) -> KeyValueStore:
    return kind(url, path=path, read_only=read_only, **options)
