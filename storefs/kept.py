"""What is kept of a volume, and what it has taken: told, looked for, forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from storefs.backend import Forgetful
from storefs.chunk_cache import ChunkCache
from storefs.errors import NotCached, StorefsError
from storefs.fetching import Fetching
from storefs.model import ChunkId
from storefs.once import OnceCache
from storefs.plans import Once, Request, VolumeBox, drive
from storefs.source import Source
from storefs.tally import CACHE_COUNTS, CacheStatistics, Statistics, added, cache_statistics
from storefs_codecs.errors import DecodeError


@runtime_checkable
class LeadsOn(Protocol):
    """A transport that reads volumes of other formats as well."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Those that have been opened."""

    def chunks(self, box: VolumeBox) -> tuple[Source, list[ChunkId]]:
        """The volume that holds `box`, and which of its chunks the box touches."""


def statistics(source: Source) -> Statistics:
    """What reading has taken so far, in this process, and how the caches have served."""
    disk, memory, every = source.transport.disk, source.decoded, list(_with_others(source))
    asked = added((one.tally for one in every), "requests", "bytes_received")
    on_disk: CacheStatistics | None = None
    if disk is not None:
        entries, nbytes = disk.usage()
        served = added((one.disk_tally for one in every), *CACHE_COUNTS)
        on_disk = cache_statistics(served, entries=entries, nbytes=nbytes, max_bytes=disk.max_bytes)
    return Statistics(
        requests=asked["requests"],
        bytes_received=asked["bytes_received"],
        chunks_decoded=source.tally["chunks_decoded"],
        chunks_absent=source.tally["chunks_absent"],
        indexes=_in_memory(source.indexes),
        memory_cache=None if memory is None else _in_memory(memory),
        disk_cache=on_disk,
    )


def clear(source: Source, array: str = "") -> None:
    """Forget all that is kept of the volume, or of one array or group: in memory and on disk.

    Volumes of other formats, in which its voxels lie, are forgotten as a whole.
    """
    if source.decoded is not None:
        source.decoded.clear(lambda chunk: not array or chunk.array == array or chunk.array.startswith(f"{array}/"))
    source.indexes.clear()
    _clear_transport(source)
    for other in _others(source):
        clear(other)
    disk = source.transport.disk
    if disk is not None:
        disk.clear(source.open().transport.url, array)


def holds(source: Source, chunk: ChunkId) -> bool:
    """Whether what is first asked for to read `chunk` is on disk; asks nobody."""
    return _on_disk(source, chunk, forget=False)


def forget(source: Source, chunk: ChunkId) -> None:
    """Forget what is kept of one chunk, in memory and on disk; indexes that others share stay."""
    if source.decoded is not None:
        source.decoded.clear(lambda other: other == chunk)
    _clear_transport(source)
    _on_disk(source, chunk, forget=True)


def bytes_received(source: Source) -> int:
    """What reading has brought so far, from volumes of other formats as well."""
    return sum(one.tally["bytes_received"] for one in _with_others(source))


def boxed_chunks(source: Source, box: VolumeBox) -> tuple[Source, list[ChunkId]]:
    """The volume of another format that holds `box`, and its chunks there; none where nothing leads on."""
    inner = source.transport.inner
    return inner.chunks(box) if isinstance(inner, LeadsOn) else (source, [])


def _others(source: Source) -> tuple[Source, ...]:
    """The volumes of other formats that this one has led to."""
    inner = source.transport.inner
    return inner.sources if isinstance(inner, LeadsOn) else ()


def _with_others(source: Source) -> Iterator[Source]:
    yield source
    for other in _others(source):
        yield from _with_others(other)


def _clear_transport(source: Source) -> None:
    if isinstance(source.transport.inner, Forgetful):
        source.transport.inner.clear()


def _on_disk(source: Source, chunk: ChunkId, *, forget: bool) -> bool:
    """Whether anything that reading `chunk` takes is on disk, up to what is not; all that is goes with `forget`."""
    volume = source.open()
    transport = volume.transport
    if not isinstance(transport, Fetching) or transport.disk is None:
        return False
    found = False

    def recall(request: Request) -> Any:  # noqa: ANN401  # answers differ by request
        if isinstance(request, Once):
            return source.indexes.get(request.key, lambda: drive(request.plan(), recall))
        known, answer = transport.recall(request)
        if not known:
            raise NotCached("not kept", url=source.url)
        return answer

    def look(request: Request) -> Any:  # noqa: ANN401  # answers differ by request
        nonlocal found
        if isinstance(request, VolumeBox):
            other, chunks = boxed_chunks(source, request)
            kept = [_on_disk(other, theirs, forget=forget) for theirs in chunks]
            found = found or any(kept)
            return None
        if isinstance(request, Once):
            return recall(request)
        found = found or transport.holds(request)
        if not forget:
            raise NotCached("enough is known", url=source.url)
        try:
            return recall(request)
        finally:
            transport.forget(request)

    with contextlib.suppress(StorefsError, DecodeError):
        drive(volume.backend.read(chunk), look)
    return found


def _in_memory(cache: OnceCache | ChunkCache) -> CacheStatistics:
    return cache_statistics(cache.tally, entries=len(cache), nbytes=cache.nbytes, max_bytes=cache.max_bytes)
