"""The parts of a DVID label block and where they lie.

    header   gx, gy, gz: sub-blocks of 8 x 8 x 8 voxels along x, y and z; N: entries of the table    4 uint32
    table    labels, in any order, repeated or unused                                               N uint64
             a block of a single label may end here
    counts   how many labels each sub-block lists, at most 512                              gx gy gz uint16
    lists    for every sub-block, places in the table                                 sum of counts uint32
    codes    for every sub-block with two or more labels, 512 places in its list, each of as many bits as
             its greatest place needs, from the most significant bit on: 64 bytes per bit

Numbers are little-endian, sub-blocks and voxels go x fastest, then y, then z; nothing may follow. A sub-block that
lists one label is full of it, one that lists none is full of label 0.
Here every triple is in C order, (z, y, x).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storefs_codecs.errors import DecodeError

CODEC_ID = "storefs.dvid_label_block"
SIDE = 8  # of a sub-block
VOXELS = SIDE**3
MAX_SIDE = 1024  # of a block
HEADER = struct.Struct("<4I")
LABEL, COUNT, PLACE = 8, 2, 4  # bytes
GROUP = 8  # codes that fill as many bytes as each has bits
GROUPS = VOXELS // GROUP  # in a sub-block: the bytes that one bit of its codes takes

TOO_SHORT, OTHER_SIZE, NO_LABELS, TOO_MANY, WRONG_LENGTH, PLACE_OUTSIDE, CODE_OUTSIDE = range(1, 8)

WIDTHS = np.array([max(0, count - 1).bit_length() for count in range(VOXELS + 1)])  # of codes, by count

Triple = tuple[int, int, int]
Labels = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """The lists of every sub-block and where its codes begin, proven to fill the payload exactly.

    `labels` holds the lists of all sub-blocks, one after the other, and a label 0 at the end.
    """

    labels: Labels
    counts: Numbers
    widths: Numbers
    starts: Numbers

    @property
    def firsts(self) -> Numbers:
        """Where in `labels` the list of each sub-block begins; sub-blocks without labels point to the 0."""
        firsts = np.cumsum(self.counts) - self.counts
        firsts[self.counts == 0] = self.labels.size - 1
        return firsts


def grid(extent: Triple) -> Triple:
    """Sub-blocks along every axis of a block."""
    z, y, x = (n // SIDE for n in extent)
    return z, y, x


def read_table(payload: memoryview, extent: Triple) -> Labels:
    """The label table. Raises DecodeError where the header does not fit `extent` or the table is cut short."""
    if len(payload) < HEADER.size:
        raise broken(TOO_SHORT, HEADER.size, payload, extent)
    *sizes, entries = HEADER.unpack_from(payload)
    if tuple(sizes[::-1]) != grid(extent):
        raise broken(OTHER_SIZE, 0, payload, extent)
    if not entries:
        raise broken(NO_LABELS, 0, payload, extent)
    end = HEADER.size + entries * LABEL
    if len(payload) < end:
        raise broken(TOO_SHORT, end, payload, extent)
    return np.frombuffer(payload, "<u8", entries, HEADER.size)


def is_solid(payload: memoryview, table: Labels) -> bool:
    """Whether the block ends behind its only label."""
    return table.size == 1 and len(payload) == HEADER.size + LABEL


def read_layout(payload: memoryview, extent: Triple, table: Labels) -> Layout:
    """What follows the table. Raises DecodeError where any of it is false; codes are not looked at."""
    at, blocks = HEADER.size + table.nbytes, math.prod(grid(extent))
    if len(payload) < at + blocks * COUNT:
        raise broken(TOO_SHORT, at + blocks * COUNT, payload, extent)
    counts = np.frombuffer(payload, "<u2", blocks, at).astype(np.int64)
    if counts.max() > VOXELS:
        raise broken(TOO_MANY, int(np.argmax(counts > VOXELS)), payload, extent)
    at += blocks * COUNT
    widths = WIDTHS[counts]
    codes = at + int(counts.sum()) * PLACE
    ends = codes + np.cumsum(widths) * GROUPS
    if len(payload) != ends[-1]:
        raise broken(WRONG_LENGTH, int(ends[-1]), payload, extent)
    places = np.frombuffer(payload[at:codes], "<u4")
    if places.size and places.max() >= table.size:
        raise broken(PLACE_OUTSIDE, int(np.argmax(places >= table.size)), payload, extent)
    labels = np.zeros(places.size + 1, table.dtype)
    labels[:-1] = table[places]
    return Layout(labels, counts, widths, ends - widths * GROUPS)


def broken(problem: int, at: int, payload: memoryview, extent: Triple) -> DecodeError:
    """The error for one of the problems a block may have; `at` is the length needed or the culprit's number."""
    if problem == TOO_SHORT:
        return DecodeError(CODEC_ID, "the block is cut short", f"at least {at} bytes", len(payload))
    if problem == WRONG_LENGTH:
        return DecodeError(CODEC_ID, "the length contradicts the counts", f"{at} bytes", len(payload))
    if problem == OTHER_SIZE:
        found = HEADER.unpack_from(payload)[2::-1]
        return DecodeError(CODEC_ID, "another number of sub-blocks (z, y, x)", grid(extent), found)
    faults = {
        NO_LABELS: "the block has no labels",
        TOO_MANY: f"sub-block {at} lists more than {VOXELS} labels",
        PLACE_OUTSIDE: f"entry {at} of the lists points past the end of the label table",
        CODE_OUTSIDE: f"a code of sub-block {at} points past the end of its list",
    }
    return DecodeError(CODEC_ID, faults[problem])
