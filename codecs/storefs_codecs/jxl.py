"""jxl: one JPEG XL image of all voxels, uint8.

Format: ISO/IEC 18181, arranged as `image_rows` says. Several channels occur in two ways, both read here: as
colour samples, and as one grey frame a channel (the latter is what cloud-volume writes and Neuroglancer
shows). Because readers disagree about them, only one channel is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import imagecodecs
import numpy as np

from storefs_codecs.chunk_codec import ChunkCodec, as_czyx
from storefs_codecs.errors import DecodeError, EncodeError
from storefs_codecs.image_rows import as_image, channel_planes, check_image, deliver, image_size, rows_for
from storefs_codecs.jxl_header import read_header
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    import numpy.typing as npt

    from storefs_codecs.chunk_codec import Array

LONGEST_SIDE = 1 << 18  # of level 5, which every decoder supports
MAX_CHANNELS = 4
ALPHA_CHANNELS = (2, 4)
LOSSLESS = 100


class Jxl(ChunkCodec):
    """JPEG XL.

    Parameters
    ----------
    shape
        Full chunk shape `(z, y, x)` or `(c, z, y, x)` with 1 to 4 channels; 1 for encoding.
    dtype
        `"uint8"`.
    quality
        For encoding: None or 100 for lossless, else 0 to 99 on the scale of JPEG.

    """

    codec_id = "storefs.jxl"
    dtypes = frozenset({"uint8"})

    def __init__(
        self, shape: tuple[int, ...] | list[int], dtype: npt.DTypeLike = "uint8", quality: float | None = None
    ) -> None:
        super().__init__(shape, dtype)
        if as_czyx(self.shape)[0] > MAX_CHANNELS:
            raise ValueError(f"{self.codec_id}: 1 to {MAX_CHANNELS} channels can be read, got shape {self.shape}")
        if quality is not None and not 0 <= quality <= LOSSLESS:
            raise ValueError(f"{self.codec_id}: quality must be 0 to {LOSSLESS} or None, got {quality}")
        self.quality = quality

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        channels = as_czyx(extent)[0]
        try:
            header = read_header(payload)
        except ValueError as error:
            raise DecodeError(self.codec_id, f"not a JPEG XL image: {error}") from error
        check_image(self.codec_id, (header.height, header.width), None, extent)
        planar = header.animated or channels == 1
        extra = 0 if planar or channels not in ALPHA_CHANNELS else 1
        if header.extra_channels != extra:
            raise DecodeError(self.codec_id, "extra channels do not fit", extra, header.extra_channels)
        try:
            if planar:
                rows = rows_for(extent, self.dtype, out)
                frames = (channels,) if channels > 1 else ()
                _decode_into(payload, rows.reshape(*frames, header.height, header.width))
                return deliver(rows, out)
            image = np.empty((header.height, header.width, channels), self.dtype)
            _decode_into(payload, image)
            return channel_planes(image, extent, out)
        except (ValueError, RuntimeError) as error:
            raise DecodeError(self.codec_id, f"not a JPEG XL image of {channels} uint8 channels: {error}") from error

    def _encode(self, chunk: Array) -> bytes:
        if as_czyx(chunk.shape)[0] != 1:
            raise EncodeError(self.codec_id, "readers disagree about several channels: only one can be written")
        image = as_image(chunk, image_size(self.codec_id, chunk.shape, LONGEST_SIDE))
        settings: dict[str, Any] = (
            {"lossless": True} if self.quality in (None, LOSSLESS) else {"level": self.quality, "lossless": False}
        )
        try:
            return bytes(imagecodecs.jpegxl_encode(image, numthreads=1, **settings))
        except (ValueError, RuntimeError) as error:
            raise EncodeError(self.codec_id, str(error)) from error


def _decode_into(payload: memoryview, image: Array) -> None:
    """Decode into `image`; the stream's shape and dtype are compared with its own before decoding."""
    imagecodecs.jpegxl_decode(bytes(payload), numthreads=1, out=image)


class JxlCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.jxl"."""

    numcodec: ClassVar[type[ChunkCodec]] = Jxl
