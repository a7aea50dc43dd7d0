"""The image types: uint8blk, uint16blk, uint32blk, uint64blk, float32blk, rgba8blk.

Emulated: raw volumes and planes, 3-D JPEG, `blocks`, `specificblocks`, `subvolblocks` in every stored form, roi
masks, isotropic and arb (nearest voxel). POST `blocks` of wide voxels stores half blocks that later end the server.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from tests.backends.dvid import images
from tests.backends.dvid.answers import Panic, Refusal, Reply, octets
from tests.backends.dvid.geometry import Box, Point, add, block_list, block_point, integer, parse_box, shown
from tests.backends.dvid.instance import Call, Settings
from tests.backends.dvid.slicing import arb_plane, isotropic
from tests.backends.dvid.versions import Line, Node, Versioned
from tests.backends.dvid.voxels import Array, Source, Voxels, pieces
from tests.backends.dvid.wire import gzip_member, lz4_compress, records, snappy_compress

KINDS = {
    "uint8blk": ("u1", [("uint8", "uint8")]),
    "uint16blk": ("<u2", [("uint16", "uint16")]),
    "uint32blk": ("<u4", [("uint32", "uint32")]),
    "uint64blk": ("<u8", [("uint64", "uint64")]),
    "float32blk": ("<f4", [("float32", "float32")]),
    "rgba8blk": ("u1", [("uint8", colour) for colour in ("red", "green", "blue", "alpha")]),
}


@dataclass
class Block:
    """A stored block; `short` holds the bytes of one that was stored half, `served` the stored form once made."""

    voxels: Array
    jpeg: bytes = b""
    short: bytes | None = None
    served: bytes = b""

    @property
    def content(self) -> bytes:
        """Its bytes without compression."""
        return self.voxels.tobytes() if self.short is None else self.short


class ImageBlk(Voxels):
    """Blocks of an image."""

    def __init__(self, name: str, typename: str, node: Node, settings: Settings) -> None:
        code, self.values = KINDS[typename]
        self.dtype, self.channels = np.dtype(code), len(self.values)
        super().__init__(name, typename, node, settings)
        self.blocks: Versioned[Point, Block] = Versioned()
        self.endpoints |= {
            "blocks": self.block_row,
            "specificblocks": self.specific_blocks,
            "subvolblocks": self.subvol_blocks,
            "isotropic": self.isotropic,
            "arb": self.arb,
            "rawkey": lambda call: Reply(),
        }

    def source(self, line: Line) -> Source:
        """Voxels of stored blocks by coordinate."""

        def voxels(at: Point) -> Array | None:
            block = self.blocks.get(at, line)
            if block is None:
                return None
            return block.voxels if block.short is None else np.frombuffer(block.short, np.uint8)

        return voxels

    # raw

    def get_box(self, call: Call, box: Box, mask: set[Point] | None) -> Reply:
        voxels = self.read(box, self.source(self.line(call)), mask)
        form = call.rest[3] if len(call.rest) > 3 else ""
        if box.plane is not None:
            sides = [box.size[axis] for axis in box.plane[::-1]]
            return images.as_image(voxels.reshape(*sides, *voxels.shape[3:]), form)
        if form in ("jpg", "jpeg"):
            return images.as_image(voxels.reshape(-1, box.size[0]), form)
        return octets(voxels.tobytes())

    def post_box(self, call: Call, box: Box, mask: set[Point] | None) -> None:
        if box.voxels == 0:
            return
        corners = f"{shown(box.offset)} -> {shown(box.last)}"
        if not box.aligned(self.block):
            raise Refusal(f"cannot store voxels in non-block aligned geometry {corners}")
        expected = box.voxels * self.channels * self.dtype.itemsize
        if len(call.body) != expected:
            where = f"3d volume {shown(box.size)} at offset {shown(box.offset)}"
            raise Refusal(f"voxels data was {len(call.body)} bytes, expected {expected} bytes for {where}")
        tail = (self.channels,) if self.channels > 1 else ()
        voxels = np.frombuffer(call.body, self.dtype).reshape(*box.size[::-1], *tail)
        for at, piece in pieces(box, voxels, self.block):
            if mask is None or at in mask:
                self.blocks.put(at, self.line(call), self._stored(piece))
        self.grow(self.line(call), box)

    def _stored(self, voxels: Array) -> Block:
        if self.coding != "jpeg":
            return Block(voxels)
        jpeg = images.jpeg(voxels.reshape(-1, self.block[0]))
        return Block(images.jpeg_pixels(jpeg).reshape(voxels.shape), jpeg)

    # blocks

    @property
    def _cells(self) -> int:
        return int(np.prod(self.block))

    def block_row(self, call: Call) -> Reply:
        """GET and POST `blocks/x_y_z/span`: blocks along x without headers."""
        if len(call.rest) < 2:
            raise Refusal('"blocks" must be followed by block-coord/span-x')
        first, span = block_point(call.rest[0]), integer(call.rest[1], by="Atoi")
        if span < 0:
            raise Panic("runtime error: makeslice: len out of range")
        size = self._cells * self.channels * self.dtype.itemsize
        row = [add(first, (at, 0, 0)) for at in range(span)]
        if call.method == "POST":
            return self._post_row(call, row)
        found = [self.blocks.get(at, self.line(call)) for at in row]
        filler = bytes([self.background]) * size
        return octets(b"".join(block.content if block and block.short is None else filler for block in found))

    def _post_row(self, call: Call, row: list[Point]) -> Reply:
        count = self._cells  # so many bytes of each block, whatever a voxel has
        for number, at in enumerate(row):
            content = call.body[number * count : (number + 1) * count]
            if len(content) < count:
                raise Refusal("block data ceased before all block data read")
            if self.channels * self.dtype.itemsize == 1:
                voxels = np.frombuffer(content, np.uint8).reshape(self.block[::-1])
                self.blocks.put(at, self.line(call), self._stored(voxels))
            else:
                self.blocks.put(at, self.line(call), Block(np.zeros(0), short=content))
        return octets()

    def specific_blocks(self, call: Call) -> Reply:
        """GET `specificblocks?blocks=`: records of the blocks that exist."""
        wanted = block_list(call.option("blocks"))
        if call.option("prefetch") in ("on", "true"):
            return octets()
        if call.option("compression") == "jpeg" and self.coding != "jpeg":
            return octets()
        return self._records(call, wanted)

    def subvol_blocks(self, call: Call) -> Reply:
        """GET `subvolblocks/size/offset`: the same for a box of voxels."""
        if len(call.rest) < 2:
            raise Panic("runtime error: index out of range [5] with length 5")
        box = parse_box("0_1_2", call.rest[0], call.rest[1])
        if not box.aligned(self.block):
            corners = f"{shown(box.offset)} -> {shown(box.last)}"
            raise Refusal(f"cannot use labels via 'block' endpoint in non-block aligned geometry {corners}")
        if call.option("compression") == "jpeg" and self.coding != "jpeg":
            stored = self._coding_text().partition(",")[0]
            raise Refusal(f"can't encode JPEG: expected internal block data to be JPEG, was {stored} instead")
        return self._records(call, list(box.blocks(self.block)))

    def _records(self, call: Call, wanted: list[Point]) -> Reply:
        form = call.option("compression")
        if form not in ("", "uncompressed", "jpeg"):
            raise Refusal(f"don't understand 'compression' query string value: {form}")
        found = [(at, self.blocks.get(at, self.line(call))) for at in wanted]
        return octets(records((at, self._served(block, form)) for at, block in found if block is not None))

    def _served(self, block: Block, form: str) -> bytes:
        if form == "uncompressed":
            return block.content
        block.served = block.served or block.jpeg or self._compressed(block.content)
        return block.served

    def _compressed(self, content: bytes) -> bytes:
        if self.coding == "lz4":
            return struct.pack("<I", len(content)) + lz4_compress(content)
        if self.coding == "gzip":
            return gzip_member(content, self.gzip_level)
        return snappy_compress(content) if self.coding == "snappy" else content

    # resampled views

    def isotropic(self, call: Call) -> Reply:
        """GET `isotropic`: planes resampled to the finest voxel side by the nearest voxel; volumes as `raw`."""
        if len(call.rest) < 3:
            raise Refusal('"isotropic" must be followed by shape/size/offset')
        box = parse_box(*call.rest[:3])
        if box.plane is None:
            return self.get_box(call, box, self.mask(call))
        plane = isotropic(box, self.resolution, lambda part: self.read(part, self.source(self.line(call))))
        return images.as_image(plane, call.rest[3] if len(call.rest) > 3 else "")

    def arb(self, call: Call) -> Reply:
        """GET `arb/top left/top right/bottom left/resolution`: an oblique plane, by the nearest voxel."""
        if len(call.rest) < 4:
            raise Refusal('"arb" must be followed by top-left/top-right/bottom-left/res')

        def sample(points: Array) -> Array:
            low, high = points.min(axis=0), points.max(axis=0) + 1
            box = Box(_point(low), _point(high - low))
            voxels, at = self.read(box, self.source(self.line(call))), points - low
            return np.asarray(voxels[at[:, 2], at[:, 1], at[:, 0]])

        plane = arb_plane(call.rest, self.resolution, sample)
        return images.as_image(plane, call.rest[4] if len(call.rest) > 4 else "")


def _point(values: Array) -> Point:
    x, y, z = (int(n) for n in values)
    return x, y, z
