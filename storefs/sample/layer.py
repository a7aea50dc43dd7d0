"""Writes levels as a Neuroglancer precomputed layer in a folder: an info file and one file a chunk.

Follows https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numcodecs

from storefs.grid import Grid

if TYPE_CHECKING:
    from storefs.sample.pyramid import Level, Triple

MADE_BY = "storefs sample"
INFO_KEYS = {"quality": "jpeg_quality", "block_size": "compressed_segmentation_block_size", "level": "png_level"}


@dataclass(frozen=True, slots=True)
class Format:
    """How a layer is stored: `kind` (image or segmentation), encoding, and the codec's keywords beside shape, dtype."""

    kind: str
    encoding: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_layer(folder: Path, levels: list[Level], chunk_xyz: Triple, stored: Format) -> int:
    """Write `levels`, finest first, in chunks of `chunk_xyz`, edge chunks clipped; gives the bytes written.

    Raises FileExistsError rather than write over what is no such layer.
    """
    refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": stored.kind,
        "data_type": levels[0].voxels.dtype.name,
        "num_channels": 1,
        "made_by": MADE_BY,
        "scales": [_scale(level, chunk_xyz, stored) for level in levels],
    }
    size = (folder / "info").write_text(json.dumps(info, indent=1))
    for level in levels:
        scale = folder / _key(level)
        scale.mkdir(exist_ok=True)
        for name, payload in _chunks(level, chunk_xyz, stored):
            size += (scale / name).write_bytes(payload)
    return size


def refuse_foreign(folder: Path) -> None:
    """Raise FileExistsError where `folder` holds anything but a layer written here."""
    info = folder / "info"
    if (
        folder.exists()
        and any(folder.iterdir())
        and not (info.is_file() and MADE_BY in info.read_text(errors="replace"))
    ):
        raise FileExistsError(f"{folder} holds something else already: name another folder")


def _key(level: Level) -> str:
    return "_".join(map(str, level.resolution_xyz))


def _scale(level: Level, chunk_xyz: Triple, stored: Format) -> dict[str, Any]:
    return {
        "key": _key(level),
        "size": list(level.voxels.shape[::-1]),
        "resolution": list(level.resolution_xyz),
        "voxel_offset": list(level.offset_xyz),
        "chunk_sizes": [list(chunk_xyz)],
        "encoding": stored.encoding,
        **{INFO_KEYS[name]: value for name, value in stored.settings.items()},
    }


def _chunks(level: Level, chunk_xyz: Triple, stored: Format) -> Iterator[tuple[str, bytes]]:
    grid = Grid(level.voxels.shape, chunk_xyz[::-1])
    settings = {"shape": grid.chunk_shape, "dtype": level.voxels.dtype.name, **stored.settings}
    codec = numcodecs.get_codec({"id": f"storefs.{stored.encoding}", **settings})
    for index in grid:
        origin, extent = grid.origin(index), grid.extent(index)
        chunk = level.voxels[tuple(slice(o, o + n) for o, n in zip(origin, extent, strict=True))]
        bounds = [
            f"{offset + o}-{offset + o + n}"
            for offset, o, n in zip(level.offset_xyz, origin[::-1], extent[::-1], strict=True)
        ]
        yield "_".join(bounds), codec.encode_chunk(chunk)
