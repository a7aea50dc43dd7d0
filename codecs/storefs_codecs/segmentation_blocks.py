"""The block grid of compressed_segmentation: which blocks make a chunk, and where their parts lie.

    channel  :=  header[gz][gy][gx], then tables and values in any order
    header   :=  word 0: table offset (24 bits), index width (8 bits);  word 1: values offset
    index of voxel p of a block: `width` bits at bit `width * p` of its values, p = x + BX * (y + BY * z)

Offsets count 32-bit words from the start of the channel. Here every triple is in C order, (z, y, x).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from storefs_codecs.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

CODEC_ID = "storefs.compressed_segmentation"
WIDTHS = (0, 1, 2, 4, 8, 16, 32)
WORD_BITS = 32
MAX_OFFSET = (1 << 24) - 1
FAR = 1 << 58  # a greater block size makes no difference

IS_WIDTH = np.isin(np.arange(256), WIDTHS)

Triple = tuple[int, int, int]
Words = npt.NDArray[np.uint32]

NO_SUCH_WIDTH, VALUES_OUTSIDE, TABLE_OUTSIDE, INDEX_OUTSIDE = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Region:
    """A box of blocks that all cover the same extent: the whole blocks, or one kind of clipped ones."""

    first: Triple
    counts: Triple
    extent: Triple
    block: Triple

    @property
    def blocks(self) -> tuple[slice, slice, slice]:
        """The region within the block grid."""
        z, y, x = (slice(start, start + n) for start, n in zip(self.first, self.counts, strict=True))
        return z, y, x

    @property
    def voxels(self) -> tuple[slice, slice, slice]:
        """The region within the chunk."""
        z, y, x = (
            slice(start * whole, start * whole + n * size)
            for start, n, size, whole in zip(self.first, self.counts, self.extent, self.block, strict=True)
        )
        return z, y, x

    @property
    def strides(self) -> Triple:
        """Steps of the voxel number p along z, y and x; 0 where there is no step to make."""
        _, by, bx = self.block
        z, y, x = (step * (n > 1) for n, step in zip(self.extent, (by * bx, bx, 1), strict=True))
        return z, y, x

    @property
    def last_voxel(self) -> int:
        """The greatest voxel number p that lies inside the chunk."""
        return sum((n - 1) * stride for n, stride in zip(self.extent, self.strides, strict=True))

    def words_read(self, width: int) -> int:
        """Words of values up to and including the last voxel inside the chunk."""
        return (self.last_voxel * width) // WORD_BITS + 1 if width else 0

    def tiles(self, voxels: int) -> Iterator[Region]:
        """The region in pieces of about that many voxels, and at least one block."""
        steps = [1, 1, 1]
        room = voxels // math.prod(self.extent)
        for axis in (2, 1, 0):
            steps[axis] = max(1, min(self.counts[axis], room))
            room //= self.counts[axis]
        spans = (range(0, n, step) for n, step in zip(self.counts, steps, strict=True))
        for z, y, x in itertools.product(*spans):
            gz, gy, gx = (min(s, n - at) for s, n, at in zip(steps, self.counts, (z, y, x), strict=True))
            yield Region(
                (self.first[0] + z, self.first[1] + y, self.first[2] + x),
                (gz, gy, gx),
                self.extent,
                self.block,
            )


@lru_cache(maxsize=256)
def grid(extent: Triple, block: Triple) -> Triple:
    """Blocks along every axis of a chunk."""
    z, y, x = (-(-n // size) for n, size in zip(extent, block, strict=True))
    return z, y, x


def between(region: Region, within: tuple[slice, slice, slice]) -> Region | None:
    """The blocks of `region` that are `within` too; None where there are none."""
    firsts = [max(at, part.start) for at, part in zip(region.first, within, strict=True)]
    lasts = [min(at + n, part.stop) for at, n, part in zip(region.first, region.counts, within, strict=True)]
    gz, gy, gx = (last - first for first, last in zip(firsts, lasts, strict=True))
    z, y, x = firsts
    return Region((z, y, x), (gz, gy, gx), region.extent, region.block) if min(gz, gy, gx) > 0 else None


def regions(extent: Triple, block: Triple) -> Iterator[Region]:
    """The at most eight regions that make up a chunk: its whole blocks, then those clipped at upper faces."""
    axes = []
    for n, size in zip(extent, block, strict=True):
        whole, rest = divmod(n, size)
        axes.append([(0, whole, size)] * (whole > 0) + [(whole, 1, rest)] * (rest > 0))
    for z, y, x in itertools.product(*axes):
        yield Region((z[0], y[0], x[0]), (z[1], y[1], x[1]), (z[2], y[2], x[2]), block)


def index_width(labels: int) -> int:
    """The smallest index width for a table of that many labels."""
    return next(bits for bits in WIDTHS if labels <= 1 << bits)


@dataclass(frozen=True, slots=True)
class Headers:
    """The block headers of one channel as arrays over the block grid; `start` is the channel's first word."""

    start: int
    widths: npt.NDArray[np.uint8]
    tables: Words
    values: Words


def read_headers(
    words: Words,
    start: int,
    extent: Triple,
    block: Triple,
    label_words: int,
    within: tuple[slice, slice, slice] | None = None,
) -> Headers:
    """The headers of the channel at word `start`, every offset in them proven to lie inside the data.

    Of the blocks `within` where that is given, the others are then whatever they are. Raises DecodeError. Indices are
    not looked at.
    """
    headers, problems = examine_headers(words, start, extent, block, label_words)
    if within is not None:
        inside = np.zeros(problems.shape, np.bool_)
        inside[within] = True
        problems[~inside] = 0
    if problems.any():
        first = int(np.flatnonzero(problems)[0])
        raise broken(int(problems.flat[first]), first)
    return headers


def examine_headers(
    words: Words, start: int, extent: Triple, block: Triple, label_words: int
) -> tuple[Headers, npt.NDArray[np.uint8]]:
    """The headers of the channel at word `start`, and for every block what is wrong with its offsets, 0 if nothing."""
    counts = grid(extent, block)
    pairs = words[start : start + 2 * math.prod(counts)].reshape(*counts, 2)
    widths = (pairs[..., 0] >> np.uint32(24)).astype(np.uint8)
    tables: Words = pairs[..., 0] & np.uint32(MAX_OFFSET)
    values = pairs[..., 1]
    room = words.size - start
    problems = np.where(tables > max(room - label_words, -1), TABLE_OUTSIDE, 0).astype(np.uint8)
    for region in regions(extent, block):
        limits = np.full(256, -1)
        limits[list(WIDTHS)] = [max(room - region.words_read(bits), -1) for bits in WIDTHS]
        limits[0] = 1 << WORD_BITS  # blocks of one label have no values
        outside = values[region.blocks] > limits[widths[region.blocks]]
        problems[region.blocks][outside] = VALUES_OUTSIDE
    problems[~IS_WIDTH[widths]] = NO_SUCH_WIDTH
    return Headers(start, widths, tables, values), problems


def broken(problem: int, block: int) -> DecodeError:
    """The error for one of the problems a block may have."""
    if problem == INDEX_OUTSIDE:
        return DecodeError(CODEC_ID, "an index points past the end of the data")
    if problem == NO_SUCH_WIDTH:
        return DecodeError(CODEC_ID, f"block {block} has an unknown index width", f"one of {WIDTHS}")
    part = "values" if problem == VALUES_OUTSIDE else "table"
    return DecodeError(CODEC_ID, f"the {part} of block {block} lie outside the data")


def outside() -> IndexError:
    """The error for voxels that are asked for and lie outside the chunk."""
    return IndexError(f"{CODEC_ID}: a voxel lies outside the chunk")


def too_far() -> EncodeError:
    """The error for a channel whose tables do not fit into the reach of 24-bit offsets."""
    return EncodeError(CODEC_ID, f"a channel needs more than {MAX_OFFSET} words; use smaller chunks")
