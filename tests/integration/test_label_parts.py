"""Parts of compressed_segmentation chunks through the whole path: what selecting from the voxels written gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storefs
from storefs_codecs import DecodeError
from storefs_codecs.compressed_segmentation import CompressedSegmentation
from tests.http_server import FolderServer
from tests.layers import Sharded, write_layer
from tests.small_volume import volume

CHUNK = (24, 16, 20)
SIZE = (61, 40, 45)
HOLE = (1, 1, 0)
BLOCK = [8, 8, 8]
ENCODING = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": BLOCK}
SEVERAL = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
LAYOUTS = {"unsharded": None, "sharded": Sharded(1, 2, 1, index_gzip=True, data_gzip=True)}


def encode(chunk: Any) -> bytes:
    """A chunk of any extent as it is stored."""
    return CompressedSegmentation(chunk.shape, chunk.dtype, BLOCK).encode_chunk(np.ascontiguousarray(chunk))


def regions(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Labels in regions, many bits long."""
    random = np.random.default_rng(3)
    fine = random.integers(1, 2**64 - 1, [-(-n // 3) for n in shape], "uint64")
    for axis, n in enumerate(shape):
        fine = fine.repeat(3, axis).take(range(n), axis)
    return fine


def opened(url: str, gear: str, **options: Any) -> Any:
    """The finest scale through the engine, or through zarr's own pipeline."""
    if gear == "storefs.open":
        return storefs.open_array(url, **options)
    return zarr.open_group(storefs.open_store(url, **options), mode="r")["0"]


@pytest.fixture(scope="module", params=[*LAYOUTS, "channels"])
def layer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """Address and voxels of a layer with clipped chunks and a hole."""
    root = tmp_path_factory.mktemp("labels")
    if request.param == "channels":
        extra = {"compressed_segmentation_block_size": BLOCK}
        labels = regions((2, 30, 21, 26))
        name = "compressed_segmentation"
        made = volume(labels.shape, (12, 16, 20), data=labels, encoding=name, encode=encode, extra=extra)
        return made.write(root).url, made.arrays[0]
    labels = regions(SIZE[::-1])
    write_layer(root, labels, CHUNK, sharded=LAYOUTS[request.param], leave_out=[HOLE], encoding=ENCODING, encode=encode)
    x, y, z = (slice(i * c, (i + 1) * c) for i, c in zip(HOLE, CHUNK, strict=True))
    labels[z, y, x] = 0
    return f"precomputed://file://{root}", labels


@pytest.fixture(scope="module", params=["zyx", "xyz"])
def shown(request: pytest.FixtureRequest, layer: tuple[str, Any]) -> tuple[list[Any], Any]:
    """The layer in both gears, and its voxels, in either order of axes."""
    url, labels = layer
    arrays = [opened(url, gear, axes=request.param) for gear in ("storefs.open", "zarr.open")]
    return arrays, labels.T if request.param == "xyz" else labels


def along(length: int) -> st.SearchStrategy[Any]:
    """A plane, a part, or voxels with steps, along an axis of `length`."""
    edge = st.integers(0, length)
    return st.one_of(st.integers(0, length - 1), st.builds(slice, edge, edge, st.sampled_from([None, 1, 2, 7, 30])))


@SEVERAL
@given(data=st.data())
def test_parts_are_what_was_written(shown, data):
    """Planes, boxes, strided boxes, points and crossings of lines are the voxels there, in both gears."""
    arrays, labels = shown
    box = tuple(data.draw(along(n)) for n in labels.shape)
    count = data.draw(st.integers(1, 40))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    points = tuple(random.integers(0, n, count) for n in labels.shape)
    lines = tuple(np.sort(random.choice(n, 2, replace=False)) for n in labels.shape)
    for array in arrays:
        assert np.array_equal(array[box], labels[box])
        assert np.array_equal(array.vindex[points], labels[points])
        assert np.array_equal(array.oindex[lines], labels[np.ix_(*lines)])
        assert np.array_equal(array.oindex[(*lines[:-1], 1)], labels[np.ix_(*lines[:-1], [1])][..., 0])


def test_parts_take_no_whole_chunks(shown, monkeypatch):
    """No chunk is decoded whole for a plane or for points, unless decoded chunks are kept in memory."""
    arrays, labels = shown
    wholes = []
    decode = CompressedSegmentation._decode
    monkeypatch.setattr(CompressedSegmentation, "_decode", lambda *args: wholes.append(1) or decode(*args))
    for array in arrays:
        for axis, length in enumerate(labels.shape):
            plane = (slice(None),) * axis + (length // 2,)
            if not (labels.ndim == 4 and labels.shape[axis] == 2):
                assert np.array_equal(array[plane], labels[plane])
        assert np.array_equal(
            array.vindex[(np.array([1, 0]),) * labels.ndim], labels[(np.array([1, 0]),) * labels.ndim]
        )
    assert not wholes
    assert np.array_equal(arrays[0][...], labels)
    assert wholes


def test_kept_chunks_are_decoded_whole(layer):
    """With a memory cache a plane leaves whole chunks in it, from which the next is taken."""
    url, labels = layer
    for gear in ("storefs.open", "zarr.open"):
        array = opened(url, gear, memory_cache=1 << 24)
        assert np.array_equal(array[..., 3], labels[..., 3])
        before = storefs.statistics(array).chunks_decoded
        assert np.array_equal(array[..., 4], labels[..., 4])
        assert storefs.statistics(array).chunks_decoded == before


@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize("gear", ["storefs.open", "zarr.open"])
def test_damage_is_named_where_it_is_wanted(tmp_path: Path, gear, served):
    """A broken block is a DecodeError that names the chunk, where the block is wanted, and nothing elsewhere."""
    labels = regions((16, 16, 16))

    def broken(chunk: Any) -> bytes:
        payload = bytearray(encode(chunk))
        payload[4 + 3] = 3  # the index width of the first block
        return bytes(payload)

    write_layer(tmp_path, labels, (16, 16, 16), encoding=ENCODING, encode=broken)
    with FolderServer(tmp_path) as server:
        array = opened(f"precomputed://{server.url if served else f'file://{tmp_path}'}", gear)
        assert np.array_equal(array[9], labels[9])
        assert np.array_equal(array.vindex[[8, 3], [1, 12], [1, 15]], labels[[8, 3], [1, 12], [1, 15]])
        for read in (lambda: array[3], lambda: array.vindex[[8, 3], [1, 7], [1, 0]]):
            with pytest.raises(DecodeError, match=r"index width.*0-16_0-16_0-16"):
                read()
