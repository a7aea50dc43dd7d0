"""The bulk engine: interruption, failures, what it asks for, what it tells."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import storefs
from storefs import engine
from storefs.bulk_array import Array
from storefs.decoding import Decoding
from storefs.engine import open_reader
from storefs.source import Source
from storefs.window import basic_window
from storefs_codecs.errors import DecodeError
from tests.http_server import FolderServer
from tests.layers import Sharded, voxels, write_layer

SIZE = (40, 24, 20)
CHUNK = (16, 16, 16)
NAME = "1_1_1/16-32_0-16_0-16"


@pytest.fixture
def whole() -> np.ndarray:
    return voxels(SIZE, "uint16")


@pytest.fixture
def root(tmp_path: Path, whole: np.ndarray) -> Path:
    write_layer(tmp_path / "layer", whole, CHUNK)
    return tmp_path / "layer"


@pytest.fixture
def server(root: Path) -> Iterator[FolderServer]:
    with FolderServer(root) as running:
        yield running


def opened(address: Any, **options: Any) -> Array:
    array = storefs.open_array(f"precomputed://{address}", **{"retries": 1, "timeout": 20, **options})
    assert isinstance(array, Array)
    return array


def at_interrupt(read: Callable[[], object]) -> None:
    """`read`, interrupted as by Ctrl-C while it runs."""
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    # jobs of a shell's background are born deaf to Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            read()
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def straight(array: Array, out: np.ndarray) -> Callable[[], object]:
    """The first lane: no event loop between the caller and the engine."""
    reader = open_reader(array.store.source, array.path)
    window = basic_window(..., array.shape)
    assert reader is not None
    assert window is not None
    return lambda: reader.read(window, out)


def around(array: Array, out: np.ndarray) -> Callable[[], object]:
    """The second lane: through zarr's indexing and its event loop."""
    buffer = zarr.core.buffer.default_buffer_prototype().nd_buffer.from_numpy_array(out)
    return lambda: array.get_orthogonal_selection(..., out=buffer)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("lane", [straight, around])
def test_an_interrupt_ends_a_read(server, lane):
    """Ctrl-C is raised while the server is still silent, and nothing that comes later is written."""
    array = opened(server.url)
    array[:1, :1, :1]
    server.faults.where = lambda path: "_" in path
    server.faults.delay = 1.5
    out = np.full(array.shape, 3, array.dtype)
    at_interrupt(lane(array, out))
    assert (out == 3).all()
    time.sleep(2)
    assert (out == 3).all()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupt_ends_reading_of_files(root, monkeypatch):
    """Also where the calling thread takes part in the work."""
    array = opened(root)
    decode = Decoding.chunk

    def slowly(*args: Any) -> Any:
        time.sleep(0.4)
        return decode(*args)

    monkeypatch.setattr(Decoding, "chunk", slowly)
    monkeypatch.setattr("storefs.plain_files.PlainFiles.part", lambda *_: None)
    monkeypatch.setattr("storefs.many_files.ManyFiles.read", lambda _, chunks, *__: bytes(len(chunks)))
    out = np.full(array.shape, 3, array.dtype)
    at_interrupt(straight(array, out))
    left = out.copy()
    assert (left == 3).any()
    time.sleep(1)
    assert np.array_equal(out, left)


def test_reading_goes_on_after_an_interrupt(server, whole):
    """An interrupted array can be read again at once."""
    array = opened(server.url)
    server.faults.where, server.faults.delay = (lambda path: "_" in path), 1.0
    at_interrupt(lambda: array[...])
    server.faults.delay = 0
    assert np.array_equal(array[...], whole)


@pytest.mark.parametrize("read", [lambda a: a[...], lambda a: a.oindex[[0, 1, 17], :, :]])
@pytest.mark.parametrize("place", ["file", "http"])
def test_a_damaged_chunk_is_named(server, root, place, read):
    """One bad chunk of many: its name and the volume's address, in one DecodeError."""
    (root / NAME).write_bytes(b"short")
    array = opened(server.url if place == "http" else root)
    with pytest.raises(DecodeError, match=NAME) as caught:
        read(array)
    assert (server.url if place == "http" else str(root)) in str(caught.value)


@pytest.mark.parametrize("place", ["file", "http"])
def test_an_absent_chunk_is_named(server, root, place):
    """`missing="error"` raises for the whole read, naming the chunk."""
    (root / NAME).unlink()
    array = opened(server.url if place == "http" else root, missing="error")
    with pytest.raises(storefs.MissingChunk, match=NAME):
        array[...]
    with pytest.raises(storefs.MissingChunk, match=NAME):
        array[0, 0, 20]


def test_a_failing_server_ends_the_read(server, root):
    """A fault that retries do not help against is raised, and names the chunk."""
    array = opened(server.url)
    server.faults.where, server.faults.status = NAME.__contains__, 500
    server.faults.where = lambda path: NAME in path
    with pytest.raises(storefs.ServerFault, match=NAME):
        array[...]


def test_compressed_and_odd_files_are_read(root, whole):
    """A file that is more than its voxels, or under another name, is read as anywhere else."""
    data = (root / NAME).read_bytes()
    (root / NAME).write_bytes(gzip.compress(data))
    assert np.array_equal(opened(root)[...], whole)
    assert np.array_equal(opened(root)[:16, :16, 16:32], whole[:16, :16, 16:32])
    (root / NAME).rename(root / f"{NAME}.gz")
    assert np.array_equal(opened(root)[...], whole)
    assert np.array_equal(opened(root)[:16, :16, 16:32], whole[:16, :16, 16:32])


def test_parts_of_plain_files_alone_are_read(root, whole):
    """Of a file of mere voxels only the bytes between the first and the last wanted are read."""
    array = opened(root)
    array[0, 0, 0]
    before = array.store.source.tally["bytes_received"]
    assert np.array_equal(array[5], whole[5])
    assert array.store.source.tally["bytes_received"] - before == whole[5].nbytes
    assert np.array_equal(array[3:17:5, 1::7, 2:39:3], whole[3:17:5, 1::7, 2:39:3])


def test_chunks_of_a_shard_are_asked_for_together(tmp_path):
    """Many chunks in three requests a shard: two for where they lie, one for what they are."""
    volume = voxels((64, 64, 64))
    write_layer(tmp_path / "s", volume, (8, 8, 8), sharded=Sharded(2, 3, 1))
    with FolderServer(tmp_path / "s") as running:
        array = opened(running.url)
        running.forget()
        assert np.array_equal(array[...], volume)
        assert len(running.asked) == 2 * 3
        running.forget()
        assert np.array_equal(array[:, 8:16, 8:16], volume[:, 8:16, 8:16])
        assert len(running.asked) <= 2


@pytest.mark.parametrize("place", ["file", "http"])
def test_a_damaged_shard_is_named(tmp_path, place):
    """A shard that is cut short: the error names a chunk and its shard."""
    volume = voxels((32, 32, 32))
    write_layer(tmp_path / "s", volume, (8, 8, 8), sharded=Sharded(2, 2, 1))
    shard = tmp_path / "s" / "1_1_1" / "0.shard"
    data = shard.read_bytes()
    with FolderServer(tmp_path / "s") as running:
        for kept in (10, 200, len(data) - 100):
            shard.write_bytes(data[:kept])
            with pytest.raises(DecodeError, match=r"in 0\.shard"):
                opened(running.url if place == "http" else tmp_path / "s")[...]


def test_large_chunks_are_read_few_at_a_time(tmp_path):
    """However many requests a transport takes, the chunks under way stay within bounds."""
    write_layer(tmp_path / "s", voxels((64, 8, 8)), (32, 8, 8))
    source = opened(tmp_path / "s").store.source
    reader = open_reader(source, "0")
    assert reader is not None
    assert reader.width * reader.chunk_bytes <= engine.BYTES_IN_FLIGHT
    node = reader.node
    for edge in (64, 256, 400, 700):
        big = type(node)(**{name: getattr(node, name) for name in node.__slots__} | {"chunk_shape": (edge,) * 3})
        wide = engine.Reader(source, reader.volume, big)
        assert wide.width == 1 or wide.width * wide.chunk_bytes <= engine.BYTES_IN_FLIGHT


class Told:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def start(self, total_chunks: int, total_bytes: int) -> None:
        self.calls.append(("start", total_chunks, total_bytes))

    def advance(self, chunks: int, nbytes: int) -> None:
        self.calls.append(("advance", chunks, nbytes))

    def finish(self) -> None:
        self.calls.append(("finish", 0, 0))


@pytest.mark.parametrize("read", [lambda a: a[...], lambda a: a[0, 0, 0], lambda a: a.oindex[[1, 18], :, 2]])
def test_progress_adds_up(root, read, monkeypatch):
    """Chunks and bytes told on the way add up to those announced, and an end is told."""
    array = opened(root)
    told = Told()
    monkeypatch.setattr(Source, "progress", told)
    found = read(array)
    (first, chunks, nbytes), *steps, (last, _, _) = told.calls
    assert (first, last) == ("start", "finish")
    assert nbytes == np.asarray(found).nbytes
    assert sum(step[1] for step in steps) == chunks == len(steps)
    assert sum(step[2] for step in steps) == nbytes


@pytest.mark.parametrize("place", ["file", "http"])
def test_decoded_chunks_are_taken_from_memory(server, root, whole, place):
    """With a memory cache the second read asks nobody, and what was handed out stays the reader's own."""
    array = opened(server.url if place == "http" else root, memory_cache=10_000_000)
    for _ in range(2):
        found = array[...]
        assert np.array_equal(found, whole)
        found[...] = 0  # ours to change
        part = array[:16, :16, :16]
        assert np.array_equal(part, whole[:16, :16, :16])
        part[...] = 0
        assert np.array_equal(array[3], whole[3])
    asked = array.store.source.tally["requests"]
    array[...]
    assert array.store.source.tally["requests"] == asked


def test_reading_inside_a_running_event_loop(server, whole):
    """Notebooks run one; no part of the engine needs it to turn."""
    array = opened(server.url)

    async def cell() -> Any:
        return array[...], array.oindex[[1, 5], :, :]

    found, part = asyncio.run(cell())
    assert np.array_equal(found, whole)
    assert np.array_equal(part, whole[[1, 5]])


@pytest.mark.parametrize("place", ["file", "http"])
def test_many_threads_read_at_once(server, root, whole, place):
    """Each gets its own voxels."""
    array = opened(server.url if place == "http" else root)
    boxes = [np.s_[i % 7 :, i % 5 :, i % 11 : 30] for i in range(40)]
    with ThreadPoolExecutor(8) as threads:
        for box, found in zip(boxes, threads.map(array.__getitem__, boxes), strict=True):
            assert np.array_equal(found, whole[box])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("place", ["file", "http"])
def test_a_fork_reads_on(server, root, whole, place):
    """Threads of the parent are not waited for in a child, which has none of them."""
    array = opened(server.url if place == "http" else root)
    assert np.array_equal(array[...], whole)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(array[...], whole) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
