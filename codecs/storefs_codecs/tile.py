"""tile: one image tile of a CATMAID stack, which is one chunk of one slice.

What the file is, its bytes tell: JPEG, PNG, WebP, GIF or TIFF, whatever its name and media type. Tiles shorter than
the chunk are padded at the right and bottom, longer ones are cropped. Orientation tags, colour profiles and
transparency are ignored.

    tile_header(data)   size, samples and dtype that a tile declares
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from storefs_codecs import tile_gif, tile_jpeg, tile_png, tile_tiff, tile_webp
from storefs_codecs.chunk_codec import Array, Bytes, ChunkCodec, as_memoryview
from storefs_codecs.errors import DecodeError
from storefs_codecs.png import Png
from storefs_codecs.tile_header import CODEC, COLOURED_NDIM, COLOURS, TileHeader, without_alpha
from storefs_codecs.zarr_face import ZarrChunkCodec

if TYPE_CHECKING:
    from types import ModuleType

    import numpy.typing as npt

__all__ = ["Tile", "TileCodec", "TileHeader", "tile_header"]

FORMATS: dict[bytes, ModuleType] = {
    tile_jpeg.SIGNATURE: tile_jpeg,
    tile_png.SIGNATURE: tile_png,
    tile_webp.SIGNATURE: tile_webp,
    tile_gif.SIGNATURE: tile_gif,
    **dict.fromkeys(tile_tiff.SIGNATURES, tile_tiff),
}
CHANNELS = ("luma", "rgb", "first")
# ITU-R BT.601, in 65536ths
LUMA = (19595, 38470, 7471)
# a larger image than this cannot be the tile that was asked for; stock images for what is missing are 1024 x 1024
MOST_TILES, SPARE_PIXELS = 4, 1 << 20


def tile_header(data: Bytes) -> TileHeader:
    """What a tile declares about itself; nothing is decoded. Raises DecodeError for all that is no image."""
    payload = as_memoryview(data)
    return _format_of(payload).read_header(payload)  # type: ignore[no-any-return]  # modules with one interface


def _format_of(payload: memoryview) -> ModuleType:
    for signature, module in FORMATS.items():
        if payload[: len(signature)] == signature:
            return module
    start = bytes(payload[:16])
    raise DecodeError(CODEC, "not an image of a known kind", "JPEG, PNG, WebP, GIF or TIFF", start or "no bytes")


class Tile(ChunkCodec):
    """A tile in any common image format; written as PNG.

    Parameters
    ----------
    shape
        Full chunk shape `(1, y, x)`, or `(3, 1, y, x)` for `"rgb"`.
    dtype
        `"uint8"` or `"uint16"`; tiles must have it, but for black ones of 8 bits, which serve as 16.
    channels
        What becomes of colours: `"luma"` (BT.601), `"first"` or all three, `"rgb"`. Grey tiles give three equal
        channels for `"rgb"`. Alpha is dropped.
    fill_value
        What short tiles are padded with.
    turned
        Whether rows of the image are columns of the slice.

    """

    codec_id = CODEC
    dtypes = frozenset({"uint8", "uint16"})

    def __init__(
        self,
        shape: tuple[int, ...] | list[int],
        dtype: npt.DTypeLike = "uint8",
        channels: str = "luma",
        fill_value: int = 0,
        turned: bool = False,  # noqa: FBT001, FBT002  # a keyword of the configuration
    ) -> None:
        super().__init__(shape, dtype)
        if channels not in CHANNELS:
            raise ValueError(f"{self.codec_id}: channels must be one of {', '.join(CHANNELS)}, got {channels!r}")
        fits = (COLOURS, 1) if channels == "rgb" else (1,)
        if self.shape[:-2] != fits:
            offered = ", ".join(map(str, fits))
            raise ValueError(f"{self.codec_id}: {channels} needs the shape ({offered}, y, x), got {self.shape}")
        if not 0 <= fill_value <= np.iinfo(self.dtype).max:
            raise ValueError(f"{self.codec_id}: fill_value must fit {self.dtype.name}, got {fill_value}")
        self.channels = channels
        self.fill_value = int(fill_value)
        self.turned = bool(turned)

    def _decode(self, payload: memoryview, extent: tuple[int, ...], out: Array | None) -> Array:
        module = _format_of(payload)
        header = module.read_header(payload)
        self._check(header)
        chunk = np.empty(extent, self.dtype) if out is None else out
        room = self._room(header, chunk)
        image = module.read_image(payload, header, room)
        if image is not room:
            self._fit(image, chunk)
        return chunk

    def _decode_absent(self, out: Array | None) -> Array:
        out = np.empty(self.shape, self.dtype) if out is None else out
        out[...] = self.fill_value
        return out

    def _encode(self, chunk: Array) -> bytes:
        image = np.ascontiguousarray(chunk.swapaxes(-1, -2)) if self.turned else chunk
        return Png(image.shape, self.dtype).encode_chunk(image)

    def _check(self, header: TileHeader) -> None:
        """Raise DecodeError where a tile of that header cannot be this chunk."""
        height, width = self.shape[-2:]
        if header.width * header.height > MOST_TILES * width * height + SPARE_PIXELS:
            found = f"{header.width} x {header.height}"
            raise DecodeError(self.codec_id, "image is far larger than a tile", f"{width} x {height}", found)
        if header.dtype == "uint16" and self.dtype.itemsize == 1:
            problem = 'the array was taken for 8 bits, this tile has 16: pass dtype="uint16"'
            raise DecodeError(self.codec_id, problem, "uint8", header.dtype)

    def _room(self, header: TileHeader, chunk: Array) -> Array | None:
        """Where the image may be decoded to directly: `chunk`, where that is just its samples."""
        size = (header.height, header.width)
        same = header.channels == 1 and header.dtype == self.dtype.name and chunk.shape == (1, *size)
        return chunk.reshape(size) if same and not self.turned and chunk.flags.c_contiguous else None

    def _fit(self, image: Array, chunk: Array) -> None:
        """Fill the slice in `chunk` with the image's colours, cropped and padded."""
        image = without_alpha(image)
        if image.dtype.itemsize < self.dtype.itemsize and image.any():
            problem = "a tile of 8 bits in an array of 16 would have another scale"
            raise DecodeError(self.codec_id, problem, self.dtype.name, image.dtype.name)
        if self.turned:
            image = image.swapaxes(0, 1)
        image = image[: chunk.shape[-2], : chunk.shape[-1]]
        height, width = image.shape[:2]
        if (height, width) != chunk.shape[-2:]:
            chunk[...] = self.fill_value
        coloured = image.ndim == COLOURED_NDIM
        if self.channels == "rgb":
            chunk[:, 0, :height, :width] = np.moveaxis(image, -1, 0) if coloured else image
        elif coloured:
            chunk[0, :height, :width] = luma(image) if self.channels == "luma" else image[..., 0]
        else:
            chunk[0, :height, :width] = image


def luma(image: Array) -> Array:
    """The luma, `(height, width)`, of `(height, width, 3)` RGB samples of 8 or 16 bits: BT.601, rounded."""
    weighted = image[..., 0] * np.uint32(LUMA[0])
    weighted += image[..., 1] * np.uint32(LUMA[1])
    weighted += image[..., 2] * np.uint32(LUMA[2])
    weighted += np.uint32(1 << 15)
    weighted >>= np.uint32(16)
    return weighted.astype(image.dtype)


class TileCodec(ZarrChunkCodec):
    """zarr v3 codec "storefs.tile"."""

    numcodec: ClassVar[type[ChunkCodec]] = Tile
