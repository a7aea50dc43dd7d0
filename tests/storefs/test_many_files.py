"""Many plain files at a time: boxes and points, with the kernel and without, equal to numpy's own indexing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storefs
from storefs import many_files
from storefs.kernels import file_parts
from storefs_codecs.errors import DecodeError
from tests.layers import Triple, name_of, voxels, write_layer

SIZE, CHUNK = (21, 18, 13), (8, 5, 4)


@pytest.fixture(params=["kernel", "python"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read, whatever the environment says."""
    monkeypatch.setenv("STOREFS_NO_KERNELS", "1" if request.param == "python" else "0")
    if request.param == "kernel" and file_parts.load() is None:
        pytest.skip("no C compiler built the kernel")
    return str(request.param)


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, Path]]:
    made = {}
    for dtype in ("uint8", "uint16", "float32", "uint64"):
        root = tmp_path_factory.mktemp(dtype)
        whole = voxels(SIZE, "uint16").astype(dtype)
        write_layer(root, whole, CHUNK, offset=(-3, 5, 0))
        made[dtype] = whole, root
    return made


def opened(root: Path, **options: Any) -> Any:
    return storefs.open_array(f"precomputed://{root}", **options)


@st.composite
def slices(draw: st.DrawFn, length: int) -> slice:
    start = draw(st.integers(0, length - 1))
    return slice(start, draw(st.integers(start + 1, length)), draw(st.integers(1, 5)))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_boxes_are_as_numpy_gives_them(layers, data):
    """Any steps, types, axis orders, and room for less than a chunk or a row."""
    whole, root = layers[data.draw(st.sampled_from(sorted(layers)))]
    axes = data.draw(st.sampled_from(["zyx", "xyz"]))
    room = data.draw(st.sampled_from([1, 8, 40, 333, 1 << 20]))
    whole = whole if axes == "zyx" else whole.T
    selection = tuple(data.draw(slices(length)) for length in whole.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STOREFS_NO_KERNELS", raising=False)
        patch.setattr(many_files, "MOST_SCRATCH", room)
        assert np.array_equal(opened(root, axes=axes)[selection], whole[selection])


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
@pytest.mark.parametrize("shape", [(500,), (7, 3), (1,)])
def test_points_are_as_numpy_gives_them(layers, how, axes, shape):
    """Coordinates in any order, some more than once, of any shape; few of a chunk and many."""
    for whole, root in layers.values():
        shown = whole if axes == "zyx" else whole.T
        rng = np.random.default_rng(len(shape))
        points = tuple(rng.integers(0, n, shape) for n in shown.shape)
        array = opened(root, axes=axes)
        found = array.vindex[points]
        assert found.dtype == shown.dtype
        assert np.array_equal(found, shown[points])
        assert np.array_equal(array[points], shown[points])
        assert np.array_equal(array.get_coordinate_selection(points), shown[points])


def test_points_of_a_large_chunk_are_read_one_by_one(layers, monkeypatch):
    """Where there is no room for the chunk, or too few of its voxels are wanted."""
    monkeypatch.delenv("STOREFS_NO_KERNELS", raising=False)
    monkeypatch.setattr(many_files, "MOST_SCRATCH", 16)
    whole, root = layers["uint64"]
    points = tuple(np.random.default_rng(1).integers(0, n, 900) for n in whole.shape)
    assert np.array_equal(opened(root).vindex[points], whole[points])


def test_coordinates_are_the_callers(layers):
    """Arrays that broadcast, negative and unsigned ones are zarr's or ours to read, and are never changed."""
    whole, root = layers["uint16"]
    array = opened(root)
    z, y, x = np.array([[1], [12]]), np.array([3, 17, 0], np.uint8), np.array([20, 0, 9], np.int8)
    assert np.array_equal(array.vindex[z, y, x], whole[z, y, x])
    back = (np.array([-1, 2]), np.array([-18, 0]), np.array([3, -2]))
    assert np.array_equal(array.vindex[tuple(along.copy() for along in back)], whole[back])
    assert np.array_equal(array.vindex[[1, 2], [3, 4], [5, 6]], whole[[1, 2], [3, 4], [5, 6]])
    mask = np.random.default_rng(2).random(whole.shape) < 0.05
    assert np.array_equal(array.vindex[mask], whole[mask])
    assert array.vindex[np.array([], int), np.array([], int), np.array([], int)].size == 0
    with pytest.raises(IndexError):
        array.vindex[np.array([13]), np.array([0]), np.array([0])]
    with pytest.raises(IndexError):
        array.vindex[np.array([1, 2]), np.array([1, 2])]


def test_files_that_are_not_plain_are_left_to_others(tmp_path, how):
    """Compressed, absent, short and odd files: the same voxels or the same error as one by one."""
    whole = voxels(SIZE, "uint16")
    absent: Triple = (1, 1, 1)
    write_layer(tmp_path, whole, CHUNK, leave_out=[absent])
    holes = whole.copy()
    holes[4:8, 5:10, 8:16] = 0
    array = opened(tmp_path)
    points = tuple(np.random.default_rng(3).integers(0, n, 900) for n in whole.shape)
    assert np.array_equal(array[...], holes)
    assert np.array_equal(array.vindex[points], holes[points])
    with pytest.raises(storefs.MissingChunk):
        opened(tmp_path, missing="error").vindex[points]
    name = name_of((0, 0, 0), SIZE, CHUNK)
    path = tmp_path / "1_1_1" / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    for read in (lambda: array[...], lambda: array.vindex[points]):
        with pytest.raises(DecodeError, match=name):
            read()
    path.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        holes[:4, :5, :8] = 0  # no file, no chunk
        assert np.array_equal(array[...], holes)
        assert np.array_equal(array.vindex[points], holes[points])


def test_what_was_read_is_counted(tmp_path, monkeypatch):
    """A request a chunk, and just the bytes that were read of it: of few points these alone."""
    monkeypatch.delenv("STOREFS_NO_KERNELS", raising=False)
    if file_parts.load() is None:
        pytest.skip("no C compiler built the kernel")
    whole = voxels((70, 64, 16))
    write_layer(tmp_path, whole, (64, 64, 8))
    array = opened(tmp_path)

    def received(read: Any) -> tuple[int, int, int]:
        array[0, 0, 0]
        before = array.store.statistics()
        read()
        after = array.store.statistics()
        return (
            after.requests - before.requests,
            after.chunks_decoded - before.chunks_decoded,
            after.bytes_received - before.bytes_received,
        )

    assert received(lambda: array[5]) == (2, 2, 64 * 70)
    few = (np.array([0, 15]), np.array([3, 4]), np.array([0, 1]))
    assert received(lambda: array.vindex[few]) == (2, 2, 2)
    many = tuple(np.tile(along, 100) for along in few)
    assert received(lambda: array.vindex[many]) == (2, 2, 2 * 64 * 64 * 8)


def test_paths_may_hold_anything_but_null(tmp_path):
    """Names that the file system takes are read, and what can be no path is refused as it is one by one."""
    root = tmp_path / "a ümläut 漢 %20"
    whole = voxels(SIZE)
    write_layer(root, whole, CHUNK)
    assert np.array_equal(opened(root)[...], whole)
    kernel = file_parts.load()
    if kernel is None:
        pytest.skip("no C compiler built the kernel")
    with pytest.raises(ValueError, match="null"):
        kernel.boxes(["a\0b"], [0, 1, 1, 0, 1], np.zeros(1, np.uint8), memoryview(bytearray(8)))
