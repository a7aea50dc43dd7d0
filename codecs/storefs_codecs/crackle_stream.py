"""The parts of a crackle stream, checked by their lengths and checksums, and the stream with other labels.

Layout, little-endian: a header; the size of every slice's crack code; a section that begins with the table of
labels; a model, where the crack codes need one; the crack codes; and in version 1 checksums of all parts.

Format: https://github.com/seung-lab/crackle (versions 0 and 1)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import google_crc32c
import numpy as np

from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

CODEC_ID = "storefs.crackle"
MAGIC = b"crkl"
FIXED = struct.Struct("<4sBH3IB")
LABEL_BYTES = {0: struct.Struct("<I"), 1: struct.Struct("<Q")}
COUNT = struct.Struct("<Q")
WIDEST = 3  # log2 of the bytes of a uint64
CRC8_POLYNOMIAL = 0xE7


class _Header(NamedTuple):
    """The fields before the size of the label section, in their order."""

    magic: bytes
    version: int
    flags: int
    sx: int
    sy: int
    sz: int
    grid: int

    @property
    def data_width(self) -> int:
        return 1 << (self.flags & 3)

    @property
    def stored_width(self) -> int:
        return 1 << (self.flags >> 2 & 3)

    @property
    def has_background(self) -> bool:
        """Whether the label table has a background label in front: all but the flat format."""
        return bool(self.flags >> 5 & 3)

    @property
    def is_signed(self) -> bool:
        return bool(self.flags >> 8 & 1)

    @property
    def model_bytes(self) -> int:
        order = self.flags >> 9 & 15
        return 4**order * 5 // 8 if order else 0

    def packed(self, label_bytes: int) -> bytes:
        """The header's bytes; `label_bytes` is the size of the label section."""
        fields = FIXED.pack(*self) + LABEL_BYTES[self.version].pack(label_bytes)
        return fields + bytes([_crc8(fields[5:])]) if self.version else fields

    @property
    def size(self) -> int:
        return FIXED.size + LABEL_BYTES[self.version].size + self.version


@dataclass(frozen=True)
class CrackleStream:
    """A stream of the right shape and dtype, whose checksums hold; the crack codes themselves are unchecked.

    `labels` is the table of labels, the background label first where there is one.
    """

    header: _Header
    labels: Array
    index: memoryview
    after_table: memoryview
    after_labels: memoryview

    @classmethod
    def parse(cls, payload: memoryview, volume: tuple[int, ...], itemsize: int) -> Self:
        """The stream in `payload`: `volume` (z, y, x), `itemsize` bytes a label. Raises DecodeError."""
        if len(payload) < FIXED.size + LABEL_BYTES[1].size:
            raise DecodeError(CODEC_ID, "shorter than its header", f"{FIXED.size} bytes and more", len(payload))
        header = _Header._make(FIXED.unpack(payload[: FIXED.size]))
        _expect("magic", MAGIC, header.magic)
        if header.version not in LABEL_BYTES:
            raise DecodeError(CODEC_ID, "unknown version", "0 or 1", header.version)
        (label_bytes,) = LABEL_BYTES[header.version].unpack_from(payload, FIXED.size)
        _expect("header checksum", header.packed(label_bytes).hex(), bytes(payload[: header.size]).hex())
        _expect("shape (z, y, x)", volume, (header.sz, header.sy, header.sx))
        if header.is_signed or header.data_width != itemsize or header.stored_width > itemsize:
            found = f"{'signed ' if header.is_signed else ''}{header.data_width}, stored {header.stored_width}"
            raise DecodeError(CODEC_ID, "wrong bytes of a label", itemsize, found)

        index_end = header.size + 4 * header.sz
        if len(payload) < index_end:
            raise DecodeError(CODEC_ID, "cut short", f"at least {index_end} bytes", len(payload))
        codes = int(np.frombuffer(payload[header.size : index_end], "<u4").sum(dtype=np.uint64))
        labels_start = index_end + 4 * header.version
        labels_end = labels_start + label_bytes
        codes_end = labels_end + header.model_bytes + codes
        _expect("length", codes_end + 4 * (1 + header.sz) * header.version, len(payload))
        section = payload[labels_start:labels_end]
        if header.version:
            _expect_crc(payload[header.size : index_end], payload[index_end:labels_start])
            _expect_crc(section, payload[codes_end : codes_end + 4])
        labels, after_table = _label_table(section, header)
        return cls(header, labels, payload[header.size : labels_start], after_table, payload[labels_end:])

    def numbered(self, first: int) -> bytes:
        """The same volume with the labels `first`, `first + 1`, ... in the order of the table, as uint64.

        The checksum of the label section stays as it was; decoding does not look at it.
        """
        numbers = np.arange(first, first + self.labels.size, dtype="<u8")
        background = int(self.header.has_background)
        table = numbers[:background].tobytes() + COUNT.pack(numbers.size - background) + numbers[background:].tobytes()
        flags = self.header.flags & ~15 | WIDEST | WIDEST << 2
        header = self.header._replace(flags=flags).packed(len(table) + len(self.after_table))
        return b"".join((header, self.index, table, self.after_table, self.after_labels))


def _label_table(section: memoryview, header: _Header) -> tuple[Array, memoryview]:
    """The table at the beginning of the label section, and what follows it."""
    width = header.stored_width
    start = width * header.has_background
    if len(section) < start + COUNT.size:
        raise DecodeError(CODEC_ID, "the label section is cut short", f"{start + COUNT.size} bytes", len(section))
    (count,) = COUNT.unpack_from(section, start)
    end = start + COUNT.size + count * width
    if len(section) < end:
        raise DecodeError(CODEC_ID, "the label section is cut short", f"{end} bytes", len(section))
    stored = section[start + COUNT.size : end]
    return np.frombuffer(bytes(section[:start]) + bytes(stored), f"<u{width}"), section[end:]


def _expect(what: str, expected: object, found: object) -> None:
    if expected != found:
        raise DecodeError(CODEC_ID, f"wrong {what}", expected, found)


def _expect_crc(part: memoryview, stored: memoryview) -> None:
    _expect("checksum", google_crc32c.value(bytes(part)), int.from_bytes(stored, "little"))


def _crc8(data: bytes) -> int:
    """The checksum of a header: reflected polynomial 0xE7, starting from 0xFF."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (CRC8_POLYNOMIAL if crc & 1 else 0)
    return crc
