"""fpzip: guarded decoding and encoding of streams on which the library crashes."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError, EncodeError, MissingExtra
from storefs_codecs.fpzip import Fpzip, _header

fpzip = pytest.importorskip("fpzip")

VALUES = np.array([[[0.5, 1.5], [-2, 3]]], np.float32)
GOLDEN = bytes.fromhex("66707929870ef0ff0001fe000001fe000000ff000000ff00f33bd3ccbb08263dc8cd8e8adabc46f77c240000")
GOLDEN_DOUBLE = bytes.fromhex(
    "66707929870ef17e8001fe000001fe000000ff000000ff00f911f400000001f8145777000000000fb3e621e600"
    "0003e41c5a1cdef100001eed21e00000"
)

shapes = st.tuples(*[st.integers(1, 7)] * 3) | st.tuples(*[st.integers(1, 4)] * 4)
chunks = st.builds(
    lambda shape, dtype, scale, seed: np.random.default_rng(seed).normal(0, scale, shape).astype(dtype),
    shapes,
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([0, 1e-20, 1, 1e20]),
    st.integers(0, 2**32),
)


@pytest.fixture(scope="module")
def chunk() -> np.ndarray:
    """Smooth values of two channels."""
    c, z, y, x = np.indices((2, 6, 8, 10))
    return np.sin(x / 3 + y / 4 + z / 5 + c).astype(np.float32)


@pytest.mark.parametrize(("payload", "dtype"), [(GOLDEN, "float32"), (GOLDEN_DOUBLE, "float64")])
def test_golden(payload, dtype):
    """A small stream decodes to its values, and they encode to it."""
    codec = Fpzip((1, 2, 2), dtype)
    found = codec.decode_chunk(payload)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, VALUES)
    assert codec.encode_chunk(VALUES.astype(dtype)) == payload


@given(chunks)
@settings(max_examples=40, deadline=None)
def test_round_trip(chunk):
    """Every volume comes back bit for bit."""
    codec = Fpzip(chunk.shape, chunk.dtype)
    found = codec.decode_chunk(codec.encode_chunk(chunk))
    assert found.dtype == chunk.dtype
    assert found.tobytes() == chunk.tobytes()


def test_special_values():
    """Infinities, NaN, signed zeros and subnormals come back bit for bit."""
    chunk = np.array([[[np.inf, -np.inf, np.nan, -0.0, 0.0, 1e-45]]], np.float32)
    codec = Fpzip(chunk.shape, "float32")
    assert codec.decode_chunk(codec.encode_chunk(chunk)).tobytes() == chunk.tobytes()


@given(chunks)
@settings(max_examples=20, deadline=None)
def test_header(chunk):
    """The header of a stream tells its shape and dtype."""
    fields = chunk.reshape((1,) * (4 - chunk.ndim) + chunk.shape)
    assert _header(fpzip.compress(fields)) == (b"fpz\0", chunk.dtype == np.float64, fields.shape)


def test_channels_are_fields(chunk):
    """A stream is laid out x fastest, channels slowest, as its package does with Fortran order."""
    payload = fpzip.compress(np.asfortranarray(chunk.T), order="F")
    np.testing.assert_array_equal(Fpzip(chunk.shape, "float32").decode_chunk(payload), chunk)


def test_precision(chunk):
    """Fewer bits make a shorter stream of nearly the same values."""
    exact, rough = Fpzip(chunk.shape, "float32"), Fpzip(chunk.shape, "float32", precision=16)
    payload = rough.encode_chunk(chunk)
    assert len(payload) < len(exact.encode_chunk(chunk)) / 2
    np.testing.assert_allclose(exact.decode_chunk(payload), chunk, rtol=0.01)
    assert rough.get_config()["precision"] == 16


def test_bad_precision(chunk):
    """A precision beyond the dtype, or one that the library lacks, is refused."""
    with pytest.raises(ValueError, match="precision"):
        Fpzip(chunk.shape, "float32", precision=33)
    with pytest.raises(EncodeError):
        Fpzip(chunk.shape, "float32", precision=1).encode_chunk(chunk)


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 5, 8, 100])
def test_truncated(chunk, missing):
    """A truncated stream, on which the library crashes, raises DecodeError or gives the right values."""
    codec = Fpzip(chunk.shape, "float32")
    payload = codec.encode_chunk(chunk)
    began = time.monotonic()
    try:
        found = codec.decode_chunk(payload[:-missing])
    except DecodeError:
        assert time.monotonic() - began < 5
    else:
        assert missing <= 4  # the coder's last bytes may be of no consequence
        np.testing.assert_array_equal(found, chunk)


def test_headless(chunk):
    """A stream that ends in its header, is empty, or is something else, raises DecodeError."""
    codec = Fpzip(chunk.shape, "float32")
    payload = codec.encode_chunk(chunk)
    for wrong in (b"", payload[:4], payload[:24], bytes(100), b"crkl" + payload[4:]):
        with pytest.raises(DecodeError):
            codec.decode_chunk(wrong)


@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), min_size=1, max_size=3))
@settings(max_examples=10, deadline=None)
def test_flipped_bits(changes):
    """A damaged stream gives values of the declared shape or DecodeError, and the next chunk is unharmed."""
    codec = Fpzip((1, 2, 2), "float32")
    payload = bytearray(GOLDEN)
    for place, flips in changes:
        payload[place % len(payload)] ^= flips
    try:
        found = codec.decode_chunk(payload)
    except DecodeError:
        pass
    else:
        assert (found.shape, found.dtype) == ((1, 2, 2), np.float32)
    np.testing.assert_array_equal(codec.decode_chunk(GOLDEN), VALUES)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 6, 8, 11), "float32"), ((2, 6, 8, 10), "float64")])
def test_other_chunk(chunk, shape, dtype):
    """A stream of another shape or dtype is refused before the library sees it."""
    payload = Fpzip(chunk.shape, "float32").encode_chunk(chunk)
    with pytest.raises(DecodeError, match="wrong shape"):
        Fpzip(shape, dtype).decode_chunk(payload)


def test_incompressible():
    """Values that outgrow the library's buffer, which it then overruns, raise EncodeError."""
    bits = np.random.default_rng(0).integers(0, 2**32, (32, 32, 32), dtype=np.uint32)
    codec = Fpzip(bits.shape, "float32")
    with pytest.raises(EncodeError, match="do not compress"):
        codec.encode_chunk(bits.view(np.float32))
    assert codec.decode_chunk(codec.encode_chunk(np.ones(bits.shape, np.float32))).max() == 1


def test_missing_extra(monkeypatch):
    """Without the library both directions raise MissingExtra, which names the extra."""
    monkeypatch.setitem(sys.modules, "fpzip", None)
    codec = Fpzip((1, 2, 2), "float32")
    for use in (lambda: codec.decode_chunk(GOLDEN), lambda: codec.encode_chunk(VALUES)):
        with pytest.raises(MissingExtra, match=r"storefs\[fpzip\]"):
            use()
