"""What a volume looks like, in words and numbers: the facts behind `storefs info` and `storefs tree`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from storefs.backend import MirrorState, SupportsMirrors
from storefs.grid import Grid
from storefs.plans import drive

if TYPE_CHECKING:
    from storefs.model import ArrayNode, Hierarchy
    from storefs.source import Source


_MAX_RUNS = 12


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
    blocks_xyz: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One version of what is versioned; `parents` by name, the first that of its own branch."""

    name: str
    branch: str
    locked: bool
    note: str
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VolumeSummary:
    """A group: where it is, what it holds, its scales (finest first) and the groups below it.

    A group without scales of its own has no `dtype` and no `axes`. Of what is versioned: `version` is the one shown,
    None for a whole repository; `instances` are type by name of all it holds, `versions` its history. `remark` is
    what the source has to say of it. `mirrors` are the places that hold its chunks, where there may be several.
    `title` is what people call it where `name` is a number, `place` says in words where it lies; `size_xyz` is known
    of some groups that are only listed, `problem` is why one cannot be opened.
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
    remark: str | None = None
    version: VersionSummary | None = None
    instances: Mapping[str, str] = field(default_factory=dict)
    versions: tuple[VersionSummary, ...] = ()
    mirrors: tuple[MirrorState, ...] = ()
    title: str = ""
    place: Mapping[str, str] = field(default_factory=dict)
    size_xyz: tuple[int, ...] | None = None
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)

    def walk(self) -> Iterator[VolumeSummary]:
        """The group and all below it, each before its own."""
        yield self
        for group in self.groups:
            yield from group.walk()


def summarise(source: Source) -> VolumeSummary:
    """The volume behind `source`, from its metadata alone; mirrors are asked. Raises what opening it raises."""
    volume = source.open()
    hierarchy = volume.backend.hierarchy
    mirrors: dict[str, list[MirrorState]] = defaultdict(list)
    if isinstance(volume.backend, SupportsMirrors):
        for state in drive(volume.backend.mirrors(), volume.transport.fetch):
            mirrors[state.group].append(state)
    return _group(hierarchy, source, str(hierarchy.attributes.get("format", "")), mirrors)


def _group(group: Hierarchy, source: Source, form: str, mirrors: Mapping[str, Sequence[MirrorState]]) -> VolumeSummary:
    flip = source.presentation.flip
    finest = group.arrays[0] if group.arrays else None
    told = group.attributes
    info = told.get("info")
    kind = info.get("type") if isinstance(info, dict) else None
    if finest and kind is None:
        kind = finest.attributes.get("type")
    listed = told.get("versions") or {below.name: below.attributes for below in group.groups if _is_version(below)}
    instances = told.get("instances")
    axes = finest.dimension_names if finest else ()
    return VolumeSummary(
        url=source.url,
        path=group.path,
        format=form,
        name=str(number) if (number := _number(group)) is not None else str(told.get("alias") or group.name),
        type=kind if isinstance(kind, str) else None,
        dtype=finest.dtype if finest else None,
        channels=finest.shape[axes.index("c")] if finest and "c" in axes else 1,
        axes=flip(axes),
        scales=tuple(_scale(node, flip) for node in group.arrays),
        groups=tuple(_group(below, source, form, mirrors) for below in group.groups if not _is_version(below)),
        remark=told.get("description") or (finest.attributes.get("note") if finest else None),
        version=_version(str(told["resolved_uuid"]), told) if "resolved_uuid" in told else None,
        instances=dict(instances) if isinstance(instances, Mapping) else {},
        versions=tuple(_version(name, facts) for name, facts in listed.items()),
        mirrors=tuple(mirrors.get(group.path, ())),
        title=_title(told),
        place=_place(told),
        size_xyz=tuple(size) if isinstance(size := told.get("dimension_xyz"), list) else None,
        problem=told.get("error"),
    )


def _number(group: Hierarchy) -> object:
    """What a CATMAID group is called by: its id."""
    told = group.attributes
    if not any(key.endswith("_title") for key in told) and "project_id" not in told:
        return None
    ids = (told.get(key) for key in ("stack_id", "stackgroup_id", "project_id"))
    return group.path.rpartition("/")[2] or next(number for number in ids if number is not None)


def _title(told: Mapping[str, Any]) -> str:
    titles = (told.get(key) for key in ("stack_title", "stackgroup_title", "project_title"))
    return " ".join(str(next((title for title in titles if title is not None), "")).split())


def _place(told: Mapping[str, Any]) -> dict[str, str]:
    """Of a CATMAID stack its project, how it lies there, and what of it is broken."""
    if "orientation_name" not in told:
        return {}
    project = " ".join(f"{told['project_id']} {told['project_title']}".split())
    origin = " ".join(map(number_text, told["translation_xyz"]))
    found = {
        "stack": f"{told['stack_id']} {_title(told)}".rstrip(),
        "project": project,
        "lies": f"{told['orientation_name']}, from x y z {origin} nm in the project",
    }
    broken = [z for z in told["broken_slices"] if 0 <= z < told["dimension_xyz"][2]]
    if broken:
        found["broken"] = f"{len(broken)} of {told['dimension_xyz'][2]} slices: {_runs(broken)}"
    return found


def _runs(numbers: Sequence[int]) -> str:
    """Sorted numbers in short: 1-3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:_MAX_RUNS]]
    return ", ".join([*shown, "…"] if len(runs) > _MAX_RUNS else shown)


def _is_version(group: Hierarchy) -> bool:
    return "parents" in group.attributes


def _version(name: str, told: Mapping[str, Any]) -> VersionSummary:
    return VersionSummary(
        name=name,
        branch=str(told.get("branch") or ""),
        locked=bool(told.get("locked")),
        note=str(told.get("note") or ""),
        parents=tuple(str(parent) for parent in told.get("parents") or ()),
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
        blocks_xyz=tuple(blocks) if isinstance(blocks := node.attributes.get("block_size"), list) else None,
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
