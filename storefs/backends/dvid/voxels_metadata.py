"""The `metadata` document of a voxel instance, with the conveniences that pydvid's users know.

Axes are in the document's order with the channel first: `cxyz`. As there, `shape` holds stop coordinates, so that
`minindex` to `shape` is where voxels lie.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from storefs.backends.dvid.creating import InstanceSettings
from storefs.backends.dvid.info import IMAGE_TYPES
from storefs.errors import MetadataError

if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS = ("nanometers", "micrometers", "millimeters", "")
CHANNEL_LABELS = {1: ("intensity",), 4: ("red", "green", "blue", "alpha")}


class VoxelsMetadata(dict[str, Any]):
    """The document itself, `Axes` and `Properties`. Raises MetadataError where it makes no sense."""

    def __init__(self, document: object) -> None:
        if not isinstance(document, dict):
            raise MetadataError(f"metadata: expected an object, got {document!r}")
        super().__init__(copy.deepcopy(document))
        axes, properties = self.get("Axes"), self.get("Properties")
        if not isinstance(axes, list) or not axes or not all(_is_axis(axis) for axis in axes):
            raise MetadataError(f"metadata: Axes: expected objects with Label, Size and Offset, got {axes!r}")
        values = properties.get("Values") if isinstance(properties, dict) else None
        if not isinstance(values, list) or not values or not all(isinstance(value, dict) for value in values):
            raise MetadataError(f"metadata: Properties.Values: expected a list of objects, got {values!r}")
        if len({value.get("DataType") for value in values}) != 1:
            raise MetadataError(f"metadata: Properties.Values: channels of different types: {values!r}")

    @classmethod
    def from_json(cls, text: str | bytes) -> VoxelsMetadata:
        """The metadata in `text`. Raises MetadataError."""
        try:
            return cls(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise MetadataError(f"metadata is not readable: {error}") from error

    @classmethod
    def create_default_metadata(
        cls,
        shape: Sequence[int],
        dtype: Any,  # noqa: ANN401  # whatever numpy takes
        axiskeys: str,
        resolution: float | Sequence[float],
        units: str,
    ) -> VoxelsMetadata:
        """Metadata of `shape` (channels first), for creating an instance. Raises ValueError."""
        if not axiskeys.startswith("c") or len(axiskeys) != len(shape):
            raise ValueError(f"axiskeys and shape begin with the channel and are as long: got {axiskeys!r}, {shape}")
        if units not in UNITS:
            raise ValueError(f"units: expected one of {', '.join(UNITS[:-1])}, got {units!r}")
        steps = [resolution] * (len(shape) - 1) if isinstance(resolution, int | float) else list(resolution)
        axes = [
            {"Label": key.upper(), "Resolution": float(step), "Units": units, "Size": int(size), "Offset": 0}
            for key, step, size in zip(axiskeys[1:], steps, shape[1:], strict=True)
        ]
        labels = CHANNEL_LABELS.get(shape[0]) or tuple(f"channel{n}" for n in range(shape[0]))
        name = np.dtype(dtype).name
        values = [{"DataType": name, "Label": label} for label in labels]
        return cls({"Axes": axes, "Properties": {"Values": values}})

    def to_json(self) -> str:
        """The document as text."""
        return json.dumps(self)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Channels, then the voxel behind the last of each axis; None for an axis without any."""
        return (self.channels, *(axis["Offset"] + axis["Size"] if axis["Size"] else None for axis in self["Axes"]))

    @property
    def minindex(self) -> tuple[int, ...]:
        """0 for the channels, then the first voxel of each axis."""
        return (0, *(axis["Offset"] for axis in self["Axes"]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of a voxel's channel."""
        return np.dtype(str(self["Properties"]["Values"][0]["DataType"]))

    @property
    def axiskeys(self) -> str:
        """`c`, then the axes' labels in lower case."""
        return "c" + "".join(str(axis["Label"]).lower() for axis in self["Axes"])

    @property
    def channels(self) -> int:
        """How many channels a voxel has."""
        return len(self["Properties"]["Values"])

    @property
    def typename(self) -> str:
        """The data type of an instance that holds such voxels. Raises MetadataError where there is none."""
        if self.channels == len(CHANNEL_LABELS[4]) and self.dtype == np.uint8:
            return "rgba8blk"
        fitting = [name for name, dtype in IMAGE_TYPES.items() if dtype == self.dtype.name and name != "rgba8blk"]
        if self.channels != 1 or not fitting:
            raise MetadataError(f"no DVID type holds {self.channels} channels of {self.dtype}")
        return fitting[0]

    @property
    def settings(self) -> InstanceSettings:
        """Settings of an instance that holds such voxels: voxel_size and voxel_units."""
        axes = self["Axes"]
        return {
            "voxel_size": [axis.get("Resolution", 1.0) for axis in axes],
            "voxel_units": [axis.get("Units") or "nanometers" for axis in axes],
        }


def _is_axis(axis: object) -> bool:
    return isinstance(axis, dict) and "Label" in axis and all(isinstance(axis.get(k), int) for k in ("Size", "Offset"))
