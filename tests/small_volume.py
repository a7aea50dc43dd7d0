"""Writes small precomputed layers, straight from the format's text. Shares no code with the product."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Encode = Callable[[Array], bytes]


def raw(chunk: Array) -> bytes:
    """A chunk in C order (zyx or czyx) as stored: x fastest, little-endian."""
    return np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<")).tobytes()


def png(chunk: Array) -> bytes:
    """A uint8 or uint16 chunk of one channel as a grayscale image of all rows."""
    import imagecodecs

    return bytes(imagecodecs.png_encode(np.ascontiguousarray(chunk.reshape(-1, chunk.shape[-1]))))


def voxels(shape: tuple[int, ...], dtype: str, seed: int = 7) -> Array:
    """Random voxels over the whole range of `dtype`."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.normal(size=shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@dataclass(frozen=True)
class Volume:
    """A layer of two scales; `arrays` are what reading them should give, C order, absent chunks zero."""

    files: dict[str, bytes]
    arrays: list[Array]
    info: dict[str, Any]
    chunk_xyz: tuple[int, int, int]
    offset_xyz: tuple[int, int, int]
    resolution_xyz: tuple[float, float, float]
    absent: tuple[tuple[int, ...], ...]
    folder: Path = field(default_factory=Path)

    def write(self, folder: Path) -> Volume:
        """Write the layer below `folder`."""
        for name, data in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return Volume(**{**vars(self), "folder": folder})

    @property
    def url(self) -> str:
        """Address of the layer written."""
        return f"precomputed://file://{self.folder}"


def volume(  # formats have many parameters
    shape: tuple[int, ...] = (20, 18, 25),
    chunk_xyz: tuple[int, int, int] = (10, 8, 8),
    dtype: str = "uint64",
    *,
    encoding: str = "raw",
    encode: Encode | None = None,
    extra: dict[str, Any] | None = None,
    offset_xyz: tuple[int, int, int] = (-3, 100, 7),
    absent: Iterable[tuple[int, ...]] = ((1, 1, 1),),
    data: Array | None = None,
) -> Volume:
    """A layer of `shape` (zyx or czyx) and a coarser scale of it; `absent` cells (zyx) of the finest are not stored."""
    absent = tuple(absent)
    encode = encode or {"raw": raw, "png": png}[encoding]
    finest = voxels(shape, dtype) if data is None else data.copy()
    channels = shape[0] if len(shape) == 4 else 1
    for cell in absent:
        finest[(..., *(slice(i * c, (i + 1) * c) for i, c in zip(cell, chunk_xyz[::-1], strict=True)))] = 0
    arrays = [finest, np.ascontiguousarray(finest[..., ::2, ::2, ::2])]
    resolution = (4.0, 4.0, 40.0)
    scales, files = [], {}
    for level, array in enumerate(arrays):
        begin = [o // 2**level for o in offset_xyz]
        scale = {
            "key": f"{resolution[0] * 2**level:g}_{resolution[2] * 2**level:g}",
            "size": list(array.shape[:-4:-1]),
            "resolution": [r * 2**level for r in resolution],
            "voxel_offset": begin,
            "chunk_sizes": [list(chunk_xyz)],
            "encoding": encoding,
            **(extra or {}),
        }
        scales.append(scale)
        grid = [range(0, n, c) for n, c in zip(scale["size"], chunk_xyz, strict=True)]
        for low in itertools.product(*grid):
            high = [min(a + c, n) for a, c, n in zip(low, chunk_xyz, scale["size"], strict=True)]
            if level == 0 and tuple(a // c for a, c in zip(low, chunk_xyz, strict=True))[::-1] in absent:
                continue
            box = array[(..., *(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True)))]
            name = "_".join(f"{a + o}-{b + o}" for a, b, o in zip(low, high, begin, strict=True))
            files[f"{scale['key']}/{name}"] = encode(box)
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation" if dtype == "uint64" else "image",
        "data_type": dtype,
        "num_channels": channels,
        "scales": scales,
    }
    files["info"] = json.dumps(info).encode()
    return Volume(files, arrays, info, chunk_xyz, offset_xyz, resolution, absent)
