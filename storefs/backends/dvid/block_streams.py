"""Voxels block by block: `specificblocks`, `subvolblocks` and `blocks`, as iterators of (block x, y, z; array).

Long questions become several requests, so that memory stays bounded, addresses stay short and each request can be
asked again. Blocks that are not stored are left out, except by `row`.
"""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from storefs.backends.dvid import calls
from storefs.backends.dvid.blocks import as_voxels, block_form, decode_block, label_form
from storefs.backends.dvid.boxes import Axes, BoxLike, Triple, read_box
from storefs.backends.dvid.frames import Frame, build_frame, parse_frames
from storefs.backends.dvid.part import Part, asked
from storefs.errors import Unsupported
from storefs.plans import Call
from storefs_codecs.dvid_label_block import DvidLabelBlock

if TYPE_CHECKING:
    from storefs.backends.dvid.info import Instance
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

Block = tuple[Triple, "Array"]

BLOCKS_PER_REQUEST = 256
BYTES_PER_REQUEST = 64 << 20
_SLACK = 1 << 20
_GZIP_LEVEL = 6


class Blocks(Part):
    """Blocks of voxel instances: zyx arrays (czyx with channels) of the instance's block size."""

    def specific(
        self,
        uuid: str,
        name: str,
        blocks_xyz: Iterable[Sequence[int]],
        *,
        scale: int = 0,
        supervoxels: bool = False,
    ) -> Iterator[Block]:
        """The stored ones of the blocks at coordinates `blocks_xyz`, in any order. Raises DecodeError, ServerFault."""
        instance = self._connection.run(self._voxels(uuid, name))
        query = _query(instance, scale, supervoxels=supervoxels)
        wanted = iter(dict.fromkeys(_block_xyz(block) for block in blocks_xyz))
        while batch := list(itertools.islice(wanted, self._at_once(instance))):
            for frame in self._connection.run(self._specific(uuid, instance, batch, query)):
                yield frame.block_xyz, decode_block(frame.payload, instance)

    def subvolume(
        self,
        uuid: str,
        name: str,
        box: BoxLike,
        *,
        axes: Axes = "zyx",
        scale: int = 0,
        supervoxels: bool = False,
    ) -> Iterator[Block]:
        """The stored blocks of `box`, which is made of whole blocks, in any order.

        Raises ValueError for other boxes, DecodeError, ServerFault.
        """
        instance = self._connection.run(self._voxels(uuid, name))
        place = read_box(box, axes)
        if not place.is_aligned(instance.block_size):
            raise ValueError(f"{name}: this box is not made of whole blocks of {instance.block_size} (x, y, z)")
        query = _query(instance, scale, supervoxels=supervoxels)
        for first, count in _pieces(*place.cells(instance.block_size), self._at_once(instance)):
            for frame in self._connection.run(self._subvolume(uuid, instance, first, count, query)):
                yield frame.block_xyz, decode_block(frame.payload, instance)

    @asked
    def row(self, uuid: str, name: str, first_xyz: Sequence[int], span: int) -> Plan[list[Block]]:
        """`span` blocks along x from block `first_xyz` on, of an image; those not stored are of its background.

        A background other than 0 fills every byte, also of wider voxels.
        """
        instance = yield from self._voxels(uuid, name)
        if instance.is_label:
            raise Unsupported(f"{name} is {instance.typename}: ask for subvolume(…)", url=self._connection.url)
        first, size = _block_xyz(first_xyz), _block_bytes(instance)
        if span < 1:
            raise ValueError(f"span: expected at least one block, got {span}")
        path = calls.node(uuid, name, "blocks", calls.text(first), str(span))
        reply = yield from self._ask(Call(path, limit=span * size + _SLACK))
        shape, view = instance.block_size[::-1], memoryview(reply.data)
        if len(view) != span * size:
            self._fail(f"{'/'.join(path)}: expected {span * size} bytes, got {len(view)}: {calls.words(reply)}")
        return [
            ((first[0] + n, first[1], first[2]), as_voxels(view[n * size : (n + 1) * size], instance, shape))
            for n in range(span)
        ]

    @asked
    def write_row(self, uuid: str, name: str, first_xyz: Sequence[int], blocks: Sequence[Array]) -> Plan[None]:
        """Write blocks along x from block `first_xyz` on, of a uint8blk, and grow its extents by them.

        Other types are refused, as the server would store broken blocks that end it when they are read: write
        those with `voxels.write`. Raises Unsupported, ValueError, TransportError for a locked version.
        """
        instance = yield from self._voxels(uuid, name)
        if instance.typename != "uint8blk" or instance.grid_store:
            raise Unsupported(
                f"{name} is {instance.typename}: writing its blocks this way would break them; use voxels.write",
                url=self._connection.url,
            )
        first, shape = _block_xyz(first_xyz), instance.block_size[::-1]
        for block in blocks:
            if block.shape != shape or block.dtype != np.uint8:
                raise ValueError(f"{name}: expected uint8 blocks of shape {shape}, got {block.dtype} {block.shape}")
        yield from self._check_open(uuid, name)
        path = calls.node(uuid, name, "blocks", calls.text(first), str(len(blocks)))
        body = b"".join(np.ascontiguousarray(block).tobytes() for block in blocks)
        yield from self._ask(Call(path, method="POST", body=body))
        yield from self._grow_extents(uuid, name, instance, first, len(blocks))

    @asked
    def write_labels(
        self,
        uuid: str,
        name: str,
        blocks: Iterable[Block],
        *,
        scale: int = 0,
        downres: bool = False,
    ) -> Plan[None]:
        """Write blocks of supervoxels (uint64, zyx) of a labelmap, as a bulk load; `downres` makes lower scales.

        An instance that keeps an index only counts up, so there a block that is stored already is refused before
        anything is sent: `voxels.write` replaces blocks rightly. Such a write is not asked twice. Raises ValueError,
        Unsupported, TransportError.
        """
        instance = yield from self._voxels(uuid, name)
        if instance.typename != "labelmap":
            raise Unsupported(f"{name} is {instance.typename}, not labelmap", url=self._connection.url)
        if downres and scale:
            raise ValueError("downres: only with scale 0")
        if not 0 <= scale <= instance.max_scale:
            raise ValueError(f"{name} has scales 0 to {instance.max_scale}, not {scale}")
        indexed = bool(instance.document["Extended"].get("IndexedLabels", True)) and not scale
        query = [*self._throttled()] + [("scale", str(scale))] * bool(scale) + [("downres", "true")] * downres
        yield from self._check_open(uuid, name)
        source = iter(blocks)
        while batch := list(itertools.islice(source, BLOCKS_PER_REQUEST)):
            body = b"".join(build_frame(_block_xyz(at), _packed(voxels, instance)) for at, voxels in batch)
            if indexed:
                yield from self._check_absent(uuid, instance, [_block_xyz(at) for at, _ in batch])
            path = calls.node(uuid, name, "blocks")
            yield from self._ask(Call(path, tuple(query), "POST", body, repeatable=not indexed))

    # plans

    def _specific(
        self, uuid: str, instance: Instance, batch: Sequence[Triple], query: tuple[tuple[str, str], ...]
    ) -> Plan[list[Frame]]:
        path = calls.node(uuid, instance.name, "specificblocks")
        listed = ",".join(str(n) for block in batch for n in block)
        limit = len(batch) * 2 * _block_bytes(instance) + _SLACK
        reply = yield from self._ask(Call(path, (("blocks", listed), *query), limit=limit))
        low = tuple(min(axis) for axis in zip(*batch, strict=True))
        high = tuple(max(axis) for axis in zip(*batch, strict=True))
        count = tuple(h - lo + 1 for lo, h in zip(low, high, strict=True))
        frames = list(parse_frames(reply.data, _block_xyz(low), _block_xyz(count), "/".join(path)))
        wanted = set(batch)
        if any(frame.block_xyz not in wanted for frame in frames):
            self._fail(f"{'/'.join(path)}: the server sent blocks that were not asked for")
        return frames

    def _subvolume(
        self, uuid: str, instance: Instance, first: Triple, count: Triple, query: tuple[tuple[str, str], ...]
    ) -> Plan[list[Frame]]:
        block = instance.block_size
        size, offset = (calls.text(tuple(n * b for n, b in zip(at, block, strict=True))) for at in (count, first))
        path = calls.node(uuid, instance.name, "blocks" if instance.is_label else "subvolblocks", size, offset)
        limit = math.prod(count) * 2 * _block_bytes(instance) + _SLACK
        reply = yield from self._ask(Call(path, (*query, *self._throttled()), limit=limit))
        return list(parse_frames(reply.data, first, count, "/".join(path)))

    def _check_absent(self, uuid: str, instance: Instance, batch: Sequence[Triple]) -> Plan[None]:
        query = (("compression", "blocks"), ("supervoxels", "true"))
        found = yield from self._specific(uuid, instance, batch, query)
        if found:
            raise Unsupported(
                f"{instance.name}: block {found[0].block_xyz} is stored already, and would be counted twice in the"
                " index; nothing of this request was sent: use voxels.write",
                url=self._connection.url,
            )

    def _grow_extents(self, uuid: str, name: str, instance: Instance, first: Triple, span: int) -> Plan[None]:
        """Blocks posted this way are not counted by the server."""
        info = yield from self._ask_json(Call(calls.node(uuid, name, "info")))
        low = [f * b for f, b in zip(first, instance.block_size, strict=True)]
        high = [f + b - 1 for f, b in zip(low, instance.block_size, strict=True)]
        high[0] += (span - 1) * instance.block_size[0]
        before = info["Extended"]
        if before.get("MinPoint") is not None and before.get("MaxPoint") is not None:
            low = [min(a, b) for a, b in zip(low, before["MinPoint"], strict=True)]
            high = [max(a, b) for a, b in zip(high, before["MaxPoint"], strict=True)]
        yield from self._post_json(calls.node(uuid, name, "extents"), {"MinPoint": low, "MaxPoint": high})

    def _at_once(self, instance: Instance) -> int:
        return max(1, min(BLOCKS_PER_REQUEST, BYTES_PER_REQUEST // _block_bytes(instance)))


def _query(instance: Instance, scale: int, *, supervoxels: bool) -> tuple[tuple[str, str], ...]:
    if scale and not 0 < scale <= instance.max_scale:
        raise ValueError(f"{instance.name} has scales 0 to {instance.max_scale}, not {scale}")
    query = [("scale", str(scale))] if scale else []
    if instance.is_label:
        query += [("supervoxels", "true")] * (supervoxels and instance.typename == "labelmap")
        return (*query, ("compression", label_form(instance)))
    return (("compression", "uncompressed"),) if block_form(instance) == "plain" else ()


def _pieces(first: Triple, count: Triple, most: int) -> Iterator[tuple[Triple, Triple]]:
    """Boxes of at most `most` blocks that cover `count` blocks from `first` on; x is cut last."""
    along_x = min(count[0], most)
    along_y = min(count[1], max(1, most // along_x))
    along_z = min(count[2], max(1, most // (along_x * along_y)))
    step = (along_x, along_y, along_z)
    starts = [range(0, n, s) for n, s in zip(count, step, strict=True)]
    for z, y, x in itertools.product(*starts[::-1]):
        size = tuple(min(s, n - at) for s, n, at in zip(step, count, (x, y, z), strict=True))
        yield (first[0] + x, first[1] + y, first[2] + z), _block_xyz(size)


def _block_bytes(instance: Instance) -> int:
    return math.prod(instance.block_size) * np.dtype(instance.dtype).itemsize * instance.channels


def _block_xyz(block: Sequence[int]) -> Triple:
    x, y, z = (int(n) for n in block)
    return x, y, z


def _packed(voxels: Array, instance: Instance) -> bytes:
    shape = instance.block_size[::-1]
    if voxels.shape != shape or voxels.dtype.kind not in "ui" or not np.can_cast(voxels.dtype, np.uint64, "safe"):
        raise ValueError(
            f"{instance.name}: expected blocks of labels of shape {shape}, got {voxels.dtype} {voxels.shape}"
        )
    labels = np.ascontiguousarray(voxels, np.uint64)
    return gzip.compress(bytes(DvidLabelBlock(shape, "uint64").encode(labels)), _GZIP_LEVEL)
