"""What a volume looks like, in words and numbers: the facts behind `storefs info` and `storefs tree`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from storefs.grid import Grid

if TYPE_CHECKING:
    from storefs.model import ArrayNode, Hierarchy
    from storefs.source import Source


@dataclass(frozen=True, slots=True)
class ScaleSummary:
    """One scale. `shape`, `chunks`, `voxel_nm`, `first_voxel` and `centre_nm` go along the axes as shown.

    `nbytes` is the size of all voxels in memory; `first_voxel` is the source's own index of the array's voxel 0.
    """

    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    encoding: str
    encoding_options: dict[str, Any]
    sharded: bool
    voxel_nm: tuple[float, ...]
    first_voxel: tuple[int, ...]
    centre_nm: tuple[float, ...]
    resolution_xyz: tuple[float, ...]
    voxel_offset_xyz: tuple[int, ...]
    voxels: int
    nbytes: int
    chunk_count: int
    unsupported: str | None


@dataclass(frozen=True, slots=True)
class VolumeSummary:
    """A group: where it is, what it holds, its scales (finest first) and the groups below it.

    A group without scales of its own has no `dtype` and no `axes`.
    """

    url: str
    path: str
    format: str
    name: str
    type: str | None
    dtype: str | None
    channels: int
    axes: tuple[str, ...]
    scales: tuple[ScaleSummary, ...]
    groups: tuple[VolumeSummary, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)

    def walk(self) -> Iterator[VolumeSummary]:
        """The group and all below it, each before its own."""
        yield self
        for group in self.groups:
            yield from group.walk()


def summarise(source: Source) -> VolumeSummary:
    """The volume behind `source`, from its metadata alone. Raises what opening it raises."""
    hierarchy = source.open().backend.hierarchy
    return _group(hierarchy, source, str(hierarchy.attributes.get("format", "")))


def _group(group: Hierarchy, source: Source, form: str) -> VolumeSummary:
    flip = source.presentation.flip
    finest = group.arrays[0] if group.arrays else None
    info = group.attributes.get("info")
    kind = info.get("type") if isinstance(info, dict) else None
    axes = finest.dimension_names if finest else ()
    return VolumeSummary(
        url=source.url,
        path=group.path,
        format=form,
        name=group.name,
        type=kind if isinstance(kind, str) else None,
        dtype=finest.dtype if finest else None,
        channels=finest.shape[axes.index("c")] if finest and "c" in axes else 1,
        axes=flip(axes),
        scales=tuple(_scale(node, flip) for node in group.arrays),
        groups=tuple(_group(below, source, form) for below in group.groups),
    )


def _scale(node: ArrayNode, flip: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> ScaleSummary:
    voxels = math.prod(node.shape)
    channels = (0,) * (len(node.shape) - len(node.voxel_offset_xyz))
    return ScaleSummary(
        path=node.path,
        shape=flip(node.shape),
        chunks=flip(node.chunk_shape),
        dtype=node.dtype,
        encoding=node.encoding.name,
        encoding_options=dict(node.encoding.configuration),
        sharded=bool(node.attributes.get("sharded")),
        voxel_nm=flip(node.scale_nm),
        first_voxel=flip(channels + node.voxel_offset_xyz[::-1]),
        centre_nm=flip(node.translation_nm),
        resolution_xyz=node.resolution_xyz,
        voxel_offset_xyz=node.voxel_offset_xyz,
        voxels=voxels,
        nbytes=voxels * np.dtype(node.dtype).itemsize,
        chunk_count=Grid(node.shape, node.chunk_shape).size,
        unsupported=node.unsupported,
    )


def size_text(nbytes: float) -> str:
    """`nbytes` with a decimal unit, such as "4.2 MB"."""
    return _scaled(nbytes, ("B", "kB", "MB", "GB", "TB", "PB", "EB"))


def count_text(count: float) -> str:
    """`count` to three digits, such as "4.24 M"."""
    return _scaled(count, ("", "k", "M", "G", "T", "P", "E"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if number < 999.5:  # noqa: PLR2004  # would show as 1000
            return f"{number:.3g} {unit}".rstrip()
        number /= 1000
    return f"{number:.3g} {units[-1]}"


def number_text(number: float) -> str:
    """`number` without a needless ".0", and without noise behind the fourth decimal."""
    return f"{number:.4f}".rstrip("0").rstrip(".")
