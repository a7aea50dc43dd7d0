"""jpeg: one baseline or progressive JPEG image of all voxels, 1 or 3 channels of uint8.

Format: ITU-T T.81, arranged as `image_rows` says. Orientation tags are ignored, as every reader of chunks
does.

A compiled kernel decodes regular images of one channel where it was built (see kernels); simplejpeg decodes the others,
with the same results, and judges what is no image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import simplejpeg

from storefs_codecs.chunk_codec import ChunkCodec, as_czyx
from storefs_codecs.errors import DecodeError, EncodeError
from storefs_codecs.image_rows import as_image, channel_planes, check_image, deliver, image_size, rows_for
from storefs_codecs.kernels import jpeg as kernels
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    import numpy.typing as npt

    from storefs_codecs.chunk_codec import Array

LONGEST_SIDE = 65_500
COMPONENTS = {"Gray": 1, "YCbCr": 3, "RGB": 3, "CMYK": 4, "YCCK": 4}
COLORSPACE = {1: "GRAY", 3: "RGB"}
START_OF_SCAN = b"\xff\xda"
MARKER = 0xFF
SEGMENT_HEAD = 4
# every scan of a progressive image costs a pass over all voxels, however few bytes it takes
MAX_SCANS = 500
SEQUENTIAL = (0xC0, 0xC1)
# tables, restart intervals, application data, comments: what may stand before the frame
BEFORE_FRAME = (0xC4, *range(0xDB, 0xFF))
MAX_QUALITY = 100


class Jpeg(ChunkCodec):
    """JPEG, lossy.

    Parameters
    ----------
    shape
        Full chunk shape `(z, y, x)`, `(1, z, y, x)` or `(3, z, y, x)`.
    dtype
        `"uint8"`.
    quality
        1 to 100, for encoding. Three channels are written as YCbCr without subsampling.

    """

    codec_id = "storefs.jpeg"
    dtypes = frozenset({"uint8"})
    strided = True

    def __init__(self, shape: tuple[int, ...] | list[int], dtype: npt.DTypeLike = "uint8", quality: int = 85) -> None:
        super().__init__(shape, dtype)
        if as_czyx(self.shape)[0] not in COLORSPACE:
            raise ValueError(f"{self.codec_id}: 1 or 3 channels can be stored, got shape {self.shape}")
        if not 1 <= quality <= MAX_QUALITY:
            raise ValueError(f"{self.codec_id}: quality must be 1 to {MAX_QUALITY}, got {quality}")
        self.quality = int(quality)

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        channels = as_czyx(extent)[0]
        kernel = kernels.load() if channels == 1 else None
        chunk = kernel.decode(payload, extent, out, components=1) if kernel else None
        if chunk is not None:
            return chunk
        try:
            height, width, colorspace = read_header(payload)
            check_image(self.codec_id, (height, width), COMPONENTS.get(colorspace, 0), extent)
            check_scans(self.codec_id, payload, channels)
            if channels == 1:
                rows = rows_for(extent, self.dtype, out)
                simplejpeg.decode_jpeg(payload, COLORSPACE[1], buffer=rows)
                return deliver(rows, out)
            return channel_planes(simplejpeg.decode_jpeg(payload, COLORSPACE[channels]), extent, out)
        except DecodeError:
            raise
        except ValueError as error:
            raise DecodeError(self.codec_id, f"not a whole JPEG image: {error}") from error

    def _encode(self, chunk: Array) -> bytes:
        channels = as_czyx(chunk.shape)[0]
        height, width = image_size(self.codec_id, chunk.shape, LONGEST_SIDE)
        image = as_image(chunk, (height, width)).reshape(height, width, channels)
        subsampling = "Gray" if channels == 1 else "444"
        try:
            return bytes(simplejpeg.encode_jpeg(image, self.quality, COLORSPACE[channels], subsampling))
        except ValueError as error:
            raise EncodeError(self.codec_id, str(error)) from error


def read_header(payload: memoryview) -> tuple[int, int, str]:
    """Height, width and colour space that an image declares. Raises ValueError."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(payload)
    except KeyError as error:  # simplejpeg has no name for 4:4:1
        raise ValueError("chroma subsampling that is not offered") from error
    return height, width, colorspace


def may_have_many_scans(payload: memoryview, components: int) -> bool:
    """Whether libjpeg may read more than one scan; counting them takes a tenth of what decoding takes."""
    at = 2
    while components == 1 and at + SEGMENT_HEAD <= len(payload) and payload[at] == MARKER:
        marker = payload[at + 1]
        if marker not in BEFORE_FRAME:
            return marker not in SEQUENTIAL
        at += 2 + (payload[at + 2] << 8) + payload[at + 3]
    return True


def check_scans(codec: str, payload: memoryview, components: int) -> None:
    """Raise DecodeError where the image has more scans than any writer makes."""
    scans = bytes(payload).count(START_OF_SCAN) if may_have_many_scans(payload, components) else 1
    if scans > MAX_SCANS:
        raise DecodeError(codec, "too many scans", f"at most {MAX_SCANS}", scans)


class JpegCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.jpeg"."""

    numcodec: ClassVar[type[ChunkCodec]] = Jpeg
