"""Counters: what was asked, what came, what was found in a cache. Of one process, safe across its threads."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

_MOST_ADDED = 256

CACHE_COUNTS = ("hits", "misses", "bytes_read", "bytes_written")


class Tally:
    """Named counts, all 0 at first; a fork begins anew.

    Adding takes no lock, which many threads at once would often wait for.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._added: deque[dict[str, int]] = deque()
        self._counts: dict[str, int] = {}

    def add(self, **counts: int) -> None:
        """Add to the counts of these names."""
        if self._pid != os.getpid():
            self._reset()
        self._added.append(counts)
        if len(self._added) > _MOST_ADDED:
            self._sum()

    def _sum(self) -> dict[str, int]:
        with self._lock:
            for _ in range(len(self._added)):
                for name, count in self._added.popleft().items():
                    self._counts[name] = self._counts.get(name, 0) + count
            return self._counts

    def __getitem__(self, name: str) -> int:
        if self._pid != os.getpid():
            self._reset()  # the parent's lock may be held for ever
        return self._sum().get(name, 0)

    def clear(self) -> None:
        """Begin anew at 0."""
        self._reset()


def added(tallies: Iterable[Tally], *names: str) -> Tally:
    """The sums of what several tallies count under `names`."""
    total = Tally()
    for tally in tallies:
        total.add(**{name: tally[name] for name in names})
    return total


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """How a cache has served: in this process, since the volume was opened. `entries` and `nbytes` are held now.

    Of a cache on disk, `entries` and `nbytes` are those of the folder, of all volumes and processes.
    """

    hits: int
    misses: int
    bytes_read: int
    bytes_written: int
    entries: int
    nbytes: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """What reading a volume has taken: in this process, since it was opened.

    `requests` are those asked for, of which neighbouring ones may have been sent as one, and which a busy server may
    have had to be asked again; `bytes_received` are what came back. Both count volumes of other formats in which voxels
    lie. A cache that is off is None.
    """

    requests: int
    bytes_received: int
    chunks_decoded: int
    chunks_absent: int
    indexes: CacheStatistics
    memory_cache: CacheStatistics | None
    disk_cache: CacheStatistics | None


def cache_statistics(tally: Tally, *, entries: int, nbytes: int, max_bytes: int) -> CacheStatistics:
    """The counts of a cache, and what it holds."""
    hits, misses, bytes_read, bytes_written = (tally[name] for name in CACHE_COUNTS)
    return CacheStatistics(hits, misses, bytes_read, bytes_written, entries, nbytes, max_bytes)
