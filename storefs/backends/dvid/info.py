"""A data instance's `info`, and the parts of a repo's that matter here, parsed once into frozen values.

Triples are x, y, z as DVID writes them. What is understood and what makes no sense follows the server's own rules.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from storefs.errors import MetadataError

Json = dict[str, Any]
Triple = tuple[int, int, int]

MAX_BLOCK_VOXELS = 1 << 30
MAX_SCALES = 32

IMAGE_TYPES: Mapping[str, str] = {
    "uint8blk": "uint8",
    "uint16blk": "uint16",
    "uint32blk": "uint32",
    "uint64blk": "uint64",
    "float32blk": "float32",
    "rgba8blk": "uint8",
}
LABEL_TYPES = ("labelmap", "labelarray", "labelblk")
SETTABLE_EXTENTS = (*IMAGE_TYPES, "labelmap")  # other labels have no such endpoint
NANOMETERS = {"nanometers": 1.0, "micrometers": 1e3, "millimeters": 1e6, "": 1.0}


@dataclass(frozen=True, slots=True)
class Instance:
    """One data instance at one version.

    `min_point` and `stop_point` (exclusive) bound the voxels said to be there, None where there are none;
    `voxel_size` is in nanometres.
    """

    name: str
    typename: str
    dtype: str
    channels: int
    block_size: Triple
    voxel_size: tuple[float, float, float]
    min_point: Triple | None
    stop_point: Triple | None
    compression: str
    checksum: bool
    max_scale: int
    grid_store: str
    versioned: bool
    document: Json

    @property
    def is_label(self) -> bool:
        """Whether voxels are labels (uint64)."""
        return self.typename in LABEL_TYPES


def is_voxels(typename: str) -> bool:
    """Whether instances of this type hold voxels."""
    return typename in IMAGE_TYPES or typename in LABEL_TYPES


def parse_json(data: bytes, what: str, url: str) -> Any:  # noqa: ANN401  # any JSON value
    """`data` as JSON, integers exact. Raises MetadataError."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"{what} is not JSON: {error}", url=url) from error


def parse_instance(document: object, url: str) -> Instance:
    """The voxel instance that `document` (GET info) describes. Raises MetadataError naming the key at fault."""
    return _Parser(url).instance(document)


class _Parser:
    def __init__(self, url: str) -> None:
        self.url = url

    def instance(self, document: object) -> Instance:
        if not isinstance(document, dict):
            self.fail("info", "expected an object")
        base, extended = self.child(document, "Base"), self.child(document, "Extended")
        typename = str(base.get("TypeName"))
        if not is_voxels(typename):
            self.fail("Base.TypeName", f"{typename} holds no voxels")
        block = self.triple(extended, "BlockSize", minimum=1)
        if math.prod(block) > MAX_BLOCK_VOXELS:
            self.fail("Extended.BlockSize", f"{block} is impossibly big")
        low = self.optional_triple(extended, "MinPoint")
        high = self.optional_triple(extended, "MaxPoint")
        grid_store = str(extended.get("GridStore") or "")
        stop = None
        if low is not None and high is not None:
            # a GridStore's MaxPoint is already the size
            stop = _plus(high, 0 if grid_store else 1)
            if any(s < m for s, m in zip(stop, low, strict=True)):
                self.fail("Extended.MaxPoint", f"{high} lies before MinPoint {low}")
        scale = extended.get("MaxDownresLevel", 0)
        if not isinstance(scale, int) or not 0 <= scale <= MAX_SCALES:
            self.fail("Extended.MaxDownresLevel", f"expected a small number, got {scale!r}")
        is_label = typename in LABEL_TYPES
        values = extended.get("Values")
        return Instance(
            name=str(base.get("Name")),
            typename=typename,
            dtype="uint64" if is_label else IMAGE_TYPES[typename],
            channels=len(values) if typename == "rgba8blk" and isinstance(values, list) else 1,
            block_size=block,
            voxel_size=self.voxel_size(extended),
            min_point=low if stop else None,
            stop_point=stop,
            compression=str(base.get("Compression") or "").split(" ")[0].lower().rstrip(","),
            checksum=not str(base.get("Checksum") or "No").startswith("No"),
            max_scale=scale if typename in ("labelmap", "labelarray") else 0,
            grid_store=grid_store,
            versioned=bool(base.get("Versioned", True)),
            document=document,
        )

    def voxel_size(self, extended: Json) -> tuple[float, float, float]:
        size = extended.get("VoxelSize") or [8.0, 8.0, 8.0]
        units = extended.get("VoxelUnits") or ["nanometers"] * 3
        if not isinstance(size, list) or len(size) < 3 or not all(isinstance(n, int | float) for n in size):  # noqa: PLR2004  # x, y and z
            self.fail("Extended.VoxelSize", f"expected three numbers, got {size!r}")
        if not isinstance(units, list) or len(units) < 3:  # noqa: PLR2004  # x, y and z
            self.fail("Extended.VoxelUnits", f"expected three units, got {units!r}")
        x, y, z = (float(n) * self.nanometers(str(u)) for n, u in zip(size[:3], units[:3], strict=True))
        if not all(math.isfinite(n) and n > 0 for n in (x, y, z)):
            self.fail("Extended.VoxelSize", f"expected three positive numbers, got {size!r}")
        return x, y, z

    def nanometers(self, unit: str) -> float:
        if unit.lower() not in NANOMETERS:
            self.fail("Extended.VoxelUnits", f"expected one of {', '.join(u for u in NANOMETERS if u)}, got {unit!r}")
        return NANOMETERS[unit.lower()]

    def child(self, document: Json, key: str) -> Json:
        value = document.get(key)
        if not isinstance(value, dict):
            self.fail(key, f"expected an object, got {value!r}")
        return value

    def triple(self, document: Json, key: str, minimum: int = -(1 << 31)) -> Triple:
        value = document.get(key)
        if not isinstance(value, list) or len(value) != 3 or not all(_is_integer(n) and n >= minimum for n in value):  # noqa: PLR2004  # x, y and z
            self.fail(f"Extended.{key}", f"expected three whole numbers, got {value!r}")
        x, y, z = value
        return x, y, z

    def optional_triple(self, document: Json, key: str) -> Triple | None:
        return None if document.get(key) is None else self.triple(document, key)

    def fail(self, key: str, problem: str) -> NoReturn:
        raise MetadataError(f"info: {key}: {problem}", url=self.url)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plus(point: Triple, more: int) -> Triple:
    x, y, z = point
    return x + more, y + more, z + more
