"""Pyramids of image tiles (imagetile): single tiles, and their metadata.

A tile is named by plane, scale and a coordinate x, y, z: within the plane in tiles, along its normal in voxels of the
finest scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storefs.backends.dvid import calls
from storefs.backends.dvid.part import Part, ask, asked
from storefs.backends.dvid.planes import DIMS, Plane
from storefs.errors import MetadataError
from storefs.plans import Call
from storefs_codecs.jpeg import Jpeg
from storefs_codecs.png import Png

if TYPE_CHECKING:
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

Triple = tuple[int, int, int]

PLANE_AXES: Mapping[str, tuple[int, int]] = {"xy": (0, 1), "xz": (0, 2), "yz": (1, 2)}
NORMAL: Mapping[str, int] = {"xy": 2, "xz": 1, "yz": 0}
_ABSENT = 404
_LARGEST_TILE = 1 << 14
_MOST_LEVELS = 32


@dataclass(frozen=True, slots=True)
class TileLevel:
    """One scale of a pyramid: voxel size and tile size, x, y, z."""

    scale: int
    resolution: tuple[float, float, float]
    tile_size: Triple

    def image_size(self, plane: str) -> tuple[int, int]:
        """Width and height of a tile."""
        across, down = PLANE_AXES[plane]
        return self.tile_size[across], self.tile_size[down]


class Tiles(Part):
    """imagetile instances."""

    @asked
    def metadata(self, uuid: str, name: str) -> Plan[dict[str, Any]]:
        """`MinTileCoord`, `MaxTileCoord` and `Levels`, each with `Resolution` and `TileSize`."""
        return (yield from self._ask_json(Call(calls.node(uuid, name, "metadata"))))  # type: ignore[no-any-return]  # JSON

    @asked
    def set_metadata(self, uuid: str, name: str, metadata: Mapping[str, Any]) -> Plan[None]:
        """Replace the metadata."""
        parse_levels(metadata, self._connection.url)
        yield from self._post_json(calls.node(uuid, name, "metadata"), dict(metadata))

    @asked
    def read(self, uuid: str, name: str, plane: Plane, scale: int, tile_xyz: Sequence[int]) -> Plan[Array | None]:
        """A tile's pixels (uint8; rows are the plane's second axis), None where it is not stored.

        Raises ValueError, DecodeError.
        """
        document = yield from self._ask_json(Call(calls.node(uuid, name, "metadata")))
        levels = {level.scale: level for level in parse_levels(document, self._connection.url)}
        if plane not in DIMS or scale not in levels:
            raise ValueError(f"{name} has planes {', '.join(DIMS)} and scales {sorted(levels)}, not {plane} {scale}")
        x, y, z = (int(n) for n in tile_xyz)
        return (yield from read_tile(self._connection.url, uuid, name, plane, levels[scale], (x, y, z)))

    @asked
    def write(
        self, uuid: str, name: str, plane: Plane, scale: int, tile_xyz: Sequence[int], image: bytes
    ) -> Plan[None]:
        """Store a tile: the bytes of a PNG or JPEG, of the instance's encoding and tile size."""
        path = calls.node(uuid, name, "tile", plane, str(scale), calls.text(tuple(int(n) for n in tile_xyz)))
        yield from self._ask(Call(path, method="POST", body=image))


def read_tile(url: str, uuid: str, name: str, plane: str, level: TileLevel, tile_xyz: Triple) -> Plan[Array | None]:
    """A tile's pixels (height, width), uint8; None where it is not stored. Raises DecodeError, TransportError."""
    path = calls.node(uuid, name, "tile", plane, str(level.scale), calls.text(tile_xyz))
    width, height = level.image_size(plane)
    call = Call(path, (("noblanks", "true"),), limit=4 * width * height + (1 << 16))
    reply = yield from ask(call, url, {calls.OK, _ABSENT})
    if reply.status == _ABSENT:
        return None
    kind = Jpeg if reply.data[:2] == b"\xff\xd8" else Png
    pixels: Array = kind((1, height, width), "uint8").decode_chunk(reply.data)[0]
    return pixels


def parse_levels(document: object, url: str) -> list[TileLevel]:
    """The scales in an imagetile's metadata, finest first. Raises MetadataError."""
    levels = document.get("Levels") if isinstance(document, Mapping) else None
    if not isinstance(levels, Mapping) or not 0 < len(levels) <= _MOST_LEVELS:
        raise MetadataError(f"metadata: Levels: expected an object, got {levels!r}", url=url)
    found = []
    for key, item in levels.items():
        if not str(key).isdecimal() or not isinstance(item, Mapping):
            raise MetadataError(f"metadata: Levels.{key}: expected a number and an object", url=url)
        step, side = item.get("Resolution"), item.get("TileSize")
        if not _numbers(step, 1e-9, 1e12) or not _numbers(side, 1, _LARGEST_TILE):
            raise MetadataError(f"metadata: Levels.{key}: Resolution {step!r}, TileSize {side!r}", url=url)
        found.append(TileLevel(int(key), tuple(map(float, step)), tuple(map(int, side))))  # type: ignore[arg-type]  # checked
    return sorted(found, key=lambda level: level.scale)


def _numbers(value: object, least: float, most: float) -> bool:
    if not isinstance(value, list) or len(value) != 3:  # noqa: PLR2004  # x, y and z
        return False
    return all(isinstance(n, int | float) and not isinstance(n, bool) and least <= n <= most for n in value)
