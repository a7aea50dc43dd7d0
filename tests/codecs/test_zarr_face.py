"""The codecs inside zarr arrays, format 3 and 2."""

from __future__ import annotations

import asyncio
import json
import pickle

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from storefs_codecs import DecodeError, EncodeError
from storefs_codecs.frame import frame
from storefs_codecs.jpeg import Jpeg, JpegCodec
from storefs_codecs.jxl import JxlCodec
from storefs_codecs.n5_block import N5BlockCodec
from storefs_codecs.png import Png, PngCodec
from storefs_codecs.raw import Raw, RawCodec
from storefs_codecs.zarr_face import ZarrChunkCodec

CODECS = [RawCodec, PngCodec, JxlCodec, JpegCodec, N5BlockCodec]  # tiles are of one slice: see test_tile.py
SHAPE, CHUNKS = (20, 18, 25), (8, 6, 10)


@pytest.fixture(params=CODECS, ids=lambda cls: cls.__name__)
def array(request, image_chunk):
    """An array whose edge chunks are clipped by its shape, and the voxels it was given."""
    data = image_chunk(SHAPE)
    made = zarr.create_array(
        MemoryStore(), shape=SHAPE, chunks=CHUNKS, dtype="uint8", serializer=request.param(), compressors=None
    )
    made[:] = data
    stored = made[:]
    if request.param is not JpegCodec:
        np.testing.assert_array_equal(stored, data)
    assert np.abs(stored.astype(int) - data).mean() < 4
    return made, stored


@pytest.mark.parametrize(
    "selection",
    [
        (slice(None),) * 3,
        (slice(3, 17), slice(5, 7), slice(9, 21)),
        (slice(None, None, 3), slice(1, None, 5), slice(2, 24, 7)),
        (4,),
        (-1, -1, -1),
        (slice(2, 3), 17, slice(None)),
        (Ellipsis, 11),
        (slice(5, 5),),
    ],
    ids=str,
)
def test_basic_selection(array, selection):
    """Slices with steps and integers give what numpy gives."""
    made, stored = array
    np.testing.assert_array_equal(made[selection], stored[selection])


def test_orthogonal_selection(array):
    """Index lists and masks by axis give what numpy gives."""
    made, stored = array
    z, y, mask = [0, 7, 8, 19], [17, 3, 3, 0], np.arange(25) % 4 == 1
    np.testing.assert_array_equal(made.oindex[z, y, mask], stored[np.ix_(z, y, np.flatnonzero(mask))])
    np.testing.assert_array_equal(made.oindex[:, 4, mask], stored[:, 4][:, mask])


def test_coordinate_selection(array):
    """Single voxels anywhere, in any order and repeated, give what numpy gives."""
    made, stored = array
    rng = np.random.default_rng(1)
    at = tuple(rng.integers(0, n, 50) for n in SHAPE)
    np.testing.assert_array_equal(made.vindex[at], stored[at])
    mask = stored > np.median(stored)
    np.testing.assert_array_equal(made.vindex[mask], stored[mask])


def test_block_selection(array):
    """Whole chunks give what numpy gives."""
    made, stored = array
    np.testing.assert_array_equal(made.blocks[1, 2], stored[8:16, 12:18])


def test_parts_of_chunks_are_written(array):
    """Writing a part of a chunk keeps the rest, as far as the codec is lossless."""
    made, stored = array
    made[3:9, 2:4, 5:12] = 200
    if made.metadata.codecs[0].to_dict()["name"] != "storefs.jpeg":
        stored[3:9, 2:4, 5:12] = 200
        np.testing.assert_array_equal(made[:], stored)


def test_reads_are_partial(array, monkeypatch):
    """The pipeline leaves fetching and selecting to the codec, for whole chunks and parts alike."""
    made, stored = array
    seen = []
    partial = ZarrChunkCodec._decode_partial_single

    async def record(self, byte_getter, selection, chunk_spec):
        seen.append(selection)
        return await partial(self, byte_getter, selection, chunk_spec)

    monkeypatch.setattr(ZarrChunkCodec, "_decode_partial_single", record)
    np.testing.assert_array_equal(made[0:3, 0:2, 0:4], stored[0:3, 0:2, 0:4])
    np.testing.assert_array_equal(made[:8, :6, :10], stored[:8, :6, :10])
    assert len(seen) == 2


def test_result_may_be_changed(array):
    """What a read returns is the caller's own memory."""
    made, stored = array
    found = made[:8, :6, :10]
    found[:] = 0
    np.testing.assert_array_equal(made[:], stored)


def test_metadata_names_the_codec(array):
    """The stored document names the codec, and an array opened from it reads the same."""
    made, stored = array
    document = json.loads(made.store._store_dict["zarr.json"].to_bytes())
    assert document["codecs"][0]["name"].startswith("storefs.")
    reopened = zarr.open_array(made.store, mode="r")
    np.testing.assert_array_equal(reopened[:], stored)
    assert pickle.loads(pickle.dumps(reopened.metadata.codecs[0])) == made.metadata.codecs[0]


def put(made, key: str, payload: bytes) -> None:
    """Store a chunk behind zarr's back."""
    asyncio.run(made.store.set(key, zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(payload)))


@pytest.mark.parametrize("fill_value", [0, 9])
def test_clipped_and_missing_chunks(fill_value, image_chunk):
    """A framed chunk fills its corner, the fill value the rest; a missing chunk is all fill value."""
    made = zarr.create_array(
        MemoryStore(),
        shape=SHAPE,
        chunks=CHUNKS,
        dtype="uint8",
        fill_value=fill_value,
        serializer=PngCodec(level=1),
        compressors=None,
    )
    clipped = image_chunk((4, 6, 5))
    put(made, "c/2/1/2", frame(clipped.shape) + Png(CHUNKS).encode_chunk(clipped))
    expected = np.full(SHAPE, fill_value, np.uint8)
    expected[16:20, 6:12, 20:25] = clipped
    np.testing.assert_array_equal(made[:], expected)
    np.testing.assert_array_equal(made[17:19, 7:9], expected[17:19, 7:9])


def test_broken_chunk_raises():
    """A chunk that cannot be decoded raises DecodeError from the read; other chunks stay readable."""
    made = zarr.create_array(
        MemoryStore(), shape=SHAPE, chunks=CHUNKS, dtype="uint8", serializer=JpegCodec(), compressors=None
    )
    put(made, "c/0/0/0", b"\xff\xd8\xff\xe0 no image")
    with pytest.raises(DecodeError, match=r"storefs\.jpeg"):
        made[0, 0, 0]
    assert made[19, 0, 0] == 0


def test_channels_and_dtypes(image_chunk):
    """Arrays with a channel axis and 16-bit samples, little- and big-endian, round-trip."""
    for dtype in ("uint16", ">u2"):
        data = image_chunk((2, 9, 8, 7), "uint16")
        made = zarr.create_array(
            MemoryStore(),
            shape=data.shape,
            chunks=(2, 4, 8, 5),
            dtype=dtype,
            serializer=PngCodec(),
            compressors=None,
        )
        made[:] = data
        np.testing.assert_array_equal(made[:], data)
        np.testing.assert_array_equal(made[1, 2:6, :, 4], data[1, 2:6, :, 4])


@pytest.mark.parametrize(
    ("codec", "dtype"),
    [
        (PngCodec(shape=[4, 4, 4]), "uint8"),
        (PngCodec(dtype="uint16"), "uint8"),
        (PngCodec(shape=[8, 6], dtype="uint8"), "uint8"),
        (JpegCodec(), "uint16"),
        (JpegCodec(quality=1000), "uint8"),
    ],
    ids=str,
)
def test_configuration_that_does_not_fit(codec, dtype):
    """A configuration that contradicts the array raises ValueError, at the latest when a chunk is met."""

    def use():
        made = zarr.create_array(
            MemoryStore(), shape=SHAPE, chunks=CHUNKS, dtype=dtype, serializer=codec, compressors=None
        )
        made[:] = 1

    with pytest.raises(ValueError, match=r"storefs\."):
        use()


@pytest.mark.parametrize(
    "codec", [Raw(CHUNKS, "uint8"), Png(CHUNKS), Jpeg(CHUNKS, quality=95)], ids=lambda c: c.codec_id
)
def test_format_2(codec, image_chunk):
    """The numcodecs codecs serve as compressors of format 2 arrays."""
    data = image_chunk(SHAPE)
    store = MemoryStore()
    made = zarr.create_array(
        store, shape=SHAPE, chunks=CHUNKS, dtype="uint8", compressors=codec, filters=None, zarr_format=2
    )
    made[:] = data
    assert np.abs(made[:].astype(int) - data).mean() < (3 if isinstance(codec, Jpeg) else 1e-9)
    reopened = zarr.open_array(store, mode="r", zarr_format=2)
    assert reopened.compressors[0] == codec
    np.testing.assert_array_equal(reopened[3:9, ::2, 7], made[:][3:9, ::2, 7])


def test_format_2_samples_of_16_bits(image_chunk):
    """16-bit samples round-trip in format 2 where they are little-endian, and are refused where not."""
    data = image_chunk(SHAPE, "uint16")
    little, big = (
        zarr.create_array(
            MemoryStore(),
            shape=SHAPE,
            chunks=CHUNKS,
            dtype=dtype,
            compressors=Png(CHUNKS, "uint16"),
            filters=None,
            zarr_format=2,
        )
        for dtype in ("<u2", ">u2")
    )
    little[:] = data
    np.testing.assert_array_equal(little[:], data)
    with pytest.raises(EncodeError, match="little-endian"):
        big[:] = data
