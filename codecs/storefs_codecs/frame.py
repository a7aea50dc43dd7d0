"""The frame in front of a clipped chunk.

Zarr's regular grid tells a codec the full chunk shape only, while precomputed edge chunks are stored clipped.
A store that knows the true extent of such a chunk puts this frame before the payload; whole chunks carry
none.

    bytes 0..6   b"storefs"
    byte  7      number of axes
    then         one little-endian uint32 extent for every axis, C order, zero padded to a multiple of 8 bytes

A frame of no axes with nothing behind it stands for an absent chunk, where it has to be served as something.
No encoding offered here can begin with those seven letters in a valid chunk, except raw, which is never
framed.
"""

from __future__ import annotations

import struct

from storefs_codecs.errors import DecodeError

MAGIC = b"storefs"
MAX_AXES = 8


def frame(extent: tuple[int, ...]) -> bytes:
    """The frame that announces a chunk of `extent` (C order)."""
    packed = struct.pack(f"<{len(extent)}I", *extent)
    return MAGIC + bytes([len(extent)]) + packed + b"\0" * (-len(packed) % 8)


ABSENT = frame(())


def unframe(payload: memoryview) -> tuple[tuple[int, ...] | None, memoryview]:
    """The announced extent (None where there is no frame) and the payload behind it.

    Raises DecodeError where a frame is cut short.
    """
    if len(payload) < len(MAGIC) + 1 or payload[: len(MAGIC)] != MAGIC:
        return None, payload
    axes = payload[len(MAGIC)]
    start = len(MAGIC) + 1
    end = start + axes * 4
    body = start + -(-axes * 4 // 8) * 8
    if axes > MAX_AXES or len(payload) < body:
        raise DecodeError("storefs.frame", "the frame of a clipped chunk is broken", f"{body} bytes", len(payload))
    return struct.unpack(f"<{axes}I", payload[start:end]), payload[body:]
