"""The values that travel: what a volume looks like, and how it is shown. Frozen, no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Axes = Literal["zyx", "xyz"]
FaceName = Literal["native", "portable"]
PortableCodec = Literal["raw", "zstd", "gzip", "blosc"]


@dataclass(frozen=True, slots=True)
class ChunkId:
    """Names one chunk: the path of its array and its index in the chunk grid, C order (zyx or czyx)."""

    array: str
    index: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How chunks are stored: `name` such as "jpeg", and the codec's keywords beyond shape and dtype."""

    name: str
    configuration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArrayNode:
    """One array (a scale of a pyramid), C order: zyx, or czyx where it has channels.

    `scale_nm` and `translation_nm` place voxel centres in the world, one number an axis (1 and 0 for channels).
    `unsupported` says why chunks cannot be read, where they cannot.
    """

    path: str
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    dtype: str
    encoding: Encoding
    dimension_names: tuple[str, ...]
    scale_nm: tuple[float, ...]
    translation_nm: tuple[float, ...]
    voxel_offset_xyz: tuple[int, int, int]
    resolution_xyz: tuple[float, float, float]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fill_value: int = 0
    unsupported: str | None = None


@dataclass(frozen=True)
class Hierarchy:
    """A group: its arrays, finest first, which form one multiscale, its attributes, and the groups below it.

    Paths are counted from the root of the volume; the root's own is "".
    """

    name: str
    arrays: tuple[ArrayNode, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    groups: tuple[Hierarchy, ...] = ()

    def walk(self) -> Iterator[Hierarchy]:
        """The group itself and all below it, each before its own."""
        yield self
        for group in self.groups:
            yield from group.walk()

    @cached_property
    def arrays_by_path(self) -> Mapping[str, ArrayNode]:
        """Every array in this group and below it."""
        return {node.path: node for group in self.walk() for node in group.arrays}

    def array(self, path: str) -> ArrayNode | None:
        """The array at `path`, None where there is none."""
        return self.arrays_by_path.get(path)


@dataclass(frozen=True, slots=True)
class Presentation:
    """How a hierarchy is shown as zarr: format, axis order, chunks as stored (native) or re-encoded (portable)."""

    zarr_format: Literal[2, 3] = 3
    axes: Axes = "zyx"
    face: FaceName = "native"
    codec: PortableCodec = "zstd"

    def flip(self, along: tuple[Any, ...]) -> tuple[Any, ...]:
        """`along`, one item an axis, from stored order to shown order or back."""
        return along if self.axes == "zyx" else along[::-1]


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A volume to be made: `shape` in the order it is shown in, triples x, y, z. None leaves it to the format."""

    shape: tuple[int, ...]
    dtype: str | None = None
    type: str | None = None
    voxel_size: Sequence[float] | None = None
    units: str = "nanometers"
    offset: Sequence[int] = (0, 0, 0)
    block_size: Sequence[int] | None = None
    background: int | None = None
    scales: int = 1
    compression: str | None = None
