"""png: one PNG image of all voxels, 1 to 4 channels of uint8 or uint16.

Format: https://www.w3.org/TR/png-3/, arranged as `image_rows` says. The samples are taken as stored: colour
profiles, gamma and transparent colours are ignored. Palettes and samples below 8 bits are refused.

The container is read and inflated here, so that sizes, checksums and lengths are known to be right before the row
filters are undone. A compiled kernel does that where it was built (see kernels) and the image is not interlaced; libpng
does it otherwise, with the same results, and is given stored (uncompressed) rows.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, ClassVar

import imagecodecs
import numpy as np

from storefs_codecs.chunk_codec import SPATIAL_AXES, ChunkCodec, as_czyx
from storefs_codecs.errors import DecodeError, EncodeError
from storefs_codecs.image_rows import as_image, channel_planes, check_image, deliver, image_size, rows_for
from storefs_codecs.kernels import png as kernels
from storefs_codecs.recycled import recycled
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from storefs_codecs.chunk_codec import Array

LONGEST_SIDE = 1_000_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
CHUNK_HEAD = struct.Struct(">I4s")
CRC = struct.Struct(">I")
COLOR_TYPE_SAMPLES = {0: 1, 4: 2, 2: 3, 6: 4}
# first column, first row, column step, row step of each Adam7 pass
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
LAST_FILTER = 4
MAX_LEVEL = 9
OCTET = np.dtype(np.uint8)


@dataclass(frozen=True)
class Header:
    """The fields of the IHDR chunk."""

    width: int
    height: int
    bits: int
    color_type: int
    compression: int
    filtering: int
    interlace: int

    def passes(self) -> Iterator[tuple[int, int]]:
        """Rows, and bytes per row with the filter byte, of each pass over the image that is not empty."""
        # an index into a palette is one sample too
        pixel = COLOR_TYPE_SAMPLES.get(self.color_type, 1) * self.bits
        for x, y, dx, dy in ADAM7 if self.interlace else ((0, 0, 1, 1),):
            columns, rows = -((x - self.width) // dx), -((y - self.height) // dy)
            if columns > 0 and rows > 0:
                yield rows, 1 + -(-columns * pixel // 8)


class Png(ChunkCodec):
    """PNG, lossless.

    Parameters
    ----------
    shape
        Full chunk shape `(z, y, x)` or `(c, z, y, x)` with 1 to 4 channels.
    dtype
        `"uint8"` or `"uint16"`.
    level
        zlib level 0 to 9, for encoding.

    """

    codec_id = "storefs.png"
    dtypes = frozenset({"uint8", "uint16"})
    strided = True

    def __init__(self, shape: tuple[int, ...] | list[int], dtype: npt.DTypeLike = "uint8", level: int = 6) -> None:
        super().__init__(shape, dtype)
        if as_czyx(self.shape)[0] not in COLOR_TYPE_SAMPLES.values():
            raise ValueError(f"{self.codec_id}: 1 to 4 channels can be stored, got shape {self.shape}")
        if not 0 <= level <= MAX_LEVEL:
            raise ValueError(f"{self.codec_id}: level must be 0 to {MAX_LEVEL}, got {level}")
        self.level = int(level)

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        header, compressed = self._read_container(payload, extent)
        filtered = inflate_rows(self.codec_id, header, compressed)
        chunk = np.empty(extent, self.dtype) if out is None else out
        planes = chunk if chunk.ndim > SPATIAL_AXES else chunk[None]
        if undo_filters(self.codec_id, header, filtered, planes):
            return chunk
        plain = stored_png(header, filtered)
        try:
            if len(planes) == 1:
                rows = rows_for(extent, self.dtype, chunk)
                imagecodecs.png_decode(plain, out=rows.reshape(header.height, header.width))
                return deliver(rows, chunk)
            return channel_planes(imagecodecs.png_decode(plain), extent, chunk)
        except (imagecodecs.PngError, ValueError) as error:
            raise DecodeError(self.codec_id, f"not a PNG image: {error}") from error

    def _encode(self, chunk: Array) -> bytes:
        image = as_image(chunk, image_size(self.codec_id, chunk.shape, LONGEST_SIDE))
        try:
            return bytes(imagecodecs.png_encode(image, self.level))
        except (imagecodecs.PngError, ValueError) as error:
            raise EncodeError(self.codec_id, str(error)) from error

    def _read_container(self, payload: memoryview, extent: tuple[int, ...]) -> tuple[Header, bytes]:
        """The checked header and the zlib stream of the rows."""
        header, pieces = None, []
        for name, data in read_chunks(self.codec_id, payload):
            if header is None:
                header = self._check_header(name, data, extent)
            elif name == b"IDAT":
                pieces.append(data)
            elif name == b"IEND":
                return header, b"".join(pieces)
        raise DecodeError(self.codec_id, "image ends before its IEND chunk")

    def _check_header(self, name: bytes, data: memoryview, extent: tuple[int, ...]) -> Header:
        if name != b"IHDR" or len(data) != HEADER.size:
            raise DecodeError(self.codec_id, "image does not begin with its header", b"IHDR", name)
        header = Header(*HEADER.unpack(data))
        if header.color_type not in COLOR_TYPE_SAMPLES:
            raise DecodeError(self.codec_id, "unsupported colour type", list(COLOR_TYPE_SAMPLES), header.color_type)
        check_image(self.codec_id, (header.height, header.width), COLOR_TYPE_SAMPLES[header.color_type], extent)
        if header.bits != self.dtype.itemsize * 8:
            raise DecodeError(self.codec_id, "bits per sample do not fit", self.dtype.itemsize * 8, header.bits)
        if header.compression or header.filtering or header.interlace > 1:
            raise DecodeError(self.codec_id, "unknown compression, filter or interlace method")
        if max(header.width, header.height) > LONGEST_SIDE:
            raise DecodeError(self.codec_id, "side too long", f"at most {LONGEST_SIDE}", (header.width, header.height))
        return header


def read_chunks(codec: str, payload: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Name and data of the container's chunks, up to the first that is cut short. Raises DecodeError."""
    if payload[: len(SIGNATURE)] != SIGNATURE:
        raise DecodeError(codec, "not a PNG image", SIGNATURE, bytes(payload[: len(SIGNATURE)]))
    at = len(SIGNATURE)
    while at + CHUNK_HEAD.size <= len(payload):
        length, name = CHUNK_HEAD.unpack_from(payload, at)
        start = at + CHUNK_HEAD.size
        at = start + length + CRC.size
        if at > len(payload):
            return
        checked = payload[start - len(name) : start + length]
        # many times as fast as that of zlib
        found = imagecodecs.deflate_crc32(checked)  # type: ignore[arg-type]  # any buffer is taken
        if found != CRC.unpack_from(payload, start + length)[0]:
            raise DecodeError(codec, f"wrong checksum of the {name!r} chunk")
        yield name, payload[start : start + length]


def inflate_rows(codec: str, header: Header, compressed: bytes) -> Array:
    """The filtered rows of all passes, of the right length. Raises DecodeError."""
    size = sum(rows * row for rows, row in header.passes())
    room = recycled().empty((size,), OCTET)
    try:
        found = len(imagecodecs.deflate_decode(compressed, out=room))  # type: ignore[arg-type]  # any buffer is taken
    except (imagecodecs.DeflateError, ValueError) as error:
        raise DecodeError(codec, f"rows cannot be inflated: {error}") from error
    if found != size:
        raise DecodeError(codec, "rows are missing", f"{size} bytes", found)
    return room


def undo_filters(codec: str, header: Header, filtered: Array, planes: Array) -> bool:
    """Put the samples into `planes` (c, z, y, x; little-endian, any strides), or say that this is left to libpng.

    `filtered` is of no use once it is done. Raises DecodeError where a row has an unknown filter.
    """
    kernel = kernels.load() if planes.flags.writeable and not header.interlace else None
    if kernel:
        _check_filter(codec, kernel.unfilter(filtered, (header.height, header.width), planes))
        return True
    at = 0
    for rows, row in header.passes():
        _check_filter(codec, int(filtered[at : at + rows * row : row].max()))
        at += rows * row
    return False


def _check_filter(codec: str, greatest: int) -> None:
    if greatest > LAST_FILTER:
        raise DecodeError(codec, "unknown row filter", f"at most {LAST_FILTER}", greatest)


def stored_png(header: Header, filtered: Array) -> bytes:
    """The file of `header` and its rows, without compression."""
    return SIGNATURE + b"".join(
        _chunk(name, data)
        for name, data in (
            (b"IHDR", HEADER.pack(*astuple(header))),
            (b"IDAT", zlib.compress(filtered.data, 0)),
            (b"IEND", b""),
        )
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return CHUNK_HEAD.pack(len(data), name) + data + CRC.pack(zlib.crc32(data, zlib.crc32(name)))


class PngCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.png"."""

    numcodec: ClassVar[type[ChunkCodec]] = Png
