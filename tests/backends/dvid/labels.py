"""What the label types share: raw in every compression but google's, block streams, points, lower scales.

labelarray and labelblk are these classes as they are; labelmap adds supervoxels, mapping and the label index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tests.backends.dvid import images
from tests.backends.dvid.answers import NotEmulated, Refusal, Reply, as_json, json_fault, json_text, octets, parse_json
from tests.backends.dvid.downres import halved
from tests.backends.dvid.geometry import Box, Point, block_list, integer, parse_box, point, shown
from tests.backends.dvid.instance import Call, Settings
from tests.backends.dvid.stored_labels import StoredLabels
from tests.backends.dvid.versions import Line, Node, Versioned
from tests.backends.dvid.voxels import Array, Source, Voxels, pieces
from tests.backends.dvid.wire import Malformed, gunzip, gzip_member, lz4_compress, lz4_decompress, records

BLOCK_FORMS = ("lz4", "gzip", "blocks", "uncompressed")


class LabelBlk(Voxels):
    """labelblk: uint64 blocks, one scale, no label blocks on the wire."""

    dtype = np.dtype("<u8")
    shows_extents = False
    deepest = 0

    def __init__(self, name: str, typename: str, node: Node, settings: Settings) -> None:
        self.values = [("uint64", typename)]
        super().__init__(name, typename, node, settings)
        self.blocks: Versioned[tuple[int, Point], StoredLabels] = Versioned()
        self.endpoints |= {"blocks": self.block_stream, "label": self.label, "labels": self.labels}
        if typename != "labelmap":
            del self.endpoints["extents"]

    def mapping(self, call: Call) -> Mapping[int, int]:
        """What labels are shown as."""
        return {}

    def source(self, call: Call, scale: int) -> Source:
        """Labels of stored blocks, as the call wants them."""
        line, mapping = self.line(call), self.mapping(call)

        def labels(at: Point) -> Array | None:
            block = self.blocks.get((scale, at), line)
            return None if block is None else block.mapped(mapping).labels

        return labels

    def scale(self, call: Call) -> int:
        """The `scale` option."""
        try:
            return integer(call.option("scale") or "0", by="Atoi")
        except Refusal as refusal:
            raise Refusal(f"bad scale specified: {refusal.text}") from None

    def extended(self, line: Line) -> dict[str, Any]:
        return self.properties(line) | {"MinIndex": None, "MaxIndex": None}

    # raw

    def get_box(self, call: Call, box: Box, mask: set[Point] | None) -> Reply:
        scale, form = self.scale(call), call.option("compression")
        if mask is not None and scale:
            raise Refusal("DVID does not currently support ROI masks on lower-scale GETs")
        if form not in ("", "lz4", "gzip", "google", "googlegzip"):
            raise Refusal(f'unknown compression type "{form}"')
        if form.startswith("google"):
            if any(side % 8 for side in box.size):
                raise Refusal("volume must be a multiple of the block size")
            self.check_single(call, box, scale, form)
            raise NotEmulated(f"compression={form}")
        self.check_single(call, box, scale, form)
        labels = self.read(box, self.source(call, scale), mask)
        if box.plane is not None:
            rows, columns = box.size[box.plane[1]], box.size[box.plane[0]]
            return images.as_image(labels.reshape(rows, columns), call.rest[3] if len(call.rest) > 3 else "")
        content = labels.tobytes()
        return octets({"lz4": lz4_compress, "gzip": gzip_member}.get(form, bytes)(content))

    def check_single(self, call: Call, box: Box, scale: int, form: str) -> None:
        """Where labelmap fails."""

    def post_box(self, call: Call, box: Box, mask: set[Point] | None) -> None:
        if not box.aligned(self.block):
            corners = f"{shown(box.offset)} -> {shown(box.last)}"
            raise Refusal(f'cannot store labels for data "{self.name}" in non-block aligned geometry {corners}')
        expected = box.voxels * 8
        content = self._inflated(call.body, call.option("compression"), expected)
        if len(content) != expected:
            received = f"label PUT but only received {len(content)} bytes"
            raise Refusal(f'expected {expected} bytes for data "{self.name}" {received}')
        labels = np.frombuffer(content, "<u8").reshape(box.size[::-1])
        changed = {
            at: StoredLabels(labels=piece)
            for at, piece in pieces(box, labels, self.block)
            if mask is None or at in mask
        }
        before = self.store(call, changed, 0)
        self.grow(self.line(call), box)
        self.wrote(call, before, changed, mutate=call.flag("mutate"))
        self.lower(call, list(changed))

    def _inflated(self, body: bytes, form: str, expected: int) -> bytes:
        try:
            if form == "lz4":
                return lz4_decompress(body, expected).ljust(expected, b"\0")
            if form == "gzip":
                return gunzip(body)
        except Malformed as error:
            raise Refusal("Malformed compression stream" if form == "lz4" else str(error)) from error
        if form not in ("", "uncompressed"):
            raise Refusal(f'unknown compression type "{form}"')
        return body

    def store(self, call: Call, blocks: Mapping[Point, StoredLabels], scale: int) -> dict[Point, StoredLabels | None]:
        """Put blocks; what was there before."""
        line = self.line(call)
        before = {at: self.blocks.get((scale, at), line) for at in blocks}
        for at, block in blocks.items():
            self.blocks.put((scale, at), line, block)
        return before

    def wrote(
        self,
        call: Call,
        before: Mapping[Point, StoredLabels | None],
        after: Mapping[Point, StoredLabels],
        *,
        mutate: bool,
        index: bool = True,
    ) -> None:
        """Told of every write at scale 0."""

    def lower(self, call: Call, changed: list[Point]) -> None:
        """Make the lower scales over blocks that changed."""
        line = self.line(call)
        for scale in range(self.deepest):
            fresh: dict[Point, Array] = {}
            for x, y, z in changed:
                block = self.blocks.get((scale, (x, y, z)), line)
                assert block is not None
                above = (x // 2, y // 2, z // 2)
                if above not in fresh:
                    old = self.blocks.get((scale + 1, above), line)
                    fresh[above] = np.zeros(self.block[::-1], np.uint64) if old is None else old.labels.copy()
                half = [side // 2 for side in self.block]
                corner = [n % 2 * side for n, side in zip((x, y, z), half, strict=True)]
                where = tuple(slice(corner[axis], corner[axis] + half[axis]) for axis in (2, 1, 0))
                fresh[above][where] = halved(block.labels)
            for at, labels in fresh.items():
                self.blocks.put((scale + 1, at), line, StoredLabels(labels=labels))
            changed = list(fresh)

    # streams of blocks

    def block_stream(self, call: Call) -> Reply:
        """GET `blocks/size/offset`."""
        form = call.option("compression")
        if form not in ("", "lz4", "uncompressed"):
            raise Refusal(f"don't understand 'compression' query string value: {form}")
        return octets(records(self.payloads(call, self.asked_blocks(call), form or "lz4", 0)))

    def asked_blocks(self, call: Call) -> list[Point]:
        """Coordinates of the blocks of `size/offset`."""
        if len(call.rest) < 2:
            raise Refusal("must specify size and offset with GET /blocks endpoint")
        box = parse_box("0_1_2", call.rest[0], call.rest[1])
        if not box.aligned(self.block):
            corners = f"{shown(box.offset)} -> {shown(box.last)}"
            raise Refusal(f"cannot use labels via 'blocks' endpoint in non-block aligned geometry {corners}")
        return list(box.blocks(self.block))

    def payloads(self, call: Call, wanted: list[Point], form: str, scale: int) -> Iterator[tuple[Point, bytes]]:
        """Payloads of the blocks that exist."""
        line, mapping = self.line(call), self.mapping(call)
        for at in wanted:
            stored = self.blocks.get((scale, at), line)
            if stored is not None:
                yield at, self.payload(stored.mapped(mapping), form)

    def payload(self, stored: StoredLabels, form: str) -> bytes:
        """One block in one of BLOCK_FORMS; of uncompressed storage `blocks` and `uncompressed` are the bare block."""
        if self.coding == "none" and form in ("blocks", "uncompressed"):
            return stored.block
        if form == "blocks":
            return stored.member
        if stored.shape != tuple(self.block):
            found, wanted = f"size {shown(stored.shape)}", f"block size {shown(self.block)}"
            raise Refusal(f'deserialized label block {found} does not equal data "{self.name}" {wanted}')
        content = stored.labels.tobytes()
        return {"lz4": lz4_compress, "gzip": gzip_member}.get(form, bytes)(content)

    # points

    def label(self, call: Call) -> Reply:
        """GET `label/x_y_z`."""
        found = self.labels_at(call, [point(call.rest[0] if call.rest else "")])
        return json_text(f'{{"Label": {found[0]}}}')

    def labels(self, call: Call) -> Reply:
        """GET `labels` with a list of points as body."""
        if call.method != "GET":
            raise Refusal("Batch labels query must be a GET request")
        hashed = hashlib.md5(call.body, usedforsecurity=False).hexdigest()
        if call.option("hash") not in ("", hashed):
            raise Refusal(f"content hash incorrect.  expected {call.option('hash')}, got {hashed}")
        return as_json(self.labels_at(call, [(x, y, z) for x, y, z in json_list(call.body, "labels")]))

    def labels_at(self, call: Call, points: list[Point]) -> list[int]:
        """Labels at points; wrong at negative coordinates, where the server divides towards zero."""
        source, found = self.source(call, self.scale(call)), []
        known: dict[Point, Array | None] = {}
        for where in points:
            x, y, z = (int(n / side) for n, side in zip(where, self.block, strict=True))
            if (x, y, z) not in known:
                known[x, y, z] = source((x, y, z))
            labels = known[x, y, z]
            inner = [max(0, n - at * side) for n, at, side in zip(where, (x, y, z), self.block, strict=True)]
            found.append(0 if labels is None else int(labels[inner[2], inner[1], inner[0]]))
        return found


class LabelArray(LabelBlk):
    """labelarray: label blocks, native scales; `specificblocks` gives only the native form."""

    default_block = 64
    shows_extents = True
    extents_shared = True

    def __init__(self, name: str, typename: str, node: Node, settings: Settings) -> None:
        super().__init__(name, typename, node, settings)
        if any(side % 16 for side in self.block):
            raise Refusal("BlockSize must be multiples of 16")
        self.deepest = integer(settings.get("maxdownreslevel", "0"), by="Atoi")
        if not 0 <= self.deepest <= 255:
            raise Refusal(f"illegal number of down-res levels specified ({self.deepest}): must be 0 <= n <= 255")
        self.indexed = settings.get("indexedlabels", "true") != "false"
        self.max_label: dict[int, int] = {}
        self.max_repo_label = 0
        self.endpoints |= {"specificblocks": self.specific_blocks}

    def extended(self, line: Line) -> dict[str, Any]:
        return self.properties(line) | {
            "MaxLabel": {str(version): label for version, label in self.max_label.items()},
            "MaxRepoLabel": self.max_repo_label,
            **self.more_extended(),
            "IndexedLabels": self.indexed,
            "MaxDownresLevel": self.deepest,
        }

    def more_extended(self) -> dict[str, Any]:
        """Where labelarray and labelmap differ."""
        return {"CountLabels": True}

    def wrote(
        self,
        call: Call,
        before: Mapping[Point, StoredLabels | None],
        after: Mapping[Point, StoredLabels],
        *,
        mutate: bool,
        index: bool = True,
    ) -> None:
        highest = max((max(block.counts, default=0) for block in after.values()), default=0)
        if highest:
            self.raise_max(call.node.version, highest)

    def raise_max(self, version: int, label: int) -> None:
        """Note a label that a version uses."""
        self.max_label[version] = max(label, self.max_label.get(version, 0))
        self.max_repo_label = max(label, self.max_repo_label)

    def block_stream(self, call: Call) -> Reply:
        """GET `blocks/size/offset`."""
        return self.stream(call, self.asked_blocks(call), call.option("compression") or "lz4")

    def specific_blocks(self, call: Call) -> Reply:
        """GET `specificblocks?blocks=`."""
        return self.stream(call, block_list(call.option("blocks")), "blocks")

    def stream(self, call: Call, wanted: list[Point], form: str) -> Reply:
        """Records of blocks."""
        if form not in BLOCK_FORMS:
            raise Refusal('compression must be "lz4" (default), "gzip", "blocks" or "uncompressed"')
        return octets(records(self.payloads(call, wanted, form, self.scale(call))))


def json_list(body: bytes, name: str) -> list[Any]:
    """A list that is the body of a GET."""
    if not body or body.count(b"[") != body.count(b"]"):
        raise Refusal(f"Bad {name} request JSON: {json_fault(body)}")
    return list(parse_json(body, list, "[]uint64"))
