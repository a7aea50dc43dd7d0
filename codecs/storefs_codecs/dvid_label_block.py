"""DVID label blocks: how labelmap and labelarray instances keep and hand out uint64 labels.

Format: see label_block_layout. DVID wraps a block in gzip wherever it travels; that is undone outside.

A compiled kernel does the work where one was built (see kernels), numpy otherwise, with the same results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from storefs_codecs import label_block_decoder, label_block_encoder
from storefs_codecs.chunk_codec import ChunkCodec
from storefs_codecs.errors import DecodeError, EncodeError
from storefs_codecs.kernels import dvid_label_block as kernels
from storefs_codecs.label_block_layout import CODEC_ID, MAX_SIDE, SIDE
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    import numpy.typing as npt

    from storefs_codecs.chunk_codec import Array

AXES = 3


class DvidLabelBlock(ChunkCodec):
    """Labels, exact to the last bit; blocks `(z, y, x)` whose sides are multiples of 8, up to 1024.

    Equal labels give equal bytes, with ascending tables. Every valid block is read, whatever its tables are like.
    """

    codec_id = CODEC_ID
    dtypes: ClassVar[frozenset[str]] = frozenset({"uint64"})
    strided: ClassVar[bool] = True

    def __init__(self, shape: tuple[int, ...] | list[int], dtype: npt.DTypeLike = "uint64") -> None:
        super().__init__(shape, dtype)
        if len(self.shape) != AXES or not _is_whole(self.shape) or max(self.shape) > MAX_SIDE:
            raise ValueError(
                f"{self.codec_id}: shape must be (z, y, x), multiples of {SIDE} up to {MAX_SIDE}, got {self.shape}"
            )

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        if not _is_whole(extent):
            raise DecodeError(self.codec_id, "extent is no whole number of sub-blocks", f"multiples of {SIDE}", extent)
        block = np.empty(extent, self.dtype) if out is None else out
        if not block.flags.writeable:
            raise ValueError(f"{self.codec_id}: out is read-only")
        (kernels.load() or label_block_decoder).decode_block(payload, block)
        return block

    def _encode(self, chunk: Array) -> bytes:
        if not _is_whole(chunk.shape):
            raise EncodeError(self.codec_id, f"sides must be multiples of {SIDE}, got {chunk.shape}")
        return (kernels.load() or label_block_encoder).encode_block(chunk)


def _is_whole(extent: tuple[int, ...]) -> bool:
    return all(n % SIDE == 0 for n in extent)


class DvidLabelBlockCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.dvid_label_block"."""

    numcodec: ClassVar[type[ChunkCodec]] = DvidLabelBlock
