"""kempressed: fpzip of values plus 2, with the channel axis in the place of z.

Adding 2 gives all values the same sign and nearly the same exponent, which compresses better; the lowest bits
of small values are lost.

Format: as cloud-volume writes it, https://github.com/seung-lab/cloud-volume
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from storefs_codecs.chunk_codec import as_czyx
from storefs_codecs.fpzip import Fpzip
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array, ChunkCodec

OFFSET = np.float32(2)


class Kempressed(Fpzip):
    """float32 values, best between -1 and 1, any number of channels; needs the extra "fpzip"."""

    codec_id = "storefs.kempressed"
    dtypes = frozenset({"float32"})

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        c, z, y, x = as_czyx(extent)
        shifted = self._decode_stream(payload, (z, c, y, x)).swapaxes(0, 1)
        chunk = np.empty(extent, self.dtype) if out is None else out
        np.subtract(shifted.reshape(extent), OFFSET, out=chunk)
        return chunk

    def _encode(self, chunk: Array) -> bytes:
        shifted = chunk.reshape(as_czyx(chunk.shape)) + OFFSET
        return self._encode_stream(np.ascontiguousarray(shifted.swapaxes(0, 1)))


class KempressedCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.kempressed"."""

    numcodec: ClassVar[type[ChunkCodec]] = Kempressed
