"""Tiles that are TIFF images: the first of a file, in strips or tiles; TIFF 6.0 of Adobe.

Grey, RGB or palette of 8 or 16 bits, uncompressed or by LZW, Deflate, PackBits or zstd. The directory is read here,
so that the size of every segment is known before it is unpacked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from storefs_codecs.content_encoding import inflate
from storefs_codecs.errors import DecodeError
from storefs_codecs.tile_header import CODEC, COLOURS, TileHeader, broken

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

SIGNATURES = {b"II*\0": "<", b"MM\0*": ">"}
FILE_HEAD = struct.Struct("<2sHI")
ENTRY_BYTES, LENGTH_AND_END = 12, 6
INLINE_BYTES = 4
FIELD_TYPES = {1: "u1", 3: "u2", 4: "u4"}

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR = 273, 277, 278, 279, 284, 317
COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT = 320, 322, 323, 324, 325, 339

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = range(4)
SAMPLES_OF = {WHITE_IS_ZERO: (1, 2), BLACK_IS_ZERO: (1, 2), RGB: (3, 4), PALETTE: (1,)}
DTYPES = {8: "uint8", 16: "uint16"}
UNSIGNED = 1
INTERLEAVED, SEPARATE = 1, 2
NO_PREDICTOR, DIFFERENCES = 1, 2
# tiles of an image may reach far beyond it
MOST_PADDING, SPARE_PIXELS = 4, 1 << 18
SHORT_COLOURS = 256


@dataclass(frozen=True)
class _Directory:
    """The fields of an image: type, count and position of the values by tag."""

    payload: memoryview
    order: str
    fields: dict[int, tuple[int, int, int]]

    def values(self, tag: int, most: int) -> tuple[int, ...]:
        """The values of a field, none where it is missing."""
        kind, count, at = self.fields.get(tag, (1, 0, 0))
        if kind not in FIELD_TYPES or count > most:
            raise broken("TIFF", f"field {tag} has {count} values of type {kind}")
        dtype = np.dtype(self.order + FIELD_TYPES[kind])
        if count * dtype.itemsize > INLINE_BYTES:
            at = _integer(self.payload, at, self.order)
        if at + count * dtype.itemsize > len(self.payload):
            raise broken("TIFF", f"field {tag} is cut short")
        return tuple(np.frombuffer(self.payload, dtype, count, at).tolist()) if count else ()

    def value(self, tag: int, default: int | None = None) -> int:
        """The one value of a field."""
        found = self.values(tag, 1)
        if found:
            return found[0]
        if default is None:
            raise broken("TIFF", f"it lacks the field {tag}")
        return default

    def same(self, tag: int, count: int, default: int) -> int:
        """The value of a field that has one for each sample, all alike."""
        found = set(self.values(tag, count)) or {default}
        if len(found) > 1:
            raise DecodeError(CODEC, f"samples of a TIFF image differ in the field {tag}", "one value", found)
        return found.pop()


def read_header(payload: memoryview) -> TileHeader:
    """The declared size and samples. Raises DecodeError."""
    return _header(_directory(payload))


def read_image(payload: memoryview, header: TileHeader, _: Array | None) -> Array:
    """The samples, `(height, width)` or `(height, width, samples)`. Raises DecodeError."""
    directory = _directory(payload)
    photometric = directory.value(PHOTOMETRIC)
    samples = directory.value(SAMPLES, 1)
    if directory.value(FILL_ORDER, 1) != 1:
        raise DecodeError(CODEC, "TIFF image with reversed bits is not offered")
    image = np.empty((header.height, header.width, samples), header.dtype)
    planar = directory.value(PLANAR, INTERLEAVED)
    if planar not in (INTERLEAVED, SEPARATE):
        raise broken("TIFF", f"planar configuration {planar}")
    _fill(directory, [image] if planar == INTERLEAVED else [image[..., n : n + 1] for n in range(samples)])
    if photometric == WHITE_IS_ZERO:
        image[..., 0] = np.iinfo(image.dtype).max - image[..., 0]
    if photometric == PALETTE:
        return _palette(directory)[image[..., 0]]
    return image[..., 0] if samples == 1 else image


def _directory(payload: memoryview) -> _Directory:
    order = SIGNATURES[bytes(payload[:4])]
    at = _integer(payload, 4, order)
    count = _integer(payload, at, order, 2)
    if at + 2 + count * ENTRY_BYTES > len(payload):
        raise broken("TIFF", "the directory is cut short")
    entry = struct.Struct(order + "HHI4x")
    fields: dict[int, tuple[int, int, int]] = {}
    for start in range(at + 2, at + 2 + count * ENTRY_BYTES, ENTRY_BYTES):
        tag, kind, values = entry.unpack_from(payload, start)
        fields.setdefault(tag, (kind, values, start + ENTRY_BYTES - INLINE_BYTES))
    return _Directory(payload, order, fields)


def _integer(payload: memoryview, at: int, order: str, size: int = 4) -> int:
    if at + size > len(payload):
        raise broken("TIFF", "it is cut short")
    return int.from_bytes(payload[at : at + size], "little" if order == "<" else "big")


def _header(directory: _Directory) -> TileHeader:
    photometric, samples = directory.value(PHOTOMETRIC), directory.value(SAMPLES, 1)
    if samples not in SAMPLES_OF.get(photometric, ()):
        found = f"{samples} of photometric interpretation {photometric}"
        raise DecodeError(CODEC, "samples of the TIFF image are not offered", "grey, RGB or palette", found)
    bits = directory.same(BITS, samples, 1)
    kind = directory.same(SAMPLE_FORMAT, samples, UNSIGNED)
    if bits not in DTYPES or kind != UNSIGNED or (photometric == PALETTE and DTYPES[bits] != "uint8"):
        found = f"{bits} bits of sample format {kind}"
        raise DecodeError(CODEC, "samples of the TIFF image are not offered", "unsigned, 8 or 16 bits", found)
    width, height = directory.value(WIDTH), directory.value(HEIGHT)
    return TileHeader(width, height, COLOURS if photometric == PALETTE else samples, DTYPES[bits])


def _palette(directory: _Directory) -> Array:
    """The colours by index, `(256, 3)`."""
    entries = 1 << 8
    colours = np.array(directory.values(COLOR_MAP, COLOURS * entries), np.uint16)
    if colours.size != COLOURS * entries:
        raise broken("TIFF", f"its palette has {colours.size} values")
    # some writers forget that the colours have 16 bits
    scale = 0 if colours.max() < SHORT_COLOURS else 8
    return (colours.reshape(COLOURS, entries).T >> scale).astype(np.uint8)


def _fill(directory: _Directory, planes: list[Array]) -> None:
    """Unpack all segments into the planes, each `(height, width, samples)`."""
    height, width, samples = planes[0].shape
    most = MOST_PADDING * height * width + SPARE_PIXELS
    tiled = TILE_WIDTH in directory.fields
    if tiled:
        across, down = directory.value(TILE_WIDTH), directory.value(TILE_HEIGHT)
    else:
        across, down = width, min(directory.value(ROWS_PER_STRIP, height), height)
    if not across * down or -(-height // down) * -(-width // across) * across * down > most:
        raise DecodeError(CODEC, "tiles within the TIFF image are far larger than it", (width, height), (across, down))
    boxes = [(plane, y, x) for plane in planes for y in range(0, height, down) for x in range(0, width, across)]
    read = _segment_reader(directory, (down, across, samples), planes[0].dtype)
    for (plane, y, x), stored in zip(boxes, _segments(directory, len(boxes), tiled=tiled), strict=True):
        part = plane[y : y + down, x : x + across]
        rows = down if tiled else len(part)
        part[...] = read(stored, rows)[: part.shape[0], : part.shape[1]]


def _segments(directory: _Directory, count: int, *, tiled: bool) -> Iterator[memoryview]:
    offsets = directory.values(TILE_OFFSETS if tiled else STRIP_OFFSETS, count)
    lengths = directory.values(TILE_BYTES if tiled else STRIP_BYTES, count)
    if not len(offsets) == len(lengths) == count:
        raise broken("TIFF", f"{len(offsets)} segments and {len(lengths)} lengths where {count} are needed")
    if sum(lengths) > len(directory.payload):
        raise broken("TIFF", "its segments overlap")
    for offset, length in zip(offsets, lengths, strict=True):
        if offset + length > len(directory.payload):
            raise broken("TIFF", "a segment is cut short")
        yield directory.payload[offset : offset + length]


def _segment_reader(
    directory: _Directory, shape: tuple[int, int, int], dtype: np.dtype[np.generic]
) -> Callable[[memoryview, int], Array]:
    """A function that gives the samples of a stored segment that has so many rows."""
    compression, predictor = directory.value(COMPRESSION, 1), directory.value(PREDICTOR, NO_PREDICTOR)
    if compression not in UNPACK or predictor not in (NO_PREDICTOR, DIFFERENCES):
        found = f"compression {compression}, predictor {predictor}"
        raise DecodeError(CODEC, "TIFF image is packed in a way not offered", f"compression {list(UNPACK)}", found)
    down, across, samples = shape
    order = dtype.newbyteorder(">" if directory.order == ">" else "<")
    row = across * samples * dtype.itemsize

    def read(stored: memoryview, rows: int) -> Array:
        unpacked = UNPACK[compression](stored, rows * row, down * row)
        if len(unpacked) < rows * row:
            raise broken("TIFF", f"a segment has {len(unpacked)} of {rows * row} bytes")
        found = np.frombuffer(unpacked, order, rows * across * samples)
        found = found.reshape(rows, across, samples)
        return np.cumsum(found, axis=1, dtype=dtype) if predictor == DIFFERENCES else found

    return read


# what is stored, the bytes needed, and the bytes that may be there: the last strip may have all its rows
Unpack = Callable[[memoryview, int, int], bytes | memoryview]


def _stored(data: memoryview, _: int, __: int) -> bytes | memoryview:
    return data


def _by_libtiff(compression: int) -> Unpack:
    """Unpack by libtiff, from a file of one row of bytes and nothing else."""

    def unpack(data: memoryview, size: int, _: int) -> bytes:
        fields = {
            WIDTH: size,
            HEIGHT: 1,
            BITS: 8,
            COMPRESSION: compression,
            PHOTOMETRIC: BLACK_IS_ZERO,
            STRIP_OFFSETS: FILE_HEAD.size + LENGTH_AND_END + ENTRY_BYTES * 9,
            SAMPLES: 1,
            ROWS_PER_STRIP: 1,
            STRIP_BYTES: len(data),
        }
        directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
        start = FILE_HEAD.pack(b"II", 42, FILE_HEAD.size) + struct.pack("<H", len(fields))
        try:
            row = imagecodecs.tiff_decode(start + directory + bytes(4) + bytes(data))
        except (imagecodecs.TiffError, ValueError) as error:
            raise broken("TIFF", error) from error
        return np.asarray(row).tobytes()

    return unpack


def _deflate(data: memoryview, _: int, most: int) -> bytes | memoryview:
    return inflate(data, "zlib", limit=most)


def _zstd(data: memoryview, _: int, most: int) -> bytes | memoryview:
    return inflate(data, "zstd", limit=most)


UNPACK: dict[int, Unpack] = {
    1: _stored,
    5: _by_libtiff(5),
    8: _deflate,
    32773: _by_libtiff(32773),
    32946: _deflate,
    50000: _zstd,
}
