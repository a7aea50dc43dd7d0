"""The roi type: a set of blocks as spans, its mask, point queries and partition."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.backends.dvid.answers import Refusal, Reply, as_json, json_fault, json_text, octets, parse_json
from tests.backends.dvid.geometry import Point, integer, parse_box
from tests.backends.dvid.instance import Call, Instance, Settings
from tests.backends.dvid.versions import Line, Node, Versioned

Span = tuple[int, int, int, int]
NO_MIN, NO_MAX = 2**31 - 1, -(2**31)


class Roi(Instance):
    """Spans [z, y, x0, x1] of blocks, x1 inclusive. `optimized=true` of partition is taken but changes nothing."""

    reads_by_post = ("ptquery",)
    verbs = ("GET", "POST", "DELETE")

    def __init__(self, name: str, typename: str, node: Node, settings: Settings) -> None:
        super().__init__(name, typename, node, settings)
        self.block = settings.integers("blocksize", "32,32,32")
        self._spans: Versioned[str, list[Span]] = Versioned()
        self.endpoints |= {"roi": self.roi, "mask": self.get_mask, "ptquery": self.ptquery, "partition": self.partition}

    def spans(self, line: Line) -> list[Span]:
        """Spans in order of z, y, x."""
        return self._spans.get("", line) or []

    def blocks(self, line: Line) -> set[Point]:
        """Block coordinates x, y, z."""
        return {(x, y, z) for z, y, first, last in self.spans(line) for x in range(first, last + 1)}

    def extended(self, line: Line) -> dict[str, Any]:
        levels = [span[0] for span in self.spans(line)]
        return {"BlockSize": self.block, "MinZ": min(levels, default=NO_MIN), "MaxZ": max(levels, default=NO_MAX)}

    def roi(self, call: Call) -> Reply:
        """GET, POST (replaces all) and DELETE of the spans."""
        line = self.line(call)
        if call.method == "GET":
            return as_json(self.spans(line))
        self._spans.put("", line, [] if call.method == "DELETE" else _posted(call.body))
        return octets()

    def get_mask(self, call: Call) -> Reply:
        """GET `mask/0_1_2/size/offset`: uint8 0 or 1, x fastest."""
        if len(call.rest) < 3 or call.rest[0] not in ("0_1_2", "vol"):
            raise Refusal("Currently only 3d masks ('0_1_2' shape) is supported")
        box = parse_box(*call.rest[:3])
        out = np.zeros(box.size[::-1], np.uint8)
        cells = [(np.arange(o, s) // b) for o, s, b in zip(box.offset, box.stop, self.block, strict=True)]
        for z, y, first, last in self.spans(self.line(call)):
            x_in = np.flatnonzero((cells[0] >= first) & (cells[0] <= last))
            y_in, z_in = np.flatnonzero(cells[1] == y), np.flatnonzero(cells[2] == z)
            if x_in.size and y_in.size and z_in.size:
                out[z_in[0] : z_in[-1] + 1, y_in[0] : y_in[-1] + 1, x_in[0] : x_in[-1] + 1] = 1
        return octets(out.tobytes())

    def ptquery(self, call: Call) -> Reply:
        """POST `ptquery`: whether points x, y, z are inside. A read, also of locked versions."""
        points = parse_json(call.body, list, "[]dvid.Point3d")
        inside = self.blocks(self.line(call))
        return as_json([tuple(n // b for n, b in zip(at, self.block, strict=True)) in inside for at in points])

    def partition(self, call: Call) -> Reply:
        """GET `partition?batchsize=N`: cubes of N blocks that hold blocks of the roi."""
        try:
            batch = integer(call.option("batchsize"), by="Atoi")
        except Refusal as refusal:
            raise Refusal(f"Error reading batchsize query string: {refusal.text}") from None
        blocks = self.blocks(self.line(call))
        low, high = _corners(blocks)
        found = []
        for z in range(low[2], high[2] + 1, batch):
            for y in range(low[1], high[1] + 1, batch):
                for x in range(low[0], high[0] + 1, batch):
                    last = (x + batch - 1, y + batch - 1, z + batch - 1)
                    active = sum(
                        (x, y, z) <= at
                        and all(a <= b for a, b in zip(at, last, strict=True))
                        and all(a >= b for a, b in zip(at, (x, y, z), strict=True))
                        for at in blocks
                    )
                    if active:
                        found.append(self._subvolume((x, y, z), last, batch**3, active))
        shown = {
            "NumTotalBlocks": len(found) * batch**3,
            "NumActiveBlocks": len(blocks),
            "NumSubvolumes": len(found),
            "ROI": {"MinChunk": [min(0, low[0]), min(0, low[1]), low[2]], "MaxChunk": high},
            "Subvolumes": found,
        }
        return json_text(json.dumps(shown, indent=4))

    def _subvolume(self, first: Point, last: Point, total: int, active: int) -> dict[str, Any]:
        return {
            "MinPoint": [n * b for n, b in zip(first, self.block, strict=True)],
            "MaxPoint": [(n + 1) * b - 1 for n, b in zip(last, self.block, strict=True)],
            "MinChunk": first,
            "MaxChunk": last,
            "TotalBlocks": total,
            "ActiveBlocks": active,
        }


def _corners(blocks: set[Point]) -> tuple[Point, Point]:
    if not blocks:
        return (0, 0, 0), (-1, -1, -1)
    xs, ys, zs = zip(*blocks, strict=True)
    return (min(xs), min(ys), min(zs)), (max(xs), max(ys), max(zs))


def _posted(body: bytes) -> list[Span]:
    try:
        given = json.loads(body)
    except ValueError:
        raise Refusal(f"Error trying to parse POSTed JSON: {json_fault(body)}") from None
    spans = []
    for words in given:
        z, y, first, last = (*words, 0, 0, 0, 0)[:4]
        if last < first:
            raise Refusal(f"Got weird span [{z}, {y}, {first}, {last}].  span[3] (X1) < span[2] (X0)")
        spans.append((z, y, first, last))
    return sorted(spans)
