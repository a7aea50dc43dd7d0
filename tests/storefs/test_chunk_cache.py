"""Decoded chunks in memory: bounded in bytes, read only, of one process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from storefs.chunk_cache import ChunkCache
from storefs.model import ChunkId


def chunk(number: int, array: str = "0") -> ChunkId:
    return ChunkId(array, (number, 0, 0))


def voxels(number: int) -> np.ndarray:
    return np.full((10, 10), number, np.uint8)


def test_what_is_put_is_found_and_read_only():
    """A chunk comes back as it was and cannot be changed; what was put in cannot be either."""
    cache = ChunkCache(1000)
    mine = voxels(1)
    cache.put(chunk(1), mine)
    found = cache.get(chunk(1))
    assert np.array_equal(found, voxels(1))
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 9
    with pytest.raises(ValueError, match="read-only"):
        mine[0] = 9
    assert cache.get(chunk(2)) is None
    assert chunk(1) in cache


def test_views_are_copied():
    """Of a part of a bigger array a copy is kept, which holds no more memory and does not change with it."""
    cache = ChunkCache(10_000)
    whole = np.zeros((40, 40), np.uint8)
    cache.put(chunk(1), whole[:10, :10])
    whole[:] = 7
    assert not cache.get(chunk(1)).any()
    assert cache.get(chunk(1)).base is None
    payload = bytes(range(100))
    cache.put(chunk(2), np.frombuffer(memoryview(payload)[:50], np.uint8))
    assert cache.get(chunk(2)).base is None
    cache.put(chunk(3), np.arange(6, dtype=np.uint8).reshape(2, 3).T)
    assert cache.get(chunk(3)).flags.c_contiguous
    scratch = np.zeros(12, np.uint8)
    cache.put(chunk(4), np.frombuffer(memoryview(scratch), np.uint8).reshape(3, 4))
    scratch[:] = 9  # the next chunk
    assert not cache.get(chunk(4)).any()
    assert cache.nbytes == 100 + 50 + 6 + 12


def test_bytes_are_bounded():
    """The chunks used longest ago go first; one longer than the whole cache is not kept."""
    cache = ChunkCache(300)
    for number in (1, 2, 3):
        cache.put(chunk(number), voxels(number))
    cache.get(chunk(1))
    cache.put(chunk(4), voxels(4))
    assert [number for number in range(1, 5) if chunk(number) in cache] == [1, 3, 4]
    cache.put(chunk(5), np.zeros(301, np.uint8))
    assert chunk(5) not in cache
    assert (len(cache), cache.nbytes) == (3, 300)
    cache.put(chunk(4), voxels(9))
    assert (len(cache), cache.nbytes) == (3, 300)


def test_statistics():
    """Finds, misses and bytes are counted."""
    cache = ChunkCache(1000)
    cache.get(chunk(1))
    cache.put(chunk(1), voxels(1))
    cache.get(chunk(1))
    cache.get(chunk(1))
    names = ("hits", "misses", "bytes_read", "bytes_written")
    assert [cache.tally[name] for name in names] == [2, 1, 200, 100]


def test_clearing():
    """All chunks can be forgotten, or some."""
    cache = ChunkCache(1000)
    for number in (1, 2, 3):
        cache.put(chunk(number), voxels(number))
    cache.clear(lambda c: c == chunk(2))
    assert [number for number in (1, 2, 3) if chunk(number) in cache] == [1, 3]
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_written_chunks_are_not_kept_any_more():
    """A chunk that is written is forgotten for good, as are other arrays, which a server may derive from it."""
    cache = ChunkCache(1000)
    for number in (1, 2):
        cache.put(chunk(number), voxels(number))
    cache.put(chunk(1, "1"), voxels(1))
    cache.written(chunk(1))
    assert (chunk(1) in cache, chunk(2) in cache, chunk(1, "1") in cache) == (False, True, False)
    cache.put(chunk(1), voxels(1))  # somebody read it before it was written
    cache.put(chunk(1, "1"), voxels(1))
    cache.put(chunk(3), voxels(3))
    assert (chunk(1) in cache, chunk(3) in cache, chunk(1, "1") in cache) == (False, True, False)


def test_threads():
    """Threads that put, get and clear at once find right chunks, and the bound holds."""
    cache = ChunkCache(2000)

    def work(seed: int) -> int:
        rng = np.random.default_rng(seed)
        wrong = 0
        for number in rng.integers(0, 40, 500).tolist():
            found = cache.get(chunk(number))
            if found is None:
                cache.put(chunk(number), voxels(number))
            else:
                wrong += not np.array_equal(found, voxels(number))
            if number == 0:
                cache.clear(lambda c: c.index[0] % 2 == 0)
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0
    assert cache.nbytes <= 2000
    assert cache.nbytes == 100 * len(cache)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_begins_with_none():
    """A child forked while the cache is locked is not left waiting, and begins empty; the parent keeps its own."""
    cache = ChunkCache(1000)
    cache.put(chunk(1), voxels(1))
    with cache._lock:
        child = os.fork()
        if not child:
            import signal

            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            empty = cache.get(chunk(1)) is None
            cache.put(chunk(1), voxels(2))
            os._exit(0 if empty and cache.get(chunk(1))[0, 0] == 2 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert cache.get(chunk(1))[0, 0] == 1
