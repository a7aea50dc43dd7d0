"""Parts of compressed_segmentation chunks, with the numpy decoder and the compiled one: as selecting from the whole."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError
from storefs_codecs.chunk_codec import ChunkCodec
from storefs_codecs.compressed_segmentation import CompressedSegmentation
from storefs_codecs.frame import ABSENT
from storefs_codecs.kernels import compressed_segmentation as kernels
from storefs_codecs.part_codec import PartCodec

FAULTS = [0, 1, 2**24 - 1, 2**31, 2**32 - 1, *(bits << 24 for bits in (1, 2, 3, 8, 16, 32, 64))]
CODERS = ["numpy", "kernel"]


def with_coder(coder: str) -> pytest.MonkeyPatch:
    """Makes everything from here to `undo` run with one of the implementations."""
    patch = pytest.MonkeyPatch()
    patch.setenv("STOREFS_NO_KERNELS", "1" if coder == "numpy" else "0")
    if coder == "kernel" and kernels.load() is None:
        patch.undo()
        pytest.skip("the kernel was not built")
    return patch


@pytest.fixture(scope="module", params=CODERS)
def coder(request):
    """A test with this runs with both implementations."""
    patch = with_coder(request.param)
    yield request.param
    patch.undo()


@st.composite
def chunks(draw):
    """A codec, and a chunk for it, maybe clipped, with channels or without."""
    dtype = draw(st.sampled_from(["<u4", "<u8"]))
    shape = draw(st.tuples(*[st.integers(1, 20)] * 3))
    shape = draw(st.sampled_from([shape, shape, (3, *shape)]))
    block = draw(st.tuples(*[st.one_of(st.sampled_from([1, 4, 8, 16]), st.integers(1, 30))] * 3))
    kinds = draw(st.sampled_from([1, 2, 4, 5, 16, 17, 300]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pool = random.integers(0, np.iinfo(dtype).max, kinds, dtype, endpoint=True)
    chunk = pool[np.sort(random.integers(0, kinds, shape), axis=draw(st.integers(-3, -1)))]
    full = tuple(n + more for n, more in zip(shape, draw(st.sampled_from([(0,) * 4, (2,) * 4])), strict=False))
    return CompressedSegmentation(full, dtype, block), chunk


def boxes(shape):
    """A box in a chunk: parts of axes, planes, voxels with steps, nothing at all."""

    def along(n):
        steps = st.sampled_from([None, 1, 1, 2, 3, 9, 40])
        edges = st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted)
        planes = st.integers(0, n - 1).map(lambda at: slice(at, at + 1))
        return st.one_of(st.just(slice(0, n)), planes, st.builds(lambda e, step: slice(*e, step), edges, steps))

    return st.tuples(*map(along, shape))


def room(shape, dtype, lies):
    """Memory for a box, its neighbours in there, in one of several orders and with gaps."""
    gaps = tuple(2 * n + 1 for n in shape)
    around = np.full(gaps[::-1] if lies == "turned" else gaps, 77, dtype)
    inner = (around.T if lies == "turned" else around)[tuple(slice(1, 1 + 2 * n, 2) for n in shape)]
    return around, inner[..., ::-1] if lies == "backwards" else inner


@given(made=chunks(), data=st.data())
@settings(max_examples=80, deadline=None)
def test_boxes_are_cut_from_the_whole(coder, made, data):
    """A box is what the same slices take of the whole, in memory of its own or of the caller's, which else stays."""
    codec, chunk = made
    payload = codec.encode_chunk(chunk)
    box = data.draw(boxes(chunk.shape))
    found = codec.decode_box(payload, box, extent=chunk.shape)
    assert found.dtype == codec.dtype
    assert np.array_equal(found, chunk[box])
    around, inner = room(found.shape, codec.dtype, data.draw(st.sampled_from(["apart", "turned", "backwards"])))
    assert codec.decode_box(payload, box, extent=chunk.shape, out=inner) is inner
    assert np.array_equal(inner, chunk[box])
    inner[...] = 77
    assert (around == 77).all()


@given(made=chunks(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_points_are_taken_from_the_whole(coder, made, data):
    """Points, also crossings of lines and none at all, are what the same coordinates take of the whole."""
    codec, chunk = made
    payload = codec.encode_chunk(chunk)
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count = data.draw(st.sampled_from([0, 1, 2, 30]))
    integers = data.draw(st.sampled_from(["i8", "u8", "i2"]))
    points = tuple(random.integers(0, n, count).astype(integers) for n in chunk.shape)
    found = codec.decode_points(payload, points, extent=chunk.shape)
    assert found.dtype == codec.dtype
    assert np.array_equal(found, chunk[points])
    crossings = np.ix_(*(along[:2] for along in points))
    assert np.array_equal(codec.decode_points(payload, crossings, extent=chunk.shape), chunk[crossings])


def outcome(decode, *args, **settings):
    """The labels, or the text of the error."""
    try:
        return decode(*args, **settings).tolist()
    except DecodeError as error:
        return str(error)


@given(made=chunks(), data=st.data())
@settings(max_examples=120, deadline=None)
def test_damaged_words(made, data):
    """From damaged words a part is what it is of the whole, if that decodes; and always the same from both decoders."""
    codec, chunk = made
    words = np.frombuffer(codec.encode_chunk(chunk), "<u4").copy()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, min(len(words), 40) - 1), st.integers(0, len(words) - 1)))
        value = st.one_of(st.integers(0, len(words)), st.sampled_from(FAULTS), st.integers(0, 2**32 - 1))
        words[at] = data.draw(st.sampled_from([0, int(words[at])])) ^ data.draw(value)
    payload = words[: max(1, len(words) - data.draw(st.integers(0, 4)))].tobytes()
    box = data.draw(boxes(chunk.shape))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    points = tuple(random.integers(0, n, 6) for n in chunk.shape)
    found = []
    for one in CODERS:
        patch = with_coder(one)
        try:
            whole = outcome(codec.decode_chunk, payload, extent=chunk.shape)
            parts = [outcome(codec.decode_box, payload, box, extent=chunk.shape)]
            parts.append(outcome(codec.decode_points, payload, points, extent=chunk.shape))
        finally:
            patch.undo()
        if not isinstance(whole, str):
            assert parts == [np.array(whole, codec.dtype)[at].tolist() for at in (box, points)]
        found.append(parts)
    assert found[0] == found[1]


def test_damage_elsewhere_is_not_noticed(coder):
    """Of blocks that a part has nothing of, the headers may be anything; of others they are refused."""
    chunk = np.arange(16**3, dtype="<u8").reshape(16, 16, 16)
    codec = CompressedSegmentation(chunk.shape, "uint64")
    payload = bytearray(codec.encode_chunk(chunk))
    payload[4 + 8 * 1 + 3] = 5  # the width of the second block along x
    near, far = (slice(0, 8),) * 3, (slice(0, 16, 3), slice(0, 8), slice(7, 9))
    assert np.array_equal(codec.decode_box(payload, near), chunk[near])
    assert np.array_equal(codec.decode_points(payload, (np.array([3, 9]),) * 3), chunk[[3, 9], [3, 9], [3, 9]])
    with pytest.raises(DecodeError, match="block 1 has an unknown index width"):
        codec.decode_box(payload, far)
    with pytest.raises(DecodeError, match="block 1 has an unknown index width"):
        codec.decode_points(payload, (np.array([3, 3]), np.array([3, 3]), np.array([3, 8])))
    for broken in (b"", payload[:7], struct.pack("<3I", 2, 0, 0), struct.pack("<I", 1)):
        for decode, part in ((codec.decode_box, near), (codec.decode_points, (np.array([1]),) * 3)):
            with pytest.raises(DecodeError):
                decode(broken, part)


def test_parts_beyond_the_chunk(coder):
    """What lies outside the chunk, or along too few axes, is an IndexError; a wrong `out` is a ValueError."""
    chunk = np.arange(5 * 4 * 3, dtype="<u4").reshape(1, 5, 4, 3)
    codec = CompressedSegmentation((1, 6, 6, 6), "uint32")
    payload = codec.encode_chunk(chunk)
    whole = tuple(slice(0, n) for n in chunk.shape)
    for box in ((*whole[:3], slice(0, 4)), (*whole[:3], slice(-1, 2)), (*whole[:3], slice(0, 3, -1)), whole[:3]):
        with pytest.raises(IndexError):
            codec.decode_box(payload, box, extent=chunk.shape)
    inside = [np.array([0, 0])] * 4
    for axis, at in ((0, 1), (0, -1), (1, 5), (2, -1), (3, 3), (3, 2**62)):
        points = [*inside]
        points[axis] = np.array([0, at])
        with pytest.raises(IndexError):
            codec.decode_points(payload, tuple(points), extent=chunk.shape)
    for points in (inside[:3], [*inside[:3], np.array([0.0, 0.0])]):
        with pytest.raises(IndexError):
            codec.decode_points(payload, tuple(points), extent=chunk.shape)
    fixed = np.empty(chunk.shape, "<u4")
    fixed.flags.writeable = False
    for out in (np.empty(chunk.shape[1:], "<u4"), np.empty(chunk.shape, "<u8"), fixed):
        with pytest.raises(ValueError, match="out"):
            codec.decode_box(payload, whole, extent=chunk.shape, out=out)


def test_frames(coder):
    """The frame of a clipped chunk tells its extent, that of an absent one that all is zero."""
    chunk = np.arange(5 * 4 * 3, dtype="<u8").reshape(5, 4, 3)
    codec = CompressedSegmentation((6, 6, 6), "uint64", (4, 4, 4))
    framed = codec.encode(chunk)
    box, points = (slice(1, 5, 3), slice(0, 4), slice(2, 3)), (np.array([4, 0]), np.array([3, 0]), np.array([2, 0]))
    assert np.array_equal(codec.decode_box(framed, box), chunk[box])
    assert np.array_equal(codec.decode_points(framed, points), chunk[points])
    assert not codec.decode_box(ABSENT, box).any()
    assert not codec.decode_points(ABSENT, points).any()


def test_vast_blocks(coder):
    """Blocks much larger than the chunk, and than any number of the machine, are no trouble."""
    chunk = np.full((3, 4, 5), 9, "<u8")
    for block in ((2**80, 2**80, 2**80), (8, 2**80, 1), (2**40, 8, 8)):
        codec = CompressedSegmentation(chunk.shape, "uint64", block)
        payload = codec.encode_chunk(chunk)
        assert (codec.decode_box(payload, (slice(0, 3), slice(1, 3), slice(0, 5, 2))) == 9).all()
        assert (codec.decode_points(payload, (np.arange(3),) * 3) == 9).all()


def test_the_ability_can_be_asked_for():
    """Codecs that decode parts are PartCodecs, others are not."""
    assert issubclass(CompressedSegmentation, PartCodec)
    assert not issubclass(ChunkCodec, PartCodec)
