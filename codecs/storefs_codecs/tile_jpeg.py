"""Tiles that are JPEG images; ITU-T T.81.

Grey images decode straight into the caller's memory, in the compiled kernel where that takes them; it also takes those
that could be coloured but are not. Colours are converted by libjpeg, CMYK is refused: whether its samples are inverted
differs from writer to writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import simplejpeg

from storefs_codecs import jpeg
from storefs_codecs.errors import DecodeError
from storefs_codecs.kernels import jpeg as kernels
from storefs_codecs.tile_header import CODEC, TileHeader, broken

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

SIGNATURE = b"\xff\xd8\xff"
CHANNELS = {"Gray": 1, "YCbCr": 3, "RGB": 3}


def read_header(payload: memoryview) -> TileHeader:
    """The declared size and samples. Raises DecodeError."""
    try:
        height, width, colorspace = jpeg.read_header(payload)
    except ValueError as error:
        raise broken("JPEG", error) from error
    if colorspace not in CHANNELS:
        raise DecodeError(CODEC, "colour space of the JPEG image is not offered", ", ".join(CHANNELS), colorspace)
    return TileHeader(width, height, CHANNELS[colorspace], "uint8")


def read_image(payload: memoryview, header: TileHeader, room: Array | None) -> Array:
    """The samples; in `room` where that is given (C order, of the header's size, one sample a pixel).

    One sample a pixel may also stand for three that are equal. Raises DecodeError.
    """
    kernel = kernels.load()
    if kernel is not None:
        out = None if room is None else room[None]
        image = kernel.decode(payload, (1, header.height, header.width), out, header.channels)
        if image is not None:
            return image[0] if room is None else room
    jpeg.check_scans(CODEC, payload, header.channels)
    try:
        if header.channels > 1:
            return simplejpeg.decode_jpeg(payload, "RGB")  # type: ignore[no-any-return]  # untyped library
        if room is None:
            return simplejpeg.decode_jpeg(payload, "GRAY")[..., 0]  # type: ignore[no-any-return]  # untyped library
        simplejpeg.decode_jpeg(payload, "GRAY", buffer=room)
    except ValueError as error:
        raise broken("JPEG", error) from error
    return room
