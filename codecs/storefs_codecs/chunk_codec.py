"""ChunkCodec: what every chunk encoding here has in common, as a numcodecs codec.

A subclass says how to decode a payload of known extent and how to encode an array; shapes, frames of clipped
chunks, padding and the numcodecs protocol are settled here, once.

Arrays are C order, `zyx` or `czyx`, little-endian: byte for byte the x-fastest order in which precomputed
stores them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numcodecs.abc import Codec

from storefs_codecs.errors import DecodeError, EncodeError
from storefs_codecs.frame import frame, unframe

Array = npt.NDArray[Any]
Bytes = bytes | bytearray | memoryview | Array

SPATIAL_AXES = 3


class ChunkCodec(Codec):  # type: ignore[misc]  # numcodecs is untyped
    """Encodes and decodes one chunk.

    Parameters
    ----------
    shape
        Full chunk shape in C order, `(z, y, x)` or `(c, z, y, x)`.
    dtype
        Data type of the voxels, such as `"uint8"`; stored little-endian.

    """

    codec_id: ClassVar[str]
    dtypes: ClassVar[frozenset[str]]
    framed: ClassVar[bool] = True
    strided: ClassVar[bool] = False  # True: voxels go straight into an `out` of any strides

    def __init__(self, shape: tuple[int, ...] | list[int], dtype: npt.DTypeLike) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        if len(self.shape) not in (SPATIAL_AXES, SPATIAL_AXES + 1) or min(self.shape) < 1:
            raise ValueError(f"{self.codec_id}: shape must be (z, y, x) or (c, z, y, x), got {self.shape}")
        if self.dtype.name not in self.dtypes:
            offered = ", ".join(sorted(self.dtypes))
            raise ValueError(f"{self.codec_id}: dtype {self.dtype.name} cannot be stored; offered: {offered}")

    @abstractmethod
    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        """The chunk of `extent`, written into `out` where given (any strides, right shape and dtype).

        Raises DecodeError for every payload that is not a valid chunk of exactly that extent, without reading
        out of bounds and without allocating more than a small multiple of the extent.
        """

    @abstractmethod
    def _encode(self, chunk: Array) -> bytes:
        """The payload of `chunk` (C-contiguous, writable, right dtype, its own extent).

        Raises EncodeError.
        """

    def decode_chunk(self, payload: Bytes, *, extent: tuple[int, ...] | None = None, out: Array | None = None) -> Array:
        """The voxels of one stored chunk, C order.

        `extent` is the true shape of a clipped chunk; without it a frame in front of the payload tells, and
        without that the full `shape` holds. With `out` (that shape, this dtype, any strides) the voxels are
        written there. Raises DecodeError.
        """
        view, extent, absent = self.opened(payload, extent)
        if absent:
            return self._decode_absent(out)
        if out is not None and (out.shape != extent or out.dtype != self.dtype):
            raise ValueError(f"{self.codec_id}: out must be {extent} {self.dtype}, got {out.shape} {out.dtype}")
        return self._decode(view, extent, out)

    def opened(self, payload: Bytes, extent: tuple[int, ...] | None) -> tuple[memoryview, tuple[int, ...], bool]:
        """`payload` without its frame, the extent that holds, and whether the chunk is an absent one.

        Raises DecodeError.
        """
        view = as_memoryview(payload)
        if self.framed and extent is None:
            extent, view = unframe(view)
        if extent == () and not view:
            return view, self.shape, True
        extent = self.shape if extent is None else tuple(extent)
        if extent != self.shape and not self._holds(extent):
            raise DecodeError(self.codec_id, "extent does not fit the chunk", f"at most {self.shape}", extent)
        return view, extent, False

    def _holds(self, extent: tuple[int, ...]) -> bool:
        same_rank = len(extent) == len(self.shape)
        return same_rank and all(0 < n <= full for n, full in zip(extent, self.shape, strict=True))

    def _decode_absent(self, out: Array | None) -> Array:
        out = np.empty(self.shape, self.dtype) if out is None else out
        out[...] = 0
        return out

    def decode_padded(self, payload: Bytes, fill_value: float = 0) -> Array:
        """The voxels of one stored chunk, padded with `fill_value` to `shape`. Raises DecodeError."""
        chunk = self.decode_chunk(payload)
        if chunk.shape == self.shape:
            return chunk
        padded = np.full(self.shape, fill_value, self.dtype)
        padded[tuple(slice(n) for n in chunk.shape)] = chunk
        return padded

    def encode_chunk(self, chunk: Array) -> bytes:
        """The payload of `chunk`, whose shape may be clipped; no frame. Raises EncodeError."""
        if chunk.dtype.newbyteorder("<") != self.dtype:
            raise EncodeError(self.codec_id, f"chunk is {chunk.dtype}, the codec stores {self.dtype}")
        if chunk.ndim != len(self.shape) or any(n < 1 or n > m for n, m in zip(chunk.shape, self.shape, strict=True)):
            raise EncodeError(self.codec_id, f"chunk of shape {chunk.shape} does not fit {self.shape}")
        return self._encode(np.require(chunk, self.dtype, ["C", "W"]))

    # numcodecs

    def encode(self, buf: Bytes) -> bytes:
        """The payload of an array of the full shape or clipped (then framed), or of that many raw bytes."""
        chunk = np.asarray(buf)
        if chunk.dtype != self.dtype and chunk.dtype.newbyteorder("<") == self.dtype:
            # numcodecs callers expect the same bytes back, decode gives little-endian ones
            raise EncodeError(self.codec_id, f"only little-endian arrays can be encoded, got {chunk.dtype}")
        if chunk.dtype != self.dtype or chunk.ndim != len(self.shape):
            flat = np.frombuffer(as_memoryview(buf), np.uint8)
            if flat.nbytes != math.prod(self.shape) * self.dtype.itemsize:
                raise EncodeError(self.codec_id, f"{flat.nbytes} bytes are not a chunk of {self.shape} {self.dtype}")
            chunk = flat.view(self.dtype).reshape(self.shape)
        payload = self.encode_chunk(chunk)
        return frame(chunk.shape) + payload if self.framed and chunk.shape != self.shape else payload

    def decode(self, buf: Bytes, out: Bytes | None = None) -> Array | Bytes:
        """The chunk padded to the full shape; copied into `out` where given. Raises DecodeError."""
        chunk = self.decode_padded(buf)
        if out is None:
            return chunk
        if isinstance(out, np.ndarray) and out.shape == chunk.shape and out.dtype.newbyteorder("<") == self.dtype:
            out[...] = chunk
            return out
        flat = (out.data if isinstance(out, np.ndarray) else memoryview(out)).cast("B")
        if len(flat) != chunk.nbytes:
            raise ValueError(f"{self.codec_id}: out must hold {chunk.nbytes} bytes, got {len(flat)}")
        flat[:] = as_memoryview(np.ascontiguousarray(chunk))
        return out

    def get_config(self) -> dict[str, Any]:
        """The configuration as JSON-ready values: id, shape, dtype and the codec's own keys."""
        config: dict[str, Any] = {"id": self.codec_id}
        for name, value in vars(self).items():
            if not name.startswith("_"):
                config[name] = value.name if isinstance(value, np.dtype) else _plain(value)
        return config

    def __repr__(self) -> str:
        settings = (f"{name}={value!r}" for name, value in self.get_config().items() if name != "id")
        return f"{type(self).__name__}({', '.join(settings)})"


def as_memoryview(data: Bytes) -> memoryview:
    """`data` as a flat view of its bytes, without a copy where its memory is contiguous."""
    view = data.data if isinstance(data, np.ndarray) else memoryview(data)
    if not view.c_contiguous:
        return np.ascontiguousarray(np.asarray(data)).reshape(-1).view(np.uint8).data
    return view.cast("B") if view.format != "B" or view.ndim != 1 else view


def as_czyx(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """`shape` with a channel axis in front where it has none."""
    c, z, y, x = shape if len(shape) > SPATIAL_AXES else (1, *shape)
    return c, z, y, x


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
