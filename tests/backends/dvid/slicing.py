"""Planes resampled in real-world units, by the nearest voxel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.backends.dvid.answers import Refusal
from tests.backends.dvid.geometry import Box

Array = npt.NDArray[Any]


def isotropic(box: Box, resolution: Sequence[float], read: Callable[[Box], Array]) -> Array:
    """Rows and columns of a plane whose pixels are squares of the finest voxel side; size counts pixels."""
    assert box.plane is not None
    finest = min(resolution)
    size = list(box.size)
    for axis in box.plane:
        size[axis] = max(1, int(box.size[axis] * finest / resolution[axis]))
    source = read(Box(box.offset, (size[0], size[1], size[2]), box.plane))
    columns, rows = box.plane
    plane = source.reshape(size[rows], size[columns], *source.shape[3:])
    picked_rows = np.arange(box.size[rows]) * size[rows] // box.size[rows]
    picked_columns = np.arange(box.size[columns]) * size[columns] // box.size[columns]
    return np.asarray(plane[picked_rows][:, picked_columns])


def arb_plane(words: Sequence[str], resolution: Sequence[float], sample: Callable[[Array], Array]) -> Array:
    """Rows and columns of the plane through three corners in real-world units."""
    top_left, top_right, bottom_left = (_vector(word) for word in words[:3])
    step = float(words[3])
    across, down = top_right - top_left, bottom_left - top_left
    width, height = (int(np.linalg.norm(side) / step) + 1 for side in (across, down))
    rows, columns = np.mgrid[:height, :width].reshape(2, -1, 1)
    places = top_left + columns * across / (width - 1) + rows * down / (height - 1)
    return sample(np.floor(places / np.asarray(resolution)).astype(np.int64)).reshape(height, width)


def _vector(words: str) -> Array:
    parts = words.split("_")
    if len(parts) != 3:
        raise Refusal(f"can't convert string '{words}' (length {len(parts)}) to Vector3d")
    return np.array([float(part) for part in parts])
