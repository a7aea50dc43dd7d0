"""fpzip: floating point volumes, predicted from their neighbours and range coded.

The library crashes on truncated streams, so it works in a child process.

Format: https://github.com/LLNL/fpzip (codec version 0x0110)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from storefs_codecs.chunk_codec import ChunkCodec, as_czyx
from storefs_codecs.errors import DecodeError, EncodeError
from storefs_codecs.guarded import GuardedError, require, run_guarded
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    import numpy.typing as npt

    from storefs_codecs.chunk_codec import Array

LIBRARY = "fpzip"
EXTRA = "fpzip"
MAGIC = b"fpz\0"
WORD = 0xFFFFFFFF
HEADER_BYTES = 24
SPARE_VALUES = 24


class Fpzip(ChunkCodec):
    """Floating point values, any number of channels; needs the extra "fpzip".

    Parameters
    ----------
    shape
        Full chunk shape, `(z, y, x)` or `(c, z, y, x)`.
    dtype
        `float32` or `float64`.
    precision
        Bits of every value kept when encoding; 0 keeps all.

    """

    codec_id = "storefs.fpzip"
    dtypes = frozenset({"float32", "float64"})

    def __init__(self, shape: tuple[int, ...] | list[int], dtype: npt.DTypeLike, precision: int = 0) -> None:
        super().__init__(shape, dtype)
        if not 0 <= precision <= 8 * self.dtype.itemsize:
            raise ValueError(f"{self.codec_id}: precision must be a count of bits, got {precision}")
        self.precision = precision

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        chunk = self._decode_stream(payload, as_czyx(extent)).reshape(extent)
        if out is None:
            return chunk
        out[...] = chunk
        return out

    def _encode(self, chunk: Array) -> bytes:
        return self._encode_stream(chunk.reshape(as_czyx(chunk.shape)))

    def _decode_stream(self, payload: memoryview, fields: tuple[int, int, int, int]) -> Array:
        """The values of a stream that must hold `fields` (field, z, y, x). Raises DecodeError."""
        require(self.codec_id, LIBRARY, EXTRA)
        if len(payload) < HEADER_BYTES:
            raise DecodeError(self.codec_id, "shorter than its header", f"{HEADER_BYTES} bytes", len(payload))
        magic, is_double, found = _header(bytes(payload[: 4 * HEADER_BYTES]))
        if magic != MAGIC:
            raise DecodeError(self.codec_id, "no fpzip stream", MAGIC, magic)
        itemsize = 8 if is_double else 4
        if found != fields or itemsize != self.dtype.itemsize:
            expected = f"{fields} of {self.dtype.itemsize} bytes"
            raise DecodeError(
                self.codec_id, "wrong shape (c, z, y, x) or dtype", expected, f"{found} of {itemsize} bytes"
            )
        size = math.prod(fields) * itemsize
        try:
            values = run_guarded("fpzip_decode", payload, size, {"shape": fields, "dtype": self.dtype.str})
        except GuardedError as error:
            raise DecodeError(self.codec_id, str(error)) from error
        return np.frombuffer(values, self.dtype).reshape(fields)

    def _encode_stream(self, values: Array) -> bytes:
        """The stream of `values` (field, z, y, x). Raises EncodeError."""
        require(self.codec_id, LIBRARY, EXTRA)
        room = values.nbytes + SPARE_VALUES * values.itemsize
        settings = {"shape": values.shape, "dtype": self.dtype.str, "precision": self.precision}
        try:
            return bytes(run_guarded("fpzip_encode", values.data.cast("B"), room, settings))
        except GuardedError as error:
            problem = f"{error}; fpzip cannot hold values that do not compress"
            raise EncodeError(self.codec_id, problem) from error


class FpzipCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.fpzip"."""

    numcodec: ClassVar[type[ChunkCodec]] = Fpzip


class _Bits:
    """Plain numbers out of a range coded stream; zeros behind its end."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream
        self._at = 4
        self._code = int.from_bytes(stream[:4], "big")
        self._low = 0
        self._range = WORD

    def number(self, bits: int) -> int:
        """The next number of up to 16 bits."""
        self._range >>= bits
        value = ((self._code - self._low) & WORD) // self._range
        self._low = (self._low + self._range * value) & WORD
        while not (self._low ^ (self._low + self._range) & WORD) >> 24:
            self._shift(1)
            self._range = self._range << 8 & WORD
        if not self._range >> 16:
            self._shift(2)
            self._range = -self._low & WORD
        return value

    def word(self) -> int:
        """The next number of 32 bits."""
        return self.number(16) | self.number(16) << 16

    def _shift(self, count: int) -> None:
        following = self._stream[self._at : self._at + count].ljust(count, b"\0")
        self._at += count
        self._code = (self._code << 8 * count | int.from_bytes(following, "big")) & WORD
        self._low = self._low << 8 * count & WORD


def _header(stream: bytes) -> tuple[bytes, bool, tuple[int, ...]]:
    """The magic, whether the values are doubles, and the extent (field, z, y, x) that a stream announces."""
    bits = _Bits(stream)
    magic = bytes(bits.number(8) & 255 for _ in MAGIC)
    _version = bits.number(16), bits.number(8)
    is_double = bits.number(1) == 1
    _precision = bits.number(7)
    extent = [bits.word() for _ in range(4)]
    return magic, is_double, tuple(reversed(extent))
