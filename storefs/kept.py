"""What is kept of a volume, and what it has taken: told, looked for, forgotten."""

from __future__ import annotations

import contextlib
from typing import Any

from storefs.chunk_cache import ChunkCache
from storefs.errors import NotCached, StorefsError
from storefs.fetching import Fetching
from storefs.model import ChunkId
from storefs.once import OnceCache
from storefs.plan import Once, Request, drive
from storefs.source import Source
from storefs.tally import CacheStatistics, Statistics, cache_statistics
from storefs_codecs.errors import DecodeError


def statistics(source: Source) -> Statistics:
    """What reading has taken so far, in this process, and how the caches have served."""
    disk, memory, tally = source.transport.disk, source.decoded, source.tally
    on_disk: CacheStatistics | None = None
    if disk is not None:
        entries, nbytes = disk.usage()
        on_disk = cache_statistics(source.disk_tally, entries=entries, nbytes=nbytes, max_bytes=disk.max_bytes)
    return Statistics(
        requests=tally["requests"],
        bytes_received=tally["bytes_received"],
        chunks_decoded=tally["chunks_decoded"],
        chunks_absent=tally["chunks_absent"],
        indexes=_in_memory(source.indexes),
        memory_cache=None if memory is None else _in_memory(memory),
        disk_cache=on_disk,
    )


def clear(source: Source, array: str = "") -> None:
    """Forget all that is kept of the volume, or of one array or group: in memory and on disk."""
    if source.decoded is not None:
        source.decoded.clear(lambda chunk: not array or chunk.array == array or chunk.array.startswith(f"{array}/"))
    source.indexes.clear()
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
    _on_disk(source, chunk, forget=True)


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
