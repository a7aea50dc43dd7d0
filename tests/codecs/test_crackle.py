"""crackle: guarded decoding, and damage that the library itself does not report."""

from __future__ import annotations

import sys

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError, MissingExtra
from storefs_codecs.crackle import Crackle
from storefs_codecs.crackle_stream import CrackleStream, _crc8

crackle = pytest.importorskip("crackle")

LABELS = np.array([[[1, 1, 1, 2], [1, 1, 1, 2], [3, 3, 3, 2], [3, 3, 3, 9]]], np.uint8)
GOLDEN = bytes.fromhex(
    "63726b6c0180000400000004000000010000001f1100000000000000980d0000006ab344180400000000000000"
    "010203090400010203040000000100010392c29aa408e861f68034d79d9b"
)

chunks = st.builds(
    lambda shape, dtype, variety, seed: (
        np.iinfo(dtype).max
        - np.repeat(np.random.default_rng(seed).integers(0, variety, shape), 3, axis=2).astype(dtype)
    ),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from(["uint8", "uint16", "uint32", "uint64"]),
    st.sampled_from([1, 2, 5, 200]),
    st.integers(0, 2**32),
)


@pytest.fixture(scope="module")
def chunk() -> np.ndarray:
    """A volume of a few regions."""
    z, y, x = np.indices((6, 12, 14))
    return ((x + z) // 4 + 10 * (y // 5) + 5_000_000_000).astype(np.uint64)


def test_golden():
    """The smallest mixed volume decodes to its labels."""
    np.testing.assert_array_equal(Crackle((1, 4, 4), "uint8").decode_chunk(GOLDEN), LABELS)


@given(chunks)
@settings(max_examples=40, deadline=None)
def test_round_trip(chunk):
    """Every volume comes back, in its dtype."""
    codec = Crackle(chunk.shape, chunk.dtype)
    found = codec.decode_chunk(codec.encode_chunk(chunk))
    assert found.dtype == chunk.dtype
    np.testing.assert_array_equal(found, chunk)


@pytest.mark.parametrize("options", [{"allow_pins": 1}, {"allow_pins": 2}, {"markov_model_order": 4}], ids=str)
def test_options(chunk, options):
    """Streams written with other options of the library decode too."""
    payload = crackle.compress(chunk.T, **options)
    np.testing.assert_array_equal(Crackle(chunk.shape, chunk.dtype).decode_chunk(payload), chunk)


def test_c_order(chunk):
    """A stream that declares C order decodes to the same array."""
    payload = crackle.compress(np.ascontiguousarray(chunk.T))
    np.testing.assert_array_equal(Crackle(chunk.shape, chunk.dtype).decode_chunk(payload), chunk)


def test_numbered(chunk):
    """A stream keeps its volume when its labels are numbered, and the library reads it."""
    payload = crackle.compress(chunk.T)
    stream = CrackleStream.parse(memoryview(payload), chunk.shape, 8)
    found = crackle.decompress(stream.numbered(1 << 40)).T
    np.testing.assert_array_equal(stream.labels[found - np.uint64(1 << 40)], chunk)


def test_out(chunk):
    """Labels are written into strided memory of the caller."""
    codec = Crackle(chunk.shape, chunk.dtype)
    room = np.zeros((6, 12, 28), np.uint64)
    codec.decode_chunk(codec.encode_chunk(chunk), out=room[..., ::2])
    np.testing.assert_array_equal(room[..., ::2], chunk)
    assert not room[..., 1::2].any()


@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_flipped_bits(changes):
    """Checksums notice every change; the labels never come back wrong."""
    z, y, x = np.indices((3, 8, 9))
    chunk = ((x + z) // 3 + 10 * (y // 3)).astype(np.uint16)
    codec = Crackle(chunk.shape, chunk.dtype)
    payload = bytearray(codec.encode_chunk(chunk))
    for place, flips in changes:
        payload[place % len(payload)] ^= flips
    try:
        found = codec.decode_chunk(payload)
    except DecodeError:
        return
    np.testing.assert_array_equal(found, chunk)


def test_every_length(chunk):
    """No stream but the whole one decodes, be it shorter or longer."""
    codec = Crackle(chunk.shape, chunk.dtype)
    payload = codec.encode_chunk(chunk)
    for length in range(len(payload)):
        with pytest.raises(DecodeError):
            codec.decode_chunk(payload[:length])
    with pytest.raises(DecodeError, match="wrong length"):
        codec.decode_chunk(payload + b"\0")


def test_damaged_slice(chunk):
    """A slice whose checksum fails raises, though the library returns whatever memory held."""
    codec = Crackle(chunk.shape, chunk.dtype)
    payload = bytearray(codec.encode_chunk(chunk))
    payload[-1] ^= 1
    with pytest.raises(DecodeError, match="slice is damaged"):
        codec.decode_chunk(payload)


def test_damaged_labels(chunk):
    """A changed label raises, though the library does not look at the checksum of labels."""
    codec = Crackle(chunk.shape, chunk.dtype)
    payload = bytearray(codec.encode_chunk(chunk))
    payload[29 + 4 * 7 + 8] ^= 1
    with pytest.raises(DecodeError, match="wrong checksum"):
        codec.decode_chunk(payload)


def test_forged_checksum(chunk):
    """A label table that claims 2**60 labels raises, even with the right checksum."""
    codec = Crackle(chunk.shape, chunk.dtype)
    payload = bytearray(codec.encode_chunk(chunk))
    start = 29 + 4 * 7
    end = start + int.from_bytes(payload[20:28], "little")
    payload[start : start + 8] = (1 << 60).to_bytes(8, "little")
    payload[-4 * 7 : -4 * 6] = google_crc32c.value(bytes(payload[start:end])).to_bytes(4, "little")
    with pytest.raises(DecodeError, match="label section is cut short"):
        codec.decode_chunk(payload)


@pytest.mark.parametrize(
    ("shape", "dtype", "problem"),
    [((6, 12, 13), "uint64", "wrong shape"), ((6, 12, 14), "uint32", "wrong bytes of a label")],
)
def test_other_chunk(chunk, shape, dtype, problem):
    """A stream of another shape or dtype is refused before the library sees it."""
    payload = Crackle(chunk.shape, chunk.dtype).encode_chunk(chunk)
    with pytest.raises(DecodeError, match=problem):
        Crackle(shape, dtype).decode_chunk(payload)


def test_signed(chunk):
    """A stream of signed labels is refused."""
    payload = bytearray(crackle.compress(chunk.T))
    payload[6] |= 1
    payload[28] = _crc8(payload[5:28])
    with pytest.raises(DecodeError, match="signed"):
        Crackle(chunk.shape, "uint64").decode_chunk(payload)


def test_missing_extra(monkeypatch):
    """Without the library both directions raise MissingExtra, which names the extra."""
    monkeypatch.setitem(sys.modules, "crackle", None)
    codec = Crackle((1, 4, 4), "uint8")
    for use in (lambda: codec.decode_chunk(GOLDEN), lambda: codec.encode_chunk(LABELS)):
        with pytest.raises(MissingExtra, match=r"storefs\[crackle\]"):
            use()


def test_channels():
    """Several channels are refused at construction."""
    with pytest.raises(ValueError, match="one channel"):
        Crackle((2, 4, 4, 4), "uint8")
