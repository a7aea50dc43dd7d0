"""Tiles that are PNG images of any kind; https://www.w3.org/TR/png-3/.

The container is read as for `storefs.png`. Row filters work on bytes: samples below 8 bits and indexes into a
palette are unfiltered as bytes of a grey image, then unpacked here. Transparent colours are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from storefs_codecs.errors import DecodeError
from storefs_codecs.png import (
    ADAM7,
    COLOR_TYPE_SAMPLES,
    HEADER,
    SIGNATURE,
    Header,
    inflate_rows,
    read_chunks,
    stored_png,
    undo_filters,
)
from storefs_codecs.tile_header import CODEC, COLOURS, TileHeader, broken

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storefs_codecs.chunk_codec import Array

__all__ = ["SIGNATURE", "read_header", "read_image"]

PALETTE = 3
BYTE = 8
BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def read_header(payload: memoryview) -> TileHeader:
    """The declared size and samples. Raises DecodeError."""
    header = _png_header(next(iter(read_chunks(CODEC, payload)), None))
    channels = COLOURS if header.color_type == PALETTE else COLOR_TYPE_SAMPLES[header.color_type]
    return TileHeader(header.width, header.height, channels, "uint16" if header.bits > BYTE else "uint8")


def read_image(payload: memoryview, _: TileHeader, room: Array | None) -> Array:
    """The samples; in `room` where that is given (C order, of the header's size, one sample a pixel).

    Raises DecodeError.
    """
    chunks = iter(read_chunks(CODEC, payload))
    header = _png_header(next(chunks, None))
    palette, compressed = _read_body(chunks)
    filtered = inflate_rows(CODEC, header, compressed)
    if header.bits < BYTE or header.color_type == PALETTE:
        return _in_colour(_unpacked(header, filtered), header, palette)
    return _samples(header, filtered, room)


def _samples(header: Header, filtered: Array, room: Array | None = None) -> Array:
    """The samples of 8 or 16 bits, in `room` where that is given."""
    channels = COLOR_TYPE_SAMPLES[header.color_type]
    if room is None:
        shape = (header.height, header.width, channels)[: 2 if channels == 1 else 3]
        room = np.empty(shape, f"<u{header.bits // BYTE}")
    planes = np.moveaxis(room.reshape(1, header.height, header.width, channels), -1, 0)
    if undo_filters(CODEC, header, filtered, planes):
        return room
    try:
        return np.asarray(imagecodecs.png_decode(stored_png(header, filtered), out=room))
    except (imagecodecs.PngError, ValueError) as error:
        raise broken("PNG", error) from error


def _png_header(chunk: tuple[bytes, memoryview] | None) -> Header:
    name, data = chunk or (b"", memoryview(b""))
    if name != b"IHDR" or len(data) != HEADER.size:
        raise DecodeError(CODEC, "PNG image does not begin with its header", b"IHDR", name)
    header = Header(*HEADER.unpack(data))
    if header.bits not in BITS.get(header.color_type, ()):
        raise broken("PNG", f"colour type {header.color_type} with {header.bits} bits")
    if header.compression or header.filtering or header.interlace > 1:
        raise broken("PNG", "unknown compression, filter or interlace method")
    return header


def _read_body(chunks: Iterable[tuple[bytes, memoryview]]) -> tuple[bytes, bytes]:
    """The palette, empty where there is none, and the zlib stream of the rows."""
    palette, pieces = b"", []
    for name, data in chunks:
        if name == b"PLTE":
            palette = bytes(data)
        elif name == b"IDAT":
            pieces.append(data)
        elif name == b"IEND":
            return palette, b"".join(pieces)
    raise broken("PNG", "it ends before its IEND chunk")


def _unpacked(header: Header, filtered: Array) -> Array:
    """Samples of at most 8 bits, one a pixel."""
    image = np.empty((header.height, header.width), np.uint8)
    starts = ADAM7 if header.interlace else ((0, 0, 1, 1),)
    parts = [part for x, y, dx, dy in starts if (part := image[y::dy, x::dx]).size]
    at = 0
    for part, (rows, row) in zip(parts, header.passes(), strict=True):
        packed = _samples(Header(row - 1, rows, BYTE, 0, 0, 0, 0), filtered[at : at + rows * row])
        part[...] = unpack_bits(packed, header.bits, part.shape[1])
        at += rows * row
    return image


def unpack_bits(packed: Array, bits: int, width: int) -> Array:
    """The first `width` samples of `bits` (1, 2, 4 or 8) of every row of bytes, high bits first."""
    shifts = np.arange(BYTE - bits, -1, -bits).astype(np.uint8)
    samples: Array = (packed[..., None] >> shifts) & ((1 << bits) - 1)
    rows: Array = samples.reshape(*packed.shape[:-1], -1)
    return rows[..., :width]


def _in_colour(image: Array, header: Header, palette: bytes) -> Array:
    if header.color_type != PALETTE:
        image *= 255 // ((1 << header.bits) - 1)
        return image
    colours = np.frombuffer(palette[: len(palette) // COLOURS * COLOURS], np.uint8).reshape(-1, COLOURS)
    if int(image.max()) >= len(colours):
        raise DecodeError(CODEC, "index beyond the palette", f"below {len(colours)}", int(image.max()))
    return colours[image]
