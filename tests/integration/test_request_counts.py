"""How often a source is asked: once to open, once a chunk, twice a cold shard; neighbours together."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

import storefs
from tests.http_server import Asked, FolderServer, Reply
from tests.layers import Sharded, morton, place_of, shard_name, voxels, write_layer

CHUNKS = 12


def opened(server: FolderServer, **options) -> zarr.Array:
    return storefs.open_array(f"precomputed://{server.url}", **options)


# opening


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("way", ["open", "open_array", "open_store", "zarr.open", "zarr.open_group", "zarr.open_array"])
def test_opening_takes_one_request(server, road, way, zarr_format):
    """Every way to open a layer asks for its info once, and for nothing else."""
    url = f"precomputed://{server.url}"
    options = {"zarr_format": zarr_format}
    match way:
        case "open":
            storefs.open(url, **options)["0"].shape  # noqa: B018  # looks at the array
        case "open_array":
            storefs.open_array(url, **options)
        case "open_store":
            zarr.open(storefs.open_store(url, **options), mode="r", zarr_format=zarr_format)
        case "zarr.open_array":
            zarr.open_array(f"{url}/0", mode="r", storage_options=options, zarr_format=zarr_format)
        case _:
            opener = zarr.open if way == "zarr.open" else zarr.open_group
            opener(url, mode="r", storage_options=options, zarr_format=zarr_format)
    assert dict(server.requests) == {"/info": 1}


def test_a_dask_array_takes_one_request_to_open_and_one_a_chunk(server, layer, road):
    """dask.array.from_zarr opens with one request and computes with one a chunk."""
    da = pytest.importorskip("dask.array")
    lazy = da.from_zarr(f"precomputed://{server.url}", component="0")
    assert server.requests["/info"] == 1
    assert np.array_equal(lazy.compute(scheduler="threads"), layer.volume)
    assert len(server.asked) == 1 + CHUNKS


def test_an_unsharded_chunk_takes_one_request(server, layer, road):
    """Reading everything asks for each chunk once; reading a voxel for one chunk."""
    array = opened(server)
    assert np.array_equal(array[...], layer.volume)
    assert set(server.requests.values()) == {1}
    assert len(server.asked) == 1 + CHUNKS
    server.forget()
    assert array[3, 3, 3] == layer.volume[3, 3, 3]
    assert len(server.asked) == 1


def test_an_absent_chunk_takes_one_request(server, layer, road):
    """A missing chunk is not looked for under other names on a web server."""
    for file in (layer.root / "1_1_1").iterdir():
        file.unlink()
    assert not opened(server)[...].any()
    assert len(server.asked) == 1 + CHUNKS


# shards


@pytest.fixture
def small(tmp_path: Path):
    """5 x 5 x 5 chunks of 8^3 in 2 shards of 4 minishards, the indexes in one place."""
    root, volume = tmp_path / "small", voxels((40, 40, 40))
    write_layer(root, volume, (8, 8, 8), sharded=Sharded(minishard_bits=2, shard_bits=1))
    with FolderServer(root) as running:
        yield running, volume


def index_reads(server: FolderServer, size: int = 64) -> list[tuple[str, str | None]]:
    return [(asked.path, asked.range) for asked in server.asked if asked.range == f"bytes=0-{size - 1}"]


def test_one_cold_chunk_of_a_shard_takes_three_requests(small, road):
    """Shard index, minishard indexes, data; then one request for every further chunk of the shard."""
    server, volume = small
    array = opened(server)
    server.forget()
    assert np.array_equal(array[:8, :8, :8], volume[:8, :8, :8])
    assert len(server.asked) == 3
    server.forget()
    cells = [(0, 0, 2), (0, 2, 0), (2, 0, 0), (2, 2, 0)]
    same_shard = [cell for cell in cells if place_of(morton(cell, [5, 5, 5]), Sharded())[0] == 0]
    assert same_shard
    for x, y, z in same_shard:
        box = np.s_[8 * z : 8 * z + 8, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
        assert np.array_equal(array[box], volume[box])
    assert len(server.asked) == len(same_shard)


def test_a_whole_volume_takes_two_index_reads_a_shard(small, road):
    """However many chunks and minishards of a shard are read at once, its indexes cost two requests."""
    server, volume = small
    array = opened(server)
    server.forget()
    assert np.array_equal(array[...], volume)
    assert sorted(path for path, _ in index_reads(server)) == ["/1_1_1/0.shard", "/1_1_1/1.shard"]
    spans = {asked.range for asked in server.asked}
    assert len(spans) == len(server.asked) or len(server.asked) <= 2 * 2 + 125
    assert len(server.asked) < 2 * 2 + 125  # neighbouring chunks came together


def test_indexes_stay_known(small, road):
    """The second reading of everything asks for data only."""
    server, volume = small
    array = opened(server)
    array[...]
    server.forget()
    assert np.array_equal(array[...], volume)
    assert not index_reads(server)


@pytest.mark.parametrize(
    ("apart", "index_gzip", "data_gzip"), [(True, False, False), (False, True, True), (True, True, False)]
)
def test_layouts_of_indexes(tmp_path: Path, road, apart, index_gzip, data_gzip):
    """Indexes behind each minishard's data or all together, plain or gzip: the voxels, and few requests."""
    volume = voxels((40, 40, 40))
    layout = Sharded(2, 3, 1, index_gzip=index_gzip, data_gzip=data_gzip, apart=apart)
    write_layer(tmp_path / "s", volume, (8, 8, 8), sharded=layout)
    with FolderServer(tmp_path / "s") as running:
        array = opened(running)
        running.forget()
        assert np.array_equal(array[...], volume)
        assert len(index_reads(running, 128)) == 2
        assert len(running.asked) < 2 * 2 + 125


def test_far_apart_indexes_are_read_alone(tmp_path: Path, road):
    """Indexes with much data between them are not worth reading together: one request for each that is needed."""
    volume = voxels((128, 64, 64))
    layout = Sharded(0, 1, 0, apart=True)
    write_layer(tmp_path / "s", volume, (64, 64, 64), sharded=layout)  # 256 KiB between two indexes
    with FolderServer(tmp_path / "s") as running:
        array = opened(running)
        running.forget()
        assert np.array_equal(array[:, :, :64], volume[:, :, :64])
        assert len(running.asked) == 3
        assert np.array_equal(array[...], volume)
        assert len(running.asked) == 3 + 1 + 1  # the rest of the data in one


@pytest.fixture
def spread(tmp_path: Path):
    """A shard of 4 minishards of one chunk, the indexes too far apart to be read together."""
    volume = voxels((128, 128, 64))
    write_layer(tmp_path / "s", volume, (64, 64, 64), sharded=Sharded(0, 2, 0, apart=True))
    with FolderServer(tmp_path / "s") as running:
        yield running, volume


def is_minishard_index(asked: Asked) -> bool:
    start, stop = map(int, asked.range.removeprefix("bytes=").split("-")) if asked.range else (0, 1 << 20)
    return start > 0 and stop - start < 1000


def test_far_apart_indexes_are_asked_for_at_the_same_time(spread, road):
    """What is to be known of a shard takes two waits, however many indexes it has."""
    server, volume = spread
    array = opened(server)
    server.forget()
    meeting = threading.Barrier(4, timeout=20)

    def wait_for_the_others(asked: Asked) -> Reply | None:
        if is_minishard_index(asked):
            meeting.wait()
        return None

    server.reply = wait_for_the_others
    assert np.array_equal(array[...], volume)
    assert sum(map(is_minishard_index, server.asked)) == 4


def test_one_failing_index_fails_the_read(spread, road):
    """Of several that are asked for at the same time one that cannot be read is no absent chunk."""
    server, _ = spread
    array = opened(server, retries=0)
    failing: list[str | None] = []

    def refuse_the_first(asked: Asked) -> Reply | None:
        if is_minishard_index(asked) and not failing:
            failing.append(asked.range)
        return Reply(403, b"no") if asked.range in failing else None

    server.reply = refuse_the_first
    with pytest.raises(storefs.TransportError, match="refused"):
        array[...]


def test_indexes_asked_for_together_are_kept_each(spread, road, tmp_path):
    """A cache has the indexes that came together, for reading without the server."""
    server, volume = spread
    folder = str(tmp_path / "cache")
    assert np.array_equal(opened(server, cache=folder)[...], volume)
    server.forget()
    assert np.array_equal(opened(server, cache=folder, offline=True)[...], volume)
    assert np.array_equal(opened(server, cache=folder)[...], volume)
    assert {asked.path for asked in server.asked} == {"/info"}


def test_an_absent_shard_is_asked_for_once(tmp_path: Path, road):
    """That a shard is not there is remembered for all its chunks."""
    volume = voxels((40, 40, 40))
    layout = Sharded(minishard_bits=2, shard_bits=1)
    write_layer(tmp_path / "s", volume, (8, 8, 8), sharded=layout)
    (tmp_path / "s" / "1_1_1" / shard_name(1, layout)).unlink()
    with FolderServer(tmp_path / "s") as running:
        array = opened(running)
        first = array[...]
        running.forget()
        assert np.array_equal(array[...], first)
        assert not any("1.shard" in asked.path for asked in running.asked)
        assert 0.3 < (first == 0).mean() < 0.7


# at the same time


def test_concurrent_readers_of_a_cold_shard_ask_once(small, road):
    """Tasks that meet an unknown shard at the same moment share one read of its index."""
    server, volume = small
    server.latency = 0.1
    store = storefs.open_store(f"precomputed://{server.url}")

    async def all_at_once() -> list[bytes]:
        await store.get("zarr.json")
        server.forget()
        keys = [f"0/c/{z}/{y}/{x}" for z, y, x in np.ndindex(5, 5, 5)]
        return [buffer.to_bytes() for buffer in await asyncio.gather(*map(store.get, keys))]

    chunks = asyncio.run(all_at_once())
    assert chunks[0] == volume[:8, :8, :8].tobytes()
    assert len(index_reads(server)) == 2


def test_concurrent_threads_share_a_cold_shard(small, road):
    """Threads that read one array at the same moment share the reads of the indexes too."""
    server, volume = small
    array = opened(server)
    server.latency = 0.1
    server.forget()
    results = []

    def read(z: int) -> None:
        results.append(np.array_equal(array[8 * z : 8 * z + 8], volume[8 * z : 8 * z + 8]))

    threads = [threading.Thread(target=read, args=(z,)) for z in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 5
    assert len(index_reads(server)) == 2


def test_concurrent_openers_ask_once(server, road):
    """One store opened by many tasks at once asks for one info."""
    server.latency = 0.05
    store = storefs.open_store(f"precomputed://{server.url}")

    async def all_at_once() -> None:
        await asyncio.gather(*(store.get("zarr.json") for _ in range(20)))

    asyncio.run(all_at_once())
    assert dict(server.requests) == {"/info": 1}


def test_neighbouring_chunks_come_together(tmp_path: Path, road):
    """Chunks that lie side by side in a shard and are asked for at once cost one request."""
    volume = voxels((16, 16, 16))
    write_layer(tmp_path / "s", volume, (8, 8, 8), sharded=Sharded(3, 0, 0))  # all in one minishard, in order
    with FolderServer(tmp_path / "s") as running:
        array = opened(running)
        running.forget()
        assert np.array_equal(array[...], volume)
        assert len(running.asked) == 3  # shard index, minishard index, all data


def test_distant_chunks_are_not_merged(tmp_path: Path, road):
    """Two chunks with much between them are read by themselves, not with all that lies between."""
    volume = voxels((256, 64, 64))
    write_layer(tmp_path / "s", volume, (64, 64, 64), sharded=Sharded(2, 0, 0))  # 256 KiB a chunk
    with FolderServer(tmp_path / "s") as running:
        array = opened(running)
        array[0, 0, 0]
        running.forget()
        found = array.get_orthogonal_selection((slice(None), slice(None), [0, 200]))
        assert np.array_equal(found, volume[:, :, [0, 200]])
        assert len(running.asked) == 2
        assert sum(int(last) - int(first) for first, last in (a.range[6:].split("-") for a in running.asked)) < 600_000
