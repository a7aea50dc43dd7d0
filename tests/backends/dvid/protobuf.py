"""As much of protobuf's wire format as DVID's messages need."""

from __future__ import annotations

from collections.abc import Iterator

from tests.backends.dvid.answers import Refusal


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise Refusal("proto: cannot parse invalid wire-format data")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: an int of a varint, the bytes of the rest."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            number, at = _varint(data, at)
            yield tag >> 3, number
        elif tag & 7 == 2:
            count, at = _varint(data, at)
            if at + count > len(data):
                raise Refusal("proto: cannot parse invalid wire-format data")
            yield tag >> 3, data[at : at + count]
            at += count
        else:
            raise Refusal("proto: cannot parse invalid wire-format data")


def packed(value: int | bytes) -> list[int]:
    """Numbers of a repeated field, packed or single."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def varint(value: int) -> bytes:
    """An unsigned number."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def varint_field(number: int, value: int) -> bytes:
    """A number."""
    return varint(number << 3) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """Bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(value)) + value
