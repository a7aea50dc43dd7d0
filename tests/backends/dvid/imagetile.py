"""The imagetile type: tiles that were posted, or generated from an image as the server's `generate` command does.

A generated tile is the plane of the source at full-resolution slices, each level the floor of the mean of 2x2 pixels
of the one before. Stored blank tiles reach over the first ten tiles of each axis, about as far as the server's do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.backends.dvid import images
from tests.backends.dvid.answers import NotEmulated, Refusal, Reply, as_json, not_found, octets, parse_json
from tests.backends.dvid.geometry import PLANES, Box, Point, integer, parse_box, point
from tests.backends.dvid.imageblk import ImageBlk
from tests.backends.dvid.instance import Call, Instance, Settings
from tests.backends.dvid.versions import Line, Node, Versioned

ENCODINGS = {"lz4": 0, "png": 1, "jpg": 2}
STORED_TILES = 10
NORMAL = {(0, 1): 2, (0, 2): 1, (1, 2): 0}


class ImageTile(Instance):
    """Tiles of three planes at several levels."""

    def __init__(self, name: str, typename: str, node: Node, settings: Settings) -> None:
        super().__init__(name, typename, node, settings)
        self.source, self.encoding = settings.get("source"), ENCODINGS[settings.get("format", "png")]
        self._metadata: dict[str, Any] | None = None
        self._tiles: Versioned[tuple[tuple[int, int], int, Point], bytes] = Versioned()
        self._generated = False
        self.endpoints |= {"metadata": self.metadata, "tile": self.tile, "tilekey": self.tile_key, "raw": self.raw}

    def generate(self, levels: dict[str, dict[str, list[float]]]) -> None:
        """What the command does: `levels` as in the metadata, by number as text."""
        self._metadata = {"MinTileCoord": [0, 0, 0], "MaxTileCoord": [0, 0, 0], "Levels": levels}
        self._generated = True

    def extended(self, line: Line) -> dict[str, Any]:
        known = self._metadata or {"MinTileCoord": [0, 0, 0], "MaxTileCoord": [0, 0, 0], "Levels": None}
        return {"Source": self.source, **known, "Placeholder": False, "Encoding": self.encoding, "Quality": 0}

    def metadata(self, call: Call) -> Reply:
        """GET and POST `metadata`."""
        if call.method == "POST":
            self._metadata = parse_json(call.body, dict, "imagetile.metadataJSON")
            return octets()
        if self._metadata is None:
            raise Refusal(f'tile metadata for imagetile "{self.name}" was not set\n')
        return as_json(self._metadata)

    def _place(self, call: Call) -> tuple[tuple[int, int], int, Point]:
        if len(call.rest) < 3 or call.rest[0] not in PLANES:
            raise Refusal("'tile' request must be followed by plane, scale level, and tile coordinate")
        level = integer(call.rest[1], by="Atoi")
        if len(call.rest[2].split("_")) != 3:
            raise Refusal("Can't get 2D size from a non-2D shape: Unknown shape")
        if str(level) not in (self._metadata or {}).get("Levels", {}):
            raise Refusal(f"Could not extract tiles for unspecified scale level {level}")
        return PLANES[call.rest[0]], level, point(call.rest[2])

    def tile(self, call: Call) -> Reply:
        """GET and POST `tile/plane/level/x_y_z`; a missing tile is blank, or 404 with `noblanks=true`."""
        plane, level, at = self._place(call)
        line = self.line(call)
        if call.method == "POST":
            self._tiles.put((plane, level, at), line, call.body)
            return octets()
        posted = self._tiles.get((plane, level, at), line)
        form = "jpg" if self.encoding == ENCODINGS["jpg"] else "png"
        if posted is not None:
            return Reply(body=posted, headers={"Content-Type": "image/jpeg" if form == "jpg" else "image/png"})
        if self._generated and all(0 <= at[axis] < STORED_TILES for axis in plane):
            return images.as_image(self._pixels(call, plane, level, at), form)
        if call.flag("noblanks"):
            raise not_found()
        return images.as_image(np.zeros(self._size(plane, level)[::-1], np.uint8), "png")

    def _size(self, plane: tuple[int, int], level: int) -> list[int]:
        assert self._metadata is not None
        sides = self._metadata["Levels"][str(level)]["TileSize"]
        return [int(sides[axis]) for axis in plane]

    def _pixels(self, call: Call, plane: tuple[int, int], level: int, at: Point) -> Any:
        source = call.repo.instances[self.source]
        assert isinstance(source, ImageBlk)
        offset, size = list(at), [1, 1, 1]
        for axis, side in zip(plane, self._size(plane, level), strict=True):
            size[axis] = side << level
            offset[axis] = at[axis] * size[axis]
        box = Box((offset[0], offset[1], offset[2]), (size[0], size[1], size[2]), plane)
        pixels = source.read(box, source.source(source.line(call))).reshape(size[plane[1]], size[plane[0]])
        for _ in range(level):
            rows, columns = (side // 2 for side in pixels.shape)
            pixels = pixels.reshape(rows, 2, columns, 2).sum(axis=(1, 3), dtype=np.uint32) // 4
        return pixels.astype(np.uint8)

    def tile_key(self, call: Call) -> Reply:
        """GET `tilekey`: made up, but for the shape."""
        plane, level, at = self._place(call)
        return as_json({"key": f"{plane[0]}{plane[1]}{level:02x}" + "".join(f"{n & 0xFFFFFFFF:08x}" for n in at)})

    def raw(self, call: Call) -> Reply:
        """GET `raw` of a plane: stitched from the finest tiles, which is the source itself."""
        box = parse_box(*call.rest[:3])
        source = call.repo.instances[self.source]
        if box.plane is None or not isinstance(source, ImageBlk):
            raise NotEmulated("tiles of this kind")
        pixels = source.read(box, source.source(source.line(call)))
        return images.as_image(pixels.reshape(box.size[box.plane[1]], box.size[box.plane[0]]), "png")
