"""What an image file declares about itself, and how its samples become those of a slice's voxels.

An image is held as `(height, width)` for one sample a pixel, else `(height, width, samples)`. Two samples are
grey and alpha, four are a colour and alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

CODEC = "storefs.tile"
LONGEST_SIDE = 1_000_000
COLOURS = 3
COLOURED_NDIM = 3


@dataclass(frozen=True)
class TileHeader:
    """Size in pixels as stored, samples a pixel (1 to 4; a palette counts as 3) and their dtype."""

    width: int
    height: int
    channels: int
    dtype: str

    def __post_init__(self) -> None:
        if not (1 <= self.width <= LONGEST_SIDE and 1 <= self.height <= LONGEST_SIDE):
            found = f"{self.width} x {self.height}"
            raise DecodeError(CODEC, "image has no sensible size", f"sides of 1 to {LONGEST_SIDE}", found)


def broken(kind: str, problem: object) -> DecodeError:
    """The error for an image of `kind` that cannot be read."""
    return DecodeError(CODEC, f"not a whole {kind} image: {problem}")


def without_alpha(image: Array) -> Array:
    """`(height, width)` of a grey image or `(height, width, 3)` of a coloured one."""
    if image.ndim < COLOURED_NDIM:
        return image
    return image[..., 0] if image.shape[-1] < COLOURS else image[..., :COLOURS]
