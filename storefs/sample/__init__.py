"""A sample volume to try things on: made-up tissue and its segmentation as two precomputed layers in a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from storefs.sample.layer import Format, refuse_foreign, write_layer
from storefs.sample.pyramid import Level, build_pyramid, mean, mode
from storefs.sample.tissue import grow

__all__ = ["Sample", "SampleLayer", "write_sample"]

SHAPE = (40, 260, 340)
RESOLUTION_XYZ = (8, 8, 40)
OFFSET_XYZ = (12_000, 8_600, 2_041)
CHUNK_XYZ = (64, 64, 16)
FACTORS_XYZ = [(2, 2, 1), (2, 2, 2)]
IMAGE = Format("image", "jpeg", {"quality": 90})
LABELS = Format("segmentation", "compressed_segmentation", {"block_size": [8, 8, 8]})


@dataclass(frozen=True, slots=True)
class SampleLayer:
    """A layer as written: its folder, its levels (finest first) and the bytes it takes."""

    folder: Path
    levels: list[Level]
    nbytes: int

    @property
    def url(self) -> str:
        """What `storefs.open` and `zarr.open` take."""
        return f"precomputed://{self.folder.as_posix()}"


@dataclass(frozen=True, slots=True)
class Sample:
    """Two layers over the same tissue; `seconds` says how long growing the tissue and writing the layers took."""

    image: SampleLayer
    labels: SampleLayer
    seconds: tuple[float, float]


def write_sample(folder: Path | str, shape: tuple[int, int, int] = SHAPE) -> Sample:
    """Write `folder/image` (jpeg) and `folder/labels` (compressed_segmentation), three scales of 8 x 8 x 40 nm each.

    `shape` is zyx. The same shape always gives the same voxels. Raises FileExistsError rather than write over anything
    but an earlier sample.
    """
    for name in ("image", "labels"):
        refuse_foreign(Path(folder) / name)
    started = time.perf_counter()
    tissue = grow(shape)
    grown = time.perf_counter()
    layers = []
    for name, voxels, stored, reduction in (
        ("image", tissue.image, IMAGE, mean),
        ("labels", tissue.labels, LABELS, mode),
    ):
        levels = build_pyramid(Level(voxels, OFFSET_XYZ, RESOLUTION_XYZ), FACTORS_XYZ, reduction)
        nbytes = write_layer(Path(folder) / name, levels, CHUNK_XYZ, stored)
        layers.append(SampleLayer(Path(folder) / name, levels, nbytes))
    image, labels = layers
    return Sample(image, labels, (grown - started, time.perf_counter() - grown))
