"""Tiles that are still WebP images; RFC 9649."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from storefs_codecs.errors import DecodeError
from storefs_codecs.tile_header import CODEC, COLOURS, TileHeader, broken

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

SIGNATURE = b"RIFF"
FORM = b"WEBP"
BODY = 12
CHUNK_HEAD = 8
KEY_FRAME = b"\x9d\x01\x2a"
LOSSLESS = 0x2F
ANIMATED, ALPHA = 0x02, 0x10
SIDE = 0x3FFF


def read_header(payload: memoryview) -> TileHeader:
    """The declared size and samples. Raises DecodeError."""
    name, data = bytes(payload[BODY : BODY + 4]), bytes(payload[BODY + CHUNK_HEAD : BODY + CHUNK_HEAD + 10])
    if payload[8:BODY] != FORM or len(data) < 10:  # noqa: PLR2004  # the longest of the three headers
        raise broken("WebP", "the header is cut short")
    if name == b"VP8X":
        if data[0] & ANIMATED:
            raise DecodeError(CODEC, "animated WebP images are not offered", "a still image")
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (4, 7))
        return TileHeader(width, height, COLOURS + bool(data[0] & ALPHA), "uint8")
    if name == b"VP8L" and data[0] == LOSSLESS:
        fields = int.from_bytes(data[1:5], "little")
        return TileHeader(1 + (fields & SIDE), 1 + (fields >> 14 & SIDE), COLOURS + (fields >> 28 & 1), "uint8")
    if name == b"VP8 " and data[3:6] == KEY_FRAME:
        width, height = (int.from_bytes(data[at : at + 2], "little") & SIDE for at in (6, 8))
        return TileHeader(width, height, COLOURS, "uint8")
    raise broken("WebP", f"it begins with a {name!r} chunk")


def read_image(payload: memoryview, header: TileHeader, _: Array | None) -> Array:
    """The samples, `(height, width, 3)` or with alpha as fourth. Raises DecodeError."""
    length = int.from_bytes(payload[4:8], "little") + CHUNK_HEAD
    if length > len(payload):
        raise broken("WebP", f"{length} bytes are declared, {len(payload)} are there")
    try:
        image = np.asarray(imagecodecs.webp_decode(bytes(payload[:length]), hasalpha=False))
    except (imagecodecs.WebpError, ValueError) as error:
        raise broken("WebP", error) from error
    if image.shape[:2] != (header.height, header.width):
        raise broken("WebP", f"canvas and image differ: {header.width} x {header.height}, {image.shape[1::-1]}")
    return image
