"""A zarr codec pipeline that hands whole selections to the engine; zarr's own indexing stays in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from zarr.abc.codec import CodecPipeline

from storefs.engine import open_reader
from storefs.window import Scattered

if TYPE_CHECKING:
    from zarr.abc.codec import Codec
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

    from storefs.engine import Reader
    from storefs.store import VirtualStore

Voxels = np.ndarray[Any, Any]
Batch = Iterable[tuple[Any, Any, Any, Any, bool]]


@dataclass(frozen=True)
class BulkPipeline(CodecPipeline):
    """Reads the array at `path` of `store` with the engine; all else is left to `inner`, zarr's own pipeline."""

    inner: CodecPipeline
    store: VirtualStore
    path: str

    async def read(self, batch_info: Batch, out: NDBuffer, drop_axes: tuple[int, ...] = ()) -> Any:  # noqa: ANN401  # differs by zarr's version
        """Read the selected parts of chunks into `out`; whether each chunk is there, as newer versions of zarr ask.

        Raises DecodeError, Unsupported, MissingChunk or a TransportError, each naming chunk and URL.
        """
        batch = list(batch_info)
        target = out.as_ndarray_like()
        if not isinstance(target, np.ndarray):
            return await self.inner.read(batch, out, drop_axes)
        there = await asyncio.to_thread(self._read, batch, target, drop_axes)
        return tuple({"status": "present" if found else "missing"} for found in there)

    def _read(
        self, batch: list[tuple[Any, Any, Any, Any, bool]], out: Voxels, drop_axes: tuple[int, ...]
    ) -> list[bool]:
        reader = open_reader(self.store.source, self.path)
        pieces = [
            Scattered(self._cell(reader, getter.path), inside, target, drop_axes)
            for getter, _, inside, target, _ in batch
        ]
        return reader.read_scattered(pieces, out)

    def _cell(self, reader: Reader, key: str) -> tuple[int, ...]:
        chunk = reader.volume.chunk(key)
        if chunk is None:
            raise ValueError(f"{key!r} is no chunk of {self.store.url}")
        return chunk.index

    # zarr's own

    @classmethod
    def from_codecs(cls, codecs: Iterable[Codec]) -> Self:  # noqa: ARG003  # the signature is zarr's
        """Only `bulk_array` makes these, around a pipeline of zarr's."""
        raise TypeError("a BulkPipeline is made around another pipeline and for one array")

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """The same around what `inner` becomes."""
        return replace(self, inner=self.inner.evolve_from_array_spec(array_spec))

    @property
    def supports_partial_decode(self) -> bool:
        """As `inner` does."""
        return self.inner.supports_partial_decode

    @property
    def supports_partial_encode(self) -> bool:
        """As `inner` does."""
        return self.inner.supports_partial_encode

    def validate(self, **settings: Any) -> None:  # noqa: ANN401  # as zarr passes them
        """Raise where a codec does not fit the array."""
        self.inner.validate(**settings)

    def compute_encoded_size(self, byte_length: int, array_spec: ArraySpec) -> int:
        """Length of a chunk of `byte_length` once encoded."""
        return self.inner.compute_encoded_size(byte_length, array_spec)

    async def decode(self, chunk_bytes_and_specs: Iterable[tuple[Buffer | None, ArraySpec]]) -> Any:  # noqa: ANN401  # as zarr's
        """Decode chunks that somebody else has fetched."""
        return await self.inner.decode(chunk_bytes_and_specs)

    async def encode(self, chunk_arrays_and_specs: Iterable[tuple[NDBuffer | None, ArraySpec]]) -> Any:  # noqa: ANN401  # as zarr's
        """Encode chunks."""
        return await self.inner.encode(chunk_arrays_and_specs)

    async def write(self, batch_info: Batch, value: NDBuffer, drop_axes: tuple[int, ...] = ()) -> None:
        """Encode and write chunks."""
        await self.inner.write(batch_info, value, drop_axes)
