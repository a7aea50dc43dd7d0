"""Answers kept in files: whole or not at all, bounded, shared by processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs.disk_cache import DiskCache, Entry, usual_folder

ENTRY = Entry("body", b"voxels" * 100, {"encoding": "gzip", "source": "gs://a/b", "array": "0"}, made=12.5)


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(str(tmp_path / "cache"), 1 << 30)


def files(cache: DiskCache) -> list[Path]:
    return [path for path in Path(cache.root).rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG"]


def same(found: Entry | None, kept: Entry) -> bool:
    return found is not None and (found.kind, bytes(found.data), dict(found.facts), found.made) == (
        kept.kind,
        bytes(kept.data),
        dict(kept.facts),
        kept.made,
    )


def test_what_is_kept_is_found(cache):
    """An entry comes back as it was, from another object on the same folder too; other keys have nothing."""
    assert cache.get("key") is None
    assert cache.put("key", ENTRY) > len(ENTRY.data)
    assert same(cache.get("key"), ENTRY)
    assert same(DiskCache(cache.root, 1000).get("key"), ENTRY)
    assert "key" in cache
    assert cache.get("another key") is None
    cache.remove("key")
    assert cache.get("key") is None
    assert "key" not in cache


@given(data=st.binary(max_size=300), facts=st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=9)))
@settings(max_examples=50, deadline=None)
def test_any_bytes_and_facts(tmp_path_factory, data, facts):
    """Any data and facts are kept, empty ones too."""
    cache = DiskCache(str(tmp_path_factory.getbasetemp() / "any"), 1 << 30)
    entry = Entry("body", data, facts)
    cache.put("key", entry)
    assert same(cache.get("key"), entry)


def test_the_key_shows_nowhere(cache):
    """Keys may hold secrets, so that neither names nor contents of files show them."""
    cache.put("https://user:hunter2@host/tile", ENTRY)
    for path in files(cache):
        assert "hunter2" not in str(path)
        assert b"hunter2" not in path.read_bytes()


@pytest.mark.parametrize("length", [0, 1, 23, 24, 60, -1, -100])
def test_a_torn_file_is_nothing_and_goes(cache, length):
    """A file that a crash cut short counts as absent and is removed; then the entry can be kept anew."""
    cache.put("key", ENTRY)
    (path,) = files(cache)
    path.write_bytes(path.read_bytes()[:length])
    assert cache.get("key") is None
    assert not path.exists()
    cache.put("key", ENTRY)
    assert same(cache.get("key"), ENTRY)


@given(position=st.integers(0, 10_000), change=st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_no_changed_byte_goes_unseen(tmp_path_factory, position, change):
    """Whatever byte of a file changes, the entry is never another one."""
    cache = DiskCache(str(tmp_path_factory.getbasetemp() / "changed"), 1 << 30)
    cache.put("key", ENTRY)
    (path,) = files(cache)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= change
    path.write_bytes(content)
    assert cache.get("key") is None


@pytest.mark.parametrize("content", [b"", b"\x00" * 4096, b"PK\x03\x04 something else", os.urandom(500)])
def test_a_foreign_file_is_nothing(cache, content):
    """A file that something else put in the place of an entry counts as absent."""
    cache.put("key", ENTRY)
    (path,) = files(cache)
    path.write_bytes(content)
    assert cache.get("key") is None


def test_an_entry_under_another_name_is_nothing(cache):
    """A sound file that was copied to where another entry should be is not taken for it."""
    cache.put("a", ENTRY)
    (a,) = files(cache)
    cache.put("b", Entry("body", b"other"))
    (b,) = [path for path in files(cache) if path != a]
    b.write_bytes(a.read_bytes())
    assert cache.get("b") is None
    assert same(cache.get("a"), ENTRY)


def test_the_bound_is_kept(tmp_path):
    """However much is written, about as many bytes remain as are allowed; what was used last stays."""
    cache = DiskCache(str(tmp_path), 2_000_000)
    data = random.Random(1).randbytes(20_000)
    cache.put("precious", Entry("body", data))
    for number in range(500):
        cache.put(f"key {number}", Entry("body", data))
        os.utime(cache._path("precious"))
        assert number % 7 or cache.usage()[1] <= 2_000_000 * 1.08
    assert cache.usage()[1] >= 2_000_000 * 0.7
    assert cache.get("precious") is not None
    assert cache.get("key 499") is not None
    assert cache.get("key 0") is None


def test_what_is_written_while_another_thread_counts_is_counted(tmp_path, monkeypatch):
    """Threads that write while one counts and trims do not carry the cache past its bound."""
    cache, trim, more = DiskCache(str(tmp_path / "cache"), 80_000), DiskCache._trim, iter(range(2))

    def trim_slowly(self, part, most):
        held = trim(self, part, most)
        if (turn := next(more, None)) is not None:
            with ThreadPoolExecutor(4) as threads:
                list(threads.map(lambda i: self.put(f"{turn} {i}", ENTRY), range(40)))
        return held

    monkeypatch.setattr(DiskCache, "_trim", trim_slowly)
    cache.put("first", ENTRY)
    assert cache.usage()[1] <= 80_000


def test_a_new_process_counts_what_others_left(tmp_path):
    """Somebody who begins to write to a full cache trims it, though he has written next to nothing himself."""
    for number in range(40):
        DiskCache(str(tmp_path), 1 << 30).put(f"key {number}", Entry("body", bytes(100_000)))
    late = DiskCache(str(tmp_path), 1_000_000)
    late.put("last", Entry("body", b"x"))
    assert late.usage()[1] <= 1_000_000
    assert late.get("last") is not None


def test_what_is_used_stays(tmp_path, monkeypatch):
    """Reading an entry makes it one of those used last."""
    cache = DiskCache(str(tmp_path), 10_000_000)
    for number in range(50):
        cache.put(f"key {number}", Entry("body", bytes(100_000)))
    for path in files(cache):
        os.utime(path, (time.time() - 1000 - 0.1,) * 2)
    assert cache.get("key 7") is not None
    small = DiskCache(str(tmp_path), 1_000_000)
    small.put("new", Entry("body", bytes(100_000)))
    assert small.get("key 7") is not None
    assert small.get("new") is not None
    assert small.usage()[0] < 12


def test_what_is_longer_than_the_cache_is_not_kept(tmp_path):
    """An entry that would not fit leaves the others where they are."""
    cache = DiskCache(str(tmp_path), 100_000)
    cache.put("small", Entry("body", bytes(1000)))
    assert cache.put("big", Entry("body", bytes(200_000))) == 0
    assert cache.get("big") is None
    assert cache.get("small") is not None


def test_a_big_cache_is_counted_in_parts(tmp_path):
    """A cache of gigabytes keeps its bound part by part."""
    cache = DiskCache(str(tmp_path), 1 << 30)
    assert cache._digits == 1
    cache.max_bytes = 16 * 200_000
    for number in range(400):
        cache.put(f"key {number}", Entry("body", bytes(20_000)))
    assert cache.usage()[1] <= 16 * 200_000 * 1.15
    assert cache.usage()[0] > 50


def test_abandoned_parts_are_removed(tmp_path):
    """What a killed writer left behind goes with the next count, once it is surely abandoned."""
    cache = DiskCache(str(tmp_path), 1_000_000)
    cache.put("key", ENTRY)
    (path,) = files(cache)
    old, new = path.with_name("x.1.1.part"), path.with_name("y.2.2.part")
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    DiskCache(str(tmp_path), 1_000_000).put("other", ENTRY)
    assert not old.exists()
    assert new.exists()


def test_clearing_leaves_what_is_not_ours(cache):
    """Everything kept goes, or what came from one volume or array; files of others in the folder stay."""
    cache.put("a", ENTRY)
    cache.put("a10", Entry("body", b"x", {"source": "gs://a/b", "array": "10"}))
    cache.put("a1", Entry("body", b"x", {"source": "gs://a/b", "array": "1"}))
    cache.put("b", Entry("body", b"x", {"source": "gs://other", "array": "0"}))
    mine = Path(cache.root) / "thesis.tex"
    mine.write_text("precious")
    assert cache.clear("gs://a/b", "1") == 1
    assert cache.get("a10") is not None
    assert cache.clear("gs://a/b") == 2
    assert cache.get("b") is not None
    assert cache.clear() == 1
    assert cache.usage() == (0, 0)
    assert mine.read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_told_of_once(tmp_path, caplog):
    """Nothing fails where the folder cannot be made: one warning, and nothing is kept."""
    (tmp_path / "file").write_text("in the way")
    cache = DiskCache(str(tmp_path / "file" / "cache"), 1000)
    with caplog.at_level(logging.WARNING, "storefs"):
        assert cache.put("a", ENTRY) == 0
        assert cache.put("b", ENTRY) == 0
    assert cache.get("a") is None
    assert len(caplog.records) == 1
    assert "cannot be written" in caplog.text


def test_a_full_disk_leaves_nothing_behind(cache, monkeypatch, caplog):
    """Where writing fails half way no part of a file stays, and what was there before is intact."""
    cache.put("key", ENTRY)

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        assert cache.put("key", Entry("body", b"newer")) == 0
    assert len(files(cache)) == 1
    assert same(cache.get("key"), ENTRY)


def _content(number: int) -> bytes:
    return random.Random(number).randbytes(1000 + number % 7 * 5000)


def _hammer(root: str, seed: int, rounds: int) -> tuple[int, int]:
    """Write and read the same few keys as others do; gives how many were found right, and wrong."""
    cache = DiskCache(root, 400_000)
    rng = random.Random(seed)
    right = wrong = 0
    for _ in range(rounds):
        number = rng.randrange(60)
        if rng.random() < 0.5:
            cache.put(f"key {number}", Entry("body", _content(number)))
        found = cache.get(f"key {number}")
        if found is not None:
            right += bytes(found.data) == _content(number)
            wrong += bytes(found.data) != _content(number)
        if rng.random() < 0.01:
            cache.clear()
    return right, wrong


def test_processes_and_threads_write_at_once(tmp_path):
    """Processes and threads that write, read, trim and clear at once only ever find whole entries."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=spawn) as processes, ThreadPoolExecutor(2) as threads:
        root = str(tmp_path / "shared")
        jobs = [processes.submit(_hammer, root, seed, 250) for seed in range(3)]
        jobs += [threads.submit(_hammer, root, seed, 250) for seed in (10, 11)]
        results = [job.result(120) for job in jobs]
    assert all(right > 20 for right, _ in results)
    assert not any(wrong for _, wrong in results)
    assert DiskCache(root, 400_000).usage()[1] <= 400_000 * 1.6
    assert not list(Path(root).rglob("*.part"))


def _write_for_ever(root: str) -> None:
    cache = DiskCache(root, 1 << 30)
    number = 0
    while True:
        number += 1
        cache.put(f"key {number % 20}", Entry("body", bytes([number % 20]) * 300_000))


def test_a_killed_writer_leaves_no_wrong_entry(tmp_path):
    """Writers killed at any moment leave entries that are whole, or none."""
    spawn = multiprocessing.get_context("spawn")
    root = str(tmp_path / "crash")
    cache = DiskCache(root, 1 << 30)
    for _ in range(3):
        writer = spawn.Process(target=_write_for_ever, args=(root,))
        writer.start()
        deadline = time.monotonic() + 60
        while not cache.usage()[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.Random().uniform(0, 0.05))
        writer.kill()
        writer.join(30)
        writer.close()
        for number in range(20):
            found = cache.get(f"key {number}")
            assert found is None or bytes(found.data) == bytes([number]) * 300_000


def test_the_usual_folder(monkeypatch):
    """The folder of True is where this system keeps caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(sys, "platform", "linux")
    assert usual_folder() == str(Path("/somewhere/storefs"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert usual_folder().endswith(str(Path(".cache/storefs")))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Library/Caches" in usual_folder()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "C:/Local")
    assert usual_folder().startswith("C:/Local")
