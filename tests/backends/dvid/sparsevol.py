"""Sparse volumes of labels: runs, coarse runs, binary blocks, sizes.

Emulated traps: runs of a label in blocks with negative y or z end the server; `maxx` is overshot to the end of a
uniform sub-block; sub-blocks without labels make it fail.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tests.backends.dvid import label_block
from tests.backends.dvid.answers import Crash, NotEmulated, Refusal, Reply, absent, json_text, octets
from tests.backends.dvid.geometry import Point, integer, point, shown, unsigned
from tests.backends.dvid.instance import Call
from tests.backends.dvid.label_index import Counts, voxels
from tests.backends.dvid.label_queries import Endpoint, indexed_only
from tests.backends.dvid.wire import gzip_member, lz4_compress

if TYPE_CHECKING:
    from tests.backends.dvid.labelmap import LabelMap

Mask = npt.NDArray[np.bool_]
Runs = npt.NDArray[Any]
HEADER = struct.Struct("<BBBBII")
FAR = 2**31 - 1


class Sparsevol:
    """Endpoints of one labelmap that give shapes of labels."""

    def __init__(self, volume: LabelMap) -> None:
        self._volume = volume

    def endpoints(self) -> dict[str, Endpoint]:
        """By keyword."""
        found: dict[str, Endpoint] = {
            "sparsevol": self.sparsevol,
            "sparsevol-by-point": self.by_point,
            "sparsevol-coarse": self.coarse,
            "sparsevol-size": self.size,
        }
        return {name: indexed_only(self._volume, name, endpoint) for name, endpoint in found.items()}

    def _found(self, call: Call, label: int) -> tuple[Counts, set[int]] | None:
        if label == 0:
            raise Refusal("Label 0 is protected background value and cannot be used as sparse volume.\n")
        line, index = self._volume.line(call), self._volume.index
        if not call.flag("supervoxels"):
            counts = index.body(label, line)
            return (counts, index.supervoxels(label, line)) if counts else None
        body = index.body(index.mapping(line).get(label, label), line) or {}
        counts = {at: {label: found[label]} for at, found in body.items() if label in found}
        return (counts, {label}) if counts else None

    def by_point(self, call: Call) -> Reply:
        """GET `sparsevol-by-point/x_y_z`."""
        return self._answer(call, self._volume.labels_at(call, [point(call.rest[0])])[0])

    def sparsevol(self, call: Call) -> Reply:
        """GET and HEAD `sparsevol/label`."""
        return self._answer(call, unsigned(call.rest[0] if call.rest else ""))

    def _answer(self, call: Call, label: int) -> Reply:
        found = self._found(call, label)
        if call.method == "HEAD":
            return Reply(200 if found else 204, headers={"Content-Type": "text/html"})
        if found is None:
            return absent()
        form, scale = call.option("format") or "rles", self._volume.scale(call)
        low, high = _bounds(call)
        blocks = sorted({(z >> scale, y >> scale, x >> scale) for x, y, z in found[0]})
        side = self._volume.block
        masks = []
        for z, y, x in blocks:
            corner = (x * side[0], y * side[1], z * side[2])
            if all(c <= h and c + s > lo for c, s, lo, h in zip(corner, side, low, high, strict=True)):
                masks.append((corner, self._mask(call, (x, y, z), scale, found[1], form)))
        if call.option("exact") != "false":
            masks = [(corner, mask & _inside(corner, mask, low, high)) for corner, mask in masks]
        if form == "blocks":
            return octets(_binary_blocks(label, side, masks))
        runs = np.concatenate([np.zeros((0, 4), np.int64), *(_runs(corner, mask) for corner, mask in masks)])
        return octets(_compressed(call, _streamed(_joined(runs), header=form == "rles")))

    def _mask(self, call: Call, at: Point, scale: int, supervoxels: set[int], form: str) -> Mask:
        stored = self._volume.blocks.get((scale, at), self._volume.line(call))
        if stored is None:
            return np.zeros(self._volume.block[::-1], bool)
        if form != "blocks":
            if at[1] < 0 or at[2] < 0:
                raise Crash(f"runs of block {at}")
            if not label_block.sub_block_counts(stored.block).all():
                raise Refusal(f"Sub-block with 0 labels detected: ({at[0]}, {at[1]}, {at[2]})\n")
        return np.isin(stored.labels, np.array(sorted(supervoxels), np.uint64))

    def coarse(self, call: Call) -> Reply:
        """GET `sparsevol-coarse/label`: runs of blocks."""
        found = self._found(call, unsigned(call.rest[0]))
        if found is None:
            return absent()
        runs = np.array([(x, y, z, 1) for x, y, z in found[0]], np.int64)
        return octets(_streamed(_joined(runs), header=True))

    def size(self, call: Call) -> Reply:
        """GET `sparsevol-size/label`; the box is that of its blocks."""
        found = self._found(call, unsigned(call.rest[0]))
        if found is None:
            return absent()
        blocks, side = np.array(list(found[0])), np.array(self._volume.block)
        low, high = blocks.min(axis=0) * side, (blocks.max(axis=0) + 1) * side - 1
        box = f'"minvoxel": {shown_list(low)}, "maxvoxel": {shown_list(high)}'
        return json_text(f'{{"voxels": {voxels(found[0])}, "numblocks": {len(blocks)}, {box}}}')


def shown_list(values: Runs) -> str:
    """`[x, y, z]`."""
    return "[" + shown([int(n) for n in values])[1:-1].replace(",", ", ") + "]"


def _bounds(call: Call) -> tuple[list[int], list[int]]:
    low = [integer(call.option(f"min{axis}") or str(-FAR)) for axis in "xyz"]
    return low, [integer(call.option(f"max{axis}") or str(FAR)) for axis in "xyz"]


def _inside(corner: Point, mask: Mask, low: list[int], high: list[int]) -> Mask:
    z, y, x = (np.arange(n) + c for n, c in zip(mask.shape, corner[::-1], strict=True))
    rows = ((z >= low[2]) & (z <= high[2]))[:, None, None] & ((y >= low[1]) & (y <= high[1]))[None, :, None]
    exact = (x >= low[0]) & (x <= high[0])
    started = (x >= low[0]) & (x // 8 * 8 <= high[0])
    gz, gy, gx = (n // 8 for n in mask.shape)
    uniform = mask.reshape(gz, 8, gy, 8, gx, 8).all(axis=(1, 3, 5)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    return np.asarray(rows & (exact[None, None] | (uniform & started[None, None])))


def _runs(corner: Point, mask: Mask) -> Runs:
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (0, 0), (1, 1))), axis=2)
    z, y, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[2]
    return np.stack([first + corner[0], y + corner[1], z + corner[2], last - first], axis=1)


def _joined(runs: Runs) -> Runs:
    """Runs in order of z, y, x; those that touch along x made one."""
    runs = runs[np.lexsort((runs[:, 0], runs[:, 1], runs[:, 2]))]
    if not len(runs):
        return runs
    touching = (runs[1:, 1:3] == runs[:-1, 1:3]).all(axis=1) & (runs[:-1, 0] + runs[:-1, 3] == runs[1:, 0])
    starts = np.flatnonzero(np.r_[True, ~touching])
    lengths = np.add.reduceat(runs[:, 3], starts)
    return np.concatenate([runs[starts, :3], lengths[:, None]], axis=1)


def _streamed(runs: Runs, *, header: bool) -> bytes:
    head = HEADER.pack(0, 3, 0, 0, 0, len(runs)) if header else b""
    return head + runs.astype("<i4").tobytes()


def _binary_blocks(label: int, side: list[int], masks: list[tuple[Point, Mask]]) -> bytes:
    gx, gy, gz = (n // 8 for n in side)
    out = [struct.pack("<IIIQ", gx, gy, gz, label)]
    for corner, mask in masks:
        rows = mask.reshape(gz, 8, gy, 8, gx, 8).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 512)
        if not mask.any():
            continue
        out.append(struct.pack("<iiiB", *corner, 1 if mask.all() else 2))
        if not mask.all():
            bits = np.packbits(rows, axis=1, bitorder="little")
            flags = np.where(rows.all(axis=1), 1, np.where(rows.any(axis=1), 2, 0))
            out += [bytes([flag]) + (bits[at].tobytes() if flag == 2 else b"") for at, flag in enumerate(flags)]
    return b"".join(out)


def _compressed(call: Call, content: bytes) -> bytes:
    form = call.option("compression")
    if form not in ("", "lz4", "gzip"):
        raise NotEmulated(f"compression={form}")
    return {"lz4": lz4_compress, "gzip": gzip_member}.get(form, bytes)(content)
