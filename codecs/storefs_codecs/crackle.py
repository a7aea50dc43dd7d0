"""crackle: labels as crack codes along the boundaries and one label for every component.

The library can crash on damaged streams, so it decodes in a child process; and of a damaged slice it returns
whatever the memory held, so it decodes numbers that cannot be there by chance, which are then looked up.

Format: https://github.com/seung-lab/crackle (versions 0 and 1)
"""

from __future__ import annotations

import importlib
import math
import secrets
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from storefs_codecs.chunk_codec import ChunkCodec, as_czyx
from storefs_codecs.crackle_stream import CODEC_ID, CrackleStream
from storefs_codecs.errors import DecodeError
from storefs_codecs.guarded import GuardedError, require, run_guarded
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    import numpy.typing as npt

    from storefs_codecs.chunk_codec import Array

LIBRARY = "crackle"
EXTRA = "crackle"
NUMBERS = np.dtype("<u8")


class Crackle(ChunkCodec):
    """Segmentation labels, one channel; needs the extra "crackle".

    Parameters
    ----------
    shape
        Full chunk shape, `(z, y, x)` or `(1, z, y, x)`.
    dtype
        `uint8`, `uint16`, `uint32` or `uint64`.

    """

    codec_id = CODEC_ID
    dtypes = frozenset({"uint8", "uint16", "uint32", "uint64"})

    def __init__(self, shape: tuple[int, ...] | list[int], dtype: npt.DTypeLike) -> None:
        super().__init__(shape, dtype)
        if as_czyx(self.shape)[0] != 1:
            raise ValueError(f"{CODEC_ID}: one channel only, got shape {self.shape}")

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        require(CODEC_ID, LIBRARY, EXTRA)
        volume = as_czyx(extent)[1:]
        stream = CrackleStream.parse(payload, volume, self.dtype.itemsize)
        first = 1 << 62 | secrets.randbits(62)
        settings = {"shape": volume, "dtype": NUMBERS.str}
        size = math.prod(extent) * NUMBERS.itemsize
        try:
            voxels = run_guarded("crackle_decode", memoryview(stream.numbered(first)), size, settings)
        except GuardedError as error:
            raise DecodeError(CODEC_ID, str(error)) from error
        numbers = np.frombuffer(voxels, NUMBERS).reshape(extent)
        numbers -= NUMBERS.type(first)
        # the library leaves a slice whose checksum fails as it finds the memory, and says nothing
        if int(numbers.max()) >= stream.labels.size:
            raise DecodeError(CODEC_ID, "a slice is damaged")
        chunk = stream.labels.astype(self.dtype)[numbers.view(np.int64)]
        if out is None:
            return chunk
        out[...] = chunk
        return out

    def _encode(self, chunk: Array) -> bytes:
        require(CODEC_ID, LIBRARY, EXTRA)
        volume = chunk.reshape(as_czyx(chunk.shape)[1:]).T
        return bytes(importlib.import_module(LIBRARY).compress(volume))


class CrackleCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.crackle"."""

    numcodec: ClassVar[type[ChunkCodec]] = Crackle
