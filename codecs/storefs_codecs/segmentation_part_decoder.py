"""Decoding of parts of compressed_segmentation with numpy: boxes by the blocks they touch, points one by one.

Blocks that are not touched are not looked at, whatever is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from storefs_codecs.segmentation_blocks import (
    FAR,
    INDEX_OUTSIDE,
    Triple,
    Words,
    between,
    broken,
    examine_headers,
    outside,
    read_headers,
    regions,
)
from storefs_codecs.segmentation_decoder import TILE_VOXELS, decode_tile, label_view

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array
    from storefs_codecs.part_codec import Box, Points


def decode_box(words: Words, start: int, extent: Triple, block: Triple, box: Box, out: Array) -> None:
    """Decode the voxels in `box` of a channel of `extent`, whose headers begin at word `start`, into `out`.

    `words` is the whole file; the headers are known to fit, and the box to lie inside and not to be empty. The blocks
    from the first to the last of it are proven as for the whole. Raises DecodeError.
    """
    touched = []
    for along, size, voxels in zip(box, block, out.shape, strict=True):
        last = along.start + (voxels - 1) * (along.step or 1)
        touched.append(slice(along.start // size, last // size + 1))
    z, y, x = touched
    headers = read_headers(words, start, extent, block, out.itemsize // 4, (z, y, x))
    labels = label_view(words, out.dtype)
    corner = [along.start * size for along, size in zip(touched, block, strict=True)]
    ends = [min(along.stop * size, n) for along, size, n in zip(touched, block, extent, strict=True)]
    around = np.empty([end - at for at, end in zip(corner, ends, strict=True)], out.dtype)
    for region in regions(extent, block):
        part = between(region, (z, y, x))
        for tile in part.tiles(TILE_VOXELS) if part else ():
            here = [slice(s.start - at, s.stop - at) for s, at in zip(tile.voxels, corner, strict=True)]
            decode_tile(words, labels, headers, tile, around[tuple(here)])
    out[...] = around[tuple([slice(s.start - at, s.stop - at, s.step) for s, at in zip(box, corner, strict=True)])]


def decode_points(words: Words, start: int, extent: Triple, block: Triple, points: Points, out: Array) -> None:
    """Decode the voxels at `points`, coordinates along z, y and x, of the same channel into `out`.

    The headers of their blocks are proven as for the whole, and their own indices. Raises DecodeError; IndexError for
    points outside, whatever is wrong with others.
    """
    if any(((along < 0) | (along >= n)).any() for along, n in zip(points, extent, strict=True)):
        raise outside()
    headers, problems = examine_headers(words, start, extent, block, out.itemsize // 4)
    bz, by, bx = (min(size, FAR) for size in block)
    z, y, x = (along % size for along, size in zip(points, (bz, by, bx), strict=True))
    cells = np.ravel_multi_index(
        [along // size for along, size in zip(points, (bz, by, bx), strict=True)], problems.shape
    )
    found = problems.ravel()[cells]
    good = np.flatnonzero(found == 0)
    widths = headers.widths.ravel()[cells[good]].astype(np.int64)
    # what has no width has no values either, and may lie further than integers reach
    at = np.where(widths > 0, widths * (z[good] * min(by * bx, FAR) + y[good] * bx + x[good]), 0)
    places = np.where(widths > 0, headers.values.ravel()[cells[good]].astype(np.int64) + start + (at >> 5), 0)
    mask = (np.int64(1) << widths) - 1
    indices = (words[places].astype(np.int64) >> (at & 31)) & mask
    size = out.itemsize // words.itemsize
    labels = headers.tables.ravel()[cells[good]].astype(np.int64) + start
    found[good[indices >= (words.size - labels) // size]] = INDEX_OUTSIDE
    if found.any():
        first = int(np.flatnonzero(found)[0])
        raise broken(int(found[first]), int(cells[first]))
    labels += indices * size
    out[...] = words[labels]
    if size > 1:
        out |= words[labels + 1].astype(out.dtype) << np.uint64(32)
