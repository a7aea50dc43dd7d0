"""Made-up image volumes, cut into tiles and named as each tile source does. Shares no code with the product."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import imagecodecs
import numpy as np

Array = np.ndarray[Any, Any]
Factor = tuple[int, int, int]
Encode = Callable[[Array], bytes]

HALVES: tuple[Factor, ...] = ((1, 1, 1), (2, 2, 1), (4, 4, 1))
STEPS_OF_Z: tuple[Factor, ...] = ((1, 1, 1), (2, 2, 1), (4, 4, 2), (8, 8, 4))
DEPTHS_SHOWN_AS = {0: "xy", 1: "xz", 2: "yz"}


def tissue(shape_zyx: tuple[int, int, int], dtype: str = "uint8", seed: int = 5) -> Array:
    """Smooth blobs with a little noise; no voxel is 0, so that what is missing shows."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices(shape_zyx)
    waves = np.sin(x / 9 + z) + np.cos(y / 7 - z / 2) + np.sin((x + y) / 23)
    smooth = 128 + 30 * waves + random.integers(-4, 5, shape_zyx)
    if dtype == "uint8":
        return np.clip(smooth, 1, 255).astype(np.uint8)
    return (smooth * 200 + random.integers(1, 200, shape_zyx)).astype(dtype)  # the low byte carries data


def colours(shape_zyx: tuple[int, int, int]) -> Array:
    """Three channels that differ, C order: czyx."""
    return np.stack([tissue(shape_zyx, seed=seed) for seed in (1, 2, 3)])


def pyramid(finest: Array, factors_xyz: Sequence[Factor] = HALVES) -> list[Array]:
    """Levels of a volume (zyx or czyx): every f-th voxel, x and y to whole voxels, z with the last partial one."""
    levels = []
    for fx, fy, fz in factors_xyz:
        height, width = finest.shape[-2] // fy, finest.shape[-1] // fx
        levels.append(np.ascontiguousarray(finest[..., ::fz, ::fy, ::fx][..., :height, :width]))
    return levels


# images: two axes, row and column, or channels as a third


def png(pixels: Array) -> bytes:
    """Lossless; 8 or 16 bit, grey or colour."""
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))


def jpeg(pixels: Array) -> bytes:
    """Lossy, quality 85, colours without subsampling."""
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=85, subsampling="444"))


def webp(pixels: Array) -> bytes:
    """Lossless; grey as colour, as the format knows nothing else."""
    rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return bytes(imagecodecs.webp_encode(np.ascontiguousarray(rgb), lossless=True))


def gif(pixels: Array) -> bytes:
    """Lossless; a palette of greys."""
    return bytes(imagecodecs.gif_encode(np.ascontiguousarray(pixels)))


def tiff(pixels: Array) -> bytes:
    """One uncompressed strip, grey, little-endian, as the specification lays it out."""
    height, width = pixels.shape
    bits = pixels.dtype.itemsize * 8
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8 + 2 + 9 * 12 + 4),
        (277, 3, 1), (278, 4, height), (279, 4, pixels.nbytes),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + directory + struct.pack("<I", 0)
    return head + np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()


def decoded_jpeg(data: bytes) -> Array:
    """Pixels of a JPEG, by another decoder than the product's."""
    return np.asarray(imagecodecs.jpeg8_decode(data))


ENCODERS: dict[str, Encode] = {"png": png, "jpg": jpeg, "webp": webp, "gif": gif, "tif": tiff}


# tiles


def name(
    kind: int,
    level: int,
    depth: int,
    row: int,
    column: int,
    *,
    size: tuple[int, int],
    extension: str = "png",
    orientation: int = 0,
) -> str:
    """What stands behind the base for a tile of type `kind`; `size` is width, height. Queries sorted by name."""
    width, height = size
    at = (column, row, depth) if orientation == 0 else (column, depth, row)
    plane = DEPTHS_SHOWN_AS[orientation]
    if kind == 12 and orientation == 2:
        at = (column, row, depth)
    scale = f"{2.0**-level:g}"
    query = f"col=x&height={height}&row=y&scale={scale}&width={width}&x={column * width}&y={row * height}&z={depth}"
    return {
        1: f"{depth}/{row}_{column}_{level}.{extension}",
        2: f"?{query}",
        4: f"{depth}/{level}/{row}_{column}.{extension}",
        5: f"{level}/{depth}/{row}/{column}.{extension}",
        7: f"largeDataTileSource/{width}/{height}/{level}/{depth}/{row}/{column}.{extension}",
        9: f"{depth}/{row}_{column}_{level}.{extension}",
        10: f"s{level}/0_1/{width}_{height}/{column * width}/{row * height}/{depth}.{extension}",
        12: "/".join(map(str, (plane, width, level, *at))),
    }[kind]


def image_base(kind: int, host: str, folder: str, size: tuple[int, int]) -> str:
    """The base that goes with `name` for tiles below `folder` of `host`."""
    if kind == 2:
        return f"{host}/{folder}"
    if kind == 10:
        axes = "/".join(f"%AXIS_{axis}%" for axis in range(3))
        return f"{host}/{folder}/%SCALE_DATASET%/0_1/{size[0]}_{size[1]}/{axes}"
    return f"{host}/{folder}/"


def cut(
    plane: Array, size: tuple[int, int], *, short: bool = False, padding: int = 0
) -> Iterator[tuple[int, int, Array]]:
    """Row, column and pixels of each tile of an image ([row, column] or [row, column, channel]).

    Tiles at the right and bottom are filled up with `padding`, or left `short`.
    """
    width, height = size
    for row in range(-(-plane.shape[0] // height)):
        for column in range(-(-plane.shape[1] // width)):
            part = plane[row * height : (row + 1) * height, column * width : (column + 1) * width]
            if not short:
                whole = np.full((height, width, *plane.shape[2:]), padding, plane.dtype)
                whole[: part.shape[0], : part.shape[1]] = part
                part = whole
            yield row, column, part


def tiles(
    levels: Sequence[Array],
    kind: int,
    size: tuple[int, int],
    extension: str = "png",
    *,
    encode: Encode | None = None,
    orientation: int = 0,
    short: bool = False,
    padding: int = 0,
) -> dict[str, bytes]:
    """All tiles of a pyramid by name; `size` is width, height."""
    encode = encode or ENCODERS[extension.partition("?")[0]]
    found = {}
    for level, volume in enumerate(levels):
        planes = volume if volume.ndim == 3 else np.moveaxis(volume, 0, -1)
        for depth, plane in enumerate(planes):
            for row, column, part in cut(plane, size, short=short, padding=padding):
                at = name(kind, level, depth, row, column, size=size, extension=extension, orientation=orientation)
                found[at] = encode(part)
    return found


def tile_box(level: Array, depth: int, row: int, column: int, size: tuple[int, int]) -> tuple[Any, ...]:
    """Where a tile lies in its level, as an index."""
    width, height = size
    return (
        ...,
        depth,
        slice(row * height, (row + 1) * height),
        slice(column * width, (column + 1) * width),
    )


# N5


def n5(levels: Sequence[Array], block_xyz: tuple[int, int, int], dimensions: str = "0_1_2") -> dict[str, bytes]:
    """Files of an N5 container with group `vol/s0`, `vol/s1`, … of raw blocks, short at the edges.

    `dimensions` says which N5 dimension is stack x, y, z, as the end of a CATMAID base does.
    """
    order = [int(number) for number in dimensions.split("_")]
    files = {"attributes.json": b'{"n5": "2.5.0"}', "vol/attributes.json": b"{}"}
    for level, volume in enumerate(levels):
        # N5 dimension order[i] is stack axis i of x, y, z
        stored = np.transpose(volume.T, np.argsort(order))
        blocks = [block_xyz[stack] for stack in np.argsort(order)]
        attributes = (
            f'{{"dimensions": {list(stored.shape)}, "blockSize": {list(blocks)}, "dataType": "{volume.dtype}", '
            '"compression": {"type": "raw"}}'
        )
        files[f"vol/s{level}/attributes.json"] = attributes.encode()
        for index in np.ndindex(*(-(-n // b) for n, b in zip(stored.shape, blocks, strict=True))):
            box = tuple(slice(i * b, (i + 1) * b) for i, b in zip(index, blocks, strict=True))
            block = stored[box]
            head = struct.pack(">HH3I", 0, 3, *block.shape)
            body = block.astype(block.dtype.newbyteorder(">")).tobytes(order="F")
            files[f"vol/s{level}/" + "/".join(map(str, index))] = head + body
    return files
