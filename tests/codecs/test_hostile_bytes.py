"""Payloads nobody meant to write: always the right shape or DecodeError, in bounded time and memory."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import ChunkCodec, DecodeError
from storefs_codecs.frame import frame, unframe
from storefs_codecs.jpeg import Jpeg
from storefs_codecs.jxl import Jxl
from storefs_codecs.n5_block import N5Block
from storefs_codecs.png import SIGNATURE, Png
from storefs_codecs.raw import Raw
from storefs_codecs.tile import Tile

SHAPE = (6, 7, 9)
CODECS: dict[str, ChunkCodec] = {
    "raw": Raw(SHAPE, "uint16"),
    "jpeg": Jpeg(SHAPE),
    "jpeg-3ch": Jpeg((3, *SHAPE)),
    "png": Png(SHAPE),
    "png-16bit-3ch": Png((3, *SHAPE), "uint16"),
    "jxl": Jxl(SHAPE),
    "jxl-lossy": Jxl(SHAPE, quality=80),
    "tile": Tile((1, *SHAPE[1:])),  # other formats than PNG: test_tile.py
    "tile-16bit-3ch": Tile((3, 1, *SHAPE[1:]), "uint16", "rgb"),
    **{
        f"n5-{kind}": N5Block(SHAPE, "int16", {"type": kind})
        for kind in ("raw", "gzip", "bzip2", "xz", "blosc", "zstd")
    },
}
STARTS = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xc0\0\x0b\x08",
    SIGNATURE,
    b"\xff\x0a",
    b"\0\0\0\x0cJXL \r\n\x87\n",
    b"GIF89a\x09\0\x07\0\x80\0\0",
    b"RIFF\x40\0\0\0WEBPVP8L\x30\0\0\0\x2f",
    b"II*\0\x08\0\0\0",
    b"\0\0\0\3\0\0\0\x09\0\0\0\7\0\0\0\6",
]
STARTS += [b"storefs", b"storefs\3", frame((6, 7, 8)), frame((1, 1, 1)), frame((2**32 - 1,) * 3)]


@pytest.fixture(scope="module", params=CODECS, ids=str)
def case(request, image_chunk) -> tuple[ChunkCodec, bytes, bytes]:
    """A codec with a valid payload, whole and framed."""
    codec = CODECS[request.param]
    clipped = tuple(max(1, n - 1) for n in codec.shape[-3:])
    extent = (*codec.shape[:-3], *clipped)
    whole = codec.encode(image_chunk(codec.shape, codec.dtype.name))
    return codec, whole, frame(extent) + codec.encode_chunk(image_chunk(extent, codec.dtype.name))


def decode_or_refuse(codec: ChunkCodec, payload: bytes) -> np.ndarray[Any, Any] | None:
    """The decoded chunk, checked for shape and dtype, or None where the payload is refused."""
    try:
        found = codec.decode(payload)
    except DecodeError:
        return None
    assert found.shape == codec.shape
    assert found.dtype == codec.dtype
    return found


@settings(deadline=None)
@given(st.sampled_from(sorted(CODECS)), st.sampled_from(STARTS), st.binary(max_size=300))
def test_random_bytes(name, start, rest):
    """Random bytes behind the magic of some format decode or raise DecodeError."""
    decode_or_refuse(CODECS[name], start + rest)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutations(case, data):
    """Changed, deleted and repeated bytes decode or raise DecodeError."""
    codec, whole, framed = case
    payload = bytearray(data.draw(st.sampled_from([whole, framed])))
    for _ in range(data.draw(st.integers(1, 4))):
        if not payload:
            break
        at = data.draw(st.integers(0, min(len(payload), data.draw(st.sampled_from([40, len(payload)]))) - 1))
        kind = data.draw(st.sampled_from(["change", "flip", "delete", "repeat", "insert"]))
        if kind == "change":
            payload[at] = data.draw(st.integers(0, 255))
        elif kind == "flip":
            payload[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "delete":
            del payload[at : at + data.draw(st.integers(1, 9))]
        elif kind == "repeat":
            payload[at:at] = payload[at : at + data.draw(st.integers(1, 50))]
        else:
            payload[at:at] = data.draw(st.binary(max_size=9))
    decode_or_refuse(codec, bytes(payload))


def test_truncations(case):
    """A payload cut anywhere raises DecodeError, or gives the chunk where only padding is missing."""
    codec, whole, framed = case
    for payload in (whole, framed):
        intact = decode_or_refuse(codec, payload)
        for length in range(0, len(payload), max(1, len(payload) // 150)):
            found = decode_or_refuse(codec, payload[:length])
            if found is not None:
                np.testing.assert_array_equal(found, intact)


def test_failures_leak_nothing(case):
    """Thousands of refused payloads leave no memory behind."""
    codec, whole, _ = case
    rng = np.random.default_rng(0)

    def refuse(times: int) -> None:
        for _ in range(times):
            payload = bytearray(whole)
            payload[rng.integers(len(whole) // 2, len(whole))] ^= 0xFF
            decode_or_refuse(codec, bytes(payload))

    refuse(200)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuse(2000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


@given(st.binary(max_size=80))
def test_frames(data):
    """Any bytes are a frame and its payload, a payload without frame, or a DecodeError."""
    view = memoryview(data)
    try:
        extent, rest = unframe(view)
    except DecodeError:
        return
    if extent is None:
        assert rest == data
    else:
        assert len(rest) < len(data)
        assert unframe(memoryview(frame(extent) + rest)) == (extent, rest)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8), st.binary(max_size=20))
def test_frame_round_trip(extent, payload):
    """What is framed comes back, and the payload stays aligned to 8 bytes."""
    framed = frame(tuple(extent)) + payload
    assert unframe(memoryview(framed)) == (tuple(extent), payload)
    assert (len(framed) - len(payload)) % 8 == 0
    for length in range(8, len(framed) - len(payload)):
        with pytest.raises(DecodeError):
            unframe(memoryview(framed[:length]))
