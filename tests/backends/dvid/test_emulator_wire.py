"""The emulator's own block forms against hand-made bytes: they must be right before they can test anything."""

from __future__ import annotations

import contextlib
import hashlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.dvid import images, label_block
from tests.backends.dvid.downres import halved
from tests.backends.dvid.protobuf import bytes_field, fields, varint_field
from tests.backends.dvid.wire import Malformed, lz4_compress, lz4_decompress, parse_records, records, snappy_compress


def test_label_block_of_two_labels() -> None:
    """A 16-cube of 5 with one voxel of 9 is these 148 bytes."""
    labels = np.full((16, 16, 16), 5, np.uint64)
    labels[0, 0, 1] = 9
    expected = bytes.fromhex(
        "02000000" * 4 + "0500000000000000" + "0900000000000000" + "0200" + "0100" * 7 + "0000000001000000"
        + "00000000" * 7 + "40" + "00" * 63
    )  # fmt: skip
    assert label_block.encode(labels) == expected
    assert (label_block.decode(expected) == labels).all()


def test_label_block_of_unequal_sides() -> None:
    """Sub-blocks go x, y, z: a 48x32x16 block has the digest worked out by hand for the format."""
    z, y, x = np.mgrid[:16, :32, :48]
    labels = (1 + x // 8 + 10 * (y // 8) + 100 * (z // 8)).astype(np.uint64)
    labels[(x % 8 == 1) & (y % 8 == 0) & (z % 8 == 0)] = 7000
    labels[(x % 8 == 0) & (y % 8 == 2) & (z % 8 == 0)] = 8000
    labels[(x % 8 == 0) & (y % 8 == 0) & (z % 8 == 3)] = 9000
    block = label_block.encode(labels)
    assert hashlib.sha256(block).hexdigest() == "a1021ade80468223f3e9dabb0d40afb380a2189add74b4d6e48d4edef0995e2d"
    assert (label_block.decode(block) == labels).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 600), st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_label_blocks_round_trip(count: int, seed: int, depth: int) -> None:
    """What is encoded decodes to the same labels, up to 512 in a sub-block and all 64 bits."""
    random = np.random.default_rng(seed)
    table = random.integers(0, 2**64, count, np.uint64, endpoint=False)
    labels = table[random.integers(0, count, (8 * depth, 16, 24))]
    assert (label_block.decode(label_block.encode(labels)) == labels).all()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_broken_label_blocks_are_malformed(noise: bytes) -> None:
    """Any bytes behind a head give labels or Malformed."""
    head = np.array([1, 1, 1, 2, 5, 0, 6, 0], "<u4").tobytes()
    with contextlib.suppress(Malformed):
        assert label_block.decode(head + noise).shape == (8, 8, 8)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=2000))
def test_streams_are_those_of_the_formats(data: bytes) -> None:
    """LZ4 and Snappy streams decode with the formats' own libraries, and theirs with ours."""
    size = max(1, len(data))
    assert bytes(imagecodecs.lz4_decode(lz4_compress(data), out=size))[: len(data)] == data
    assert bytes(imagecodecs.snappy_decode(snappy_compress(data))) == data
    repeated = data * 3
    assert lz4_decompress(bytes(imagecodecs.lz4_encode(repeated)), len(repeated)) == repeated


def test_lz4_is_limited() -> None:
    """Content beyond the limit, and streams that end early, are malformed."""
    for stream, limit in ((lz4_compress(bytes(100)), 99), (b"\xf0", 10), (b"\x10a\x00\x00", 10), (b"\x10a\x01", 10)):
        with pytest.raises(Malformed):
            lz4_decompress(stream, limit)


def test_records_round_trip() -> None:
    """Records keep coordinates and payloads; a text behind them is noticed."""
    blocks = {(-1, 2, 3): b"abc", (0, 0, 0): b""}
    stream = records(blocks.items())
    assert parse_records(stream) == blocks
    with pytest.raises(Malformed):
        parse_records(stream + b"an error text")


def test_majority_without_background() -> None:
    """The most frequent label but 0 wins, of equals the smallest."""
    cells = [[0, 0, 0, 0, 0, 0, 0, 7], [0] * 8, [9, 9, 5, 5, 0, 0, 0, 0], [1, 2, 2, 3, 3, 3, 0, 0]]
    row = np.concatenate([np.array(cell, np.uint64).reshape(2, 2, 2) for cell in cells], axis=2)
    assert halved(row).ravel().tolist() == [7, 0, 5, 3]


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "<f4", "<u8"])
def test_png_samples_hold_the_value_bytes(dtype: str) -> None:
    """8 and 16 bits are gray; wider values are the little-endian bytes in the samples of RGBA."""
    plane = np.arange(12).reshape(3, 4).astype(dtype)
    pixels = np.asarray(imagecodecs.png_decode(images.png(plane)))
    if plane.itemsize <= 2:
        assert (pixels == plane).all()
    else:
        sample = ">u2" if plane.itemsize == 8 else "u1"
        assert pixels.astype(sample).tobytes() == plane.tobytes()


def test_protobuf_fields() -> None:
    """Numbers and bytes come back with their field numbers."""
    message = varint_field(1, 300) + bytes_field(2, b"ab")
    assert list(fields(message)) == [(1, 300), (2, b"ab")]
