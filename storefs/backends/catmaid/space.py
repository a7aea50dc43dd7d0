"""Space: project, stack and scaled coordinates of a stack, and the way from each to the others.

    project   nanometres, in the project's axes
    stack     voxels of level 0, in the stack's axes: x along a tile's rows, y down its columns, z from tile to tile
    scaled    voxels of a level, in the stack's axes

Positions are those of corners: voxel k reaches from k to k + 1. Nothing is flipped, rotated or shifted by half a
voxel. Resolution and factors are the stack's, along its own axes; the translation is the project's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from storefs.backends.catmaid.info import ORIENTATIONS, StackInfo, parse_stack_info
from storefs.backends.catmaid.levels import levels_of

Order = Literal["xyz", "zyx"]
SpaceName = Literal["project", "stack", "scaled"]
Points = npt.ArrayLike
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Factors = tuple[float, float, float]

SPACES = ("project", "stack", "scaled")
# the project axis that each stack axis x, y, z lies along; each of these is its own inverse
PROJECT_AXES = ((0, 1, 2), (0, 2, 1), (2, 1, 0))
_LARGEST = 2.0**62


@dataclass(frozen=True, slots=True)
class Space:
    """Where a stack lies in its project, and its levels in the stack; triples are x, y, z.

    `resolution_xyz` (nm a voxel) and `factors_xyz` (one triple a level) are along the stack's axes, `translation_xyz`
    (nm) along the project's. `orientation` is 0 (xy), 1 (xz) or 2 (zy). `dimension_xyz` bounds `slice_shown`.
    `catpy_axes` takes the resolution for one along the project's axes, as catpy and pymaid do; it makes a difference
    only for xz and zy stacks of unequal resolution.
    """

    resolution_xyz: tuple[float, float, float] = (1.0, 1.0, 1.0)
    translation_xyz: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: int = 0
    factors_xyz: tuple[Factors, ...] = ((1.0, 1.0, 1.0),)
    dimension_xyz: tuple[int, int, int] | None = None
    catpy_axes: bool = False

    def __post_init__(self) -> None:
        if self.orientation not in range(len(ORIENTATIONS)):
            raise ValueError(f"expected orientation 0 (xy), 1 (xz) or 2 (zy), got {self.orientation!r}")

    @classmethod
    def from_stack_info(
        cls, info: StackInfo | Mapping[str, Any], url: str = "catmaid://tiles", *, catpy_axes: bool = False
    ) -> Space:
        """The space of the stack that `info` describes: a server's answer, parsed or not. Raises MetadataError."""
        parsed = info if isinstance(info, StackInfo) else parse_stack_info(dict(info), url)
        factors = {level.number: level.factor_xyz for level in levels_of(parsed)}
        return cls(
            resolution_xyz=parsed.resolution_xyz,
            translation_xyz=parsed.translation_xyz,
            orientation=parsed.orientation,
            # a level too small for a pixel may stand between others
            factors_xyz=tuple(factors.get(number, (1, 1, 1)) for number in range(max(factors) + 1)),
            dimension_xyz=parsed.dimension_xyz,
            catpy_axes=catpy_axes,
        )

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], *, catpy_axes: bool = False) -> Space:
        """The space of the stack whose group or array has these `attributes`: `array.attrs`.

        Raises ValueError where they are not those of a stack.
        """
        about = attributes.get("storefs", attributes)
        told = about.get("space") if isinstance(about, Mapping) else None
        if not isinstance(told, Mapping):
            raise ValueError("expected the attributes of a stack's group or array, which have a `space`")  # noqa: TRY004  # the value
        return cls(
            resolution_xyz=_three(told["resolution_xyz"]),
            translation_xyz=_three(told["translation_xyz"]),
            orientation=told["orientation"],
            factors_xyz=tuple(_three(factor) for factor in told["factors_xyz"]),
            dimension_xyz=None if told["dimension_xyz"] is None else _three(told["dimension_xyz"]),
            catpy_axes=catpy_axes,
        )

    def as_attributes(self) -> dict[str, Any]:
        """What `from_attributes` wants, ready for JSON."""
        return {
            "resolution_xyz": list(self.resolution_xyz),
            "translation_xyz": list(self.translation_xyz),
            "orientation": self.orientation,
            "factors_xyz": [list(factor) for factor in self.factors_xyz],
            "dimension_xyz": None if self.dimension_xyz is None else list(self.dimension_xyz),
        }

    @property
    def orientation_name(self) -> str:
        """The plane of a tile, as "xy"."""
        return ORIENTATIONS[self.orientation]

    # points: (…, 3) in, (…, 3) out, float64, along the axes that `order` says

    def project_to_stack(self, points: Points, order: Order = "xyz") -> FloatArray:
        """Stack voxels (float) of project positions in nm. Raises ValueError where a resolution is 0."""
        project = _columns(points, order)
        along = list(PROJECT_AXES[self.orientation])
        step = self._step()
        if not step.all():
            raise ValueError(f"the stack's resolution is {self.resolution_xyz}: 0 nm a voxel cannot be divided by")
        return _ordered((project - self._translation())[..., along] / step[along], order)

    def stack_to_project(self, points: Points, order: Order = "xyz") -> FloatArray:
        """Project positions in nm of stack voxels (of their corners)."""
        stack = _columns(points, order)
        along = list(PROJECT_AXES[self.orientation])
        return _ordered(stack[..., along] * self._step() + self._translation(), order)

    def stack_to_scaled(self, points: Points, level: int = 0, order: Order = "xyz") -> FloatArray:
        """Voxels (float) of `level` of stack voxels. Raises IndexError for a level that is not there."""
        return _ordered(_columns(points, order) / self._factor(level), order)

    def scaled_to_stack(self, points: Points, level: int = 0, order: Order = "xyz") -> FloatArray:
        """Stack voxels of voxels of `level`. Raises IndexError for a level that is not there."""
        return _ordered(_columns(points, order) * self._factor(level), order)

    def project_to_scaled(self, points: Points, level: int = 0, order: Order = "xyz") -> FloatArray:
        """Voxels (float) of `level` of project positions in nm. Raises IndexError, ValueError."""
        return self.stack_to_scaled(self.project_to_stack(points, order), level, order)

    def scaled_to_project(self, points: Points, level: int = 0, order: Order = "xyz") -> FloatArray:
        """Project positions in nm of voxels of `level`. Raises IndexError."""
        return self.stack_to_project(self.scaled_to_stack(points, level, order), order)

    def slice_shown(self, points: Points, order: Order = "xyz") -> IntArray:
        """Level-0 slice that CATMAID's viewer shows at project positions: (…), inside the stack.

        Rounded down after a nudge of one part in 2^52, so that a position made of a slice's number gives that slice.
        """
        project = _columns(points, order)
        nudge = project[..., PROJECT_AXES[self.orientation][2]] * sys.float_info.epsilon
        found = np.floor(self.project_to_stack(project)[..., 2] + nudge)
        if self.dimension_xyz is not None:
            found = np.clip(found, 0, max(0, self.dimension_xyz[2] - 1))
        return _whole(found)

    # boxes

    def box(self, roi: Points, space: SpaceName = "stack", level: int = 0, order: Order = "zyx") -> IntArray:
        """The voxels of `level` that `roi` touches: (2, 3), start and stop, along the axes that `order` says.

        `roi` is (2, 3), lower and upper (exclusive) corner in `space`; whole and floating numbers give the same.
        Lower corners are rounded down, upper ones up; start and stop may lie outside of the stack. Raises ValueError
        for what is no box, IndexError for a level that is not there.
        """
        corners = _columns(roi, order)
        if corners.shape != (2, 3):
            raise ValueError(f"expected a lower and an upper corner, shape (2, 3), got {corners.shape}")
        if not (corners[0] <= corners[1]).all():
            raise ValueError(f"the lower corner lies behind the upper ({order}): {np.asarray(roi).tolist()}")
        if space not in SPACES:
            raise ValueError(f"expected one of {', '.join(SPACES)}, got {space!r}")
        if space == "project":
            corners = self.project_to_stack(corners)
        if space != "scaled":
            corners = self.stack_to_scaled(corners, level)
        return _ordered(_whole(np.stack([np.floor(corners[0]), np.ceil(corners[1])])), order)

    def _step(self) -> FloatArray:
        """Nanometres a voxel along the project's axes."""
        along = range(3) if self.catpy_axes else PROJECT_AXES[self.orientation]
        return np.array([self.resolution_xyz[axis] for axis in along], np.float64)

    def _translation(self) -> FloatArray:
        return np.array(self.translation_xyz, np.float64)

    def _factor(self, level: int) -> FloatArray:
        if not 0 <= level < len(self.factors_xyz):
            raise IndexError(f"no level {level!r}; the stack has levels 0 to {len(self.factors_xyz) - 1}")
        return np.array(self.factors_xyz[level], np.float64)


def _three(values: Sequence[Any]) -> tuple[Any, Any, Any]:
    x, y, z = values
    return x, y, z


def _columns(points: Points, order: Order) -> FloatArray:
    """`points` as float64, columns x, y, z: whole numbers would be cut where they are divided."""
    array = np.asarray(points, np.float64)
    if array.ndim == 0 or array.shape[-1] != 3:  # noqa: PLR2004  # x, y and z
        raise ValueError(f"expected three numbers a point, shape (…, 3), got {array.shape}")
    return _ordered(array, order)


def _ordered(array: npt.NDArray[Any], order: Order) -> npt.NDArray[Any]:
    """`array`, columns x, y, z, with columns as `order` says; or back."""
    if order not in ("xyz", "zyx"):
        raise ValueError(f"expected order 'xyz' or 'zyx', got {order!r}")
    return array if order == "xyz" else array[..., ::-1]


def _whole(numbers: FloatArray) -> IntArray:
    if not (np.abs(numbers) < _LARGEST).all():
        raise ValueError(f"expected finite numbers of voxels, got {numbers.tolist()}")
    return numbers.astype(np.int64)
