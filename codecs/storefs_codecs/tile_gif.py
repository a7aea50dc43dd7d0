"""Tiles that are GIF images: the first frame; https://www.w3.org/Graphics/GIF/spec-gif89a.txt.

giflib unpacks all frames of a file at once, so it is given a file of the first one only. The palette is looked up
here, transparent colours included.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from storefs_codecs.errors import DecodeError
from storefs_codecs.tile_header import CODEC, COLOURS, TileHeader, broken

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

SIGNATURE = b"GIF8"
VERSIONS = (b"GIF87a", b"GIF89a")
SCREEN = struct.Struct("<6sHHBBB")
FRAME = struct.Struct("<BHHHHB")
EXTENSION, IMAGE, TRAILER = 0x21, 0x2C, b"\x3b"
TABLE = 0x80


def read_header(payload: memoryview) -> TileHeader:
    """The declared size and samples. Raises DecodeError."""
    if len(payload) < SCREEN.size:
        raise broken("GIF", "the header is cut short")
    version, width, height, *_ = SCREEN.unpack_from(payload)
    if version not in VERSIONS:
        raise broken("GIF", f"version {version!r}")
    return TileHeader(width, height, COLOURS, "uint8")


def read_image(payload: memoryview, header: TileHeader, _: Array | None) -> Array:
    """The colours of the first frame, `(height, width, 3)`. Raises DecodeError."""
    screen_end = SCREEN.size + _table_bytes(payload[SCREEN.size - 3])
    start = _first_frame(payload, screen_end)
    _, left, top, width, height, flags = FRAME.unpack_from(payload, start)
    if (left, top, width, height) != (0, 0, header.width, header.height):
        raise broken("GIF", f"the first frame covers {width} x {height} of {header.width} x {header.height} pixels")
    table_start, table_end = start + FRAME.size, start + FRAME.size + _table_bytes(flags)
    colours = payload[table_start:table_end] if flags & TABLE else payload[SCREEN.size : screen_end]
    end = _blocks_end(payload, table_end + 1)
    alone = bytes(payload[:screen_end]) + bytes(payload[start:end]) + TRAILER
    try:
        indexes = np.asarray(imagecodecs.gif_decode(alone, index=0, asrgb=False))
    except (imagecodecs.GifError, ValueError) as error:
        raise broken("GIF", error) from error
    if indexes.shape != (height, width):
        raise broken("GIF", f"it decoded to {indexes.shape}")
    palette: Array = np.frombuffer(colours, np.uint8).reshape(-1, COLOURS)
    if int(indexes.max()) >= len(palette):
        raise DecodeError(CODEC, "index beyond the palette", f"below {len(palette)}", int(indexes.max()))
    return np.take(palette, indexes, axis=0)


def _first_frame(payload: memoryview, at: int) -> int:
    """Where the first image descriptor is, behind any extensions."""
    while at + 2 <= len(payload) and payload[at] == EXTENSION:
        at = _blocks_end(payload, at + 2)
    if at + FRAME.size > len(payload) or payload[at] != IMAGE:
        raise broken("GIF", "it has no frame")
    return at


def _blocks_end(payload: memoryview, at: int) -> int:
    """The end of a run of data blocks, each behind its length."""
    while at < len(payload):
        length = payload[at]
        at += 1 + length
        if length == 0:
            return at
    raise broken("GIF", "it is cut short")


def _table_bytes(flags: int) -> int:
    return COLOURS << (flags & 7) + 1 if flags & TABLE else 0
