"""Image files: a PNG writer of our own, JPEG through simplejpeg. Arrays are rows, columns(, channels)."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt
import simplejpeg

from tests.backends.dvid.answers import NotEmulated, Refusal, Reply
from tests.backends.dvid.geometry import integer

Array = npt.NDArray[np.generic]
DEFAULT_QUALITY = 80


def png(plane: Array) -> bytes:
    """A plane as DVID paints it.

    uint8 gray, uint16 gray, four channels RGBA; 32-bit values as the four little-endian bytes in RGBA; uint64 as 16-bit
    RGBA whose eight sample bytes in file order are the little-endian bytes.
    """
    rows = plane.shape[0]
    plane = np.ascontiguousarray(plane)
    if plane.ndim == 3:
        depth, colour = 8, 6
    elif plane.dtype.itemsize <= 2:
        depth, colour = 8 * plane.dtype.itemsize, 0
        plane = plane.astype(plane.dtype.newbyteorder(">"))
    else:
        depth, colour = (8 if plane.dtype.itemsize == 4 else 16), 6
    lines = np.frombuffer(plane.tobytes(), np.uint8).reshape(rows, -1)
    filtered = np.concatenate([np.zeros((rows, 1), np.uint8), lines], axis=1)
    head = struct.pack(">IIBBBBB", plane.shape[1], rows, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(filtered.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_part(name, data) for name, data in parts)


def _png_part(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def jpeg(plane: Array, quality: int = DEFAULT_QUALITY) -> bytes:
    """A gray plane; 16-bit planes lose their low byte."""
    if plane.dtype.itemsize == 2:
        plane = plane.astype(np.uint16) >> 8
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(plane, np.uint8)[:, :, None], quality, "GRAY"))


def jpeg_pixels(data: bytes) -> npt.NDArray[np.uint8]:
    """Gray values of a JPEG."""
    return np.asarray(simplejpeg.decode_jpeg(data, "GRAY"))[:, :, 0]


def as_image(plane: Array, form: str) -> Reply:
    """A 2-D answer in `png` (the default), `jpg` or `jpg:quality`."""
    name, _, quality = form.partition(":")
    if name in ("", "png"):
        return Reply(body=png(plane), headers={"Content-Type": "image/png"})
    if name in ("tif", "bmp"):
        raise NotEmulated(form)
    if name not in ("jpg", "jpeg"):
        raise Refusal(f"Illegal image format requested: {form}")
    value = integer(quality, by="Atoi") if quality else DEFAULT_QUALITY
    return Reply(body=jpeg(plane, value), headers={"Content-Type": "image/jpeg"})
