"""VirtualStore behaves as zarr's own suites demand.

The suites write; so they run on a double whose Source is a dictionary. Everything that reads is the product's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from zarr.core.buffer import Buffer, cpu
from zarr.storage import StorePath
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine
from zarr.testing.store import StoreTests
from zarr.testing.strategies import basic_indices, orthogonal_indices

import storefs
from storefs.store import VirtualStore
from tests.dict_source import DictSource
from tests.small_volume import Volume, volume

CONTENTS: dict[str, dict[str, bytes]] = {}  # by address, so that a pickled store finds it again
MACHINE = settings(
    max_examples=6,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def open_dictionary(url: str, options: Mapping[str, Any]) -> DictSource:
    return DictSource(url, CONTENTS[url])


class WritableStore(VirtualStore):
    """VirtualStore over a dictionary, writable."""

    supports_writes = True
    supports_deletes = True

    async def set(self, key: str, value: Buffer) -> None:
        await self._ensure_open()
        self._check_writable()
        self.source.values[key] = value.to_bytes()

    async def delete(self, key: str) -> None:
        await self._ensure_open()
        self._check_writable()
        self.source.values.pop(key, None)

    def with_read_only(self, read_only: bool = False) -> WritableStore:  # noqa: FBT001, FBT002  # the signature is zarr's
        return type(self)(self.url, open_dictionary, self.options, read_only=read_only)


@pytest.fixture
def contents(request):
    """Address of a new dictionary."""
    CONTENTS[request.node.nodeid] = {}
    yield request.node.nodeid
    del CONTENTS[request.node.nodeid]


class TestVirtualStore(StoreTests[WritableStore, cpu.Buffer]):
    """zarr's suite, complete and unchanged."""

    store_cls = WritableStore
    buffer_cls = cpu.Buffer

    async def set(self, store: WritableStore, key: str, value: Buffer) -> None:
        store.source.values[key] = value.to_bytes()

    async def get(self, store: WritableStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(store.source.values[key])

    @pytest.fixture
    def store_kwargs(self, contents):
        return {"url": contents, "open_source": open_dictionary, "read_only": False}

    def test_store_repr(self, store: WritableStore) -> None:
        assert repr(store) == f"VirtualStore({store.url!r})"

    def test_store_supports_writes(self, store: WritableStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: WritableStore) -> None:
        assert store.supports_listing


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # the machine draws all data types
@pytest.mark.parametrize("machine", [ZarrStoreStateMachine, ZarrHierarchyStateMachine])
def test_state_machine(machine, contents):
    """Any sequence of writes, reads and listings gives what a dictionary gives."""
    store = WritableStore(contents, open_dictionary, read_only=False)
    run_state_machine_as_test(lambda: machine(store), settings=MACHINE)


# the real store


@pytest.fixture(scope="module", params=["raw", "png"])
def layer(request, tmp_path_factory) -> Volume:
    """A layer with clipped edges, two scales and an absent chunk."""
    dtype = {"raw": "uint64", "png": "uint8"}[request.param]
    return volume(dtype=dtype, encoding=request.param).write(tmp_path_factory.mktemp(request.param))


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("options", [{}, {"face": "portable"}, {"zarr_format": 2}, {"axes": "xyz"}], ids=str)
def test_basic_selection(layer, options, data):
    """Slices, integers, steps and ellipses give what numpy gives."""
    expected = layer.arrays[0].T if options.get("axes") == "xyz" else layer.arrays[0]
    array = storefs.open_array(layer.url, **options)
    at = data.draw(basic_indices(shape=expected.shape))
    np.testing.assert_array_equal(array[at], expected[at])


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("options", [{}, {"axes": "xyz"}], ids=str)
def test_orthogonal_selection(layer, options, data):
    """Lists and masks of indices by axis give what numpy gives."""
    expected = layer.arrays[0].T if options.get("axes") == "xyz" else layer.arrays[0]
    array = storefs.open_array(layer.url, **options)
    ours, numpys = data.draw(orthogonal_indices(shape=expected.shape))
    np.testing.assert_array_equal(array.oindex[ours], expected[numpys])


async def test_every_listed_key_can_be_read(layer):
    """list, list_prefix and list_dir name keys that get gives and exists knows; an absent chunk is in none of them."""
    store = storefs.open_store(layer.url)
    keys = [key async for key in store.list()]
    stored = sum(name != "info" for name in layer.files)
    assert len(keys) == len(set(keys)) == stored + 3
    assert "0/c/1/1/1" not in keys
    assert await store.get("0/c/1/1/1") is None
    assert not await store.exists("0/c/1/1/1")
    for key in keys:
        assert await store.get(key) is not None
        assert await store.exists(key)
    assert [k async for k in store.list_prefix("1/c/0")] == [k for k in keys if k.startswith("1/c/0")]
    assert [name async for name in store.list_dir("")] == ["0", "1", "zarr.json"]
    assert [name async for name in store.list_dir("0/")] == ["c", "zarr.json"]
    assert [name async for name in store.list_dir("0/c/0")] == ["0", "1", "2"]
    assert [name async for name in store.list_dir("0/c/3")] == []


@pytest.mark.parametrize(
    "key",
    [
        *("0/c/3/0/0", "0/c/0/0", "0/c/0/0/0/0", "0/c/-1/0/0", "0/c/00/0/0", "0/c/0.0.0", "2/zarr.json", "2/c/0/0/0"),
        *("", "/", "0", "zarr.json/", "0//c/0/0/0", "../info", "info", "0/c/0/0/\u0661", "0/.zarray", "0/c/0/0/0/"),
    ],
)
async def test_other_keys_are_absent(layer, key):
    """Keys that name nothing in the volume are None, whatever they look like."""
    store = storefs.open_store(layer.url)
    assert await store.get(key) is None
    assert not await store.exists(key)


def test_sizes(layer):
    """Zarr's own counts of stored chunks and bytes agree with what is stored."""
    array = storefs.open_array(layer.url)
    chunks = sum(not name.startswith("8_") and name != "info" for name in layer.files)
    assert array.nchunks_initialized == chunks == array.nchunks - 1
    assert array.nbytes_stored() > 0


async def test_the_store_is_read_only(layer):
    """Writing and deleting raise ValueError; a writable copy of a format without writing refuses each write."""
    store = storefs.open_store(layer.url)
    assert store.read_only
    value = cpu.Buffer.from_bytes(b"x")
    for write in (store.set("0/c/0/0/0", value), store.delete("0/c/0/0/0"), store.set_if_not_exists("n", value)):
        with pytest.raises(ValueError, match="read-only"):
            await write
    with pytest.raises(storefs.Unsupported, match="read only"):
        await store.with_read_only(False).set("0/c/0/0/0", value)  # noqa: FBT003  # the signature is zarr's
    assert store.with_read_only(True) == store  # noqa: FBT003  # the signature is zarr's
    for mode in ("a", "r+", "w", "w-"):
        with pytest.raises(ValueError, match="read-only"):
            await StorePath.open(store, "", mode=mode)


async def test_documents_are_json(layer):
    """Every document parses; nothing answers to the other format's names."""
    for options, names in (({}, {"zarr.json"}), ({"zarr_format": 2}, {".zarray", ".zattrs", ".zgroup", ".zmetadata"})):
        store = storefs.open_store(layer.url, **options)
        documents = [k async for k in store.list() if k.split("/")[-1].strip(".").startswith("z")]
        assert {key.split("/")[-1] for key in documents} == names
        for key in documents:
            assert isinstance(json.loads((await store.get(key)).to_bytes()), dict)


def test_equality(layer, tmp_path):
    """Stores of the same volume and options are equal and hash alike; others are not."""
    one, same = storefs.open_store(layer.url), storefs.open_store(f"file://{layer.folder}/|neuroglancer-precomputed:")
    assert one == same
    assert hash(one) == hash(same)
    assert one != storefs.open_store(layer.url, axes="xyz")
    assert one != storefs.open_store(f"precomputed://{tmp_path}")
    assert one != layer.url


def test_members_of_the_group(layer):
    """The group's members come without listing or reading anything but its document."""
    group = zarr.open_group(storefs.open_store(layer.url), mode="r")
    assert sorted(name for name, _ in group.members()) == ["0", "1"]
    assert group.metadata.consolidated_metadata is not None
    assert "(20, 18, 25)" in str(group.tree())
