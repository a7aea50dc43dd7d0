"""compresso: our decoder against the format's rules, the package's encoder, and streams that lie."""

from __future__ import annotations

import struct
import tracemalloc

import compresso
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError, EncodeError
from storefs_codecs.compresso import Compresso
from storefs_codecs.compresso_stream import HEADER

GOLDEN = bytes.fromhex(
    "6370736f 01 01 0400 0400 0100 04 04 01 0400000000000000 01000000 0100000000000000 0401020309 744c 08 0300 04 00"
)
GOLDEN_LABELS = np.array([[[1, 1, 1, 2], [1, 1, 1, 2], [3, 3, 3, 2], [3, 3, 3, 9]]], np.uint8)
USUAL = {
    "magic": b"cpso",
    "version": 0,
    "width": 1,
    "sx": 4,
    "sy": 1,
    "sz": 1,
    "x_step": 4,
    "y_step": 4,
    "z_step": 1,
    "ids": 0,
    "values": 1,
    "locations": 0,
    "connectivity": 4,
}


def make_labels(shape, dtype, *, variety, coarse, high, seed):
    """Blocks of `coarse` voxels a side, with ids from 0 up or from the greatest one down."""
    small = np.random.default_rng(seed).integers(0, variety, shape).astype(dtype)
    for axis in range(3):
        small = np.repeat(small, coarse, axis)
    chunk = small[tuple(slice(n) for n in shape)]
    return np.iinfo(dtype).max - chunk if high else chunk


labels = st.builds(
    make_labels,
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    dtype=st.sampled_from(["uint8", "uint16", "uint32", "uint64"]),
    variety=st.sampled_from([1, 2, 3, 12, 256]),
    coarse=st.integers(1, 4),
    high=st.booleans(),
    seed=st.integers(0, 2**32),
)
steps = st.none() | st.tuples(*[st.integers(1, 4)] * 3)
damage = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "grow", "write"]), st.integers(0, 2**16), st.binary(max_size=8)),
    min_size=1,
    max_size=3,
)


def damaged(payload: bytes, changes) -> bytes:
    stream = bytearray(payload)
    for kind, place, data in changes:
        at = place % (len(stream) + 1)
        if kind == "flip" and at < len(stream):
            stream[at] ^= 1 << place // 7 % 8
        elif kind == "cut":
            del stream[at:]
        elif kind == "grow":
            stream += data
        else:
            stream[at : at + len(data)] = data
    return bytes(stream)


def stream(header: dict[str, object], body: bytes) -> bytes:
    """A stream of header fields, the usual ones where not given, and a body."""
    return HEADER.pack(*{**USUAL, **header}.values()) + body


def test_golden():
    """The published example decodes to its labels and is what they encode to."""
    codec = Compresso((1, 4, 4), "uint8")
    np.testing.assert_array_equal(codec.decode_chunk(GOLDEN), GOLDEN_LABELS)
    assert codec.encode_chunk(GOLDEN_LABELS) == GOLDEN


@given(labels, steps, st.sampled_from([4, 6]))
@settings(max_examples=150, deadline=None)
def test_round_trip(chunk, steps, connectivity):
    """Every volume comes back from every window shape and connectivity."""
    codec = Compresso(chunk.shape, chunk.dtype, steps, connectivity)
    found = codec.decode_chunk(codec.encode_chunk(chunk))
    assert found.dtype == chunk.dtype
    np.testing.assert_array_equal(found, chunk)


@given(labels, st.booleans())
@settings(max_examples=50, deadline=None)
def test_versions(chunk, indexed):
    """Streams with and without the index of slices decode alike, whatever the codec encodes with."""
    payload = bytes(compresso.compress(chunk.T, random_access_z_index=indexed))
    assert payload[4] == indexed
    np.testing.assert_array_equal(Compresso(chunk.shape, chunk.dtype).decode_chunk(payload), chunk)


def test_many_slabs(monkeypatch):
    """Components are numbered on from slab to slab."""
    monkeypatch.setattr("storefs_codecs.compresso.SLAB_VOXELS", 300)
    chunk = make_labels((11, 12, 13), "uint32", variety=12, coarse=3, high=False, seed=1)
    codec = Compresso(chunk.shape, "uint32")
    np.testing.assert_array_equal(codec.decode_chunk(codec.encode_chunk(chunk)), chunk)


def test_out():
    """Labels are written into strided memory of the caller."""
    room = np.zeros((3, 6, 6), np.uint8)
    found = Compresso((1, 4, 4), "uint8").decode_chunk(GOLDEN, out=room[1:2, 1:5, 1:5])
    assert np.shares_memory(found, room)
    np.testing.assert_array_equal(room[1:2, 1:5, 1:5], GOLDEN_LABELS)
    assert room.sum(dtype=int) == GOLDEN_LABELS.sum(dtype=int)


@given(labels, damage)
@settings(max_examples=200, deadline=None)
def test_damaged(chunk, changes):
    """A damaged stream gives an array of the declared kind or DecodeError, nothing else."""
    codec = Compresso(chunk.shape, chunk.dtype)
    try:
        found = codec.decode_chunk(damaged(codec.encode_chunk(chunk), changes), extent=chunk.shape)
    except DecodeError:
        return
    assert (found.shape, found.dtype) == (chunk.shape, chunk.dtype)


def test_truncated():
    """No proper beginning of a stream decodes."""
    codec = Compresso((1, 4, 4), "uint8")
    for length in range(len(GOLDEN)):
        with pytest.raises(DecodeError):
            codec.decode_chunk(GOLDEN[:length])


def test_hints():
    """Hints tell labels, also escaped ones, or point at neighbours, also through earlier boundary voxels."""
    codec = Compresso((1, 1, 4), "uint8")
    # all four voxels are boundary: label 5, as its left, label 6 escaped, as its left
    body = struct.pack("<H", 0b1111) + bytes([12, 0, 6, 6, 0]) + struct.pack("<H", 3)
    assert codec.decode_chunk(stream({"locations": 5}, body)).tolist() == [[[5, 5, 6, 6]]]


def test_hint_forward():
    """A hint points at the component on the right."""
    # windows of 4x4 have 16 bits; the first voxel is boundary, the others are one component
    body = bytes([9]) + struct.pack("<H", 0b0001) + bytes([1]) + struct.pack("<H", 3)
    payload = stream({"ids": 1, "locations": 1}, body)
    assert Compresso((1, 1, 4), "uint8").decode_chunk(payload).tolist() == [[[9, 9, 9, 9]]]


@pytest.mark.parametrize(
    ("hints", "problem"),
    [
        ([0, 7, 7, 7], "out of the chunk"),
        ([7, 7, 7, 1], "out of the chunk"),
        ([2, 7, 7, 7], "out of the chunk"),
        ([3, 7, 7, 7], "out of the chunk"),
        ([4, 7, 7, 7], "out of the chunk"),
        ([5, 7, 7, 7], "out of the chunk"),
        ([1, 7, 7, 7], "not settled yet"),
        ([7, 7, 7, 6], "lacks its label"),
        ([7, 7, 7], "wrong count of locations"),
        ([7, 7, 7, 7, 7], "wrong count of locations"),
    ],
)
def test_bad_hints(hints, problem):
    """Hints that lead nowhere, and too few or too many, are refused."""
    body = struct.pack("<H", 0b1111) + bytes(hints) + struct.pack("<H", 3)
    with pytest.raises(DecodeError, match=problem):
        Compresso((1, 1, 4), "uint8").decode_chunk(stream({"locations": len(hints)}, body))


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([], "count of windows"),
        ([1], "run of windows"),
        ([5], "run of windows"),
        ([0xFFFF], "run of windows"),
        ([3, 3], "run of windows"),
        ([2], "out of range"),
        ([0xFFFE], "out of range"),
    ],
)
def test_bad_runs(runs, problem):
    """Runs of windows must cover the chunk exactly and name windows that exist."""
    body = bytes([9]) + struct.pack(f"<{1 + len(runs)}H", 0, *runs)
    with pytest.raises(DecodeError, match=problem):
        Compresso((1, 1, 4), "uint8").decode_chunk(stream({"ids": 1}, body))


@pytest.mark.parametrize(
    "lie",
    [
        {"magic": b"cpsp"},
        {"version": 2},
        {"width": 2},
        {"sx": 5},
        {"sy": 65535},
        {"sx": 0},
        {"x_step": 0},
        {"x_step": 255, "y_step": 255, "z_step": 255},
        {"ids": 2**64 - 1},
        {"ids": 5},
        {"values": 2**32 - 1},
        {"values": 0},
        {"locations": 2**64 - 1},
        {"connectivity": 5},
        {"version": 1},
    ],
    ids=str,
)
def test_header_lies(lie):
    """A header that contradicts the chunk or the length is refused without allocating what it declares."""
    codec = Compresso((1, 1, 4), "uint8")
    body = bytes([9]) + struct.pack("<2H", 0, 3)
    assert codec.decode_chunk(stream({"ids": 1}, body)).tolist() == [[[9, 9, 9, 9]]]
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            codec.decode_chunk(stream({"ids": 1, **lie}, body))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_count_of_labels():
    """One label too few or too many for the components is refused."""
    for ids in (b"", b"\x01\x02"):
        payload = stream({"ids": len(ids)}, ids + struct.pack("<2H", 0, 3))
        with pytest.raises(DecodeError, match="wrong count of labels"):
            Compresso((1, 1, 4), "uint8").decode_chunk(payload)


def test_no_values():
    """Without windows there are no boundaries."""
    payload = stream({"ids": 1, "values": 0}, bytes([9]) + struct.pack("<H", 3))
    assert Compresso((1, 1, 4), "uint8").decode_chunk(payload).tolist() == [[[9, 9, 9, 9]]]


@pytest.mark.parametrize(
    "settings",
    [
        {"shape": (2, 4, 4, 4)},
        {"shape": (1, 1, 65536)},
        {"dtype": "int32"},
        {"connectivity": 8},
        {"steps": (4, 4)},
        {"steps": (8, 8, 2)},
        {"steps": (0, 4, 1)},
    ],
    ids=str,
)
def test_bad_settings(settings):
    """What the format cannot hold is refused at construction."""
    with pytest.raises(ValueError, match=r"storefs\.compresso"):
        Compresso(**{"shape": (4, 4, 4), "dtype": "uint8", **settings})


def test_too_many_windows():
    """Labels that the chosen window shape cannot number raise EncodeError."""
    chunk = np.random.default_rng(0).integers(0, 2, (64, 64, 64)).astype("uint8")
    with pytest.raises(EncodeError):
        Compresso(chunk.shape, "uint8", steps=(4, 2, 1)).encode_chunk(chunk)
