"""The labelmap type: supervoxels shown as bodies, block streams both ways, the index, and its traps.

Not emulated (501): index and split writes, renumber, history, google compression.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.backends.dvid import label_block
from tests.backends.dvid.answers import NotEmulated, Panic, Refusal, Reply, octets
from tests.backends.dvid.geometry import Box, Point, block_list, shown
from tests.backends.dvid.instance import Call, Settings
from tests.backends.dvid.label_index import LabelIndex
from tests.backends.dvid.label_queries import LabelQueries
from tests.backends.dvid.labels import LabelArray
from tests.backends.dvid.sparsevol import Sparsevol
from tests.backends.dvid.stored_labels import StoredLabels
from tests.backends.dvid.versions import Node
from tests.backends.dvid.wire import RECORD, Malformed, gunzip, lz4_compress, records

NOT_EMULATED = (
    *("pseudocolor", "map-stats", "split", "split-coarse", "split-supervoxel", "supervoxel-splits", "renumber"),
    *("history", "indices", "indices-compressed", "proximity", "set-nextlabel", "blockstats"),
)


class LabelMap(LabelArray):
    """labelmap."""

    default_block = 64

    def __init__(self, name: str, typename: str, node: Node, settings: Settings) -> None:
        super().__init__(name, typename, node, settings)
        self.index = LabelIndex()
        self.endpoints |= LabelQueries(self).endpoints() | Sparsevol(self).endpoints()
        self.endpoints |= dict.fromkeys(NOT_EMULATED, _not_emulated)
        self.endpoints |= {"ingest-supervoxels": self.ingest, "info": self.info, "tags": self.tags_endpoint}

    def answer(self, call: Call) -> Reply:
        if call.method == "HEAD" and call.keyword == "sparsevol":
            return self.endpoints["sparsevol"](call)
        return super().answer(call)

    def more_extended(self) -> dict[str, Any]:
        return {"NextLabel": 0}

    def info(self, call: Call) -> Reply:
        """GET `info`."""
        if call.method == "GET":
            return super().info(call)
        raise NotEmulated("POST info")

    def mapping(self, call: Call) -> Mapping[int, int]:
        return {} if call.flag("supervoxels") else self.index.mapping(self.line(call))

    def check_single(self, call: Call, box: Box, scale: int, form: str) -> None:
        """Exactly one aligned block that is missing: 500, or 400 with a compression."""
        if box.plane or box.size != tuple(self.block) or not box.aligned(self.block):
            return
        x, y, z = (n // side for n, side in zip(box.offset, self.block, strict=True))
        if call.single_missing_block_fails and self.blocks.get((scale, (x, y, z)), self.line(call)) is None:
            if form:
                raise Refusal(f"unable to get label block ({x}, {y}, {z})")
            raise Panic("runtime error: invalid memory address or nil pointer dereference")

    # writes

    def wrote(
        self,
        call: Call,
        before: Mapping[Point, StoredLabels | None],
        after: Mapping[Point, StoredLabels],
        *,
        mutate: bool,
        index: bool = True,
    ) -> None:
        super().wrote(call, before, after, mutate=mutate)
        if self.indexed and index:
            written = [(at, before[at] if mutate else None, block) for at, block in after.items()]
            self.index.add(self.line(call), written)

    def block_stream(self, call: Call) -> Reply:
        """GET and POST `blocks`."""
        return super().block_stream(call) if call.method == "GET" else self._post_blocks(call)

    def _post_blocks(self, call: Call) -> Reply:
        scale = self.scale(call)
        if call.option("compression") not in ("", "blocks"):
            raise Refusal('compression must be "blocks" (default) at this time')
        if scale and call.flag("downres"):
            raise Refusal("cannot downscale blocks of scale > 0")
        if self.coding not in ("gzip", "none"):
            raise Refusal(f"labelmap cannot store posted blocks with {self.coding}")
        after = self._posted(call, scale)
        if scale == 0 and after:
            before = self.store(call, after, 0)
            for at in after:
                x, y, z = (n * side for n, side in zip(at, self.block, strict=True))
                self.grow(self.line(call), Box((x, y, z), (self.block[0], self.block[1], self.block[2])))
            self.wrote(call, before, after, mutate=False, index=not call.flag("noindexing"))
            if call.flag("downres"):
                self.lower(call, list(after))
        return octets()

    def ingest(self, call: Call) -> Reply:
        """POST `ingest-supervoxels`: stores voxels and nothing else."""
        self._posted(call, self.scale(call))
        return octets()

    def _posted(self, call: Call, scale: int) -> dict[Point, StoredLabels]:
        """Blocks of a stream; those before a bad record are stored all the same, but not indexed."""
        found: dict[Point, StoredLabels] = {}
        at = 0
        try:
            while at < len(call.body):
                where, member = _record(call.body, at)
                found[where] = StoredLabels(block=_checked(member), member=member)
                at += RECORD.size + len(member)
        finally:
            if scale or at < len(call.body) or call.keyword != "blocks":
                self.store(call, found, scale)
        return found

    # reads

    def specific_blocks(self, call: Call) -> Reply:
        """GET `specificblocks?blocks=`."""
        return self.stream(call, block_list(call.option("blocks")), call.option("compression") or "blocks")

    def stream(self, call: Call, wanted: list[Point], form: str) -> Reply:
        """Records; with LZ4 storage one useless record and an error text, as the server does."""
        if self.coding != "lz4":
            return super().stream(call, wanted, form)
        found = list(self.payloads(call, wanted, "uncompressed", self.scale(call)))
        if not found:
            return octets()
        stored = self.blocks.get((self.scale(call), found[0][0]), self.line(call))
        assert stored is not None
        useless = lz4_compress(stored.block)
        last = found[min(1, len(found) - 1)][0]
        why = f"supposed size {len(stored.block)} but had {len(useless)} bytes"
        text = f"block {shown(last)} was corrupted lz4: {why} ({call.asked.path}).\n"
        return octets(records([(found[0][0], useless)]) + text.encode())


def _not_emulated(call: Call) -> Reply:
    raise NotEmulated(call.keyword)


def _record(stream: bytes, at: int) -> tuple[Point, bytes]:
    if at + RECORD.size > len(stream):
        raise Refusal(f"error reading header bytes: {len(stream) - at} actually read (unexpected EOF)")
    x, y, z, count = RECORD.unpack_from(stream, at)
    member = stream[at + RECORD.size : at + RECORD.size + count]
    if len(member) < count:
        left = f"{len(member)} actually read (unexpected EOF)"
        raise Refusal(f"error reading {count} bytes for block ({x}, {y}, {z}): {left}")
    return (x, y, z), member


def _checked(member: bytes) -> bytes:
    """The label block of a gzip member; its size is not looked at."""
    try:
        block = gunzip(member)
    except Malformed as error:
        why = f"can't initiate gzip reader on compressed data of length {len(member)}: {error}"
        raise Refusal(why) from error
    label_block.shape(block)
    label_block.table(block)
    return block
