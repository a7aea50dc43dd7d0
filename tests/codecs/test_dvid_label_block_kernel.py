"""The compiled coder of DVID label blocks and the numpy one, each judged by the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError, label_block_decoder, label_block_encoder
from storefs_codecs.kernels import dvid_label_block as kernels


@pytest.fixture(scope="module")
def kernel():
    """The compiled coder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STOREFS_NO_KERNELS", raising=False)
        loaded = kernels.load()
    if loaded is None:
        pytest.skip("the kernel was not built")
    return loaded


@st.composite
def blocks(draw):
    """Labels (z, y, x), in runs along one axis."""
    shape = [8 * n for n in draw(st.tuples(*[st.integers(1, 4)] * 3))]
    kinds = draw(st.sampled_from([1, 2, 3, 5, 16, 17, 60, 300, 9000, 100_000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pool = random.integers(0, 2**64 - 1, kinds, "<u8", endpoint=True)
    axis = draw(st.sampled_from([None, 0, 1, 2]))
    places = random.integers(0, kinds, shape)
    return pool[places if axis is None else np.sort(places, axis=axis)]


def outcome(decode, payload, out):
    """The labels, or the text of the error with what was left of the output."""
    try:
        decode(memoryview(payload), out)
    except DecodeError as error:
        return str(error), out.tolist()
    return out.tolist()


@given(block=blocks())
@settings(max_examples=80, deadline=None)
def test_same_bytes(kernel, block):
    """Both write the same bytes and read them back."""
    payload = kernel.encode_block(block)
    assert payload == label_block_encoder.encode_block(block)
    for decode in (kernel.decode_block, label_block_decoder.decode_block):
        out = np.empty_like(block)
        decode(memoryview(payload), out)
        assert np.array_equal(out, block)


@given(block=blocks(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_same_verdict_on_damaged_bytes(kernel, block, data):
    """From damaged bytes both read the same labels, or both refuse them with the same words and write nothing."""
    payload = bytearray(kernel.encode_block(block[:16, :16, :16]))
    shape = block[:16, :16, :16].shape
    table = int.from_bytes(payload[12:16], "little")
    marks = [12, 16, 16 + 8 * table, 16 + 8 * table + 2 * int(np.prod(shape)) // 512, len(payload) - 1]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(marks)) + data.draw(st.integers(-3, 40))
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(payload) - 1))
        payload[at % len(payload)] ^= data.draw(st.sampled_from([1, 2, 3, 4, 128, 255]))
    length = len(payload) + data.draw(st.sampled_from([0, 0, 0, -1, 1, 64, -64]))
    payload = bytes(payload[:length]).ljust(length, b"\0")
    compiled, plain = (
        outcome(decode, payload, np.full(shape, 7, "<u8"))
        for decode in (kernel.decode_block, label_block_decoder.decode_block)
    )
    assert compiled == plain
    if isinstance(compiled, tuple):
        assert np.array_equal(compiled[1], np.full(shape, 7))


def test_misuse_is_refused(kernel):
    """Sides the format does not have never reach the data."""
    for shape in ((8, 8, 9), (8, 0, 8), (1032, 8, 8)):
        with pytest.raises(ValueError, match="misused"):
            kernel.decode_block(memoryview(b""), np.empty(shape, "<u8"))
        with pytest.raises(ValueError, match="misused"):
            kernel.encode_block(np.empty(shape, "<u8"))


def test_environment_variable(monkeypatch):
    """STOREFS_NO_KERNELS=1 leaves the kernel unused."""
    monkeypatch.setenv("STOREFS_NO_KERNELS", "1")
    assert kernels.load() is None


def test_other_libraries_are_not_used():
    """A library without our functions, or with other ones, is not called."""

    class Stale:
        @staticmethod
        def storefs_dvid_interface() -> int:
            return 0

    assert kernels._bind(Stale()) is None
    assert kernels._bind(object()) is None
