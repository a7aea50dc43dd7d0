"""Caches, counters and foresight, over the whole path: what is asked twice, what is not, and what is said of it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pickle
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import storefs
from storefs.cli import main
from storefs.progress import Told, line
from storefs.registry import open_source
from storefs.upkeep import source_of
from tests.backends.catmaid.scene import SHAPE, scene
from tests.backends.catmaid.specimen import tissue
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.emulator import DvidEmulator
from tests.http_server import Faults, FolderServer
from tests.layers import Sharded, voxels, write_layer

CHUNKS = 12  # of the layer of conftest.py
SIZE, CHUNK = (64, 48, 40), (16, 16, 16)
SHARDED_CHUNKS = 4 * 3 * 3


@pytest.fixture
def sharded(tmp_path: Path) -> Iterator[tuple[FolderServer, np.ndarray]]:
    """A web server with a sharded layer."""
    volume = voxels(SIZE)
    write_layer(tmp_path / "sharded", volume, CHUNK, sharded=Sharded(minishard_bits=2, shard_bits=1))
    with FolderServer(tmp_path / "sharded") as server:
        yield server, volume


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def gears(url: str, **options) -> Iterator[zarr.Array]:
    """The array at `url` as `storefs.open_array` gives it, which reads in bulk, and as zarr opens it by itself."""
    yield storefs.open_array(url, **options)
    yield zarr.open_array(f"{url}/0", mode="r", storage_options=options)
    yield zarr.open_array(storefs.open_store(url, **options), path="0", mode="r")


def chunk_requests(server: FolderServer) -> int:
    return len([asked for asked in server.asked if asked.path != "/info"])


# memory


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
@pytest.mark.parametrize("gear", [0, 1, 2])
def test_decoded_chunks_are_kept_in_memory(server, layer, gear, axes):
    """With `memory_cache` nothing is asked for twice, in whatever way zarr selects; without, everything is."""
    url = f"precomputed://{server.url}"
    expected = layer.volume if axes == "zyx" else layer.volume.T
    array = list(gears(url, memory_cache="1 MB", axes=axes))[gear]
    assert np.array_equal(array[...], expected)
    before = chunk_requests(server)
    assert np.array_equal(array[...], expected)
    assert np.array_equal(array[3:-1, ::2, 5], expected[3:-1, ::2, 5])
    mask = np.zeros(expected.shape[0], bool)
    mask[[0, 3, -1]] = True
    assert np.array_equal(array.oindex[mask, 1:9], expected[mask, 1:9])
    points = tuple(np.random.default_rng(3).integers(0, n, 50) for n in expected.shape)
    assert np.array_equal(array.vindex[points], expected[points])
    assert chunk_requests(server) == before
    found = storefs.statistics(array).memory_cache
    assert (found.misses, found.entries, found.nbytes) == (CHUNKS, CHUNKS, layer.volume.nbytes)
    assert found.hits > CHUNKS
    array = list(gears(url, axes=axes))[gear]
    before = chunk_requests(server)
    for _ in range(2):
        assert np.array_equal(array[0, 0, :10], expected[0, 0, :10])
    assert chunk_requests(server) == before + 2
    assert storefs.statistics(array).memory_cache is None


def test_what_is_read_from_memory_can_be_changed(server, layer):
    """An array that was read belongs to the reader: what he does to it does not show when it is read again."""
    for array in gears(f"precomputed://{server.url}", memory_cache=1 << 20):
        for box in (np.s_[...], np.s_[:16, :16, :16], np.s_[3:5, 2:9, 1]):
            array[box]
            mine = array[box]
            mine[...] = 0
            assert np.array_equal(array[box], layer.volume[box])


def test_the_memory_cache_is_bounded(server, layer):
    """A cache for two chunks holds two."""
    for array in gears(f"precomputed://{server.url}", memory_cache=2 * 16**3):
        assert np.array_equal(array[...], layer.volume)
        found = storefs.statistics(array).memory_cache
        assert found.nbytes <= found.max_bytes == 2 * 16**3


def test_the_memory_cache_does_not_travel(server, layer):
    """A pickled array takes the option along, not the chunks."""
    array = storefs.open_array(f"precomputed://{server.url}", memory_cache="1 MB")
    array[...]
    travelled = pickle.dumps(array)
    assert len(travelled) < 10_000
    again = pickle.loads(travelled)
    assert storefs.statistics(again).memory_cache.entries == 0
    assert np.array_equal(again[...], layer.volume)
    assert storefs.statistics(again).memory_cache.entries == CHUNKS


def test_clearing_memory(server, layer):
    """Chunks of a box can be forgotten, or of an array, or all."""
    array = storefs.open_array(f"precomputed://{server.url}", memory_cache="1 MB")
    array[...]
    storefs.clear_cache(array, np.s_[:16, :16, :20])
    assert storefs.statistics(array).memory_cache.entries == CHUNKS - 2
    storefs.clear_cache(array)
    assert storefs.statistics(array).memory_cache.entries == 0


# on disk


@pytest.mark.parametrize("gear", [0, 1, 2])
def test_answers_are_kept_on_disk(server, layer, road, cache, gear):
    """With `cache` a chunk is asked for once, whoever asks again; only the info is asked for whenever one opens."""
    url = f"precomputed://{server.url}"
    for time in range(1, 4):
        array = list(gears(url, cache=cache))[gear]
        assert np.array_equal(array[...], layer.volume)
        assert chunk_requests(server) == CHUNKS
        assert server.requests["/info"] >= time
    found = storefs.statistics(array).disk_cache
    assert (found.hits, found.misses) == (CHUNKS, 0)
    assert found.bytes_read == layer.volume.nbytes
    assert found.entries == CHUNKS + 1
    assert storefs.statistics(array).requests <= 1


@pytest.mark.parametrize("gear", [0, 1, 2])
def test_shards_are_kept_on_disk(sharded, cache, gear):
    """Indexes and chunks of shards are kept, each chunk by itself: another box in other pieces asks for the rest."""
    server, volume = sharded
    url = f"precomputed://{server.url}"
    first = list(gears(url, cache=cache))[gear]
    assert np.array_equal(first[:16], volume[:16])
    for array in gears(url, cache=cache):
        before = chunk_requests(server)
        assert np.array_equal(array[:16, :32], volume[:16, :32])
        assert np.array_equal(array[3, 4], volume[3, 4])
        assert chunk_requests(server) == before
    for array in gears(url, cache=cache):
        assert np.array_equal(array[...], volume)
    before = chunk_requests(server)
    for array in gears(url, cache=cache):
        assert np.array_equal(array[...], volume)
    for array in gears(url, cache=cache, offline=True):
        assert np.array_equal(array[...], volume)
    assert chunk_requests(server) == before


@pytest.mark.parametrize("kind", ["plain", "sharded"])
def test_offline_reads_from_the_cache_alone(layer, tmp_path, cache, kind):
    """What was read before opens and reads the same with no source there at all; what was not raises and says so."""
    volume = voxels(SIZE) if kind == "sharded" else layer.volume
    root = tmp_path / "again"
    write_layer(root, volume, CHUNK, **({"sharded": Sharded()} if kind == "sharded" else {}))
    with FolderServer(root) as server:
        url = f"precomputed://{server.url}"
        array = storefs.open_array(url, cache=cache)
        assert np.array_equal(array[:16], volume[:16])
    for array in gears(url, cache=cache, offline=True):
        assert np.array_equal(array[:16], volume[:16])
        with pytest.raises(storefs.NotCached, match=r"offline=True.*read it once without offline") as caught:
            array[...]
        assert caught.value.chunk
        assert not isinstance(caught.value, FileNotFoundError)
    with pytest.raises(storefs.NotCached, match="does not have info"):
        storefs.open(f"{url}/elsewhere", cache=cache, offline=True)
    with pytest.raises(storefs.TransportError):
        storefs.open(url, cache=cache, retries=0, timeout=1)  # offline was not asked for


def test_what_was_read_is_known_to_exist(server, layer, cache):
    """Whether a chunk is stored need not be asked where it was read before, nor where it was absent."""
    next((layer.root / "1_1_1").iterdir()).unlink()
    storefs.open_array(f"precomputed://{server.url}", cache=cache)[...]
    source = open_source(f"precomputed://{server.url}", {"cache": cache, "offline": True})

    async def stored() -> list[bool]:
        return [await source.exists(f"0/c/{z}/{y}/{x}") for z, y, x in np.ndindex(2, 2, 3)]

    assert sorted(asyncio.run(stored())) == [False] + [True] * (CHUNKS - 1)


def test_offline_wants_a_cache(server):
    """Offline without a cache is a contradiction, and said to be."""
    with pytest.raises(storefs.UrlError, match="cache="):
        storefs.open(f"precomputed://{server.url}", offline=True)


def test_absent_chunks_are_remembered(layer, server, cache):
    """That a chunk is absent is believed for a time: it is not asked for again, and then it is."""
    name = next(path for path in (layer.root / "1_1_1").iterdir() if path.name.startswith("0-16_0-16_0-16"))
    data = name.read_bytes()
    name.unlink()
    url = f"precomputed://{server.url}"
    for _ in range(2):
        assert not storefs.open_array(url, cache=cache)[:16, :16, :16].any()
        assert chunk_requests(server) == 1
    with pytest.raises(storefs.MissingChunk):
        storefs.open_array(url, cache=cache, missing="error")[:16, :16, :16]
    name.write_bytes(data)
    assert not storefs.open_array(url, cache=cache)[:16, :16, :16].any()
    assert storefs.open_array(url, cache=cache, cache_absent=0)[:16, :16, :16].all()
    assert storefs.open_array(url, cache=cache, offline=True)[:16, :16, :16].all()


def test_absences_can_be_left_out(layer, server, cache):
    """With `cache_absent=0` no absence is kept."""
    for path in (layer.root / "1_1_1").iterdir():
        path.unlink()
    url = f"precomputed://{server.url}"
    for time in (1, 2):
        assert not storefs.open_array(url, cache=cache, cache_absent=0)[...].any()
        assert chunk_requests(server) == time * CHUNKS


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 403}, {"reset": True}, {"cut_body": True}])
def test_errors_are_not_kept(server, layer, cache, fault):
    """A failure is not remembered, neither as itself nor as an absence: the next one who asks gets the chunk."""
    url = f"precomputed://{server.url}"
    server.faults = Faults(where=lambda path: "0-16_0-16_0-16" in path, **fault)
    with pytest.raises(storefs.TransportError):
        storefs.open_array(url, cache=cache, retries=0)[...]
    server.faults = Faults()
    assert np.array_equal(storefs.open_array(url, cache=cache)[...], layer.volume)
    assert np.array_equal(storefs.open_array(url, cache=cache, offline=True)[...], layer.volume)


def test_damaged_files_are_asked_for_anew(server, layer, cache):
    """Files of the cache that a crash tore, or something else wrote, are replaced without a word."""
    url = f"precomputed://{server.url}"
    storefs.open_array(url, cache=cache)[...]
    for number, path in enumerate(sorted(Path(cache).rglob("*.entry"))):
        content = path.read_bytes()
        path.write_bytes([b"", content[:-5], content[:30], content[:100] + b"!" + content[101:], b"?" * 9][number % 5])
    assert np.array_equal(storefs.open_array(url, cache=cache)[...], layer.volume)
    assert np.array_equal(storefs.open_array(url, cache=cache, offline=True)[...], layer.volume)


def test_sources_and_options_do_not_mix(tmp_path, cache):
    """Two volumes with the same names, and one address with other options, are kept apart."""
    for seed in (1, 2):
        write_layer(tmp_path / str(seed), voxels(SIZE, seed=seed), CHUNK)
    for _ in range(2):
        for seed in (1, 2):
            array = storefs.open_array(f"precomputed://{tmp_path / str(seed)}", cache=cache)
            assert np.array_equal(array[...], voxels(SIZE, seed=seed))
    with FolderServer(tmp_path / "1") as server:
        url = f"precomputed://{server.url}"
        storefs.open_array(f"{url}?token=abc", cache=cache)[:16]
        with pytest.raises(storefs.NotCached):
            storefs.open_array(f"{url}?token=abd", cache=cache, offline=True)
        storefs.open_array(f"{url}?token=abc", cache=cache, offline=True)[:16]


def test_no_secret_is_kept(server, layer, cache):
    """Neither headers nor what is in a query is anywhere in the cache."""
    url = f"precomputed://{server.url}?signature=hunter2"
    storefs.open_array(url, cache=cache, headers={"Authorization": "Bearer sesame"})[...]
    paths = [path for path in Path(cache).rglob("*") if path.is_file()]
    assert len(paths) > CHUNKS
    for path in paths:
        assert not any(secret in path.read_bytes() for secret in (b"hunter2", b"sesame"))


def test_a_changed_info_shows(server, layer, cache):
    """What describes a volume is asked for whenever it is opened, so that a change shows."""
    url = f"precomputed://{server.url}"
    storefs.open_array(url, cache=cache)
    info = json.loads((layer.root / "info").read_text())
    info["scales"][0]["resolution"] = [5, 6, 7]
    (layer.root / "info").write_text(json.dumps(info))
    for options in ({}, {"offline": True}):
        array = storefs.open_array(url, cache=cache, **options)
        assert array.attrs["storefs"]["resolution_xyz"] == [5, 6, 7]


@pytest.mark.parametrize("layout", ["plain", "gz"])
def test_files_can_be_cached(tmp_path, layer, cache, layout):
    """A volume of local files is kept too (they may lie on a slow disk), chunks that are stored as .gz included."""
    if layout == "gz":
        import gzip

        for path in list((layer.root / "1_1_1").iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    url = f"precomputed://{layer.root}"
    assert np.array_equal(storefs.open_array(url, cache=cache)[...], layer.volume)
    layer.root.rename(tmp_path / "gone")
    for array in gears(url, cache=cache, offline=True):
        assert np.array_equal(array[...], layer.volume)


def test_clearing_the_disk(sharded, tmp_path, cache):
    """Chunks of a box are forgotten on disk, then an array, then everything of the volume; others stay."""
    server, volume = sharded
    other = f"precomputed://{tmp_path / 'other'}"
    write_layer(tmp_path / "other", volume, CHUNK)
    storefs.open_array(other, cache=cache)[...]
    array = storefs.open_array(f"precomputed://{server.url}", cache=cache)
    array[...]
    entries = storefs.statistics(array).disk_cache.entries
    storefs.clear_cache(array, np.s_[:16, :16, 16:48])
    assert storefs.statistics(array).disk_cache.entries == entries - 2
    before = chunk_requests(server)
    assert np.array_equal(array[...], volume)
    assert before < chunk_requests(server) <= before + 2
    storefs.clear_cache(array, ...)
    assert storefs.statistics(array).disk_cache.entries < entries - SHARDED_CHUNKS + 5
    storefs.clear_cache(array)
    with pytest.raises(storefs.NotCached):
        storefs.open_array(f"precomputed://{server.url}", cache=cache, offline=True)[...]
    storefs.clear_cache(array.store)
    with pytest.raises(storefs.NotCached):
        storefs.open(f"precomputed://{server.url}", cache=cache, offline=True)
    assert np.array_equal(storefs.open_array(other, cache=cache, offline=True)[...], volume)


def test_the_command(server, layer, cache, capsys, tmp_path, monkeypatch):
    """`storefs cache` shows what is kept of which volume, and removes it."""
    storefs.open_array(f"precomputed://{server.url}", cache=cache)[...]
    storefs.open(f"precomputed://{layer.root}", cache=cache)
    assert main(["cache", "info", cache]) == 0
    said = capsys.readouterr().out
    assert f"{CHUNKS + 2} entries" in said
    assert re.search(rf"{re.escape(server.url)} +{CHUNKS + 1} +\d", said)
    assert main(["cache", "clear", cache, "--source", server.url]) == 0
    assert f"{CHUNKS + 1} entries removed" in capsys.readouterr().out
    assert main(["cache", "clear", cache]) == 0
    assert main(["cache", "info", cache]) == 0
    assert "0 entries" in capsys.readouterr().out
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "usual"))
    monkeypatch.setattr(sys, "platform", "linux")
    storefs.open(f"precomputed://{server.url}", cache=True)
    assert main(["cache", "info"]) == 0
    assert "1 entries" in capsys.readouterr().out


def test_the_disk_cache_is_bounded(server, layer, cache):
    """A small cache stays small, and reading is right all the same."""
    array = storefs.open_array(f"precomputed://{server.url}", cache=cache, cache_size="40 kB")
    for _ in range(3):
        assert np.array_equal(array[...], layer.volume)
    assert storefs.statistics(array).disk_cache.nbytes <= 44_000


def test_a_folder_that_cannot_be(server, tmp_path):
    """A cache in a place where no folder can be made is refused when the volume is opened."""
    (tmp_path / "file").write_text("")
    with pytest.raises(storefs.UrlError, match="option cache"):
        storefs.open(f"precomputed://{server.url}", cache=str(tmp_path / "file" / "cache"))


def test_options_travel(server, layer, cache):
    """The options of caches work by keyword, by storage_options and in the address, and travel in pickles."""
    url = f"precomputed://{server.url}"
    text = f"{url}?cache={cache}&memory_cache=1%20MB&cache_size=2GiB&cache_absent=2h"
    for array in (storefs.open_array(text), pickle.loads(pickle.dumps(storefs.open_array(text)))):
        assert np.array_equal(array[...], layer.volume)
        found = storefs.statistics(array)
        assert found.disk_cache.max_bytes == 2 << 30
        assert found.memory_cache.max_bytes == 1_000_000
    assert chunk_requests(server) == CHUNKS


@pytest.mark.parametrize(
    "option",
    [
        {"memory_cache": "much"},
        {"memory_cache": True},
        {"cache_size": 0},
        {"cache_size": "-5 GB"},
        {"cache_absent": "soon"},
        {"cache": ""},
        {"progress": "perhaps"},
    ],
)
def test_options_that_make_no_sense(server, option):
    """What is no size, time, folder or hook is refused, naming the option."""
    with pytest.raises(storefs.UrlError, match=f"option {next(iter(option))}"):
        storefs.open(f"precomputed://{server.url}", **option)


def test_asynchronous_reads_share_the_cache(server, layer, cache):
    """Many reads at once on one event loop keep and find the same."""
    source = open_source(f"precomputed://{server.url}", {"cache": cache})

    async def read() -> list[bytes | None]:
        keys = [f"0/c/{z}/{y}/{x}" for z, y, x in np.ndindex(2, 2, 3)]
        return [bytes(payload) for payload in await asyncio.gather(*map(source.get, keys))]

    first = asyncio.run(read())
    assert chunk_requests(server) == CHUNKS
    assert asyncio.run(read()) == first
    assert chunk_requests(server) == CHUNKS


# dvid


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An emulated DVID server with one repository."""
    with DvidEmulator() as server:
        lab = Lab(server)
        yield lab
        lab.ask.close()


@pytest.fixture
def grayscale(lab: Lab) -> tuple[str, np.ndarray]:
    """An image of 2 x 2 x 3 blocks on that server: its address, and its voxels."""
    volume = np.random.default_rng(5).integers(1, 200, (32, 32, 48)).astype(np.uint8)
    url = f"dvid://{lab.server.url}/{lab.root}/gray"
    array = storefs.create(url, volume.shape, "uint8", block_size=(16, 16, 16))["0"]
    array[...] = volume
    return f"{url}?chunk_shape=16,16,16", volume


def test_an_open_version_is_not_kept(grayscale, cache):
    """Voxels of a version that can still change are not kept on disk: opening with a cache says why not."""
    with pytest.raises(storefs.Unsupported, match=r"is not locked.*leave out cache="):
        storefs.open(grayscale[0], cache=cache)


def test_a_locked_version_is_kept(lab, grayscale, cache):
    """Voxels of a committed version are kept, and can be read with the server gone, in every gear."""
    url, volume = grayscale
    lab.commit()
    for array in gears_of_dvid(url, cache=cache):
        assert np.array_equal(array[...], volume)
    found = storefs.statistics(array).disk_cache
    assert (found.hits, found.misses) == (CHUNKS, 0)
    lab.server.close()
    for array in gears_of_dvid(url, cache=cache, offline=True):
        assert np.array_equal(array[...], volume)
        assert np.array_equal(array[3:29, 16:, 5:40], volume[3:29, 16:, 5:40])


def gears_of_dvid(url: str, **options) -> Iterator[zarr.Array]:
    bare, _, query = url.partition("?")
    chunk_shape = query.partition("=")[2]
    return gears(bare, chunk_shape=chunk_shape, **options)


def test_writing_goes_past_the_memory_cache(grayscale):
    """What was written through an array is what it reads then, though the old voxels were kept."""
    url, volume = grayscale
    group = storefs.open(url, "r+", memory_cache="10 MB")
    array = group["0"]
    assert np.array_equal(array[...], volume)
    array[5:20, 3:30, 10] = 77
    volume[5:20, 3:30, 10] = 77
    for _ in range(2):
        assert np.array_equal(array[...], volume)
    array[:16, :16, :16] = volume[:16, :16, :16] = 5
    assert np.array_equal(array[...], volume)
    assert storefs.statistics(group).memory_cache.hits > 0


def test_a_box_of_a_kept_chunk_asks_nobody(grayscale):
    """A small box is cut out of a chunk in memory instead of being asked for by itself."""
    url, volume = grayscale
    for array in gears_of_dvid(url, memory_cache="10 MB"):
        array[...]
        before = storefs.statistics(array).requests
        assert np.array_equal(array[3:5, 7:9, 20:22], volume[3:5, 7:9, 20:22])
        assert storefs.statistics(array).requests == before


# catmaid


def test_tiles_are_kept(cache, monkeypatch):
    """Tiles of CATMAID stacks are kept, and what describes a stack, so that it can be read with both hosts gone."""
    monkeypatch.delenv("CATMAID_API_TOKEN", raising=False)
    with scene() as em:
        shown = em.stack(tissue(SHAPE), kind=1)
        for array in gears(shown.url, cache=cache):
            np.testing.assert_array_equal(array[...], shown.levels[0])
        found = storefs.statistics(array).disk_cache
        assert found.hits > 0
        assert found.misses == 0
    for array in gears(shown.url, cache=cache, offline=True):
        np.testing.assert_array_equal(array[...], shown.levels[0])
        assert storefs.statistics(array).requests == 0


# counters


def test_counters(server, layer):
    """Requests, bytes, decoded and absent chunks are counted, for arrays, groups and stores alike."""
    next((layer.root / "1_1_1").iterdir()).unlink()
    for array in gears(f"precomputed://{server.url}"):
        array[...]
        found = storefs.statistics(array)
        assert found.requests == 1 + CHUNKS
        assert found.chunks_decoded == CHUNKS - 1
        assert found.chunks_absent == 1
        assert 0 < found.bytes_received - (layer.root / "info").stat().st_size <= layer.volume.nbytes
    group = storefs.open(f"precomputed://{server.url}")
    assert storefs.statistics(group).requests == 1
    assert group.store.statistics() == storefs.statistics(group) == storefs.statistics(group["0"])
    with pytest.raises(TypeError, match="storefs has opened"):
        storefs.statistics(zarr.create_array({}, shape=3, dtype="u1"))


def test_shard_indexes_are_counted(sharded):
    """How often an index was found in memory is told; cleared, it is read again."""
    server, _ = sharded
    array = storefs.open_array(f"precomputed://{server.url}")
    array[...]
    found = storefs.statistics(array).indexes
    assert found.misses > 0
    assert found.entries > 0
    assert found.nbytes > 0
    before = chunk_requests(server)
    array[3, 3, 3]
    assert chunk_requests(server) == before + 1
    storefs.clear_cache(array)
    assert storefs.statistics(array).indexes.entries == 0
    array[3, 3, 3]
    assert chunk_requests(server) > before + 2


# progress


class Hook:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.heard.append((done, total))


def test_a_hook_hears_of_bulk_reads(server, layer):
    """A function hears how many bytes are done, up to all, once a chunk."""
    hook = Hook()
    array = storefs.open_array(f"precomputed://{server.url}", progress=hook)
    array[...]
    total = layer.volume.nbytes
    assert hook.heard[0] == (0, total)
    assert hook.heard[-1] == (total, total)
    assert len(hook.heard) == CHUNKS + 1
    assert [done for done, _ in hook.heard] == sorted(done for done, _ in hook.heard)


def test_a_hook_can_stop_a_read(server, layer):
    """What a hook raises ends the read and reaches the reader."""

    def enough(done: int, total: int) -> None:
        if done:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        storefs.open_array(f"precomputed://{server.url}", progress=enough)[...]


def test_hooks_do_not_travel(server, layer):
    """A hook belongs to the process that made it: a pickled array has none; `True` travels."""
    array = storefs.open_array(f"precomputed://{server.url}", progress=lambda done, total: None)
    again = pickle.loads(pickle.dumps(array))
    assert source_of(again)[0].progress is None
    assert np.array_equal(again[...], layer.volume)
    again = pickle.loads(pickle.dumps(storefs.open_array(f"precomputed://{server.url}", progress=True)))
    assert source_of(again)[0].progress is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_tells_by_itself(layer, cache):
    """A child forked while the hook is being told reads on, with its own counts and caches."""
    hook = Hook()
    array = storefs.open_array(f"precomputed://{layer.root}", progress=hook, cache=cache, memory_cache="1 MB")
    array[...]
    told = source_of(array)[0].progress
    assert isinstance(told, Told)
    with told._lock:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            hook.heard.clear()
            right = np.array_equal(array[...], layer.volume) and hook.heard[0] == (0, layer.volume.nbytes)
            found = storefs.statistics(array)
            counted = (found.disk_cache.hits, found.memory_cache.entries, found.requests) == (CHUNKS, CHUNKS, 0)
            os._exit(0 if right and counted else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_bar_of_a_slow_read(server, layer, monkeypatch):
    """`progress=True` draws a line on a terminal's stderr while a slow read lasts, through dask too, and blanks it."""

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    line.cache_clear()
    server.faults = Faults(where=lambda path: path != "/info", delay=0.35)
    da = pytest.importorskip("dask.array")
    array = storefs.open_array(f"precomputed://{server.url}", progress=True)
    lazy = da.from_array(array, chunks=(16, 16, 16))
    assert np.array_equal(lazy.compute(scheduler="threads", num_workers=3), layer.volume)
    assert "chunks" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")
    assert line(os.getpid())._counts.running == 0
    line.cache_clear()


def test_no_bar_in_a_log(server, layer, capsys):
    """Where stderr is no terminal nothing is written."""
    server.faults = Faults(where=lambda path: path != "/info", delay=0.6)
    storefs.open_array(f"precomputed://{server.url}", progress=True)[...]
    assert capsys.readouterr().err == ""


def test_identity_has_no_secrets(cache):
    """What tells addresses with other options apart shows none of them in clear."""
    source = open_source("precomputed://https://host/x?key=hunter2", {"cache": cache, "headers": {"A": "sesame"}})
    assert "hunter2" not in repr(source.keeping)
    assert "sesame" not in repr(source.keeping)
    assert replace(source.keeping, identity="").identity == ""
