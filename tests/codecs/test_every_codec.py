"""What all codecs have in common, checked for every row of one table."""

from __future__ import annotations

import importlib
import json
import pickle
from dataclasses import dataclass, field
from typing import Any

import numcodecs
import numpy as np
import pytest
from zarr.registry import get_codec_class

from storefs_codecs import ChunkCodec, DecodeError, EncodeError
from storefs_codecs.zarr_face import ZarrChunkCodec


@dataclass(frozen=True)
class Row:
    """One codec with one configuration.

    `tolerance` is the loss allowed; `tells_size` says whether a payload of another extent is recognised; all sides
    must be multiples of `unit`; chunks of one slice are `flat`.
    """

    module: str
    name: str
    dtype: str
    content: str
    settings: dict[str, Any] = field(default_factory=dict)
    channels: int | None = None
    tolerance: float = 0
    library: str | None = None
    tells_size: bool = True
    unit: int = 1
    flat: bool = False

    def __str__(self) -> str:
        channels = "" if self.channels is None else f"-{self.channels}ch"
        return "-".join([self.name, self.dtype, *map(str, self.settings.values())]) + channels

    def shape(self, *zyx: int) -> tuple[int, ...]:
        zyx = tuple(-(-n // self.unit) * self.unit for n in ((1, *zyx[1:]) if self.flat else zyx))
        return zyx if self.channels is None else (self.channels, *zyx)


TABLE = [
    *(Row("raw", "Raw", dtype, "image") for dtype in ("uint8", "int16", "uint64", "float32", "float64")),
    Row("raw", "Raw", "uint16", "image", channels=3),
    Row("jpeg", "Jpeg", "uint8", "image", {"quality": 95}, tolerance=16),
    Row("jpeg", "Jpeg", "uint8", "image", channels=1, tolerance=24),
    Row("jpeg", "Jpeg", "uint8", "image", {"quality": 95}, channels=3, tolerance=40),
    *(Row("png", "Png", dtype, "image", channels=c) for dtype in ("uint8", "uint16") for c in (None, 1, 2, 3, 4)),
    Row("png", "Png", "uint16", "label", {"level": 0}),
    Row("jxl", "Jxl", "uint8", "image"),
    Row("jxl", "Jxl", "uint8", "image", {"quality": 100}, channels=1),
    Row("jxl", "Jxl", "uint8", "image", {"quality": 95}, tolerance=24),
    *(
        Row(
            "compressed_segmentation",
            "CompressedSegmentation",
            dtype,
            "label",
            {"block_size": [4, 4, 2]},
            channels=c,
            tells_size=False,
        )
        for dtype in ("uint32", "uint64")
        for c in (None, 2)
    ),
    Row("dvid_label_block", "DvidLabelBlock", "uint64", "label", unit=8),
    *(Row("tile", "Tile", dtype, "image", tells_size=False, flat=True) for dtype in ("uint8", "uint16")),
    Row("tile", "Tile", "uint8", "image", {"channels": "rgb"}, channels=3, tells_size=False, flat=True),
    Row("tile", "Tile", "uint16", "image", {"turned": True}, tells_size=False, flat=True),
    *(
        Row("n5_block", "N5Block", dtype, "image", {"compression": {"type": kind}}, tells_size=False)
        for kind in ("raw", "gzip", "bzip2", "xz", "blosc", "zstd")
        for dtype in ("uint8", "int32", "float64")
    ),
    Row("n5_block", "N5Block", "uint64", "label", {"order": [2, 0, 1]}, tells_size=False),
    Row("n5_block", "N5Block", "int16", "image", {"order": [1, 0, 3, 2]}, channels=3, tells_size=False),
    *(Row("compresso", "Compresso", dtype, "label") for dtype in ("uint8", "uint16", "uint32", "uint64")),
    Row("compresso", "Compresso", "uint32", "label", channels=1),
    *(
        Row("crackle", "Crackle", dtype, "label", library="crackle")
        for dtype in ("uint8", "uint16", "uint32", "uint64")
    ),
    Row("fpzip", "Fpzip", "float32", "image", library="fpzip"),
    Row("fpzip", "Fpzip", "float64", "image", library="fpzip"),
    Row("fpzip", "Fpzip", "float32", "image", channels=2, library="fpzip"),
    Row("kempressed", "Kempressed", "float32", "image", channels=3, tolerance=1e-5, library="fpzip"),
]


@dataclass(frozen=True)
class Example:
    """A codec, a chunk of its full shape and a clipped one."""

    row: Row
    cls: type[ChunkCodec]
    codec: ChunkCodec
    chunk: np.ndarray[Any, Any]
    clipped: np.ndarray[Any, Any]

    def assert_same(self, found: Any, expected: Any) -> None:
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        if self.row.tolerance:
            np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=0, atol=self.row.tolerance)
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.fixture(params=TABLE, ids=str)
def example(request, image_chunk, label_chunk) -> Example:
    row: Row = request.param
    if row.library:
        pytest.importorskip(row.library)
    cls = getattr(importlib.import_module(f"storefs_codecs.{row.module}"), row.name)
    make = image_chunk if row.content == "image" else label_chunk
    shape, extent = row.shape(6, 10, 12), row.shape(5, 7, 12)
    return Example(row, cls, cls(shape, row.dtype, **row.settings), make(shape, row.dtype), make(extent, row.dtype, 1))


def test_array_round_trip(example):
    """An array of the full shape comes back as it was."""
    payload = example.codec.encode(example.chunk)
    assert isinstance(payload, bytes)
    example.assert_same(example.codec.decode(payload), example.chunk)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.frombuffer])
def test_flat_bytes_are_the_same_chunk(example, kind):
    """Raw bytes of the right length encode like the array, and payloads decode from any kind of buffer."""
    if kind is np.frombuffer:
        flat, wrap = example.chunk.reshape(-1).view(np.uint8), lambda data: np.frombuffer(data, np.uint8)
    else:
        flat, wrap = kind(example.chunk.tobytes()), kind
    payload = example.codec.encode(flat)
    assert payload == example.codec.encode(example.chunk)
    example.assert_same(example.codec.decode(wrap(payload)), example.chunk)


def test_memory_layout_of_the_input_does_not_matter(example):
    """Fortran order, read-only and strided arrays encode like plain ones."""
    payload = example.codec.encode(example.chunk)
    fixed = example.chunk.copy()
    fixed.flags.writeable = False
    assert example.codec.encode(np.asfortranarray(example.chunk)) == payload
    assert example.codec.encode(np.repeat(example.chunk, 2, axis=-1)[..., ::2]) == payload
    assert example.codec.encode(fixed) == payload


def test_big_endian_arrays(example):
    """Chunks of either byte order are the same chunk; numcodecs callers, who count on bytes, are refused."""
    if example.chunk.itemsize > 1:
        swapped = example.chunk.astype(example.chunk.dtype.newbyteorder(">"))
        assert example.codec.encode_chunk(swapped) == example.codec.encode_chunk(example.chunk)
        with pytest.raises(EncodeError, match="little-endian"):
            example.codec.encode(swapped)


def test_configuration_round_trip(example):
    """The configuration survives JSON, builds an equal codec through the registry, and names the codec."""
    config = json.loads(json.dumps(example.codec.get_config()))
    assert config["id"] == example.cls.codec_id
    rebuilt = numcodecs.get_codec(config)
    assert type(rebuilt) is example.cls
    assert rebuilt == example.codec
    assert rebuilt.get_config() == example.codec.get_config()


def test_repr_evaluates_to_an_equal_codec(example):
    """The repr is the expression that makes the codec."""
    assert eval(repr(example.codec), {example.row.name: example.cls}) == example.codec


def test_pickle_round_trip(example):
    """A pickled codec is equal and works."""
    copy = pickle.loads(pickle.dumps(example.codec))
    assert copy == example.codec
    example.assert_same(copy.decode(example.codec.encode(example.chunk)), example.chunk)


def test_decode_into_an_array(example):
    """`out` may be an array in any order, or flat bytes of the same length, and is returned."""
    payload = example.codec.encode(example.chunk)
    strided = np.zeros(tuple(2 * n for n in example.chunk.shape), example.chunk.dtype)
    for out in (
        np.zeros_like(example.chunk),
        np.zeros_like(example.chunk, order="F"),
        strided[tuple(slice(1, n + 1) for n in example.chunk.shape)],
    ):
        assert example.codec.decode(payload, out=out) is out
        example.assert_same(out, example.chunk)
    assert int((strided != 0).sum()) <= example.chunk.size


@pytest.mark.parametrize("kind", [bytearray, lambda n: np.zeros(n, np.uint8), lambda n: memoryview(bytearray(n))])
def test_decode_into_flat_bytes(example, kind):
    """`out` may be any writable buffer of the chunk's length; another length is refused."""
    payload = example.codec.encode(example.chunk)
    out = kind(example.chunk.nbytes)
    assert example.codec.decode(payload, out=out) is out
    found = np.frombuffer(out, example.chunk.dtype).reshape(example.chunk.shape)
    example.assert_same(found, example.chunk)
    with pytest.raises(ValueError, match="out must hold"):
        example.codec.decode(payload, out=kind(example.chunk.nbytes + 1))


def test_clipped_chunk_is_framed_and_padded(example):
    """A clipped array encodes with a frame and decodes padded with zeros, or the fill value asked for."""
    if not example.codec.framed:
        with pytest.raises(DecodeError):
            example.codec.decode(example.codec.encode(example.clipped))
        return
    payload = example.codec.encode(example.clipped)
    inside = tuple(slice(n) for n in example.clipped.shape)
    for found, fill in ((example.codec.decode(payload), 0), (example.codec.decode_padded(payload, 7), 7)):
        assert found.shape == example.chunk.shape
        example.assert_same(found[inside], example.clipped)
        outside = np.ones(found.shape, bool)
        outside[inside] = False
        assert (found[outside] == fill).all()


def test_chunk_of_known_extent(example):
    """A clipped chunk round-trips without a frame where its extent is told, into strided memory too."""
    payload = example.codec.encode_chunk(example.clipped)
    extent = example.clipped.shape
    example.assert_same(example.codec.decode_chunk(payload, extent=extent), example.clipped)
    for room in (
        np.zeros(extent, example.clipped.dtype),
        np.zeros(tuple(n + 3 for n in extent), example.clipped.dtype)[tuple(slice(2, n + 2) for n in extent)],
        np.zeros(extent, example.clipped.dtype)[..., ::-1],
        np.zeros(extent, example.clipped.dtype, order="F"),
    ):
        assert example.codec.decode_chunk(payload, extent=extent, out=room) is room
        example.assert_same(room, example.clipped)


def test_wrong_extent_is_refused(example):
    """Extents that do not fit the chunk, or that the payload does not fill, raise DecodeError."""
    payload = example.codec.encode_chunk(example.clipped)
    extent = example.clipped.shape
    smaller = [(*extent[:-1], extent[-1] - 1)] if example.row.tells_size else []
    for wrong in (extent[1:], (*extent[:-1], 0), (*extent[:-1], 13), *smaller):
        with pytest.raises(DecodeError) as caught:
            example.codec.decode_chunk(payload, extent=wrong)
        assert example.cls.codec_id in str(caught.value)
    with pytest.raises(ValueError, match="out must be"):
        example.codec.decode_chunk(payload, extent=extent, out=np.zeros(3, example.clipped.dtype))


def test_single_voxel(example):
    """The smallest clipped chunk round-trips."""
    voxel = example.chunk[(..., *(slice(example.row.unit),) * 3)]
    payload = example.codec.encode_chunk(voxel)
    example.assert_same(example.codec.decode_chunk(payload, extent=voxel.shape), voxel)


def test_constant_chunk(example):
    """A chunk of zeros round-trips."""
    zeros = np.zeros_like(example.chunk)
    example.assert_same(example.codec.decode(example.codec.encode(zeros)), zeros)


def test_other_arrays_cannot_be_encoded(example):
    """Arrays of another dtype or rank, and bytes of another length, raise EncodeError."""
    other = "uint8" if example.row.dtype != "uint8" else "uint16"
    for wrong in (
        example.chunk.astype(other),
        example.chunk[0, 0],
        np.zeros((9,) * example.chunk.ndim, "uint32"),
    ):
        with pytest.raises(EncodeError):
            example.codec.encode_chunk(wrong)
    with pytest.raises(EncodeError):
        example.codec.encode(example.chunk.tobytes()[:-1])


def test_missing_bytes_are_refused(example):
    """Empty, cut and foreign payloads raise DecodeError, also behind a frame."""
    payload = example.codec.encode(example.chunk)
    framed = example.codec.encode(example.clipped)
    for broken in (
        b"",
        payload[: len(payload) // 2],
        b"\0",
        b"<html>no such object</html>",
        framed[:12],
        framed[:24],
    ):
        with pytest.raises(DecodeError) as caught:
            example.codec.decode(broken)
        assert caught.value.problem


def test_constructor_refuses_what_cannot_be_stored(example):
    """Shapes and dtypes outside the encoding raise ValueError when the codec is made."""
    for shape in ((4, 4), (0, 4, 4), (2, 2, 2, 2, 2)):
        with pytest.raises(ValueError, match="shape"):
            example.cls(shape, example.row.dtype)
    with pytest.raises(ValueError, match="dtype"):
        example.cls(example.codec.shape, "complex64")


def test_zarr_codec_is_registered(example):
    """The registry of zarr finds the codec of the same name; its configuration survives a document."""
    face = get_codec_class(example.cls.codec_id)
    assert issubclass(face, ZarrChunkCodec)
    assert face.numcodec is example.cls
    settings = {key: value for key, value in example.codec.get_config().items() if key != "id"}
    document = json.loads(json.dumps(face(**settings).to_dict()))
    assert document["name"] == example.cls.codec_id
    assert face.from_dict(document) == face(**settings)
    assert pickle.loads(pickle.dumps(face(**settings))) == face(**settings)
