"""Foresight: which chunks a selection touches, and what reading them takes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.indexing import BasicIndexer

import storefs
from storefs.cost import ReadCost, plan
from storefs.grid import Grid
from storefs.touched import touched
from tests.http_server import FolderServer
from tests.layers import Sharded, voxels, write_layer
from tests.small_volume import png

SIZE, CHUNK = (64, 48, 40), (16, 16, 16)
CHUNKS = 4 * 3 * 3


@pytest.fixture
def volume() -> np.ndarray:
    return voxels(SIZE)


def layer(folder: Path, volume: np.ndarray, **settings) -> str:
    write_layer(folder, volume, CHUNK, **settings)
    return f"precomputed://{folder}"


# chunks of a selection


def selections(length: int) -> st.SearchStrategy[object]:
    bound = st.one_of(st.none(), st.integers(-length - 3, length + 3))
    step = st.one_of(st.none(), st.integers(1, 2 * length))
    return st.one_of(st.builds(slice, bound, bound, step), st.integers(-length, length - 1))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_the_chunks_of_a_box(data):
    """For integers and slices the chunks, voxels and chunks' voxels are those that numpy and zarr's indexer give."""
    shape = data.draw(st.tuples(*[st.integers(1, 30)] * 3))
    chunk = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    selection = tuple(data.draw(selections(n)) for n in shape)
    found = touched(selection, Grid(shape, chunk))
    numbers = np.zeros(shape, int)
    for index in Grid(shape, chunk):
        numbers[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk, strict=True))] = np.ravel_multi_index(
            index, Grid(shape, chunk).cells
        )
    expected = np.unique(numbers[selection])
    assert sorted(np.ravel_multi_index(i, Grid(shape, chunk).cells) for i in found) == expected.tolist()
    assert found.count == len(expected)
    assert found.voxels == np.asarray(numbers[selection]).size
    assert found.chunk_voxels == sum(int((numbers == n).sum()) for n in expected)
    # zarr looks at a chunk for nothing where a slice ends before it begins, and between long steps
    if found.count and all(isinstance(s, int) or (s.step or 1) == 1 for s in selection):
        array = zarr.create_array({}, shape=shape, chunks=chunk, dtype="u1")
        grid = getattr(array, "_chunk_grid", None) or array.metadata.chunk_grid
        assert found.count == sum(1 for _ in BasicIndexer(selection, shape, grid))


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_the_chunks_of_scattered_voxels(data):
    """Arrays of coordinates are taken point by point; masks and one array along an axis along their axes."""
    shape, chunk = (20, 13, 9), (4, 5, 6)
    grid = Grid(shape, chunk)
    points = [data.draw(st.lists(st.integers(-n, n - 1), min_size=6, max_size=6)) for n in shape]
    found = touched(tuple(points), grid)
    expected = {
        tuple(p % n // c for p, n, c in zip(row, shape, chunk, strict=True)) for row in zip(*points, strict=True)
    }
    assert set(found) == expected
    assert found.count == len(expected)
    assert found.voxels == 6
    assert found.chunk_voxels == sum(math.prod(grid.extent(index)) for index in expected)
    mask = np.zeros(9, bool)
    mask[[p % 9 for p in points[2]]] = True
    found = touched((slice(None), points[1], mask), grid)
    assert set(found) == {
        (z, y % 13 // 5, x // 6) for z in range(5) for y in points[1] for x in np.flatnonzero(mask).tolist()
    }
    assert found.voxels == 20 * 6 * mask.sum()


def test_ellipses_and_missing_axes():
    """What is not named is taken whole."""
    grid = Grid((20, 13, 9), (4, 5, 6))
    assert touched(..., grid).count == 5 * 3 * 2
    assert touched(3, grid).count == 3 * 2
    assert touched((..., 0), grid).count == 5 * 3
    assert touched((0, ..., 0), grid).count == 3
    assert touched((), grid).count == 5 * 3 * 2
    assert touched(slice(5, 5), grid).count == 0


@pytest.mark.parametrize("selection", [20, -21, (0, 0, 0, 0), (..., ...), ([0, 20],), (np.ones(3, bool),), ("z",), 0.5])
def test_selections_that_make_no_sense(selection):
    """What lies outside, has too many axes or is no index raises IndexError."""
    with pytest.raises(IndexError):
        touched(selection, Grid((20, 13, 9), (4, 5, 6)))


def test_a_petavoxel_is_counted_at_once():
    """Counting takes no longer for an array with billions of chunks, and a sample of it is small and compact."""
    grid = Grid((100_000, 100_000, 100_000), (64, 64, 64))
    found = touched(..., grid)
    assert found.count == 1563**3
    assert found.chunk_voxels == found.voxels == 10**15
    sample = found.sample(1000)
    assert 100 < sample.count <= 1000
    assert max(map(len, sample.cells)) <= 2 * min(map(len, sample.cells))


# cost


def test_a_raw_layer_is_known(tmp_path, volume):
    """Without shards each chunk is a request; of raw chunks the bytes are as many as decoded."""
    url = layer(tmp_path, volume)
    array = storefs.open_array(url)
    assert plan(array) == ReadCost(
        chunks=CHUNKS,
        cached_chunks=0,
        requests=CHUNKS,
        bytes_fetched=volume.nbytes,
        bytes_decoded=volume.nbytes,
        bytes_selected=volume.nbytes,
        exact=False,
    )
    cost = plan(url, np.s_[8:24, :16, 3])
    assert (cost.chunks, cost.requests, cost.bytes_decoded, cost.bytes_selected) == (2, 2, 2 * 16**3, 16 * 16)
    cost = plan(url, np.s_[36:, 40:, 60:], axes="zyx")
    assert (cost.chunks, cost.bytes_decoded) == (1, 8 * 16 * 16)
    assert plan(url, np.s_[60:, 40:, 36:], axes="xyz") == cost
    assert plan(array, np.s_[3:3]).exact
    assert plan(array, np.s_[3:3]).requests == 0


def test_nothing_is_read(tmp_path, volume):
    """Planning asks for nothing but what describes the volume; so does planning of shards, unless exact."""
    layer(tmp_path / "plain", volume)
    layer(tmp_path / "sharded", volume, sharded=Sharded())
    for name in ("plain", "sharded"):
        with FolderServer(tmp_path / name) as server:
            plan(f"precomputed://{server.url}", np.s_[:20])
            assert [asked.path for asked in server.asked] == ["/info"]


@pytest.mark.parametrize("box", [np.s_[...], np.s_[:16, :16, :16], np.s_[5:30, 20:, 40:], np.s_[::20, 0, 0]])
@pytest.mark.parametrize("gzip", [False, True])
def test_shards_are_known_exactly(tmp_path, volume, box, gzip):
    """With `exact`, requests and bytes are those that the read then makes, indexes included."""
    layer(tmp_path, volume, sharded=Sharded(minishard_bits=2, shard_bits=1, data_gzip=gzip, index_gzip=gzip))
    with FolderServer(tmp_path) as server:
        url = f"precomputed://{server.url}"
        planned = storefs.open_array(url)
        cost = plan(planned, box, exact=True)
        index_requests = storefs.statistics(planned).requests - 1
        index_bytes = storefs.statistics(planned).bytes_received - (tmp_path / "info").stat().st_size
        array = storefs.open_array(url)
        array[box]
        found = storefs.statistics(array)
        assert cost.exact
        assert cost.requests == found.requests - 1
        assert cost.bytes_fetched == found.bytes_received - (tmp_path / "info").stat().st_size - index_bytes
        again = plan(planned, box, exact=True)
        assert again.requests == cost.requests - index_requests
        guess = plan(url, box)
        assert not guess.exact
        assert guess.chunks == cost.chunks
        assert guess.requests <= 4 * cost.requests + 4


def test_what_is_cached_is_told(tmp_path, volume):
    """Chunks in memory and on disk are counted, also those known to be absent and those in shards."""
    for name, settings_ in (("plain", {"leave_out": [(0, 0, 0)]}), ("sharded", {"sharded": Sharded()})):
        url = layer(tmp_path / name, volume, **settings_)
        in_memory = storefs.open_array(url, memory_cache="1 MB")
        on_disk = storefs.open_array(url, cache=str(tmp_path / "cache"))
        for array in (in_memory, on_disk):
            assert plan(array).cached_chunks == 0
            array[:16, :16, 16:]
            cost = plan(array, np.s_[:16])
            assert (cost.chunks, cost.cached_chunks) == (12, 3)
        on_disk[:16, :16, :16]
        assert plan(on_disk, np.s_[:16]).cached_chunks == 4


def test_a_guess_learns(tmp_path):
    """Bytes to fetch are a guess after the encoding until something has been read, then after that."""
    info = np.zeros((64, 64, 64), np.uint8)
    write_layer(tmp_path, info, CHUNK, wrap=lambda data: png(np.frombuffer(data, np.uint8).reshape(16, 16, 16)))
    text = (tmp_path / "info").read_text().replace('"raw"', '"png"')
    (tmp_path / "info").write_text(text)
    array = storefs.open_array(f"precomputed://{tmp_path}")
    before = plan(array).bytes_fetched
    assert 0.3 * info.nbytes < before < info.nbytes
    array[:32]
    stored = sum(path.stat().st_size for path in (tmp_path / "1_1_1").iterdir())
    assert plan(array).bytes_fetched < before / 3
    assert 0.5 * stored < plan(array).bytes_fetched < 2 * stored


def test_in_words(tmp_path, volume):
    """Printed, a cost is a sentence."""
    cost = plan(layer(tmp_path, volume), np.s_[:16, :16, :16])
    assert str(cost) == "1 chunk, about 1 request, about 4.1 kB to fetch, 4.1 kB to decode for 4.1 kB"
    assert repr(cost) == f"<ReadCost: {cost}>"
    assert "36 chunks, about 36 requests, " in str(plan(f"precomputed://{tmp_path}"))


def test_groups_have_no_cost(tmp_path, volume):
    """A group is no array, and neither is what storefs has not opened."""
    with pytest.raises(TypeError, match="group"):
        plan(storefs.open(layer(tmp_path, volume)))
    with pytest.raises(TypeError, match="storefs has opened"):
        plan(zarr.create_array({}, shape=3, dtype="u1"))
