"""Bounded decompression of what stores wrap around chunks: content encodings, suffixes, pieces of shards.

    inflate(payload, "gzip", limit=...)   the bytes inside, or DecodeError; never more than `limit`
    sniff(payload)                        the encoding that the first bytes announce

Specs: RFC 1950, 1951, 1952 (zlib, deflate, gzip), RFC 7932 (br), RFC 8878 (zstd), the bzip2 and xz file
formats.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Protocol

import imagecodecs
import numpy as np

from storefs_codecs.errors import DecodeError
from storefs_codecs.kernels.gzip_member import begins
from storefs_codecs.recycled import recycled

if TYPE_CHECKING:
    from collections.abc import Callable

Bytes = bytes | memoryview

MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}
ZLIB_STARTS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
# the largest preset of xz declares a dictionary of 64 MiB, whatever the size of the data
XZ_MEMORY = 96 << 20
# input is fed in pieces, for each new stream copies what is left of its piece
WINDOW = 1 << 14
_BYTE = np.dtype(np.uint8)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: memoryview, max_length: int, /) -> bytes: ...


def inflate(payload: Bytes, encoding: str, *, limit: int) -> Bytes:
    """What `payload` holds, with `encoding` undone.

    Several encodings are separated by commas and undone from the last on. Known are gzip (zlib streams under
    that name included, as some writers store them), deflate, zlib, br, zstd, xz, bz2 (also bzip2) and
    identity; aws-chunked has no effect on what is stored. Raises DecodeError where the result would be longer
    than `limit` bytes and where the payload is cut short, broken or of another encoding.
    """
    names = [name for name in (part.strip().lower() for part in encoding.split(",")) if name not in IDENTITY]
    held: Bytes = payload
    for left in range(len(names) - 1, -1, -1):
        name = names[left]
        if name not in DECODERS:
            raise DecodeError(encoding, "unknown content encoding", ", ".join(DECODERS), name)
        if not held:
            raise DecodeError(name, "nothing to decompress")
        # what is still compressed may be a little longer than what it holds
        room = limit + limit // 8 + 1024 if left else limit
        held = DECODERS[name](held, name, room)
    if len(held) > limit:
        raise _too_long(encoding, limit)
    return held


def sniff(payload: Bytes) -> str | None:
    """The encoding whose magic bytes `payload` begins with: gzip, zstd, bz2 or xz.

    A raw chunk may begin like that by chance: compare its length with the expected one first.
    """
    start = bytes(payload[:6])
    return next((name for name, magic in MAGIC.items() if start.startswith(magic)), None)


def _gzip(data: Bytes, name: str, limit: int) -> Bytes:
    if data[:2] in ZLIB_STARTS:
        return _zlib(data, name, limit)
    whole = _single_member(data, limit)
    return _streams(data, name, limit, lambda: zlib.decompressobj(31)) if whole is None else whole


def _single_member(stored: Bytes, limit: int) -> memoryview | None:
    """A payload that is one gzip member and nothing else, by libdeflate; None for all others."""
    length = int.from_bytes(stored[-4:], "little")
    if length > limit or begins(memoryview(stored)[1:]):
        return None
    room = recycled().empty((length,), _BYTE)
    try:
        member = memoryview(imagecodecs.gzip_decode(stored, out=room))  # type: ignore[arg-type]  # any buffer is taken
    except (imagecodecs.DeflateError, ValueError):
        return None
    # libdeflate stops at the end of the member, whose length is the last that is stored
    return member.toreadonly() if len(member) == length else None


def _zlib(data: Bytes, name: str, limit: int) -> bytes:
    return _streams(data, name, limit, zlib.decompressobj)


def _deflate(data: Bytes, name: str, limit: int) -> bytes:
    # HTTP means a zlib stream, some servers send it bare
    wrapped = data[:2] in ZLIB_STARTS
    return _streams(data, name, limit, lambda: zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS))


def _bz2(data: Bytes, name: str, limit: int) -> bytes:
    return _streams(data, name, limit, bz2.BZ2Decompressor)


def _xz(data: Bytes, name: str, limit: int) -> bytes:
    return _streams(data, name, limit, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY))


def _streams(data: Bytes, name: str, limit: int, new_stream: Callable[[], _Decompressor]) -> bytes:
    """One or more streams back to back, zero bytes allowed behind the last."""
    view = memoryview(data)
    pieces: list[bytes] = []
    room = limit
    at = 0
    try:
        while not pieces or any(view[at:]):
            stream = new_stream()
            while not stream.eof:
                window = view[at : at + WINDOW]
                if not window:
                    raise DecodeError(name, "payload is cut short", found=f"{len(data)} bytes")
                pieces.append(stream.decompress(window, room + 1))
                at += len(window)
                room -= len(pieces[-1])
                if room < 0:
                    raise _too_long(name, limit)
            at -= len(stream.unused_data)
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise DecodeError(name, f"payload is broken: {error}") from error
    return b"".join(pieces)


def _brotli(data: Bytes, name: str, limit: int) -> bytes:
    try:
        return bytes(imagecodecs.brotli_decode(data, out=limit))  # type: ignore[arg-type]  # any buffer is taken
    except (imagecodecs.BrotliError, ValueError) as error:
        raise DecodeError(
            name, f"payload is broken or longer than expected: {error}", f"at most {limit} bytes"
        ) from error


def _zstd(data: Bytes, name: str, limit: int) -> bytes:
    try:
        return bytes(imagecodecs.zstd_decode(data, out=limit))  # type: ignore[arg-type]  # any buffer is taken
    except (imagecodecs.ZstdError, ValueError) as error:
        raise DecodeError(
            name, f"payload is broken or longer than expected: {error}", f"at most {limit} bytes"
        ) from error


def _too_long(name: str, limit: int) -> DecodeError:
    return DecodeError(name, "payload holds more than expected", f"at most {limit} bytes", "more")


IDENTITY = frozenset({"", "identity", "aws-chunked"})
DECODERS: dict[str, Callable[[Bytes, str, int], Bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "zlib": _zlib,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
    "xz": _xz,
    "bz2": _bz2,
    "bzip2": _bz2,
}
