"""A tree of JPEG tiles as CATMAID's tile source types 4 and 5 have them, and the answer of a server that names it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.layers import REAL, mirrored
from benchmarks.selections import Shape

SHAPE: Shape = (16, 2048, 2048)
TILE = 512
QUALITY = 85
PATHS = {4: "{z}/0/{row}_{column}.jpg", 5: "0/{z}/{row}/{column}.jpg"}


def build(folder: Path, kind: int, shape: Shape = SHAPE) -> str:
    """Write the tiles and what they must be read as (`tiles.npy`) unless they are there; what they were made from."""
    origin = "FlyEM medulla, mirrored" if REAL.is_dir() else "made-up tissue, mirrored"
    made = folder / "made.json"
    recipe = {"shape": list(shape), "kind": kind, "quality": QUALITY, "origin": origin}
    if made.is_file() and json.loads(made.read_text()) == recipe:
        return origin
    image = _texture(shape)
    decoded = np.empty(shape, np.uint8)

    def write(tile: tuple[int, int, int]) -> None:
        path = folder / "tiles" / name(kind, *tile)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.ascontiguousarray(image[place(*tile)])
        path.write_bytes(simplejpeg.encode_jpeg(pixels[..., None], QUALITY, "GRAY"))
        decoded[place(*tile)] = simplejpeg.decode_jpeg(path.read_bytes(), "GRAY")[..., 0]

    with ThreadPoolExecutor() as threads:
        list(threads.map(write, every(shape)))
    np.save(folder / "tiles.npy", decoded)
    made.write_text(json.dumps(recipe))
    return origin


def every(shape: Shape) -> list[tuple[int, int, int]]:
    """Section, row and column of every tile."""
    return list(np.ndindex(shape[0], shape[1] // TILE, shape[2] // TILE))


def name(kind: int, z: int, row: int, column: int) -> str:
    """Path of a tile below the stack's base."""
    return PATHS[kind].format(z=z, row=row, column=column)


def place(z: int, row: int, column: int) -> tuple[int, slice, slice]:
    """Where a tile lies in the volume."""
    return z, slice(row * TILE, (row + 1) * TILE), slice(column * TILE, (column + 1) * TILE)


def describe(folder: Path, url: str, kind: int, shape: Shape = SHAPE) -> None:
    """Have the web server over `folder`, at `url`, answer for project 1, stack 1."""
    answer = folder / "1" / "stack" / "1" / "info"
    answer.parent.mkdir(parents=True, exist_ok=True)
    answer.write_text(json.dumps(stack_info(url, kind, shape)))


def stack_info(url: str, kind: int, shape: Shape = SHAPE) -> dict[str, Any]:
    """A stack of one level with one mirror, in the shape that CATMAID answers with."""
    depth, height, width = shape
    mirror = {
        "id": 1,
        "title": "local",
        "position": 0,
        "image_base": f"{url}/tiles/",
        "file_extension": "jpg",
        "tile_width": TILE,
        "tile_height": TILE,
        "tile_source_type": kind,
    }
    return {
        "sid": 1,
        "pid": 1,
        "stitle": "benchmark",
        "ptitle": "benchmark",
        "dimension": {"x": width, "y": height, "z": depth},
        "resolution": {"x": 4.0, "y": 4.0, "z": 40.0},
        "translation": {"x": 0.0, "y": 0.0, "z": 0.0},
        "orientation": 0,
        "broken_slices": {},
        "downsample_factors": [{"x": 1, "y": 1, "z": 1}],
        "num_zoom_levels": 0,
        "canary_location": {"x": 0, "y": 0, "z": 0},
        "placeholder_color": {"r": 0.0, "g": 0.0, "b": 0.0, "a": 1.0},
        "metadata": None,
        "comment": None,
        "attribution": None,
        "description": "",
        "mirrors": [mirror],
    }


def _texture(shape: Shape) -> np.ndarray:
    if REAL.is_dir():
        return mirrored(np.load(REAL / "gray.npz")["gray"], shape)
    from storefs.sample.tissue import grow

    return mirrored(grow((shape[0], 256, 256)).image, shape)
