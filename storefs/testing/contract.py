"""What every backend promises, as tests to inherit.

    class TestMine(BackendContract):
        @pytest.fixture
        def url(self, tmp_path): ...        # write or find a small volume; its address
        @pytest.fixture
        def expected(self, url): ...        # {"0": array, …}: what reading must give, absent chunks as zeros

The volume should be small (all its chunks are read many times), clipped at its edges, and lack a chunk. pytest-asyncio
is not needed.
"""

# ruff: noqa: S101  # a test suite asserts

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

from storefs.registry import open_source
from storefs.store import VirtualStore
from storefs.testing.reading import (
    cells,
    chunk_key,
    chunk_keys,
    collect,
    get,
    is_document,
    listed,
    open_array,
    read,
    run,
    without_members,
)

if TYPE_CHECKING:
    from storefs.source import Source

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Open = Callable[..., VirtualStore]

PICKLE_LIMIT = 1024
TASKS = 16
PRESENTATIONS: tuple[dict[str, Any], ...] = tuple(
    {"zarr_format": zarr_format, "axes": axes, **face}
    for zarr_format in (3, 2)
    for axes in ("zyx", "xyz")
    for face in ({}, {"face": "portable", "codec": "raw"}, {"face": "portable", "codec": "zstd"})
)
FORMATS = ({"zarr_format": 3}, {"zarr_format": 2})


class BackendContract:
    """Inherit, and give the fixtures `url` and `expected`; `faulty_url` too, to show that no fault reads as zeros."""

    @pytest.fixture
    def url(self) -> str:
        """Address of a small volume, with its scheme."""
        raise NotImplementedError

    @pytest.fixture
    def expected(self) -> Arrays:
        """The arrays that reading gives, by path, C order (zyx or czyx), absent chunks as zeros."""
        raise NotImplementedError

    @pytest.fixture
    def faulty_url(self) -> str:
        """Address of a volume that opens, and of which every chunk fails to be fetched; options may be in its query."""
        pytest.skip("no volume that fails was given")

    @pytest.fixture
    def open_source(self) -> Callable[[str, Mapping[str, Any]], Source]:
        """Makes the Source of an address and options; picklable. That of the registry, where the backend is found."""
        return open_source

    def same(self, found: Array, expected: Array) -> None:
        """Assert that voxels are as expected; overridden where the encoding is lossy."""
        np.testing.assert_array_equal(found, expected)

    @pytest.fixture
    def opened(self, url: str, open_source: Callable[[str, Mapping[str, Any]], Source]) -> Open:
        """Makes a new store of the volume, with options."""
        return lambda **options: VirtualStore(url, open_source, options)

    # documents

    @pytest.mark.parametrize("options", PRESENTATIONS, ids=str)
    def test_documents_parse(self, opened: Open, options: dict[str, Any]) -> None:
        """Every document is a JSON object of the zarr format asked for, and consolidated metadata repeats them."""
        store = opened(**options)
        documents = {key: json.loads(get(store, key) or b"") for key in listed(store) if is_document(key)}
        assert documents
        for key, document in documents.items():
            assert isinstance(document, dict), key
            if not key.endswith((".zattrs", ".zmetadata")):
                assert document["zarr_format"] == options["zarr_format"], key
        if options["zarr_format"] == 3:  # noqa: PLR2004  # format number
            members = documents["zarr.json"].get("consolidated_metadata", {}).get("metadata", {})
            assert {f"{path}/zarr.json" for path in members} == documents.keys() - {"zarr.json"}
            for path, document in members.items():
                assert without_members(document) == without_members(documents[f"{path}/zarr.json"])

    @pytest.mark.parametrize("options", FORMATS, ids=str)
    def test_arrays_are_described(self, opened: Open, expected: Arrays, options: dict[str, Any]) -> None:
        """Shapes, data types and dimension names are right, and the storefs attributes are there."""
        for path, voxels in expected.items():
            array = open_array(opened(**options), path)
            assert array.shape == voxels.shape
            assert array.dtype == voxels.dtype
            own = array.attrs["storefs"]
            assert isinstance(own, dict)
            assert {"voxel_offset_xyz", "resolution_xyz", "encoding"} <= own.keys()

    # keys

    @pytest.mark.parametrize("options", FORMATS, ids=str)
    def test_listed_keys_are_there(self, opened: Open, options: dict[str, Any]) -> None:
        """Each key is listed once, gives bytes, and exists; folders list what lies in them."""
        store = opened(**options)
        keys = listed(store)
        assert len(keys) == len(set(keys))
        for key in keys:
            assert get(store, key) is not None, key
            assert run(store.exists(key)), key
            folder, _, name = key.rpartition("/")
            assert name in run(collect(store.list_dir(folder))), key

    @pytest.mark.parametrize("options", FORMATS, ids=str)
    def test_chunks_are_bytes_or_absent(self, opened: Open, expected: Arrays, options: dict[str, Any]) -> None:
        """Every chunk of the grid is bytes or None, and `exists` and the listing agree with that."""
        store = opened(**options)
        keys = set(listed(store))
        for path in expected:
            for key in chunk_keys(open_array(store, path)):
                found = get(store, key)
                assert found is None or len(found) > 0, key
                assert run(store.exists(key)) is (found is not None), key
                assert (key in keys) is (found is not None), key

    @pytest.mark.parametrize("options", FORMATS, ids=str)
    def test_nothing_lies_outside(self, opened: Open, expected: Arrays, options: dict[str, Any]) -> None:
        """Chunks beyond the grid, malformed keys and unknown names are absent."""
        store = opened(**options)
        for path in expected:
            array = open_array(store, path)
            counts = cells(array)
            outside = [tuple(n if i == axis else 0 for i in range(len(counts))) for axis, n in enumerate(counts)]
            outside += [(0,) * (len(counts) - 1), (0,) * (len(counts) + 1)]
            keys = [chunk_key(array, index) for index in outside]
            keys += [chunk_key(array, (0,) * len(counts)) + end for end in ("/", "x", ".json")]
            keys += [chunk_key(array, (*[0] * (len(counts) - 1), text)) for text in ("-1", "00", "", " 0", "1e0")]
            for key in keys:
                assert get(store, key) is None, key
                assert not run(store.exists(key)), key
        for key in ("nothing", "nothing/zarr.json", "../x", "/", ".zgroup/x"):
            assert get(store, key) is None, key

    def test_byte_ranges_are_slices(self, opened: Open) -> None:
        """A byte range is the same slice of the whole, at both ends and beyond."""
        store = opened()
        keys = listed(store)
        prototype = default_buffer_prototype()
        for key in [*keys[:2], *keys[-3:]]:
            whole = get(store, key) or b""
            size = len(whole)
            for request, part in (
                (RangeByteRequest(0, 1), whole[:1]),
                (RangeByteRequest(size // 3, size // 2), whole[size // 3 : size // 2]),
                (RangeByteRequest(size - 1, size + 9), whole[-1:]),
                (OffsetByteRequest(size // 2), whole[size // 2 :]),
                (OffsetByteRequest(size), b""),
                (SuffixByteRequest(3), whole[-3:]),
                (SuffixByteRequest(size + 5), whole),
            ):
                found = run(store.get(key, prototype, request))
                assert found is not None
                assert found.to_bytes() == part, (key, request)

    # voxels

    @pytest.mark.parametrize("options", PRESENTATIONS, ids=str)
    def test_presentations_agree(self, opened: Open, expected: Arrays, options: dict[str, Any]) -> None:
        """Formats, axis orders and faces all show the expected voxels."""
        for path, voxels in expected.items():
            shown = voxels.T if options["axes"] == "xyz" else voxels
            array = open_array(opened(**options), path)
            self.same(np.asarray(array[...]), shown)
            box = tuple(slice(n // 3, n - n // 4, 2) for n in shown.shape)
            self.same(np.asarray(array[box]), shown[box])

    def test_missing_chunks_can_be_errors(self, opened: Open, expected: Arrays) -> None:
        """With missing="error" an absent chunk raises an error that names it, and the others are as before."""
        plain, strict = opened(), opened(missing="error")
        for path in expected:
            for key in chunk_keys(open_array(plain, path)):
                found = get(plain, key)
                if found is not None:
                    assert get(strict, key) == found
                    continue
                with pytest.raises(OSError, match="not stored") as caught:
                    get(strict, key)
                assert getattr(caught.value, "chunk", None)
                assert not isinstance(caught.value, FileNotFoundError)

    def test_faults_raise(
        self,
        faulty_url: str,
        expected: Arrays,
        open_source: Callable[[str, Mapping[str, Any]], Source],
    ) -> None:
        """A chunk that cannot be fetched raises; it is never None, and never a FileNotFoundError."""
        for options in FORMATS:
            store = VirtualStore(faulty_url, open_source, options)
            for path in expected:
                array = open_array(store, path)
                for key in itertools.islice(chunk_keys(array), 4):
                    with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever it is, it raises
                        get(store, key)
                    assert not isinstance(caught.value, FileNotFoundError)
                with pytest.raises(type(caught.value)):
                    array[...]

    # identity and company

    def test_pickles(self, opened: Open, expected: Arrays) -> None:
        """A store pickles small, into an equal one that reads the same."""
        for options in FORMATS:
            store = opened(**options)
            pickled = pickle.dumps(store)
            assert len(pickled) < PICKLE_LIMIT
            copy = pickle.loads(pickled)  # noqa: S301  # our own
            assert copy == store
            assert hash(copy) == hash(store)
            path = min(expected)
            np.testing.assert_array_equal(open_array(copy, path)[...], open_array(store, path)[...])

    def test_opened_again(self, opened: Open) -> None:
        """Opening twice gives equal stores with equal keys and bytes."""
        one, two = opened(), opened()
        assert one == two
        assert one != opened(axes="xyz")
        assert listed(one) == listed(two)
        assert all(get(one, key) == get(two, key) for key in listed(one))

    def test_opens_in_a_thread_as_on_a_loop(self, opened: Open) -> None:
        """The blocking way to open gives what the asynchronous one gives."""
        blocking, awaited = opened().source.open(), run(opened().source.open_async())
        assert blocking.documents == awaited.documents

    def test_many_tasks(self, opened: Open, expected: Arrays) -> None:
        """All chunks asked for at once on one loop are as asked for one by one."""
        store, alone = opened(), opened()
        keys = [key for path in expected for key in chunk_keys(open_array(alone, path))] * 2

        async def all_at_once() -> list[bytes | None]:
            return await asyncio.gather(*(read(store, key) for key in keys))

        assert asyncio.run(all_at_once()) == [get(alone, key) for key in keys]

    def test_many_threads(self, opened: Open, expected: Arrays) -> None:
        """Threads that open and read one store at once all see the expected voxels."""
        store = opened()

        def whole(_: int) -> Array:
            return np.asarray(open_array(store, min(expected))[...])

        with ThreadPoolExecutor(TASKS) as pool:
            for found in pool.map(whole, range(TASKS)):
                self.same(found, expected[min(expected)])
