"""How the voxels of a chunk lie in an image.

The pixels of the image, row by row, are the voxels in C order `zyx`; the samples of a pixel are the channels.
Width and height are free as long as their product is the number of voxels.

Format: the image encodings of
https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from storefs_codecs.chunk_codec import as_czyx
from storefs_codecs.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array


def check_image(codec: str, size: tuple[int, int], samples: int | None, extent: tuple[int, ...]) -> None:
    """Raise DecodeError where an image of `size` (height, width) cannot be a chunk of `extent`.

    `samples` is the number of channels, None where the image does not say.
    """
    channels, z, y, x = as_czyx(extent)
    height, width = size
    if width * height != z * y * x:
        raise DecodeError(
            codec,
            f"image size does not fit a chunk of {extent}",
            f"{z * y * x} pixels",
            f"{width} x {height}",
        )
    if samples is not None and samples != channels:
        raise DecodeError(codec, f"channels of the image do not fit a chunk of {extent}", channels, samples)


def image_size(codec: str, extent: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Height and width of the image that holds `extent`, no side longer than `longest`.

    Width x and height y*z where that fits, else width a multiple of x, else any rectangle.
    Raises EncodeError where there is none.
    """
    _, z, y, x = as_czyx(extent)
    rows, voxels = y * z, z * y * x
    for width in chain(range(x, longest + 1, x), range(math.isqrt(voxels), 0, -1)):
        if voxels % width == 0 and max(width, voxels // width) <= longest:
            return voxels // width, width
    raise EncodeError(codec, f"{rows} rows of {x} voxels fit no image with sides up to {longest}")


def as_image(chunk: Array, size: tuple[int, int]) -> Array:
    """The image of a chunk: `(height, width)` for one channel, else `(height, width, channels)`."""
    channels = as_czyx(chunk.shape)[0]
    if channels == 1:
        return chunk.reshape(size)
    return np.ascontiguousarray(chunk.reshape(channels, -1).T).reshape(*size, channels)


def rows_for(extent: tuple[int, ...], dtype: np.dtype[np.generic], out: Array | None) -> Array:
    """Where a decoder may write the rows of a one-channel image: `out` itself where that is possible."""
    if out is not None and out.flags.c_contiguous and out.flags.writeable:
        return out
    return np.empty(extent, dtype)


def deliver(chunk: Array, out: Array | None) -> Array:
    """`chunk`, or `out` holding its voxels where `out` is given."""
    if out is None or chunk is out:
        return chunk
    out[...] = chunk
    return out


def channel_planes(image: Array, extent: tuple[int, ...], out: Array | None) -> Array:
    """The chunk of `extent` (czyx) whose channels are the samples of `image` (height, width, channels)."""
    chunk = np.empty(extent, image.dtype) if out is None else out
    voxels = image.reshape(*extent[1:], extent[0])
    for channel, plane in enumerate(chunk):
        plane[...] = voxels[..., channel]
    return chunk
