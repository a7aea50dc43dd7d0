"""The byte forms in which DVID sends blocks: LZ4 and Snappy blocks, and streams of block records.

The compressors only emit literals: valid streams that any decoder must take, though longer than their content.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

RECORD = struct.Struct("<iiiI")


class Malformed(ValueError):
    """Bytes that are not what they claim to be."""


def lz4_compress(data: bytes) -> bytes:
    """One LZ4 block of a single run of literals."""
    count = len(data)
    if count < 15:
        return bytes([count << 4]) + data
    rest = count - 15
    return b"\xf0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + data


def lz4_decompress(data: bytes, limit: int) -> bytes:
    """Content of one LZ4 block; Malformed where it is broken or longer than `limit` bytes."""
    out, at, end = bytearray(), 0, len(data)
    while at < end:
        token = data[at]
        count, at = _length(data, token >> 4, at + 1)
        if at + count > end or len(out) + count > limit:
            raise Malformed("literals beyond the end")
        out += data[at : at + count]
        at += count
        if at == end:
            return bytes(out)
        if at + 2 > end:
            raise Malformed("cut before an offset")
        offset = data[at] | data[at + 1] << 8
        count, at = _length(data, token & 15, at + 2)
        count += 4
        if not 0 < offset <= len(out) or len(out) + count > limit:
            raise Malformed("match outside the content")
        pattern = bytes(out[len(out) - offset : len(out) - offset + count])
        out += (pattern * (count // len(pattern) + 1))[:count]
    raise Malformed("no last run of literals")


def _length(data: bytes, nibble: int, at: int) -> tuple[int, int]:
    count = nibble
    if nibble == 15:
        while True:
            if at >= len(data):
                raise Malformed("cut inside a length")
            more = data[at]
            at += 1
            count += more
            if more != 255:
                break
    return count, at


def snappy_compress(data: bytes) -> bytes:
    """One raw Snappy stream made of literals of at most 64 KiB."""
    out, count = bytearray(), len(data)
    while count >= 128:
        out.append(count & 127 | 128)
        count >>= 7
    out.append(count)
    for at in range(0, len(data), 65536):
        piece = data[at : at + 65536]
        out += b"\xf4" + struct.pack("<H", len(piece) - 1) + piece
    return bytes(out)


def gunzip(data: bytes) -> bytes:
    """Content of one gzip member; Malformed in DVID's words."""
    if data[:2] != b"\x1f\x8b":
        raise Malformed("gzip: invalid header" if data else "EOF")
    engine = zlib.decompressobj(31)
    try:
        content = engine.decompress(data)
    except zlib.error as error:
        raise Malformed("flate: corrupt input") from error
    if not engine.eof:
        raise Malformed("unexpected EOF")
    return content


def gzip_member(data: bytes, level: int = 1) -> bytes:
    """One gzip member."""
    engine = zlib.compressobj(level, zlib.DEFLATED, 31)
    return engine.compress(data) + engine.flush()


def records(blocks: Iterable[tuple[tuple[int, int, int], bytes]]) -> bytes:
    """Block records back to back: int32 x, y, z, uint32 length, payload."""
    pieces: list[bytes] = []
    for (x, y, z), payload in blocks:
        pieces += (RECORD.pack(x, y, z, len(payload)), payload)
    return b"".join(pieces)


def parse_records(stream: bytes) -> dict[tuple[int, int, int], bytes]:
    """Payloads by block coordinate (x, y, z); Malformed where the framing does not come out."""
    found, at = {}, 0
    while at < len(stream):
        if at + RECORD.size > len(stream):
            raise Malformed(f"{len(stream) - at} bytes left over")
        x, y, z, count = RECORD.unpack_from(stream, at)
        at += RECORD.size
        if at + count > len(stream):
            raise Malformed(f"record of {count} bytes, {len(stream) - at} left")
        found[x, y, z] = stream[at : at + count]
        at += count
    return found
