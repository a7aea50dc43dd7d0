"""Chunks that zarr asks for one by one, at the same moment: read together, each with its own fate."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import storefs
from storefs.store import VirtualStore
from storefs_codecs.errors import DecodeError
from tests.http_server import FolderServer
from tests.layers import Sharded, morton, place_of, shard_name, voxels, write_layer

CHUNK = (8, 8, 8)
COUNTS = [4, 4, 4]
SHARDED = Sharded(minishard_bits=2, shard_bits=1, data_gzip=True)
CELLS = [(z, y, x) for z in range(4) for y in range(4) for x in range(4)]
BAD = (1, 2, 3)


def key(cell: tuple[int, int, int]) -> str:
    return "0/c/" + "/".join(map(str, cell))


def box(cell: tuple[int, int, int]) -> tuple[slice, ...]:
    return tuple(slice(8 * i, 8 * i + 8) for i in cell)


@pytest.fixture
def volume() -> np.ndarray:
    return voxels((32, 32, 32))


@pytest.fixture
def server(tmp_path: Path, volume: np.ndarray) -> Iterator[FolderServer]:
    write_layer(tmp_path / "s", volume, CHUNK, sharded=SHARDED, leave_out=[(0, 0, 3)])
    with FolderServer(tmp_path / "s") as running:
        yield running


def damage(root: Path, volume: np.ndarray, cell: tuple[int, int, int]) -> None:
    """Break the bytes of one chunk where it lies in its shard."""
    shard, _ = place_of(morton(cell[::-1], COUNTS), SHARDED)
    file = root / "1_1_1" / shard_name(shard, SHARDED)
    stored = gzip.compress(volume[box(cell)].tobytes(), mtime=0)
    data = file.read_bytes()
    at = data.index(stored)
    file.write_bytes(data[: at + 20] + bytes(40) + data[at + 60 :])


def read_all(store: VirtualStore) -> dict[tuple[int, int, int], Any]:
    """What becomes of every chunk when all are asked for at once."""

    async def run() -> list[Any]:
        parts = (store.read_part(key(cell), (slice(None),) * 3) for cell in CELLS)
        return await asyncio.gather(*parts, return_exceptions=True)

    return dict(zip(CELLS, asyncio.run(run()), strict=True))


def test_they_come_in_few_requests(server, volume):
    """Many chunks of a shard take two requests for where they lie, and one or two for what they are."""
    store = storefs.open_store(f"precomputed://{server.url}")
    found = read_all(store)
    assert len(server.asked) <= 1 + 2 * 4
    assert found.pop((3, 0, 0)) is None
    for cell, part in found.items():
        assert np.array_equal(part, volume[box(cell)])


def test_a_damaged_chunk_is_the_only_one_that_fails(server, volume):
    """Its error names it, and those that came with it in one request are right."""
    damage(server.root, volume, BAD)
    found = read_all(storefs.open_store(f"precomputed://{server.url}"))
    error = found.pop(BAD)
    assert isinstance(error, DecodeError)
    assert "24-32_16-24_8-16" in str(error)
    assert found.pop((3, 0, 0)) is None
    for cell, part in found.items():
        assert np.array_equal(part, volume[box(cell)])


def test_an_absent_chunk_may_be_an_error(server, volume):
    """With missing="error" it raises, and no other."""
    found = read_all(storefs.open_store(f"precomputed://{server.url}", missing="error"))
    assert isinstance(found.pop((3, 0, 0)), storefs.MissingChunk)
    for cell, part in found.items():
        assert np.array_equal(part, volume[box(cell)])


def test_a_cut_shard_fails_where_it_is_cut(server, volume):
    """An index that is gone is told to all that need it; nobody waits for ever."""
    file = server.root / "1_1_1" / "0.shard"
    file.write_bytes(file.read_bytes()[:100])
    found = read_all(storefs.open_store(f"precomputed://{server.url}", retries=0))
    for cell, part in found.items():
        if place_of(morton(cell[::-1], COUNTS), SHARDED)[0] == 0:
            assert isinstance(part, DecodeError)
        elif cell != (3, 0, 0):
            assert np.array_equal(part, volume[box(cell)])


def test_a_failing_server_is_told_to_all(server):
    """Every one that waits raises, with the server's fault."""
    store = storefs.open_store(f"precomputed://{server.url}", retries=0)
    asyncio.run(store.source.open_async())
    server.faults.where, server.faults.status = ".shard".__contains__, 500
    server.faults.where = lambda path: path.endswith(".shard")
    assert all(isinstance(part, storefs.ServerFault) for part in read_all(store).values())


def test_one_store_serves_several_event_loops(server, volume):
    """Each has its own voxels, whoever asks first."""
    store = storefs.open_store(f"precomputed://{server.url}")
    array = zarr.open_group(store, mode="r")["0"]
    expected = volume.copy()
    expected[24:, :8, :8] = 0
    for _ in range(2):
        read_all(store)
        assert np.array_equal(array[...], expected)


def test_parts_of_decoded_chunks_come_from_memory(server, volume):
    """A chunk that is kept is not asked for again."""
    store = storefs.open_store(f"precomputed://{server.url}", memory_cache="1 MB")
    read_all(store)
    server.forget()
    found = read_all(store)
    assert np.array_equal(found[0, 0, 0], volume[:8, :8, :8])
    assert not server.asked
