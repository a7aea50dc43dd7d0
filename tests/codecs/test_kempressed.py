"""kempressed: fpzip of shifted values with two axes swapped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError, MissingExtra
from storefs_codecs.kempressed import Kempressed

fpzip = pytest.importorskip("fpzip")

LAYER = Path(__file__).parents[2] / "../shared/golden/precomputed/kempressed_float32_3ch"
VALUES = np.array([[[[0.5, 0.25]]], [[[-1, 0]]]], np.float32)
GOLDEN = bytes.fromhex("66707929870ef0ff0001fe000000ff000001fe000000ff00f727e001f88a550074650bbc10fdb9470000")


def test_golden():
    """A small stream decodes to its values, and they encode to it."""
    codec = Kempressed(VALUES.shape, "float32")
    np.testing.assert_array_equal(codec.decode_chunk(GOLDEN), VALUES)
    assert codec.encode_chunk(VALUES) == GOLDEN


def test_layout():
    """The stream holds the values plus 2 as [x, y, c, z], Fortran order."""
    chunk = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    stored = fpzip.decompress(Kempressed(chunk.shape, "float32").encode_chunk(chunk), order="F")
    assert stored.shape == (5, 4, 2, 3)
    np.testing.assert_array_equal(stored, (chunk + np.float32(2)).transpose(3, 2, 0, 1))


@given(
    st.tuples(*[st.integers(1, 6)] * 3) | st.tuples(*[st.integers(1, 4)] * 4),
    st.integers(0, 2**32),
)
@settings(max_examples=30, deadline=None)
def test_round_trip(shape, seed):
    """Values between -1 and 1 come back but for their lowest bits."""
    chunk = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    codec = Kempressed(shape, "float32")
    found = codec.decode_chunk(codec.encode_chunk(chunk))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, chunk, rtol=0, atol=2e-7)


def test_layer():
    """Chunks that cloud-volume wrote decode to its arrays, whole and clipped."""
    if not LAYER.exists():
        pytest.skip("../shared/golden/precomputed/kempressed_float32_3ch not found")
    (scale,) = json.loads((LAYER / "layer/info").read_text())["scales"]
    with np.load(LAYER / "expected.npz") as arrays:
        volume = arrays["s0"]
    codec = Kempressed((3, 16, 16, 16), "float32")
    for path in (LAYER / "layer" / scale["key"]).iterdir():
        x, y, z = (slice(*map(int, span.split("-"))) for span in path.name.split("_"))
        expected = volume[:, z, y, x]
        found = codec.decode_chunk(path.read_bytes(), extent=expected.shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_out():
    """Values are written into strided memory of the caller."""
    room = np.zeros((2, 1, 1, 4), np.float32)
    Kempressed(VALUES.shape, "float32").decode_chunk(GOLDEN, out=room[..., ::2])
    np.testing.assert_array_equal(room[..., ::2], VALUES)
    assert not room[..., 1::2].any()


def test_axes_are_checked():
    """A stream whose channels and slices are swapped is refused."""
    with pytest.raises(DecodeError, match="wrong shape"):
        Kempressed((1, 2, 1, 2), "float32").decode_chunk(GOLDEN)


def test_missing_extra(monkeypatch):
    """Without the library MissingExtra names the codec and the extra."""
    monkeypatch.setitem(sys.modules, "fpzip", None)
    with pytest.raises(MissingExtra, match=r"storefs\.kempressed .*storefs\[fpzip\]"):
        Kempressed(VALUES.shape, "float32").decode_chunk(GOLDEN)
