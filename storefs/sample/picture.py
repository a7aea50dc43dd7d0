"""A section and its labels side by side as a PNG, with a cut through the sections below and a scale bar."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[Any]
Canvas = npt.NDArray[np.uint8]

ENLARGED = 2
GAP = 8
OPACITY = 0.42
BAR_NM = 500
GOLDEN = 0.618033988749895
PAPER = 255
# rows of pixels from the top, as binary digits
GLYPHS = {
    "0": ("0110", "1001", "1001", "1001", "0110"),
    "1": ("010", "110", "010", "010", "111"),
    "2": ("1110", "0001", "0110", "1000", "1111"),
    "5": ("1111", "1000", "1110", "0001", "1110"),
    "n": ("0000", "1110", "1001", "1001", "1001"),
    "m": ("00000", "11110", "10101", "10101", "10101"),
    " ": ("000", "000", "000", "000", "000"),
}


def draw(image: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint64], nm_zyx: tuple[float, ...]) -> bytes:
    """A PNG: the middle section and, below it, the middle row of all sections, without and with labels.

    `image` and `labels` are zyx, of one shape, with voxels of `nm_zyx`.
    """
    nz, ny, _ = image.shape
    depth = max(1, round(ENLARGED * nm_zyx[0] / nm_zyx[2]))
    section = _pair(image[nz // 2], labels[nz // 2], ENLARGED)
    _bar(section, BAR_NM / nm_zyx[2] * ENLARGED)
    cut = _pair(image[:, ny // 2], labels[:, ny // 2], depth)
    gap = np.full((GAP, section.shape[1], 3), PAPER, np.uint8)
    picture = np.vstack([section, gap, cut])
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(picture), 6))


def _pair(image: Plane, labels: Plane, rows: int) -> Canvas:
    """The plane in grey and in colour, each row `rows` pixels high, the grey values interpolated."""
    grey = _interpolated(image, rows)
    names = labels.repeat(rows, 0).repeat(ENLARGED, 1)
    plain = np.repeat(grey[..., None], 3, axis=2)
    tint = colours(names)
    coloured = plain * (1 - OPACITY) + tint * (0.3 + 0.7 * plain / PAPER) * OPACITY * 1.25
    edges = _edges(names)
    coloured[edges] = 0.25 * coloured[edges] + 0.75 * tint[edges]
    gap = np.full((grey.shape[0], GAP, 3), PAPER)
    return np.hstack([plain, gap, coloured]).clip(0, PAPER).astype(np.uint8)


def colours(labels: Plane) -> npt.NDArray[np.float32]:
    """A bright colour (0 to 255, rgb) for every label, the same wherever it occurs."""
    ids, inverse = np.unique(labels, return_inverse=True)
    # the low bits alone differ well, and fit into a float
    hue = ((ids % np.uint64(1 << 20)).astype(np.float64) * GOLDEN) % 1
    turn = (hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1
    rgb = PAPER * (0.12 + 0.88 * np.clip(np.abs(turn * 6 - 3) - 1, 0, 1))
    return np.asarray(rgb.astype(np.float32)[inverse.reshape(labels.shape)])


def _edges(labels: Plane) -> npt.NDArray[np.bool_]:
    edges = np.zeros(labels.shape, bool)
    edges[1:] |= labels[1:] != labels[:-1]
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return edges


def _interpolated(plane: Plane, rows: int) -> npt.NDArray[np.float32]:
    """`plane` enlarged by `rows` and by ENLARGED, linearly between voxel centres."""
    enlarged = plane.astype(np.float32)
    for axis, times in ((0, rows), (1, ENLARGED)):
        length = enlarged.shape[axis]
        at = ((np.arange(length * times) + 0.5) / times - 0.5).clip(0, length - 1)
        low = at.astype(int)
        high = np.minimum(low + 1, length - 1)
        part = (at - low).astype(np.float32)
        part = part[:, None] if axis == 0 else part
        enlarged = np.take(enlarged, low, axis) * (1 - part) + np.take(enlarged, high, axis) * part
    return enlarged


def _bar(canvas: Canvas, length: float) -> None:
    """A scale bar of `length` pixels and its caption in the lower left corner."""
    bottom, left, size = canvas.shape[0] - 14, 14, 3
    right = left + round(length)
    caption = _caption(f"{BAR_NM} nm").repeat(size, 0).repeat(size, 1)
    top = bottom - 12 - caption.shape[0]
    shade = canvas[top - 8 : bottom + 8, left - 8 : max(right, left + caption.shape[1]) + 8]
    shade[...] = shade // 3
    canvas[bottom - 5 : bottom, left:right] = PAPER
    canvas[top : top + caption.shape[0], left : left + caption.shape[1]][caption] = PAPER


def _caption(text: str) -> npt.NDArray[np.bool_]:
    rows = ["0".join(GLYPHS[letter][row] for letter in text) for row in range(5)]
    return np.array([[pixel == "1" for pixel in row] for row in rows])
