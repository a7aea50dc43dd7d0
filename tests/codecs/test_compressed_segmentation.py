"""compressed_segmentation: the format, with the numpy coder and with the compiled one."""

from __future__ import annotations

import contextlib
import itertools
import json
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError, EncodeError
from storefs_codecs.compressed_segmentation import CompressedSegmentation, CompressedSegmentationCodec
from storefs_codecs.kernels import compressed_segmentation as kernels

GOLDEN = Path(__file__).parents[2] / "../shared/golden/codecs/compressed_segmentation"


@pytest.fixture(scope="module", params=["numpy", "kernel"], autouse=True)
def coder(request):
    """Every test here runs with both implementations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOREFS_NO_KERNELS", "1" if request.param == "numpy" else "0")
        if request.param == "kernel" and kernels.load() is None:
            pytest.skip("the kernel was not built")
        yield request.param


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def slowly(payload: bytes, shape, dtype, block_size) -> np.ndarray:
    """The format read word by word."""
    data = struct.unpack(f"<{len(payload) // 4}I", payload)
    size = np.dtype(dtype).itemsize // 4
    chunk = np.empty(shape, dtype)
    bx, by, bz = block_size
    _, gy, gx = (-(-n // b) for n, b in zip(shape[1:], (bz, by, bx), strict=True))
    for c, z, y, x in itertools.product(*map(range, shape)):
        channel = data[data[c] :]
        header = 2 * (x // bx + gx * (y // by + gy * (z // bz)))
        bits, table = channel[header] >> 24, channel[header] & 0xFFFFFF
        at = bits * (x % bx + bx * (y % by + by * (z % bz)))
        index = channel[channel[header + 1] + at // 32] >> at % 32 & (2**bits - 1) if bits else 0
        label = channel[table + size * index : table + size * index + size]
        chunk[c, z, y, x] = sum(word << 32 * k for k, word in enumerate(label))
    return chunk


def unusual(chunk: np.ndarray, block_size, random) -> bytes:
    """A legal file of no common writer: any order and width, gaps, unsorted tables with repeated labels."""
    size = chunk.dtype.itemsize // 4
    bx, by, bz = block_size
    starts, channels, end = [], [], len(chunk)
    for channel in chunk:
        steps = zip(channel.shape, (bz, by, bx), strict=True)
        corners = list(itertools.product(*(range(0, n, step) for n, step in steps)))
        headers, body = [], []
        for z, y, x in corners:
            part = channel[z : z + bz, y : y + by, x : x + bx]
            table = np.unique(part).tolist()
            table += random.choices(table, k=random.randrange(3))
            random.shuffle(table)
            width = random.choice([b for b in (0, 1, 2, 4, 8, 16, 32) if 2**b >= len(table)])
            packed = 0
            for (k, j, i), label in np.ndenumerate(part):
                index = random.choice([n for n, entry in enumerate(table) if entry == label])
                packed |= index << width * (i + bx * (j + by * k))
            value_words = [packed >> 32 * n & 0xFFFFFFFF for n in range(-(-width * bx * by * bz // 32))]
            table_words = [label >> 32 * k & 0xFFFFFFFF for label in table for k in range(size)]
            places = {}
            for name in random.sample(["table", "values"], 2):
                body += [0xFFFFFFFF] * random.randrange(3)
                places[name] = 2 * len(corners) + len(body)
                body += table_words if name == "table" else value_words
            headers += [places["table"] | width << 24, places["values"] if width else random.getrandbits(32)]
        starts.append(end)
        channels += headers + body
        end = len(chunk) + len(channels)
    return words(*starts, *channels)


def test_golden_uint32():
    """The known file of 2 x 2 x 2 labels decodes to them and is what encoding gives."""
    payload = words(1, 0x02000003, 2, 0x910, 5, 7, 9)
    codec = CompressedSegmentation((2, 2, 2), "uint32", (2, 2, 2))
    chunk = np.array([5, 5, 7, 5, 7, 9, 5, 5], "uint32").reshape(2, 2, 2)
    assert np.array_equal(codec.decode_chunk(payload), chunk)
    assert codec.encode_chunk(chunk) == payload


def test_golden_uint64_with_a_clipped_block():
    """The known file of 3 x 2 x 1 labels: 64-bit labels at odd words, a clipped block of one label."""
    payload = bytes.fromhex(
        "01000000 05000001 04000000 09000000 09000000 0200000001000000 00000000 01000000 02000000 04000000 00000000"
    )
    codec = CompressedSegmentation((1, 2, 3), "uint64", (2, 2, 2))
    chunk = np.array([[[1, 2**33 + 1, 4], [1, 1, 4]]], "uint64")
    assert np.array_equal(codec.decode_chunk(payload), chunk)
    assert codec.encode_chunk(chunk) == payload


@pytest.mark.parametrize("case", sorted(p.name for p in GOLDEN.glob("*")) or ["none"])
def test_golden_files(case):
    """Files of other writers decode to their labels; those in the common form are reproduced exactly."""
    if not GOLDEN.exists():
        pytest.skip("../shared/golden/codecs/compressed_segmentation not found")
    config = json.loads((GOLDEN / case / "config.json").read_text())
    payload = (GOLDEN / case / "payload.bin").read_bytes()
    with np.load(GOLDEN / case / "expected.npz") as expected:
        chunk = expected["data"]
    codec = CompressedSegmentation(chunk.shape, config["data_type"], config["compressed_segmentation_block_size"])
    decoded = codec.decode_chunk(payload)
    assert decoded.dtype == chunk.dtype
    assert np.array_equal(decoded, chunk)
    encoded = codec.encode_chunk(chunk)
    if "hand-made" not in config["writer"] and "neuroglancer-scripts" not in config["writer"]:
        assert encoded == payload
    assert np.array_equal(codec.decode_chunk(encoded), chunk)


LABELS = [0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63, 2**64 - 1]


@st.composite
def chunks(draw, longest=13):
    """A labelled chunk (c, z, y, x) and a block size (x, y, z)."""
    dtype = draw(st.sampled_from(["uint32", "uint64"]))
    shape = draw(st.tuples(st.integers(1, 3), *[st.integers(1, longest)] * 3))
    block_size = draw(st.tuples(*[st.integers(1, 10)] * 3))
    kinds = draw(st.sampled_from([1, 2, 3, 4, 5, 16, 17, 40, 300]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pool = np.array([label % 2 ** (8 * np.dtype(dtype).itemsize) for label in LABELS], dtype)
    if kinds > len(LABELS):
        pool = random.integers(0, np.iinfo(dtype).max, kinds, dtype, endpoint=True)
    return pool[random.integers(0, min(kinds, len(pool)), shape)], block_size


@given(chunks())
@settings(max_examples=100, deadline=None)
def test_round_trip(given_chunk):
    """Any labels, shape, channels and block size come back exactly, from any reader of the format."""
    chunk, block_size = given_chunk
    codec = CompressedSegmentation(chunk.shape, chunk.dtype, block_size)
    payload = codec.encode_chunk(chunk)
    assert np.array_equal(codec.decode_chunk(payload), chunk)
    if chunk.size < 500:
        assert np.array_equal(slowly(payload, chunk.shape, chunk.dtype, block_size), chunk)


@given(chunks(longest=7), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_legal_layout(given_chunk, random):
    """Tables and values may stand in any order, with gaps, wider than needed, unsorted and with repeats."""
    chunk, block_size = given_chunk
    payload = unusual(chunk, block_size, random)
    decoded = CompressedSegmentation(chunk.shape, chunk.dtype, block_size).decode_chunk(payload)
    assert np.array_equal(decoded, chunk)


@given(chunks(), st.data())
@settings(max_examples=100, deadline=None)
def test_hostile_bytes(given_chunk, data):
    """Changed, cut or invented bytes give what a plain reader of the format reads, or DecodeError."""
    chunk, block_size = given_chunk
    codec = CompressedSegmentation(chunk.shape, chunk.dtype, block_size)
    payload = bytearray(codec.encode_chunk(chunk))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) // 4 - 1)) * 4
        payload[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    payload = payload[: data.draw(st.sampled_from([len(payload), len(payload) - 4, len(payload) // 2, 3]))]
    try:
        decoded = codec.decode_chunk(payload)
    except DecodeError:
        return
    if chunk.size < 500:
        assert np.array_equal(slowly(payload, chunk.shape, chunk.dtype, block_size), decoded)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes(payload):
    """Bytes of any origin raise nothing but DecodeError."""
    for dtype in ("uint32", "uint64"):
        codec = CompressedSegmentation((3, 3, 3), dtype, (2, 2, 2))
        with contextlib.suppress(DecodeError):
            assert codec.decode_chunk(payload).shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "number of channels"),
        (b"\1\0\0", "whole number of words"),
        (words(2, 0, 0, 5), "number of channels"),
        (words(1, 2), "headers"),
        (words(1, 0x03000002, 2, 0, 5), "block 0 has an unknown index width"),
        (words(1, 0x40000002, 2, 0, 5), "block 0 has an unknown index width"),
        (words(1, 0x00000004, 2, 0, 5), "table of block 0"),
        (words(1, 0x00FFFFFF, 2, 0, 5), "table of block 0"),
        (words(1, 0x01000003, 4, 0, 5), "values of block 0"),
        (words(1, 0x01000003, 0xFFFFFFFF, 0, 5), "values of block 0"),
        (words(1, 0x20000003, 2, 0, 5), "values of block 0"),
        (words(1, 0x01000003, 2, 0b10000000, 5), "index points past the end"),
        (words(1, 0x20000002, 2, *[0] * 7, 0xFFFFFFFF), "index points past the end"),
    ],
)
def test_every_fault_is_named(payload, message):
    """Each way in which a file can be broken has its message."""
    with pytest.raises(DecodeError, match=message):
        CompressedSegmentation((2, 2, 2), "uint32", (2, 2, 2)).decode_chunk(payload)


def test_table_of_uint64_needs_both_words():
    """A 64-bit label whose second word is missing lies outside the data."""
    codec = CompressedSegmentation((1, 1, 1), "uint64")
    assert codec.decode_chunk(words(1, 2, 0, 7, 1))[0, 0, 0] == 2**32 + 7
    with pytest.raises(DecodeError, match="table of block 0"):
        codec.decode_chunk(words(1, 3, 0, 7, 1))


def test_second_channel_before_its_place():
    """A channel cannot begin within the list of channels or past the end."""
    codec = CompressedSegmentation((2, 1, 1, 1), "uint32")
    assert codec.decode_chunk(words(2, 2, 2, 0, 9)).tolist() == [[[[9]]], [[[9]]]]
    for start in (0, 1, 4, 2**32 - 1):
        with pytest.raises(DecodeError, match="headers"):
            codec.decode_chunk(words(2, start, 2, 0, 9))


@pytest.mark.parametrize("label", [2**53 + 1, 2**63, 2**64 - 1])
def test_great_labels_are_exact(label):
    """Labels beyond what a float holds survive, alone and beside their neighbours."""
    codec = CompressedSegmentation((2, 8, 8), "uint64")
    chunk = np.full((2, 8, 8), label, "uint64")
    chunk[0, ::2] = label - 1
    assert np.array_equal(codec.decode_chunk(codec.encode_chunk(chunk)), chunk)
    assert np.array_equal(codec.decode_chunk(codec.encode_chunk(chunk[1:])[:], extent=(1, 8, 8)), chunk[1:])


def test_into_strided_output():
    """Labels are written into any view: transposed, reversed, with gaps, unaligned; and nothing beside it."""
    chunk = np.random.default_rng(0).integers(0, 9, (2, 10, 11, 13)).astype("uint64")
    codec = CompressedSegmentation(chunk.shape, "uint64")
    payload = codec.encode_chunk(chunk)
    larger = np.full((2, 30, 13, 24), 77, "uint64")
    unaligned = np.zeros(chunk.nbytes + 1, "uint8")[1:].view("uint64").reshape(chunk.shape)
    for view in (
        larger[:, 5:25:2, 1:12, 3:16],
        larger.transpose(0, 2, 1, 3)[:, :10, 8:19, :13],
        larger[::-1, 9::-1, 10::-1, 12::-1],
        larger.transpose(0, 3, 2, 1)[:, :10, :11, 4:30:2],
        unaligned,
    ):
        larger[...] = 77
        assert codec.decode_chunk(payload, out=view) is view
        assert np.array_equal(view, chunk)
        if view is not unaligned:
            view[...] = 77
            assert (larger == 77).all()


def test_readonly_output():
    """An output that must not be written to is refused."""
    codec = CompressedSegmentation((1, 1, 1), "uint32")
    out = np.zeros((1, 1, 1), "uint32")
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        codec.decode_chunk(words(1, 2, 0, 5), out=out)
    assert out[0, 0, 0] == 0


def test_unaligned_and_readonly_payload():
    """The payload may be any buffer at any address."""
    chunk = np.arange(8 * 8 * 8, dtype="uint64").reshape(8, 8, 8)
    codec = CompressedSegmentation(chunk.shape, "uint64")
    payload = b"x" + codec.encode_chunk(chunk)
    assert np.array_equal(codec.decode_chunk(memoryview(payload)[1:]), chunk)
    assert np.array_equal(codec.decode_chunk(np.frombuffer(payload, "uint8")[1:]), chunk)


def test_block_far_greater_than_the_chunk():
    """Only the indices of voxels inside the chunk are read, wherever the block would end."""
    vast = (2**20,) * 3
    one_row = words(1, 0x01000003, 2, 0b1010, 5, 7)
    codec = CompressedSegmentation((1, 1, 4), "uint32", vast)
    assert codec.decode_chunk(one_row).tolist() == [[[5, 7, 5, 7]]]
    with pytest.raises(DecodeError, match="values of block 0"):
        CompressedSegmentation((4, 4, 4), "uint32", vast).decode_chunk(one_row)
    codec = CompressedSegmentation((4, 4, 4), "uint32", (2**70, 2**64, 2**63))
    assert (codec.decode_chunk(words(1, 2, 0, 5)) == 5).all()
    with pytest.raises(DecodeError, match="values of block 0"):
        CompressedSegmentation((1, 4, 4), "uint32", (2**62, 2**64, 1)).decode_chunk(one_row)


def test_sparse_blocks_round_trip():
    """A chunk that fills a small part of its only block is written and read, index by index."""
    chunk = np.random.default_rng(1).integers(0, 5, (3, 4, 5)).astype("uint64")
    codec = CompressedSegmentation(chunk.shape, "uint64", (70, 60, 50))
    payload = codec.encode_chunk(chunk)
    assert len(payload) == 4 * (1 + 2 + 70 * 60 * 50 * 4 // 32 + 10)
    assert np.array_equal(codec.decode_chunk(payload), chunk)


@pytest.mark.parametrize("block_size", [(2048, 2048, 128), (2**20,) * 3, (2**40,) * 3, (2**70,) * 3])
def test_tables_out_of_reach(block_size):
    """Encoding refuses what 24-bit offsets cannot express, before it takes any memory."""
    chunk = np.arange(8, dtype="uint32").reshape(2, 2, 2)
    with pytest.raises(EncodeError, match="16777215 words"):
        CompressedSegmentation((2, 2, 2), "uint32", block_size).encode_chunk(chunk)


def test_memory_stays_near_the_chunk():
    """Neither block sizes nor hostile headers make decoding take more than a few chunks of memory."""
    shape = (64, 64, 64)
    rng = np.random.default_rng(0)
    chunk = rng.integers(0, 3, shape).astype("uint32")
    for block_size in ((8, 8, 8), (1, 1, 1), (64, 64, 64), (256, 256, 1), (100, 100, 100)):
        codec = CompressedSegmentation(shape, "uint32", block_size)
        payload = codec.encode_chunk(chunk)
        codec.decode_chunk(payload)
        tracemalloc.start()
        codec.decode_chunk(payload)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * chunk.nbytes + 2 * len(payload)


def test_equal_tables_are_shared():
    """Blocks with the same labels point to one table."""
    chunk = np.tile(np.arange(8, dtype="uint64"), (16, 16, 2))
    codec = CompressedSegmentation(chunk.shape, "uint64")
    assert len(codec.encode_chunk(chunk)) == 4 * (1 + 8 * 2 + 8 * 512 * 4 // 32 + 16)


def test_threads_share_the_codec():
    """One codec decodes in many threads at once."""
    chunk = np.random.default_rng(3).integers(0, 30, (32, 32, 32)).astype("uint64")
    codec = CompressedSegmentation(chunk.shape, "uint64")
    payload = codec.encode_chunk(chunk)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(got, chunk) for got in pool.map(codec.decode_chunk, [payload] * 16))


def test_as_tensorstore_writes():
    """The bytes are those that TensorStore writes."""
    tensorstore = pytest.importorskip("tensorstore")
    random = np.random.default_rng(4)
    for dtype, kinds in itertools.product(("uint32", "uint64"), (2, 3, 17, 300)):
        shape = (2, *random.integers(1, 30, 3).tolist())
        block_size = random.integers(1, 12, 3).tolist()
        chunk = random.integers(1, kinds + 1, shape).astype(dtype)
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": "memory://",
            "multiscale_metadata": {"type": "segmentation", "data_type": dtype, "num_channels": 2},
            "scale_metadata": {
                "size": shape[:0:-1],
                "chunk_size": shape[:0:-1],
                "resolution": [1, 1, 1],
                "encoding": "compressed_segmentation",
                "compressed_segmentation_block_size": block_size,
            },
        }
        volume = tensorstore.open(spec, create=True).result()
        volume[...] = chunk.transpose()
        (key,) = (key for key in volume.kvstore.list().result() if key != b"info")
        codec = CompressedSegmentation(shape, dtype, block_size)
        assert codec.encode_chunk(chunk) == volume.kvstore.read(key).result().value


def test_configuration():
    """The block size is x, y, z; 8 x 8 x 8 unless given; and it must make sense."""
    codec = CompressedSegmentation((2, 4, 6), "uint64", [16, 8, 4])
    assert codec.get_config() == {
        "id": "storefs.compressed_segmentation",
        "shape": [2, 4, 6],
        "dtype": "uint64",
        "block_size": [16, 8, 4],
    }
    assert CompressedSegmentation((2, 4, 6), "uint32").block_size == (8, 8, 8)
    for wrong in ((8, 8), (8, 8, 0), (8, 8, 8, 8)):
        with pytest.raises(ValueError, match="block_size"):
            CompressedSegmentation((2, 4, 6), "uint32", wrong)
    with pytest.raises(ValueError, match="uint16"):
        CompressedSegmentation((2, 4, 6), "uint16")


def test_in_a_zarr_array():
    """A zarr v3 array stores its chunks in this encoding."""
    labels = np.random.default_rng(5).integers(2**60, 2**60 + 4, (20, 20, 20)).astype("uint64")
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=labels.shape,
        chunks=(16, 16, 16),
        dtype="uint64",
        serializer=CompressedSegmentationCodec(block_size=(8, 8, 4)),
        compressors=None,
        filters=None,
    )
    array[...] = labels
    assert np.array_equal(array[3:18, 5:, 17], labels[3:18, 5:, 17])
    assert array.metadata.to_dict()["codecs"][0]["configuration"]["block_size"] == [8, 8, 4]
