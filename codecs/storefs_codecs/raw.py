"""raw: the voxels themselves, little-endian, x fastest; nothing else.

Format: the "raw" encoding of https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from storefs_codecs.chunk_codec import ChunkCodec
from storefs_codecs.errors import DecodeError
from storefs_codecs.kernels.voxel_copy import copy_voxels
from storefs_codecs.zarr_face import PartWriter, ZarrChunkCodec

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array


class Raw(ChunkCodec):
    """Uncompressed voxels, never framed: a clipped chunk is padded by whoever serves it."""

    codec_id = "storefs.raw"
    framed = False
    strided = True
    dtypes = frozenset(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)) | {
        "float32",
        "float64",
    }

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        expected = math.prod(extent) * self.dtype.itemsize
        if len(payload) != expected:
            raise DecodeError(
                self.codec_id,
                f"wrong length for {extent} {self.dtype.name}",
                f"{expected} bytes",
                len(payload),
            )
        chunk = np.frombuffer(payload, self.dtype).reshape(extent)
        if out is None:
            return chunk
        copy_voxels(chunk, out)
        return out

    def _encode(self, chunk: Array) -> bytes:
        return chunk.tobytes()


class RawCodec(PartWriter, ZarrChunkCodec):
    """zarr v3 codec "storefs.raw"."""

    numcodec: ClassVar[type[ChunkCodec]] = Raw
    in_thread: ClassVar[bool] = False
