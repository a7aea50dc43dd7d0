"""Mirrors whose pixels lie in a volume of another format: its arrays seen as levels of the stack. Pure.

    type 6    DVID image blocks          dvid://server/uuid/name, at full resolution only
    type 8    DVID imagetile             dvid://server/uuid/name, the tiles of the stack's plane
    type 13   read by CATMAID's server   precomputed://…
    type 14   read by the browser        precomputed://…

A level is a permutation of an array's axes and an offset. Voxels are read as boxes of that array, in chunks that are
its chunks permuted, so that what is aligned is fetched and decoded once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storefs.backends.catmaid.tile_sources import without_secrets
from storefs.errors import MetadataError, Unsupported
from storefs.model import Encoding
from storefs.plans import Volume, VolumeBox

if TYPE_CHECKING:
    from storefs.backends.catmaid.info import Mirror, StackInfo, Triple
    from storefs.backends.catmaid.levels import Level
    from storefs.backends.catmaid.reading import Reading
    from storefs.model import ArrayNode, Hierarchy
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

DVID_BLOCKS, DVID_TILES, BY_SERVER, BY_BROWSER = 6, 8, 13, 14
SCALE_TOKEN = "%SCALE_DATASET%"  # noqa: S105  # part of a template
IDENTITY = (0, 1, 2)

# by orientation: DVID's plane, as a pair of axes and as letters, and its axis along the stack's x, y, z
_PLANES = (("0_1", "xy", (0, 1, 2)), ("0_2", "xz", (0, 2, 1)), ("1_2", "yz", (2, 1, 0)))
_DVID = re.compile(r"(https?://[^/?#]+)/api/node/([^/?#]+)/([^/?#]+)/(?:raw/([0-9_]+)|(tile))/?")
_AXES = re.compile(r"(.+)/([0-2])_([0-2])_([0-2])/?")
_PRECOMPUTED = "precomputed://"
_PLACES = ("https://", "http://", "gs://", "s3://", "file://")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The volume that holds a mirror's pixels, and how it lies in the stack.

    `axes_xyz` are the volume's axes (0 x, 1 y, 2 z) along the stack's x, y, z. Along axes that are `absolute` the
    stack counts as the volume does; along the others it begins where the array begins. `group` holds the arrays.
    """

    url: str
    axes_xyz: Triple = IDENTITY
    absolute: tuple[bool, bool, bool] = (False, False, False)
    group: str = ""
    finest_only: bool = False


def volume_of(mirror: Mirror, orientation: int) -> Elsewhere | None:
    """The volume behind `mirror`; None for mirrors of tiles, and where the address cannot be read as one."""
    if mirror.tile_source_type in (DVID_BLOCKS, DVID_TILES):
        return _in_dvid(mirror, orientation)
    if mirror.tile_source_type == BY_SERVER:
        base = mirror.image_base.removeprefix(_PRECOMPUTED)
        # the server adds the volume's offset to x and y, not to z; a file would be one of the server's
        return None if base.startswith("file:") else _precomputed(base, IDENTITY, (False, False, True))
    if mirror.tile_source_type == BY_BROWSER:
        base, axes = split_axes(mirror.image_base)
        base = base.removeprefix(_PRECOMPUTED).partition(f"/{SCALE_TOKEN}")[0]
        return None if axes is None else _precomputed(base, axes, (False, False, False))
    return None


def _in_dvid(mirror: Mirror, orientation: int) -> Elsewhere | None:
    pair, letters, axes = _PLANES[orientation]
    found = _DVID.fullmatch(mirror.image_base)
    if found is None:
        return None
    server, uuid, name, asked_pair, tiles = found.groups()
    if (mirror.tile_source_type == DVID_TILES) != bool(tiles) or asked_pair not in (None, pair):
        return None
    url = f"dvid://{server}/{uuid}/{name}"
    return Elsewhere(url, axes, (True, True, True), letters if tiles else "", finest_only=not tiles)


def _precomputed(base: str, axes: Triple, absolute: tuple[bool, bool, bool]) -> Elsewhere | None:
    reachable = base.startswith(_PLACES) and "%" not in base
    return Elsewhere(_PRECOMPUTED + base.rstrip("/"), axes, absolute) if reachable else None


def split_axes(template: str) -> tuple[str, Triple | None]:
    """`template` without its last part "a_b_c", and that: the dimensions along the stack's x, y, z."""
    found = _AXES.fullmatch(template)
    if found is None:
        return template, None
    base, x, y, z = found[1], int(found[2]), int(found[3]), int(found[4])
    return base, (x, y, z) if {x, y, z} == {0, 1, 2} else None


@dataclass(frozen=True, slots=True)
class View:
    """One level as seen in `node`, an array of the volume at `url`.

    `first_xyz` is where in that array, along its own axes, the level's first voxel lies. `in_parts` says that less than
    a chunk can be had for less.
    """

    url: str
    node: ArrayNode
    axes_xyz: Triple
    first_xyz: Triple
    in_parts: bool = False

    @property
    def encoding(self) -> Encoding:
        """How chunks are handed on: decoded."""
        return Encoding("raw")

    @property
    def dtype(self) -> str:
        """Data type of the voxels."""
        return self.node.dtype

    @property
    def channels(self) -> tuple[int, ...]:
        """The shape in front of z, y, x: the number of channels where the array has several."""
        return self.node.shape[:-3]

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """The array's chunks along the stack's axes, zyx or czyx."""
        x, y, z = (self.node.chunk_shape[-1 - axis] for axis in self.axes_xyz)
        return (*self.channels, z, y, x)

    @property
    def size_zyx(self) -> tuple[int, ...]:
        """The array's, along the stack's axes."""
        x, y, z = (self.node.shape[-1 - axis] for axis in self.axes_xyz)
        return z, y, x

    @property
    def attributes(self) -> Mapping[str, object]:
        """Where the voxels come from."""
        return {
            "volume": self.url,
            "volume_array": self.node.path,
            "volume_axes": "".join("xyz"[axis] for axis in self.axes_xyz),
            "volume_first_xyz": list(self.first_xyz),
        }

    def read(self, start: tuple[int, ...], stop: tuple[int, ...], fill_value: int = 0) -> Plan[Array | None]:
        """Voxels of the level from `start` to `stop` (zyx or czyx), None where there are none.

        Raises StorefsError, DecodeError.
        """
        low, high = [0, 0, 0], [0, 0, 0]
        for along, axis in enumerate(self.axes_xyz):
            low[axis] = start[-1 - along] + self.first_xyz[axis]
            high[axis] = stop[-1 - along] + self.first_xyz[axis]
        leading = len(self.channels)
        box = VolumeBox(
            self.url, self.node.path, (*start[:leading], *low[::-1]), (*stop[:leading], *high[::-1]), fill_value
        )
        voxels: Array | None = yield box
        if voxels is None:
            return None
        order = [leading + 2 - axis for axis in self.axes_xyz[::-1]]
        return voxels.transpose([*range(leading), *order])


def find_views(
    mirror: Mirror, info: StackInfo, levels: tuple[Level, ...], _reading: Reading
) -> Plan[dict[int, View] | None]:
    """The levels of `mirror` as views, by level number; None where its pixels come as tiles.

    Asking for what the volume looks like is also the proof that it can be reached. Raises StorefsError.
    """
    place = volume_of(mirror, info.orientation)
    if place is None and mirror.tile_source_type == BY_BROWSER:
        shown = without_secrets(mirror.image_base)
        raise MetadataError(f"{shown}: expected gs://… or https://… that ends in the order of axes, such as /0_1_2")
    if place is None:
        return None
    hierarchy: Hierarchy = yield Volume(place.url)
    arrays = _arrays(hierarchy, place)
    views = {
        level.number: _view(place, arrays[level.number], in_parts=mirror.tile_source_type == DVID_BLOCKS)
        for level in levels
        if level.number in arrays
    }
    if not views:
        raise MetadataError("the volume has none of the stack's levels", url=place.url)
    reason = next((view.node.unsupported for view in views.values() if view.node.unsupported), None)
    if reason:
        raise Unsupported(reason, url=place.url)
    return views


def _arrays(hierarchy: Hierarchy, place: Elsewhere) -> dict[int, ArrayNode]:
    """The volume's arrays by number of level."""
    group = next((group for group in hierarchy.walk() if group.path == place.group), None)
    if group is None:
        raise MetadataError(f"the volume has no group {place.group!r}", url=place.url)
    arrays = group.arrays[:1] if place.finest_only else group.arrays
    if place.group:
        return {int(node.attributes["scale"]): node for node in arrays}
    return dict(enumerate(arrays))


def _view(place: Elsewhere, node: ArrayNode, *, in_parts: bool) -> View:
    x, y, z = (-o if absolute else 0 for o, absolute in zip(node.voxel_offset_xyz, place.absolute, strict=True))
    return View(place.url, node, place.axes_xyz, (x, y, z), in_parts)
