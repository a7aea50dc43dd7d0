"""compressed_segmentation: blocks of small indices into tables of uint32 or uint64 labels.

Format: https://github.com/google/neuroglancer/blob/master/src/sliceview/compressed_segmentation/README.md
A file is one word per channel, its position, and behind them the channels; see segmentation_blocks for these.

A compiled kernel does the work where one was built (see kernels), numpy otherwise, with the same results.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from storefs_codecs import segmentation_decoder, segmentation_encoder, segmentation_part_decoder
from storefs_codecs.chunk_codec import SPATIAL_AXES, as_czyx
from storefs_codecs.errors import DecodeError, EncodeError
from storefs_codecs.kernels import compressed_segmentation as kernels
from storefs_codecs.part_codec import PartCodec
from storefs_codecs.segmentation_blocks import CODEC_ID, Triple, grid
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    import numpy.typing as npt

    from storefs_codecs.chunk_codec import Array, ChunkCodec
    from storefs_codecs.part_codec import Box, Points
    from storefs_codecs.segmentation_blocks import Words

WORD = 4


class CompressedSegmentation(PartCodec):
    """Labels, exact to the last bit.

    `block_size` is `(x, y, z)`, as in `compressed_segmentation_block_size` of a precomputed info.
    """

    codec_id = CODEC_ID
    dtypes: ClassVar[frozenset[str]] = frozenset({"uint32", "uint64"})
    strided: ClassVar[bool] = True

    def __init__(
        self,
        shape: tuple[int, ...] | list[int],
        dtype: npt.DTypeLike,
        block_size: tuple[int, ...] | list[int] = (8, 8, 8),
    ) -> None:
        super().__init__(shape, dtype)
        self.block_size = tuple(int(n) for n in block_size)
        if len(self.block_size) != SPATIAL_AXES or min(self.block_size) < 1:
            raise ValueError(f"{self.codec_id}: block_size must be (x, y, z), got {self.block_size}")

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        words, starts, _ = self._channels(payload, extent)
        chunk = np.empty(extent, self.dtype) if out is None else out
        if not chunk.flags.writeable:
            raise ValueError(f"{self.codec_id}: out is read-only")
        kernel = kernels.load()
        decode_channel = kernel.decode_channel if kernel else segmentation_decoder.decode_channel
        for channel, start in zip(chunk if chunk.ndim > SPATIAL_AXES else chunk[None], starts, strict=True):
            decode_channel(words, start, self._block, channel)
        return chunk

    def _decode_box(self, payload: memoryview, extent: tuple[int, ...], box: Box, out: Array) -> None:
        words, starts, zyx = self._channels(payload, extent)
        decoder = kernels.load() or segmentation_part_decoder
        if len(extent) == SPATIAL_AXES:
            decoder.decode_box(words, starts[0], zyx, self._block, box, out)
            return
        for channel, start in zip(out, starts[box[0]], strict=True):
            decoder.decode_box(words, start, zyx, self._block, box[1:], channel)

    def _decode_points(self, payload: memoryview, extent: tuple[int, ...], points: Points, out: Array) -> None:
        words, starts, zyx = self._channels(payload, extent)
        decoder = kernels.load() or segmentation_part_decoder
        if len(extent) == SPATIAL_AXES:
            decoder.decode_points(words, starts[0], zyx, self._block, points, out)
            return
        for channel in np.unique(points[0]).tolist():
            if not 0 <= channel < len(starts):
                raise IndexError(f"there is no channel {channel} among {len(starts)}")
            here = points[0] == channel
            labels = np.empty(np.count_nonzero(here), out.dtype)
            within = tuple([along[here] for along in points[1:]])
            decoder.decode_points(words, starts[channel], zyx, self._block, within, labels)
            out[here] = labels

    def _channels(self, payload: memoryview, extent: tuple[int, ...]) -> tuple[Words, list[int], Triple]:
        """The words of `payload`, at which of them its channels begin, whose headers lie inside, and their extent."""
        if len(payload) % WORD:
            raise DecodeError(self.codec_id, "length is no whole number of words", found=f"{len(payload)} bytes")
        words = np.frombuffer(payload, "<u4")
        channels, z, y, x = as_czyx(extent)
        return words, self._channel_starts(words, channels, (z, y, x)), (z, y, x)

    def _channel_starts(self, words: Words, channels: int, extent: Triple) -> list[int]:
        if words.size < channels or words[0] != channels:
            found = f"{words[0] if words.size else 0} in {words.size} words"
            raise DecodeError(self.codec_id, "the first word is not the number of channels", channels, found)
        starts: list[int] = words[:channels].tolist()
        last = words.size - 2 * math.prod(grid(extent, self._block))
        if min(starts) < channels or max(starts) > last:
            raise DecodeError(self.codec_id, "block headers lie outside the data", f"{channels} to {last}", starts)
        return starts

    def _encode(self, chunk: Array) -> bytes:
        kernel = kernels.load()
        encode_channel = kernel.encode_channel if kernel else segmentation_encoder.encode_channel
        channels = [
            encode_channel(channel, self._block) for channel in (chunk if chunk.ndim > SPATIAL_AXES else chunk[None])
        ]
        starts = np.cumsum([len(channels), *map(len, channels)])
        if starts[-1] >= 1 << 32:
            raise EncodeError(self.codec_id, f"{starts[-1]} words are too many; use smaller chunks")
        return b"".join([starts[:-1].astype("<u4").tobytes(), *(words.tobytes() for words in channels)])

    @property
    def _block(self) -> Triple:
        x, y, z = self.block_size
        return z, y, x


class CompressedSegmentationCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.compressed_segmentation"."""

    numcodec: ClassVar[type[ChunkCodec]] = CompressedSegmentation
