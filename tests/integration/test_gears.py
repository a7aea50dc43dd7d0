"""The three gears of reading give the same: chunk by chunk, through the codec, and in bulk."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storefs
from storefs.bulk_array import Array, Group
from storefs.bulk_pipeline import BulkPipeline
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.emulator import DvidEmulator
from tests.http_server import FolderServer
from tests.layers import Sharded, write_layer
from tests.layers import voxels as noise
from tests.small_volume import Volume, volume

SHAPE = (20, 18, 25)
SEVERAL = settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def bulk(url: str, **options: Any) -> Array:
    """The finest scale in the third gear."""
    array = storefs.open_array(url, **options)
    assert isinstance(array, Array)
    return array


def second(url: str, **options: Any) -> zarr.Array[Any]:
    """The same in the second gear: zarr's default pipeline over our store."""
    store = storefs.open_store(url, **options)
    array = zarr.open_group(store, mode="r", zarr_format=store.source.presentation.zarr_format)["0"]
    assert isinstance(array, zarr.Array)
    assert not isinstance(array, Array)
    return array


def first(array: zarr.Array[Any]) -> np.ndarray[Any, Any]:
    """All voxels in the first gear: every chunk got by its key, decoded, and put where it belongs."""
    return np.asarray(zarr.open_array(Plain(array.store), path=array.path, mode="r")[...])


class Plain(zarr.storage.WrapperStore[Any]):
    """Hands through keys and bytes alone, so that no codec can fetch for itself."""

    _supports_sync_io = False


def items(length: int) -> st.SearchStrategy[Any]:
    """What may stand for an axis of `length` in a basic selection, now and then outside."""
    edge = st.integers(-length - 2, length + 2)
    steps = st.one_of(st.none(), st.integers(1, 2 * length))
    slices = st.builds(slice, st.none() | edge, st.none() | edge, steps)
    return st.one_of(slices, slices, edge, edge.map(np.int64))


@st.composite
def basic(draw: Any, shape: tuple[int, ...]) -> Any:
    """A basic selection: fewer items than axes, an ellipsis somewhere, or one item that is no tuple."""
    chosen = [draw(items(length)) for length in shape[: draw(st.integers(0, len(shape)))]]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(chosen)))
        tail = [draw(items(length)) for length in shape[len(shape) - len(chosen[at:]) :]] if chosen[at:] else []
        chosen = [*chosen[:at], Ellipsis, *tail]
    return chosen[0] if len(chosen) == 1 and draw(st.booleans()) else tuple(chosen)


def along(length: int) -> st.SearchStrategy[Any]:
    """What may stand for an axis in an orthogonal selection."""
    one = st.integers(-length, length - 1)
    mask = st.lists(st.booleans(), min_size=length, max_size=length).map(np.array)
    return st.one_of(
        one, st.lists(one, min_size=1, max_size=5), mask, st.builds(slice, st.none() | one, st.none() | one)
    )


def outcome(read: Any) -> Any:
    """What a read gives, in a form that shows every difference: or what it raises."""
    try:
        found = read()
    except Exception as error:  # noqa: BLE001  # compared, not hidden
        return type(error), str(error)
    array = np.asarray(found)
    return type(found), array.dtype, array.shape, array.tobytes()


PRECOMPUTED = {
    "uint64": {"absent": [(1, 1, 1), (0, 0, 0)]},
    "channels": {"shape": (2, *SHAPE), "dtype": "uint16"},
    "float32": {"dtype": "float32"},
    "png": {"dtype": "uint8", "encoding": "png"},
}
SHOWN: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "xyz": {"axes": "xyz"},
    "v2": {"zarr_format": 2},
    "v2 xyz": {"zarr_format": 2, "axes": "xyz"},
    "portable": {"face": "portable"},
    "portable xyz": {"face": "portable", "axes": "xyz"},
    "portable v2": {"face": "portable", "zarr_format": 2, "codec": "gzip"},
    "missing": {"missing": "error"},
    "kept in memory": {"memory_cache": 10_000},
}


@pytest.fixture(scope="module", params=list(PRECOMPUTED))
def layer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return volume(**PRECOMPUTED[request.param]).write(tmp_path_factory.mktemp("layer"))


@pytest.fixture(scope="module", params=list(SHOWN))
def pair(request: pytest.FixtureRequest, layer: Volume) -> tuple[Array, zarr.Array[Any]]:
    """The same array in the third and in the second gear."""
    options = SHOWN[request.param]
    return bulk(layer.url, **options), second(layer.url, **options)


def test_whole_volumes_are_the_same_in_all_gears(pair, layer):
    """Bytes, type, shape and memory order of a whole array agree, and with what was written."""
    array, other = pair
    if array.store.source.missing == "error" and layer.absent:
        with pytest.raises(storefs.MissingChunk):
            array[...]
        return
    found, expected = array[...], other[...]
    assert outcome(lambda: found) == outcome(lambda: expected) == outcome(lambda: first(other))
    assert found.flags.f_contiguous == expected.flags.f_contiguous
    straight = found if array.shape[-1] == layer.arrays[0].shape[-1] else found.T
    assert np.array_equal(straight, layer.arrays[0])


@SEVERAL
@given(data=st.data())
def test_basic_selections_are_the_same(pair, data):
    """Integers, slices with steps and an ellipsis give the same, scalars and errors included."""
    array, other = pair
    selection = data.draw(basic(array.shape))
    if array.store.source.missing == "error":
        assert outcome(lambda: array[selection])[0] == outcome(lambda: other[selection])[0]
        return
    assert outcome(lambda: array[selection]) == outcome(lambda: other[selection])
    assert outcome(lambda: array.get_basic_selection(selection)) == outcome(
        lambda: other.get_basic_selection(selection)
    )


@SEVERAL
@given(data=st.data())
def test_other_selections_are_the_same(pair, data):
    """Orthogonal, coordinate, mask and block selections give the same."""
    array, other = pair
    if array.store.source.missing == "error":
        return
    orthogonal = tuple(data.draw(along(length)) for length in array.shape)
    count = data.draw(st.integers(1, 6))
    points = tuple(
        np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=count, max_size=count))) for n in array.shape
    )
    mask = np.zeros(array.shape, bool)
    mask[points] = True
    block = tuple(data.draw(st.integers(0, -(-n // c) - 1)) for n, c in zip(array.shape, array.chunks, strict=True))
    for read in (
        lambda a: a.oindex[orthogonal],
        lambda a: a[orthogonal],
        lambda a: a.vindex[points],
        lambda a: a[points],
        lambda a: a[mask],
        lambda a: a.blocks[block],
        lambda a: a.blocks[block[0]],
    ):
        assert outcome(lambda read=read: read(array)) == outcome(lambda read=read: read(other))


def test_asynchronous_readers_get_the_same(pair, layer):
    """The asynchronous array below reads through the engine too, and gives the same."""
    array, other = pair
    if array.store.source.missing == "error":
        return
    assert isinstance(array.async_array.codec_pipeline, BulkPipeline)

    async def read(one: zarr.Array[Any]) -> Any:
        return await one.async_array.getitem((..., slice(3, 12)))

    assert outcome(lambda: asyncio.run(read(array))) == outcome(lambda: asyncio.run(read(other)))


def test_memory_of_the_callers_is_filled(pair):
    """`out` and `prototype` do what they do elsewhere."""
    array, other = pair
    if array.store.source.missing == "error":
        return
    prototype = zarr.core.buffer.default_buffer_prototype()
    for order in ("C", "F"):
        ours, theirs = (
            prototype.nd_buffer.create(shape=array.shape, dtype=array.dtype, order=order, fill_value=1)
            for _ in range(2)
        )
        array.get_basic_selection(..., out=ours, prototype=prototype)
        other.get_basic_selection(..., out=theirs, prototype=prototype)
        assert outcome(ours.as_ndarray_like) == outcome(theirs.as_ndarray_like)
    wrong = prototype.nd_buffer.create(shape=(1,), dtype=array.dtype)
    assert outcome(lambda: array.get_basic_selection(..., out=wrong)) == outcome(
        lambda: other.get_basic_selection(..., out=wrong)
    )


LAYOUTS = {
    "together": Sharded(1, 2, 1),
    "apart, gzip": Sharded(0, 2, 2, index_gzip=True, data_gzip=True, apart=True),
    "one shard": Sharded(0, 0, 0),
}


@pytest.fixture(scope="module", params=list(LAYOUTS))
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A sharded layer with holes, and its voxels."""
    root = tmp_path_factory.mktemp("shards")
    whole = noise((40, 33, 26), "uint16")
    holes = [(1, 1, 1), (0, 2, 0)]
    write_layer(root, whole, (8, 8, 8), sharded=LAYOUTS[request.param], leave_out=holes)
    for x, y, z in holes:
        whole[z * 8 : z * 8 + 8, y * 8 : y * 8 + 8, x * 8 : x * 8 + 8] = 0
    return root, whole


@pytest.fixture(scope="module", params=["file", "http"])
def sharded(request: pytest.FixtureRequest, shards: tuple[Path, np.ndarray]) -> Iterator[Any]:
    """The layer in both gears, and its voxels."""
    root, whole = shards
    with FolderServer(root) as server:
        url = f"precomputed://{server.url if request.param == 'http' else f'file://{root}'}"
        yield bulk(url), second(url), whole


@SEVERAL
@given(data=st.data())
def test_shards_are_the_same(sharded, data):
    """Chunks that are found and fetched together are those that are fetched one by one."""
    array, other, whole = sharded
    selection = data.draw(basic(array.shape))
    assert outcome(lambda: array[selection]) == outcome(lambda: other[selection])
    assert np.array_equal(array[...], whole)


@pytest.fixture(scope="module", params=["gray", "labels", "rgb"])
def dvid(request: pytest.FixtureRequest) -> Iterator[tuple[str, np.ndarray]]:
    """A DVID instance with absent blocks, from an emulated server; its address and voxels."""
    rng = np.random.default_rng(5)
    with DvidEmulator() as server:
        lab = Lab(server)
        typename, dtype, channels = {
            "gray": ("uint8blk", "uint8", 1),
            "labels": ("labelmap", "uint64", 1),
            "rgb": ("rgba8blk", "uint8", 4),
        }[request.param]
        lab.make("it", typename, BlockSize="16,16,16")
        url = f"dvid://{server.url}/{lab.root}/it"
        whole = rng.integers(1, 250, (32, 48, 32, *([channels] if channels > 1 else []))).astype(dtype)
        whole[16:, 16:32, :16] = 0
        for z, y, x in np.ndindex(2, 3, 2):
            block = whole[z * 16 : z * 16 + 16, y * 16 : y * 16 + 16, x * 16 : x * 16 + 16]
            if block.any():
                size, at = "16_16_16", f"{x * 16}_{y * 16}_{z * 16}"
                assert lab.post(f"it/raw/0_1_2/{size}/{at}", block.tobytes()).status == 200
        yield f"{url}?chunk_shape=32,16,16", np.moveaxis(whole, -1, 0) if channels > 1 else whole
        lab.ask.close()


@SEVERAL
@given(data=st.data())
def test_dvid_is_the_same(dvid, data):
    """Boxes of a DVID instance, whole chunks or parts of them, are the voxels that were written."""
    url, whole = dvid
    array = bulk(url)
    selection = data.draw(basic(array.shape))
    assert outcome(lambda: array[selection]) == outcome(lambda: second(url)[selection])
    assert np.array_equal(array[...], whole)


def test_every_way_to_an_array_leads_to_the_engine(layer):
    """Members of a group, however reached, read in bulk."""
    group = storefs.open(layer.url)
    assert isinstance(group, zarr.Group)
    assert isinstance(group, Group)
    found = [group["0"], group.get("0"), dict(group.arrays())["0"], dict(group.members())["0"], *group.array_values()]
    if hasattr(zarr.Group, "get_array"):
        found.append(group.get_array("0"))
    for array in found:
        assert isinstance(array, Array)
        assert isinstance(array.async_array.codec_pipeline, BulkPipeline)
    assert group.get("no such", None) is None
    with pytest.raises(KeyError):
        group["no such"]


def test_nested_groups_lead_to_the_engine():
    """Groups below groups hand out arrays that read in bulk, too."""
    with DvidEmulator() as server:
        lab = Lab(server)
        for name in ("one", "two"):
            lab.make(name, "uint8blk", BlockSize="16,16,16")
        root = storefs.open(f"dvid://{server.url}/{lab.root}")
        assert isinstance(root["one"], Group)
        assert isinstance(root["one/0"], Array)
        assert isinstance(root["one"]["0"], Array)
        assert all(isinstance(group, Group) for _, group in root.groups())
        assert {type(node) for _, node in root.members(max_depth=None)} == {Array, Group}
        lab.ask.close()


def test_arrays_look_and_travel_as_zarrs(layer):
    """`repr`, pickles and copies with another configuration are what they are for any zarr array."""
    array, other = bulk(layer.url), second(layer.url)
    assert isinstance(array, zarr.Array)
    assert repr(array) == repr(other)
    assert repr(storefs.open(layer.url)) == repr(zarr.open_group(other.store, mode="r"))
    array[:1]
    assert len(pickle.dumps(array)) < len(pickle.dumps(other)) + 1000
    travelled = pickle.loads(pickle.dumps(array))
    assert isinstance(travelled, Array)
    assert np.array_equal(travelled[...], array[...])
    turned = array.with_config({"order": "F"})
    assert isinstance(turned, Array)
    assert turned[...].flags.f_contiguous
    assert np.array_equal(turned[...], array[...])


def test_other_stores_are_left_alone(layer, tmp_path):
    """Neither zarr's configuration nor arrays of other stores change."""
    before = zarr.config.get("codec_pipeline")
    bulk(layer.url)[...]
    assert zarr.config.get("codec_pipeline") == before
    other = zarr.create_array(tmp_path / "a.zarr", shape=(4,), dtype="uint8")
    assert not isinstance(other.async_array.codec_pipeline, BulkPipeline)


def test_dask_reads_in_bulk(layer):
    """`dask.array` takes the arrays as any other."""
    da = pytest.importorskip("dask.array")
    array = bulk(layer.url)
    for lazy in (da.from_array(array, chunks=array.chunks), da.from_zarr(array)):
        assert np.array_equal(lazy.compute(), array[...])
        assert np.array_equal(lazy[3:, ::2].compute(scheduler="threads"), array[3:, ::2])
