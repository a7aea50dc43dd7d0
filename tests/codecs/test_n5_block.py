"""Blocks of N5: as TensorStore writes them, by hand as the specification says, and damaged."""

from __future__ import annotations

import gzip
import itertools
import json
import struct
import tracemalloc
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from storefs_codecs import DecodeError, EncodeError
from storefs_codecs.n5_block import N5Block, N5BlockCodec

COMPRESSIONS: list[dict[str, Any]] = [
    {"type": "raw"},
    {"type": "gzip", "level": 4},
    {"type": "gzip", "useZlib": True},
    {"type": "bzip2", "blockSize": 2},
    {"type": "xz", "preset": 1},
    {"type": "zstd", "level": 2},
    *(
        {"type": "blosc", "cname": cname, "clevel": 4, "shuffle": shuffle}
        for cname in ("lz4", "zstd", "blosclz", "zlib")
        for shuffle in (0, 1, 2)
    ),
]
DTYPES = [f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)] + ["float32", "float64"]
SHAPE = (4, 5, 6)
VOXELS = np.arange(120, dtype="uint16").reshape(SHAPE) * 501


def block(
    voxels: np.ndarray[Any, Any] = VOXELS, *, dims: tuple[int, ...] | None = None, elements: int | None = None
) -> bytes:
    """An uncompressed block whose fastest dimension is the array's last, of mode 1 where `elements` are given."""
    dims = voxels.shape[::-1] if dims is None else dims
    head = struct.pack(f">HH{len(dims)}I", elements is not None, len(dims), *dims)
    return head + (b"" if elements is None else struct.pack(">I", elements)) + data_of(voxels)


def data_of(voxels: np.ndarray[Any, Any]) -> bytes:
    return voxels.astype(voxels.dtype.newbyteorder(">")).tobytes()


def lz4_stream(data: bytes, size: int, *, end: bool = True) -> bytes:
    """What Java's LZ4BlockOutputStream writes, without checksums; every other block is stored."""
    blocks = b""
    for n, at in enumerate(range(0, len(data), size)):
        piece = data[at : at + size]
        packed = bytes(imagecodecs.lz4_encode(piece)) if n % 2 == 0 else piece
        blocks += struct.pack("<8sBIII", b"LZ4Block", 0x26 if n % 2 == 0 else 0x16, len(packed), len(piece), 0) + packed
    return blocks + (struct.pack("<8sBIII", b"LZ4Block", 0x16, 0, 0, 0) if end else b"")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(DTYPES),
    compression=st.sampled_from(COMPRESSIONS),
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    blocks=st.tuples(*[st.integers(1, 8)] * 3),
    seed=st.integers(0, 99),
)
def test_tensorstore_writes_the_same(dtype, compression, shape, blocks, seed, tmp_path_factory):
    """Every block of a dataset that TensorStore wrote decodes to its voxels, whichever dimension is x, y and z."""
    tensorstore = pytest.importorskip("tensorstore")
    folder = tmp_path_factory.mktemp("n5")
    voxels = np.random.default_rng(seed).integers(-100, 100, shape).astype(dtype)
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": str(folder)},
        "metadata": {"dimensions": shape, "blockSize": blocks, "dataType": dtype, "compression": compression},
    }
    tensorstore.open(spec, create=True).result().write(voxels).result()
    attributes = json.loads((folder / "attributes.json").read_text())
    for order in itertools.permutations(range(3)):
        axes = order[::-1]
        full = tuple(attributes["blockSize"][n] for n in axes)
        stack = voxels.transpose(axes)
        codec = N5Block(full, dtype, attributes["compression"], order)
        for path in (path for path in folder.rglob("*") if path.is_file() and path.name != "attributes.json"):
            index = [int(part) for part in path.relative_to(folder).parts]
            start = [index[n] * size for n, size in zip(axes, full, strict=True)]
            expected = stack[tuple(slice(at, at + size) for at, size in zip(start, full, strict=True))]
            found = codec.decode(path.read_bytes())
            assert found.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(found[tuple(slice(n) for n in expected.shape)], expected)
            np.testing.assert_array_equal(codec.decode_chunk(path.read_bytes(), extent=expected.shape), expected)


def test_tensorstore_reads_what_is_encoded(tmp_path):
    """A block encoded here is read by TensorStore, in every compression that both have."""
    tensorstore = pytest.importorskip("tensorstore")
    for n, compression in enumerate(COMPRESSIONS):
        folder = tmp_path / str(n)
        spec = {
            "driver": "n5",
            "kvstore": {"driver": "file", "path": str(folder)},
            "metadata": {"dimensions": (6, 5, 4), "blockSize": (6, 5, 4), "dataType": "uint16"},
        }
        spec["metadata"]["compression"] = compression
        made = tensorstore.open(spec, create=True).result()
        (folder / "0/0").mkdir(parents=True)
        (folder / "0/0/0").write_bytes(N5Block(SHAPE, "uint16", compression).encode(VOXELS))
        np.testing.assert_array_equal(made.read().result(), VOXELS.T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_block_by_hand(dtype):
    """The bytes of the specification are the voxels: big-endian, first dimension fastest, both modes."""
    voxels = (VOXELS % 100).astype(dtype)
    codec = N5Block(SHAPE, dtype)
    for payload in (block(voxels), block(voxels, elements=120)):
        found = codec.decode(payload)
        assert found.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found, voxels)
    assert codec.encode(voxels) == block(voxels)


@pytest.mark.parametrize("dims", [(6, 5, 4), (3, 5, 4), (6, 2, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("extent", [(4, 5, 6), (4, 3, 6), (2, 5, 1)], ids=str)
def test_extents(dims, extent):
    """Blocks shorter than what is asked for are padded with zeros, longer ones cropped, into memory of any layout."""
    voxels = VOXELS[: dims[2], : dims[1], : dims[0]] + 1
    expected = np.zeros(SHAPE, np.uint16)
    expected[: dims[2], : dims[1], : dims[0]] = voxels
    expected = expected[tuple(slice(n) for n in extent)]
    room = np.full((9, 9, 9), 7, np.uint16)
    for out in (None, np.empty(extent, np.uint16), room[2 : 2 + extent[0], : extent[1], 1 : 1 + extent[2]]):
        np.testing.assert_array_equal(
            N5Block(SHAPE, "uint16").decode_chunk(block(voxels), extent=extent, out=out), expected
        )
    assert int((room != 7).sum()) == expected.size


@pytest.mark.parametrize("size", [1000, 100, 7])
def test_lz4(size):
    """The LZ4 blocks of Java are unpacked, with and without the empty one at the end; lz4 cannot be written."""
    codec = N5Block(SHAPE, "uint16", {"type": "lz4", "blockSize": 65536})
    for end in (True, False):
        payload = block()[:16] + lz4_stream(data_of(VOXELS), size, end=end)
        np.testing.assert_array_equal(codec.decode(payload), VOXELS)
    with pytest.raises(EncodeError, match="lz4"):
        codec.encode(VOXELS)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\3\0\0\0\6\0\0\0\5\0\0\0",
        block(dims=(6, 5, 5)),
        block(dims=(7, 5, 4)),
        block(dims=(6, 5, 0)),
        block(dims=(6, 20)),
        block(dims=(6, 5, 4, 1)),
        block(dims=(2**32 - 1,) * 3),
        block(dims=(6, 5, 3)),
        block(elements=119),
        block(elements=2**32 - 1),
        b"\0\2" + block()[2:],
        block() + b"\0",
        block()[:-1],
    ],
    ids=lambda payload: payload[:24].hex(),
)
def test_refused_headers(payload):
    """A header of another rank, size, mode or number of elements than the block raises DecodeError."""
    with pytest.raises(DecodeError, match="n5_block"):
        N5Block(SHAPE, "uint16").decode(payload)


@pytest.mark.parametrize("kind", ["gzip", "zlib", "bzip2", "xz", "zstd", "blosc", "lz4"])
def test_bombs(kind):
    """Data that unpack to far more than the header says raise DecodeError without being unpacked."""
    size = 50_000_000
    bomb = {
        "gzip": lambda data: gzip.compress(data, 9),
        "zlib": zlib.compress,
        "zstd": imagecodecs.zstd_encode,
        "bzip2": imagecodecs.bz2_encode,
        "xz": lambda data: imagecodecs.lzma_encode(data, level=1),
        "blosc": lambda data: imagecodecs.blosc_encode(data, numthreads=1),
        "lz4": lambda data: lz4_stream(data, size),
    }[kind](bytes(size))
    compression = {"type": "gzip", "useZlib": True} if kind == "zlib" else {"type": kind}
    codec = N5Block(SHAPE, "uint16", compression)
    tracemalloc.start()
    with pytest.raises(DecodeError):
        codec.decode(block()[:16] + bytes(bomb))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


LZ4 = block()[:16] + lz4_stream(data_of(VOXELS), 100)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*COMPRESSIONS, {"type": "lz4"}]), st.data())
def test_mutations(compression, data):
    """Changed and missing bytes decode to the right shape or raise DecodeError."""
    codec = N5Block(SHAPE, "uint16", compression)
    payload = bytearray(LZ4 if compression["type"] == "lz4" else codec.encode(VOXELS))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(payload), data.draw(st.sampled_from([16, 48, len(payload)]))) - 1))
        kind = data.draw(st.sampled_from(["change", "cut", "word"]))
        if kind == "change":
            payload[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del payload[max(at, 1) :]
        else:
            payload[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"]))
    try:
        found = codec.decode(bytes(payload))
    except DecodeError:
        return
    assert found.shape == SHAPE
    assert found.dtype == np.uint16


@pytest.mark.parametrize(
    "arguments",
    [
        {"compression": {"type": "jpeg"}},
        {"compression": {}},
        {"compression": {"type": "lzw"}},
        {"order": [0, 1]},
        {"order": [0, 1, 1]},
        {"order": [1, 2, 3]},
        {"dtype": "bool"},
    ],
    ids=str,
)
def test_configuration_refused(arguments):
    """Compressions, orders and dtypes that N5 does not have raise ValueError."""
    with pytest.raises(ValueError, match=r"storefs\.n5_block"):
        N5Block(**{"shape": SHAPE, "dtype": "uint8", **arguments})


@pytest.mark.parametrize(
    "compression",
    [
        {"type": "gzip", "level": 99},
        {"type": "bzip2", "blockSize": 10},
        {"type": "xz", "preset": 99},
        {"type": "blosc", "cname": "rar"},
    ],
    ids=str,
)
def test_settings_that_the_library_refuses(compression):
    """Levels and methods that a library does not have raise EncodeError."""
    with pytest.raises(EncodeError, match=r"storefs\.n5_block"):
        N5Block(SHAPE, "uint16", compression).encode(VOXELS)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]], ids=str)
def test_zarr_array(order, image_chunk):
    """A zarr array of N5 blocks is written and read back, whole and in parts."""
    data = image_chunk((20, 18, 25), "int32")
    store = MemoryStore()
    codec = N5BlockCodec(compression={"type": "gzip", "level": 1}, order=order)
    made = zarr.create_array(
        store, shape=data.shape, chunks=(8, 6, 10), dtype="int32", serializer=codec, compressors=None
    )
    made[:] = data
    reopened = zarr.open_array(store, mode="r")
    np.testing.assert_array_equal(reopened[:], data)
    np.testing.assert_array_equal(reopened[3:9, ::2, 7], data[3:9, ::2, 7])
    assert reopened.metadata.codecs[0] == codec
