"""Writing voxels: whole blocks through POST raw, the only way that is right for every type.

A box that covers blocks in part is read, merged and written; whoever writes holds its blocks meanwhile, so that no
two writers of this process lose an update. For labels the request says `mutate=true`, which makes repeating it safe.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from storefs.backend import Reach
from storefs.backends.dvid import calls
from storefs.backends.dvid.blocks import as_voxels, lz4, unlz4, within
from storefs.backends.dvid.info import SETTABLE_EXTENTS
from storefs.errors import TransportError, Unsupported
from storefs.plans import Call

if TYPE_CHECKING:
    from storefs.backends.dvid.info import Instance
    from storefs.backends.dvid.voxels import Level
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

Triple = tuple[int, int, int]
Box = tuple[Triple, Triple]


@dataclass(frozen=True, slots=True)
class Writable:
    """An instance that may be written."""

    nbytes: int = 0


def check_writable(level: Level, url: str) -> Plan[Writable]:
    """Raise where the instance cannot be written: before any voxel is sent. Raises Unsupported, TransportError."""
    instance = level.instance
    if instance.grid_store:
        raise Unsupported(f"{instance.name} is backed by precomputed data ({instance.grid_store}), read only", url=url)
    if level.scale:
        raise Unsupported("lower scales of labels are made by the server: write scale 0", url=url)
    if level.roi is not None:
        raise Unsupported("a view through a roi is read only", url=url)
    if instance.typename == "labelmap" and not level.supervoxels:
        raise Unsupported(
            "what is written to a labelmap are supervoxels, while mapped bodies are shown: open with supervoxels=True",
            url=url,
        )
    status = yield from calls.ask_json(Call(("api", "node", level.uuid, "status")), url)
    if instance.versioned and isinstance(status, dict) and status.get("Locked"):
        raise TransportError(
            f"version {level.uuid} is locked, so nothing was sent; write to an open child version (newversion)", url=url
        )
    return Writable()


def cover(level: Level, start: Triple, stop: Triple) -> Box:
    """The smallest box of whole blocks (absolute voxels, x, y, z) around `start` to `stop`."""
    block = level.instance.block_size
    low = tuple(s // b * b for s, b in zip(start, block, strict=True))
    high = tuple(-(-s // b) * b for s, b in zip(stop, block, strict=True))
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def blocks_in(level: Level, box: Box, url: str) -> frozenset[Hashable]:
    """Names of the blocks of `box`, for holding them."""
    ranges = [range(lo // b, hi // b) for lo, hi, b in zip(*box, level.instance.block_size, strict=True)]
    return frozenset((*_key(level, url), *xyz) for xyz in itertools.product(*ranges))


def write_box(level: Level, start: Triple, voxels: Array, channels: slice, url: str, reach: Reach) -> Plan[None]:
    """Write `voxels` (zyx, or czyx for `channels`) at `start` (absolute voxel, x, y, z). The caller holds the blocks.

    Raises TransportError and its kinds, DecodeError.
    """
    instance = level.instance
    sx, sy, sz = voxels.shape[-3:][::-1]
    stop: Triple = (start[0] + sx, start[1] + sy, start[2] + sz)
    low, high = cover(level, start, stop)
    if instance.is_label and instance.max_scale and min(low) < 0:
        # the server stores the voxels, then fails on the lower scales or makes wrong ones
        raise Unsupported(
            f"{instance.name} has lower scales, which DVID cannot make at negative coordinates (block at {low})",
            url=url,
        )
    if (low, high) != (start, stop) or (instance.channels > 1 and len(voxels) != instance.channels):
        whole = yield from _read(level, low, high, url)
        inside = tuple(slice(s - lo, e - lo) for s, e, lo in zip(start, stop, low, strict=True))[::-1]
        target = whole[channels] if instance.channels > 1 else whole
        within(target, inside)[...] = voxels
        voxels = whole
    yield from _post(level, low, high, voxels, url)
    if instance.typename in SETTABLE_EXTENTS and _grows(level, low, high):
        yield from _post_extents(level, start, stop, url, reach)


def _read(level: Level, low: Triple, high: Triple, url: str) -> Plan[Array]:
    instance = level.instance
    size = [h - lo for lo, h in zip(low, high, strict=True)]
    shown = list(size)
    if instance.typename == "labelmap" and tuple(size) == instance.block_size:
        shown[0] *= 2  # one aligned block that is missing is answered with an error, two blocks are not
    query = (("compression", "lz4"), ("supervoxels", "true")) if instance.is_label else ()
    path = calls.node(level.uuid, instance.name, "raw", "0_1_2", calls.text(tuple(shown)), calls.text(low))
    length = math.prod(shown) * np.dtype(instance.dtype).itemsize * instance.channels
    reply = yield from calls.ask(Call(path, query=query, limit=2 * length + (1 << 20)), url)
    data = unlz4(reply.data, length) if instance.is_label else reply.data
    found = as_voxels(data, instance, tuple(shown[::-1]))
    return within(found, tuple(slice(n) for n in size[::-1])).copy()


def _post(level: Level, low: Triple, high: Triple, voxels: Array, url: str) -> Plan[None]:
    instance = level.instance
    size = calls.text(tuple(h - lo for lo, h in zip(low, high, strict=True)))
    query: list[tuple[str, str]] = []
    body = _wire(voxels, instance)
    if instance.is_label:
        query.append(("mutate", "true"))
    if instance.typename in ("labelmap", "labelarray"):
        query.append(("compression", "lz4"))
        body = lz4(body)
    if level.throttle:
        query.append(("throttle", "true"))
    path = calls.node(level.uuid, instance.name, "raw", "0_1_2", size, calls.text(low))
    yield from calls.ask(Call(path, query=tuple(query), method="POST", body=body), url)


def _wire(voxels: Array, instance: Instance) -> bytes:
    """`voxels` as the server orders them: x fastest, channels of a voxel together, little-endian."""
    ordered = np.moveaxis(voxels, 0, -1) if instance.channels > 1 else voxels
    return np.ascontiguousarray(ordered, np.dtype(instance.dtype).newbyteorder("<")).tobytes()


def _grows(level: Level, low: Triple, high: Triple) -> bool:
    """Whether the server, which counts whole blocks, now claims more than the array holds."""
    first, stop = level.instance.min_point, level.instance.stop_point
    if first is None or stop is None:
        return True
    return any(lo < f for lo, f in zip(low, first, strict=True)) or any(h > s for h, s in zip(high, stop, strict=True))


def _post_extents(level: Level, start: Triple, stop: Triple, url: str, reach: Reach) -> Plan[None]:
    """Say again what is there: what was there when the array was opened, and what has been written since."""
    key = _key(level, url)
    reach(key, (level.instance.min_point or start, level.instance.stop_point or stop))
    low, high = reach(key, (start, stop))
    body = calls.to_json({"MinPoint": low, "MaxPoint": [n - 1 for n in high]})
    yield from calls.ask(Call(calls.node(level.uuid, level.instance.name, "extents"), method="POST", body=body), url)


def _key(level: Level, url: str) -> tuple[str, str, str]:
    return url.split("/", 3)[2], level.uuid, level.instance.name
