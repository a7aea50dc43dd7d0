"""What image and label types share: blocks, extents, resolution, metadata, boxes of voxels, roi masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.backends.dvid.answers import Crash, Panic, Refusal, Reply, as_json, octets, parse_json
from tests.backends.dvid.geometry import Box, Point, check_payload, parse_box
from tests.backends.dvid.instance import Call, Instance, Settings
from tests.backends.dvid.roi import Roi
from tests.backends.dvid.versions import Line, Node, Versioned

Array = npt.NDArray[Any]
Corners = tuple[Point, Point]
Source = Callable[[Point], Array | None]
UNIT = "nanometers"


def union(a: Corners | None, b: Corners) -> Corners:
    """The smallest box around two, inclusive corners."""
    if a is None:
        return b
    low, high = np.minimum(a[0], b[0]), np.maximum(a[1], b[1])
    return (int(low[0]), int(low[1]), int(low[2])), (int(high[0]), int(high[1]), int(high[2]))


class Voxels(Instance):
    """A volume of blocks.

    Emulated: extents belong to a version and are inherited; those given at creation or posted in another branch show
    where a version has none. They clip nothing. Missing blocks read 0.
    """

    dtype: np.dtype[Any] = np.dtype("u1")
    channels = 1
    values: Sequence[tuple[str, str]] = ()
    default_block = 32
    shows_extents = True
    extents_shared = False

    def __init__(self, name: str, typename: str, node: Node, settings: Settings) -> None:
        super().__init__(name, typename, node, settings)
        side = self.default_block
        self.block = settings.integers("blocksize", f"{side},{side},{side}")
        self.resolution = settings.floats("voxelsize", "8,8,8")
        self.units = settings.get("voxelunits", f"{UNIT},{UNIT},{UNIT}").split(",")
        self.background = settings.small("background")
        low, high = settings.corner("minpoint"), settings.corner("maxpoint")
        self.shared_extents: Corners | None = (low, high) if low and high else None
        self.extents: Versioned[str, Corners] = Versioned()
        self.endpoints |= {
            "metadata": self.metadata,
            "extents": self.post_extents,
            "resolution": self.post_resolution,
            "raw": self.raw,
        }

    # what it says about itself

    def corners(self, line: Line) -> Corners | None:
        """First and last voxel of a version's extents."""
        return self.extents.get("", line) or self.shared_extents

    def grow(self, line: Line, box: Box) -> None:
        """Extents after a write."""
        before = self.shared_extents if self.extents_shared else self.extents.get("", line)
        self.set_extents(line, union(before, (box.offset, box.last)))

    def set_extents(self, line: Line, corners: Corners) -> None:
        """Replace the extents of a version."""
        self.extents.put("", line, corners)
        self.shared_extents = corners

    def properties(self, line: Line) -> dict[str, Any]:
        """The part of `Extended` that `metadata` shows too."""
        low, high = self.corners(line) or (None, None)
        indexed = low and high and len(self.block) == 3
        return {
            "Values": [{"DataType": kind, "Label": label} for kind, label in self.values],
            "Interpolable": not self.extents_shared and self.typename != "labelblk",
            "BlockSize": self.block,
            "VoxelSize": self.resolution,
            "VoxelUnits": self.units,
            "MinPoint": low,
            "MaxPoint": high,
            "MinIndex": [n // b for n, b in zip(low, self.block, strict=True)] if indexed and low else None,
            "MaxIndex": [n // b for n, b in zip(high, self.block, strict=True)] if indexed and high else None,
            "Background": self.background,
            "GridStore": "",
            "ScaleLevel": 0,
        }

    def extended(self, line: Line) -> dict[str, Any]:
        return self.properties(line)

    def described(self, line: Line, *, whole_repo: bool = False) -> dict[str, Any]:
        shown = super().described(line, whole_repo=whole_repo)
        if self.shows_extents and not (whole_repo and self.typename == "labelarray"):
            low, high = self.corners(line if self.versioned else (0,)) or (None, None)
            shown["Extents"] = {"MinPoint": low, "MaxPoint": high}
        return shown

    def metadata(self, call: Call) -> Reply:
        """GET `metadata`: the axes, and the properties."""
        low, high = self.corners(self.line(call)) or ((0, 0, 0), (-1, -1, -1))
        axes = [
            {"Label": label, "Resolution": self.resolution[at], "Units": self.units[at]}
            | {"Size": high[at] - low[at] + 1, "Offset": low[at]}
            for at, label in enumerate("XYZ")
        ]
        shown = {"Axes": axes, "Properties": self.properties(self.line(call))}
        reply = as_json(shown, "application/vnd.dvid-nd-data+json")
        reply.body += b"\n"
        return reply

    def post_extents(self, call: Call) -> Reply:
        """POST `extents`: replaces; a missing corner is taken as 0,0,0."""
        given = parse_json(call.body, dict, "imageblk.extents3D")
        low, high = (given.get(corner, (0, 0, 0)) for corner in ("MinPoint", "MaxPoint"))
        self.set_extents(self.line(call), ((low[0], low[1], low[2]), (high[0], high[1], high[2])))
        return octets()

    def post_resolution(self, call: Call) -> Reply:
        """POST `resolution`: of the whole instance."""
        self.resolution = [float(n) for n in parse_json(call.body, list, "dvid.NdFloat32")]
        return octets()

    # boxes

    def raw(self, call: Call) -> Reply:
        """GET and POST `raw`."""
        if len(call.rest) < 3:
            raise Refusal('"raw" must be followed by shape/size/offset')
        box = parse_box(*call.rest[:3], empty=call.method == "POST")
        mask = self.mask(call)
        if call.method == "POST":
            if box.plane is not None:
                raise Refusal("DVID does not permit 2d mutations, only 3d block-aligned stores")
            self.post_box(call, box, mask)
            return octets()
        check_payload(box.voxels * self.channels * self.dtype.itemsize)
        if len(self.block) != 3:
            raise Panic(f"runtime error: index out of range [2] with length {len(self.block)}")
        return self.get_box(call, box, mask)

    def mask(self, call: Call) -> set[Point] | None:
        """Block indices of `roi=`, compared without regard to block sizes, as the server does."""
        name = call.option("roi")
        if not name:
            return None
        found = call.repo.instances.get(name)
        if not isinstance(found, Roi):
            raise Refusal(f'Can\'t get ROI with name "{name}": invalid data instance name')
        attenuation = call.option("attenuation")
        if attenuation and not 1 <= int(attenuation) <= 7:
            raise Refusal("Attenuation should be from 1 to 7 (divides by 2^n)")
        return found.blocks(found.line(call))

    def get_box(self, call: Call, box: Box, mask: set[Point] | None) -> Reply:
        """The answer to GET `raw`."""
        raise NotImplementedError

    def post_box(self, call: Call, box: Box, mask: set[Point] | None) -> None:
        """Take the body of POST `raw`."""
        raise NotImplementedError

    def read(self, box: Box, source: Source, mask: set[Point] | None = None) -> Array:
        """Voxels of a box: z, y, x(, c); Crash on a stored block of the wrong size."""
        tail = (self.channels,) if self.channels > 1 else ()
        out = np.zeros((*box.size[::-1], *tail), self.dtype)
        shape = (*self.block[::-1], *tail)
        for at in box.blocks(self.block):
            voxels = source(at)
            if voxels is None:
                continue
            if voxels.shape != shape:
                raise Crash(f"block {at} has shape {voxels.shape}, not {shape}")
            inside, outside = overlap(box, at, self.block)
            keep = mask is None or at in mask
            out[outside] = voxels[inside] if keep else background(self.background, self.dtype)
        return out


def background(byte: int, dtype: np.dtype[Any]) -> Any:
    """The value whose bytes all are the Background byte."""
    return np.frombuffer(bytes([byte]) * dtype.itemsize, dtype)[0]


def overlap(box: Box, at: Point, block: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a block meets a box: slices (z, y, x) into the block and into the box."""
    inside, outside = [], []
    for axis in (2, 1, 0):
        start = at[axis] * block[axis]
        low, high = max(start, box.offset[axis]), min(start + block[axis], box.stop[axis])
        inside.append(slice(low - start, high - start))
        outside.append(slice(low - box.offset[axis], high - box.offset[axis]))
    return tuple(inside), tuple(outside)


def pieces(box: Box, voxels: Array, block: Sequence[int]) -> list[tuple[Point, Array]]:
    """Whole blocks of an aligned box of voxels."""
    return [(at, voxels[overlap(box, at, block)[1]].copy()) for at in box.blocks(block)]
