"""A ChunkCodec as a zarr v3 array -> bytes codec.

The zarr codec only translates: names and configuration, zarr's buffers, and partial decoding, by which zarr
lets an array -> bytes codec fetch the chunk itself and return just the selected part. That path skips zarr's
own copy of the whole chunk and needs no configuration by the user.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

try:
    from zarr.abc.codec import (
        ArrayBytesCodec,
        ArrayBytesCodecPartialDecodeMixin,
        ArrayBytesCodecPartialEncodeMixin,
    )
    from zarr.storage import FsspecStore, StorePath
except ImportError:  # zarr 2 reads through the numcodecs classes, whose modules import this one

    class ArrayBytesCodec:  # type: ignore[no-redef]  # never used there
        """Stands in for zarr 3's."""

    class ArrayBytesCodecPartialDecodeMixin:  # type: ignore[no-redef]  # never used there
        """Stands in for zarr 3's."""

    class ArrayBytesCodecPartialEncodeMixin:  # type: ignore[no-redef]  # never used there
        """Stands in for zarr 3's."""


if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from zarr.abc.store import ByteGetter, ByteSetter
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

    from storefs_codecs.chunk_codec import Array, Bytes, ChunkCodec


@dataclass(frozen=True, init=False)
class ZarrChunkCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Base of the zarr codecs here; `configuration` holds the keywords of the numcodecs class.

    `shape` and `dtype` may be left out: they are then taken from the array's chunks. With `transpose` the array's
    axes are the stored ones reversed (xyz over zyx); `shape` remains the stored one.
    """

    numcodec: ClassVar[type[ChunkCodec]]
    in_thread: ClassVar[bool] = True
    is_fixed_size = False
    configuration: dict[str, Any] = field(default_factory=dict, hash=False)

    def __init__(self, **configuration: object) -> None:
        object.__setattr__(self, "configuration", {k: _plain(v) for k, v in configuration.items() if v is not None})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The codec that a metadata document describes."""
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        """The codec as it stands in a metadata document."""
        return {"name": self.numcodec.codec_id, "configuration": dict(self.configuration)}

    def compute_encoded_size(self, _input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Encoded sizes vary with the content."""
        raise NotImplementedError

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:  # noqa: ANN401, ARG002  # the signature is zarr's
        """Raise ValueError where the array's dtype or rank does not fit the codec's configuration."""
        native = dtype.to_native_dtype()
        declared = self.configuration.get("dtype")
        if declared is not None and np.dtype(declared).name != native.name:
            raise ValueError(f"{self.numcodec.codec_id}: configured for {declared}, the array is {native.name}")
        declared = self.configuration.get("shape")
        if declared is not None and len(declared) != len(shape):
            raise ValueError(f"{self.numcodec.codec_id}: configured for shape {declared}, the array is {len(shape)}-d")

    def _codec_for(self, spec: ArraySpec) -> ChunkCodec:
        transpose = self.configuration.get("transpose", False)
        shape = spec.shape[::-1] if transpose else spec.shape
        settings = {"shape": shape, "dtype": spec.dtype.to_native_dtype().name, **self.configuration}
        settings.pop("transpose", None)
        codec = self.numcodec(**settings)
        if codec.shape != shape:
            raise ValueError(f"{codec.codec_id}: configured for chunks of {codec.shape}, the array has {shape}")
        return codec

    def _decode_bytes(self, payload: Bytes, spec: ArraySpec) -> Array:
        chunk = self._codec_for(spec).decode_padded(payload, _fill_value(spec))
        return chunk.T if self.configuration.get("transpose") else chunk

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        chunk = self._decode_bytes(chunk_bytes.as_numpy_array(), chunk_spec)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(chunk)

    def _encode_sync(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        chunk = np.asarray(chunk_array.as_numpy_array())
        chunk = chunk.T if self.configuration.get("transpose") else chunk
        return chunk_spec.prototype.buffer.from_bytes(self._codec_for(chunk_spec).encode_chunk(chunk))

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        if not self.in_thread:
            return self._decode_sync(chunk_data, chunk_spec)
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        if not self.in_thread:
            return self._encode_sync(chunk_data, chunk_spec)
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def decode_partial(
        self,
        batch_info: Iterable[tuple[ByteGetter, Any, ArraySpec]],
    ) -> Iterable[NDBuffer | None]:
        """Selected parts of chunks. Zarr asks for chunk by chunk, which takes no tasks of their own."""
        batch = list(batch_info)
        if len(batch) == 1:
            return [await self._decode_partial_single(*batch[0])]
        return await super().decode_partial(batch)

    async def _decode_partial_single(
        self,
        byte_getter: ByteGetter,
        selection: Any,  # noqa: ANN401  # zarr's selectors are untyped
        chunk_spec: ArraySpec,
    ) -> NDBuffer | None:
        read_part: ReadPart | None = _through(byte_getter, "read_part")
        if read_part is not None:
            voxels = await read_part(selection)
            return None if voxels is None else chunk_spec.prototype.nd_buffer.from_numpy_array(voxels)
        stored = await byte_getter.get(prototype=chunk_spec.prototype)
        if stored is None:
            return None
        return (await self._decode_single(stored, chunk_spec))[selection]


class ReadPart(Protocol):
    """How a store (or the filesystem below zarr's FsspecStore) lets a codec have a part of a chunk, decoded.

    `store.read_part(key, selection)` gives the voxels, None where the chunk is absent. The store knows which chunk it
    is: its errors name it, fetching and decoding share a thread, and less than the chunk may do.
    """

    def __call__(self, selection: Any) -> Awaitable[Array | None]:  # noqa: ANN401  # zarr's selectors are untyped
        """The voxels at `selection`, as the chunk is shown."""


class PartWriter(ArrayBytesCodecPartialEncodeMixin):
    """Makes a ZarrChunkCodec write parts of chunks, through `store.write_through(key, selection, values)` where it is.

    Such a store knows what else is being written and merges the part itself. Elsewhere the chunk is read, changed and
    written, as zarr does.
    """

    async def _encode_partial_single(
        self,
        byte_setter: ByteSetter,
        chunk_array: NDBuffer,
        selection: Any,  # noqa: ANN401  # zarr's selectors are untyped
        chunk_spec: ArraySpec,
    ) -> None:
        values = chunk_array.as_numpy_array()
        through = _through(byte_setter, "write_through")
        if through is not None:
            await through(selection, values)
            return
        codec: ZarrChunkCodec = self  # type: ignore[assignment]  # mixed into one
        fill = _fill_value(chunk_spec)
        stored = await byte_setter.get(prototype=chunk_spec.prototype)
        whole = np.full(chunk_spec.shape, fill, chunk_spec.dtype.to_native_dtype())
        if stored is not None:
            whole[...] = codec._decode_sync(stored, chunk_spec).as_numpy_array()  # noqa: SLF001  # mixed into one
        whole[selection] = values
        if not chunk_spec.config.write_empty_chunks and np.array_equal(whole, np.full_like(whole, fill)):
            await byte_setter.delete()
            return
        encoded = codec._encode_sync(chunk_spec.prototype.nd_buffer.from_numpy_array(whole), chunk_spec)  # noqa: SLF001  # mixed into one
        if encoded is not None:
            await byte_setter.set(encoded)


def _through(byte_getter: object, name: str) -> Any:  # noqa: ANN401  # two kinds of method
    if not isinstance(byte_getter, StorePath):
        return None
    store, key = byte_getter.store, byte_getter.path
    if isinstance(store, FsspecStore):
        store, key = store.fs, f"{store.path.rstrip('/')}/{key}" if store.path else key
    # asked of the class: fsspec's caches hand on every attribute of what they cache, and would be bypassed
    method = getattr(type(store), name, None)
    return None if method is None else partial(method, store, key)


def _fill_value(spec: ArraySpec) -> Any:  # noqa: ANN401  # whatever the dtype's scalar is
    return 0 if spec.fill_value is None else spec.fill_value


def _plain(value: object) -> object:
    """`value` as it stands in JSON."""
    if isinstance(value, list | tuple):
        return [int(n) for n in value]
    return np.dtype(value).name if isinstance(value, np.dtype | type) else value
