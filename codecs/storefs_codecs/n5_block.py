"""n5_block: one block of an N5 dataset, any compression of N5 but JPEG.

Format: https://github.com/saalfeldlab/n5#file-system-specification. A block begins with its own extent: at the
edge of a dataset it may be cut or not, and is padded with zeros or cropped to what is asked for.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import imagecodecs
import numpy as np

from storefs_codecs.chunk_codec import ChunkCodec
from storefs_codecs.content_encoding import inflate
from storefs_codecs.errors import DecodeError, EncodeError
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    import numpy.typing as npt

    from storefs_codecs.chunk_codec import Array

CODEC = "storefs.n5_block"
HEAD = struct.Struct(">HH")
LENGTH = struct.Struct(">I")
WHOLE, VARIABLE = range(2)
LZ4_HEAD = struct.Struct("<8sBIII")
LZ4_MAGIC = b"LZ4Block"
LZ4_STORED, LZ4_PACKED = 0x10, 0x20
LZ4_METHOD = 0xF0
BLOSC_HEAD = struct.Struct("<4xIII")
DEFAULT_LEVEL = -1

Compression = dict[str, Any]


class N5Block(ChunkCodec):
    """A block of N5.

    Parameters
    ----------
    shape
        Full block shape in C order, `(z, y, x)` or `(c, z, y, x)`.
    dtype
        Any integer or float type; big-endian in the block, little-endian here.
    compression
        As in `attributes.json`: `{"type": "gzip", "useZlib": false}`, or of the type raw, bzip2, xz, lz4, blosc or
        zstd. lz4 is read only.
    order
        Which dimension of N5, whose first is the fastest, is x, y, z (and c): `[0, 1, 2]` where not given. CATMAID
        writes it `0_1_2`.

    """

    codec_id = CODEC
    dtypes = frozenset(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)) | {
        "float32",
        "float64",
    }

    def __init__(
        self,
        shape: tuple[int, ...] | list[int],
        dtype: npt.DTypeLike,
        compression: Compression | None = None,
        order: tuple[int, ...] | list[int] | None = None,
    ) -> None:
        super().__init__(shape, dtype)
        rank = len(self.shape)
        self.compression = {"type": "raw"} if compression is None else dict(compression)
        if self.compression.get("type") not in DECOMPRESS:
            offered = ", ".join(DECOMPRESS)
            raise ValueError(f"{CODEC}: compression type must be one of {offered}, got {self.compression}")
        self.order = tuple(range(rank)) if order is None else tuple(int(n) for n in order)
        if sorted(self.order) != list(range(rank)):
            raise ValueError(f"{CODEC}: order must name each of the {rank} dimensions once, got {list(self.order)}")

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        block = self._read(payload)
        if block.shape == extent and out is None:
            return np.ascontiguousarray(block, self.dtype)
        chunk = np.empty(extent, self.dtype) if out is None else out
        block = block[tuple(slice(n) for n in extent)]
        if block.shape != extent:
            chunk[...] = 0
        chunk[tuple(slice(n) for n in block.shape)] = block
        return chunk

    def _encode(self, chunk: Array) -> bytes:
        block = chunk.transpose(np.argsort(self._axes()))
        head = HEAD.pack(WHOLE, block.ndim) + b"".join(map(LENGTH.pack, block.shape[::-1]))
        kind = self.compression["type"]
        if kind not in COMPRESS:
            raise EncodeError(CODEC, f"{kind} can be read only")
        try:
            return head + COMPRESS[kind](block.astype(self.dtype.newbyteorder(">")).tobytes(), self._settings())
        except (ValueError, lzma.LZMAError, zlib.error, imagecodecs.BloscError, imagecodecs.ZstdError) as error:
            raise EncodeError(CODEC, f"{self.compression}: {error}") from error

    def _read(self, payload: memoryview) -> Array:
        """The block as a view, axes as in `shape`, big-endian. Raises DecodeError."""
        shape, start = self._header(payload)
        expected = math.prod(shape) * self.dtype.itemsize
        held = DECOMPRESS[self.compression["type"]](payload[start:], self._settings(), expected)
        if len(held) != expected:
            problem = f"wrong length for a block of {shape} {self.dtype.name}"
            raise DecodeError(CODEC, problem, f"{expected} bytes", len(held))
        return np.frombuffer(held, self.dtype.newbyteorder(">")).reshape(shape).transpose(self._axes())

    def _header(self, payload: memoryview) -> tuple[tuple[int, ...], int]:
        """The block's shape, last dimension of N5 first, and where its data start."""
        if len(payload) < HEAD.size:
            raise DecodeError(CODEC, "block is cut short", f"at least {HEAD.size} bytes", len(payload))
        mode, rank = HEAD.unpack_from(payload)
        if mode not in (WHOLE, VARIABLE):
            raise DecodeError(CODEC, "mode of the block is not offered", "0 or 1", mode)
        if rank != len(self.shape):
            raise DecodeError(CODEC, "block has another number of dimensions", len(self.shape), rank)
        start = HEAD.size + (rank + mode) * LENGTH.size
        if len(payload) < start:
            raise DecodeError(CODEC, "block is cut short", f"at least {start} bytes", len(payload))
        lengths = [length for (length,) in LENGTH.iter_unpack(payload[HEAD.size : start])]
        shape = tuple(lengths[rank - 1 :: -1])
        found = tuple(shape[axis] for axis in self._axes())
        if any(not 0 < n <= full for n, full in zip(found, self.shape, strict=True)):
            raise DecodeError(CODEC, "extent of the block does not fit", f"at most {self.shape}", found)
        if mode == VARIABLE and lengths[rank] != math.prod(shape):
            problem = f"number of elements does not fit a block of {found}"
            raise DecodeError(CODEC, problem, math.prod(shape), lengths[rank])
        return shape, start

    def _axes(self) -> list[int]:
        """For each axis of `shape` its place among the dimensions of N5 reversed."""
        rank = len(self.shape)
        return [rank - 1 - dimension for dimension in reversed(self.order)]

    def _settings(self) -> _Settings:
        return _Settings(self.compression, self.dtype.itemsize)


@dataclass(frozen=True)
class _Settings:
    compression: Compression
    itemsize: int

    @property
    def zlib(self) -> bool:
        return bool(self.compression.get("useZlib", False))

    def number(self, name: str, default: int) -> int:
        found = self.compression.get(name, default)
        return found if isinstance(found, int) else default


Decompress = Callable[[memoryview, _Settings, int], bytes | bytearray | memoryview]


def _raw(data: memoryview, _: _Settings, __: int) -> memoryview:
    return data


def _gzip(data: memoryview, settings: _Settings, expected: int) -> bytes | memoryview:
    return inflate(data, "zlib" if settings.zlib else "gzip", limit=expected)


def _inflate_as(encoding: str) -> Decompress:
    return lambda data, _, expected: inflate(data, encoding, limit=expected)


def _lz4(data: memoryview, _: _Settings, expected: int) -> bytearray:
    """The blocks of Java's LZ4BlockOutputStream; their checksums are not compared, no library here has xxHash."""
    found = bytearray()
    at = 0
    while len(found) < expected:
        if at + LZ4_HEAD.size > len(data):
            raise DecodeError(CODEC, "lz4 stream is cut short", f"{expected} bytes", len(found))
        magic, token, packed, unpacked, _ = LZ4_HEAD.unpack_from(data, at)
        at += LZ4_HEAD.size
        method = token & LZ4_METHOD
        if magic != LZ4_MAGIC or method not in (LZ4_STORED, LZ4_PACKED):
            raise DecodeError(CODEC, "not a stream of LZ4 blocks", LZ4_MAGIC, magic)
        if not 0 < unpacked <= expected - len(found) or at + packed > len(data):
            raise DecodeError(CODEC, "lz4 stream is of another length", f"{expected} bytes")
        block = bytes(data[at : at + packed])
        at += packed
        found += block if method == LZ4_STORED else _unpack_lz4(block, unpacked)
    return found


def _unpack_lz4(block: bytes, size: int) -> bytes:
    try:
        unpacked = bytes(imagecodecs.lz4_decode(block, out=size))
    except (imagecodecs.Lz4Error, ValueError) as error:
        raise DecodeError(CODEC, f"lz4 block is broken: {error}") from error
    if len(unpacked) != size:
        raise DecodeError(CODEC, "lz4 block is of another length", size, len(unpacked))
    return unpacked


def _blosc(data: memoryview, _: _Settings, expected: int) -> bytes:
    declared = BLOSC_HEAD.unpack_from(data) if len(data) >= BLOSC_HEAD.size else (0, 0, 0)
    if (declared[0], declared[2]) != (expected, len(data)):
        raise DecodeError(CODEC, "blosc header does not fit", f"{expected} of {len(data)} bytes", declared)
    try:
        return bytes(imagecodecs.blosc_decode(bytes(data), out=expected, numthreads=1))
    except (imagecodecs.BloscError, ValueError) as error:
        raise DecodeError(CODEC, f"blosc data are broken: {error}") from error


DECOMPRESS: dict[str, Decompress] = {
    "raw": _raw,
    "gzip": _gzip,
    "bzip2": _inflate_as("bzip2"),
    "xz": _inflate_as("xz"),
    "lz4": _lz4,
    "blosc": _blosc,
    "zstd": _inflate_as("zstd"),
}


def _to_gzip(data: bytes, settings: _Settings) -> bytes:
    level = settings.number("level", DEFAULT_LEVEL)
    return zlib.compress(data, level) if settings.zlib else gzip.compress(data, level, mtime=0)


def _to_blosc(data: bytes, settings: _Settings) -> bytes:
    return bytes(
        imagecodecs.blosc_encode(
            data,
            level=settings.number("clevel", 5),
            compressor=settings.compression.get("cname", "blosclz"),
            shuffle=settings.number("shuffle", 1),
            typesize=settings.itemsize,
            numthreads=1,
        )
    )


COMPRESS: dict[str, Callable[[bytes, _Settings], bytes]] = {
    "raw": lambda data, _: data,
    "gzip": _to_gzip,
    "bzip2": lambda data, settings: bz2.compress(data, settings.number("blockSize", 9)),
    "xz": lambda data, settings: lzma.compress(data, preset=settings.number("preset", 6)),
    "blosc": _to_blosc,
    "zstd": lambda data, settings: bytes(imagecodecs.zstd_encode(data, settings.number("level", 3))),
}


class N5BlockCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.n5_block"."""

    numcodec: ClassVar[type[ChunkCodec]] = N5Block
