"""Streams of blocks, as `specificblocks`, `subvolblocks` and label `blocks` send them.

Record after record: int32 x, y, z of the block, int32 length, then that many bytes; little-endian, in any order,
absent blocks left out. An error that strikes the server after the first byte is text behind the last record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from storefs.errors import ServerFault

_HEAD = struct.Struct("<iiii")
_SHOWN = 200

Block = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """One block of a stream: its coordinates in blocks, and its bytes in the form that was asked for."""

    block_xyz: Block
    payload: memoryview


def parse_frames(data: bytes, first_xyz: Block, count_xyz: Block, what: str) -> Iterator[Frame]:
    """The records of a stream that may hold blocks from `first_xyz` on, `count_xyz` along each axis.

    Raises ServerFault for a record cut short, a block outside, a block twice, or text behind the last record.
    """
    view = memoryview(data)
    seen: set[Block] = set()
    at = 0
    while at < len(view):
        if len(view) - at < _HEAD.size:
            raise _broken(data, at, what)
        x, y, z, length = _HEAD.unpack_from(view, at)
        block = (x, y, z)
        start = at + _HEAD.size
        inside = all(f <= b < f + n for b, f, n in zip(block, first_xyz, count_xyz, strict=True))
        if not inside or not 0 <= length <= len(view) - start or block in seen:
            raise _broken(data, at, what)
        seen.add(block)
        yield Frame(block, view[start : start + length])
        at = start + length


def build_frame(block_xyz: Block, payload: bytes) -> bytes:
    """One record of a stream."""
    return _HEAD.pack(*block_xyz, len(payload)) + payload


def _broken(data: bytes, at: int, what: str) -> ServerFault:
    tail = data[at : at + _SHOWN]
    text = tail.decode("utf-8", "replace").strip()
    if text.isprintable():
        return ServerFault(f"{what}: the server broke off with: {' '.join(text.split())}")
    return ServerFault(f"{what}: the stream of blocks is broken at byte {at} of {len(data)}")
