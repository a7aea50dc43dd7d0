"""Two-dimensional slices as images: `raw`, `isotropic` and `arb`, decoded to arrays.

A PNG holds 8 or 16 bits a sample, so the server folds wider voxels: 32 bits become the four bytes of RGBA, 64 bits
the eight bytes of RGBA at 16 bits, little-endian in the order of the file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from storefs.backends.dvid import calls
from storefs.backends.dvid.part import Part, asked
from storefs.plans import Call
from storefs_codecs.errors import DecodeError
from storefs_codecs.jpeg import Jpeg
from storefs_codecs.png import Png

if TYPE_CHECKING:
    from storefs.backends.dvid.info import Instance
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

Plane = Literal["xy", "xz", "yz"]
DIMS = {"xy": "0_1", "xz": "0_2", "yz": "1_2"}

_SLACK = 1 << 20
_LARGEST_SIDE = 1 << 16
_PNG_SIZE = slice(16, 24)


class Planes(Part):
    """Slices of voxel instances. `image_format` is "png" (exact), "jpg" or "jpg:90" (lossy, 8 bits)."""

    @asked
    def raw(
        self,
        uuid: str,
        name: str,
        plane: Plane,
        size: Sequence[int],
        offset_xyz: Sequence[int],
        *,
        image_format: str = "png",
        scale: int = 0,
        supervoxels: bool = False,
    ) -> Plan[Array]:
        """A slice of `size` (width, height) from voxel `offset_xyz` on.

        Rows are the plane's second axis, columns its first, so "xy" is (y, x); channels come last. Raises ValueError,
        DecodeError.
        """
        query = [("scale", str(scale))] * bool(scale) + [("supervoxels", "true")] * supervoxels
        return (yield from self._slice("raw", uuid, name, plane, size, offset_xyz, image_format, query))

    @asked
    def isotropic(
        self,
        uuid: str,
        name: str,
        plane: Plane,
        size: Sequence[int],
        offset_xyz: Sequence[int],
        *,
        image_format: str = "png",
    ) -> Plan[Array]:
        """As `raw`, resampled so that pixels are squares of the finest voxel side; `size` counts pixels."""
        return (yield from self._slice("isotropic", uuid, name, plane, size, offset_xyz, image_format, []))

    @asked
    def arb(
        self,
        uuid: str,
        name: str,
        top_left_xyz: Sequence[float],
        top_right_xyz: Sequence[float],
        bottom_left_xyz: Sequence[float],
        resolution: float,
        *,
        image_format: str = "png",
    ) -> Plan[Array]:
        """The plane through three corners, in the instance's units, with pixels of `resolution`: (down, across)."""
        instance = yield from self._voxels(uuid, name)
        corners = [[float(n) for n in corner] for corner in (top_left_xyz, top_right_xyz, bottom_left_xyz)]
        if any(len(corner) != 3 for corner in corners) or resolution <= 0:  # noqa: PLR2004  # x, y and z
            raise ValueError(f"expected three corners x, y, z and a positive resolution, got {corners}, {resolution}")
        words = ["_".join(f"{n:.9g}" for n in corner) for corner in corners]
        across, down = (int(math.dist(corners[0], corner) / resolution) + 1 for corner in corners[1:])
        path = calls.node(uuid, name, "arb", *words, f"{float(resolution):.9g}", image_format)
        limit = _limit(instance, across + 1, down + 1)
        reply = yield from self._ask(Call(path, query=self._throttled(), limit=limit))
        width, height = _image_size(reply.data, (across, down))
        return read_image(reply.data, instance, width, height)

    def _slice(
        self,
        keyword: str,
        uuid: str,
        name: str,
        plane: Plane,
        size: Sequence[int],
        offset_xyz: Sequence[int],
        image_format: str,
        query: list[tuple[str, str]],
    ) -> Plan[Array]:
        instance = yield from self._voxels(uuid, name)
        if plane not in DIMS:
            raise ValueError(f"plane: expected one of {', '.join(DIMS)}, got {plane!r}")
        width, height = (int(n) for n in size)
        if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE) or len(offset_xyz) != 3:  # noqa: PLR2004  # x, y and z
            raise ValueError(f"expected a size of 1 to {_LARGEST_SIDE} and an offset x, y, z: {size}, {offset_xyz}")
        if image_format.partition(":")[0] not in ("png", "jpg", "jpeg"):
            raise ValueError(f'image_format: expected "png", "jpg" or "jpg:quality", got {image_format!r}')
        offset = calls.text(tuple(int(n) for n in offset_xyz))
        path = calls.node(uuid, name, keyword, DIMS[plane], calls.text((width, height)), offset, image_format)
        reply = yield from self._ask(Call(path, query=tuple(query), limit=_limit(instance, width, height)))
        return read_image(reply.data, instance, width, height)


def read_image(data: bytes, instance: Instance, width: int, height: int) -> Array:
    """The voxels of an image of `instance`: (height, width), or (height, width, 4) for RGBA. Raises DecodeError."""
    if data[:2] == b"\xff\xd8":
        channels = 3 if instance.channels > 1 else 1
        image = Jpeg((channels, 1, height, width), "uint8").decode_chunk(data)
        return np.ascontiguousarray(np.moveaxis(image[:, 0], 0, -1)) if channels > 1 else image[0, 0]
    dtype = np.dtype(instance.dtype).newbyteorder("<")
    if instance.channels > 1:
        image = Png((instance.channels, 1, height, width), "uint8").decode_chunk(data)
        return np.ascontiguousarray(np.moveaxis(image[:, 0], 0, -1))
    if dtype.itemsize <= 2:  # noqa: PLR2004  # 16 bits are a sample
        voxels: Array = Png((1, height, width), dtype).decode_chunk(data)[0]
        return voxels
    sample = np.dtype("uint8") if dtype.itemsize == 4 else np.dtype("uint16")  # noqa: PLR2004  # bytes of RGBA
    image = Png((4, 1, height, width), sample).decode_chunk(data)
    # samples are big-endian in the file, whose bytes are the voxel's
    folded = np.ascontiguousarray(np.moveaxis(image[:, 0], 0, -1), sample.newbyteorder(">"))
    return folded.view(dtype)[..., 0]


def _image_size(data: bytes, expected: tuple[int, int]) -> tuple[int, int]:
    """Width and height of an image that should measure about `expected`: rounding is the server's."""
    if data[:2] == b"\xff\xd8":
        return expected
    width, height = (int.from_bytes(data[_PNG_SIZE][at : at + 4], "big") for at in (0, 4))
    if any(abs(n - e) > 1 for n, e in zip((width, height), expected, strict=True)):
        raise DecodeError("dvid.arb", "an image of another size", expected, (width, height))
    return width, height


def _limit(instance: Instance, width: int, height: int) -> int:
    return 2 * width * height * max(1, np.dtype(instance.dtype).itemsize) * instance.channels + _SLACK
