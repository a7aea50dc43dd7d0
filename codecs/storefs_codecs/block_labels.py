"""The labels of many blocks at once, with numpy: which there are, ascending, and which of them each voxel has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storefs_codecs.chunk_codec import Array

FEW = 16  # labels of a block that are found one by one, without sorting


def labels_and_indices(voxels: Array, least: Array, greatest: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Blocks with as many labels as each other: which `voxels` rows, their ascending labels, their indices.

    `voxels` is (blocks, voxels of a block) of blocks of two or more labels, whose extremes are given. Each step
    finds the next greater label of every unfinished block; blocks of many labels are sorted.
    """
    which = np.arange(len(voxels))
    indices = np.zeros(voxels.shape, np.uint8)
    labels = least[:, None]
    while which.size and labels.shape[1] < FEW:
        above = voxels > labels[:, -1:]
        indices += above
        following = np.where(above, voxels, greatest[:, None]).min(axis=1)
        labels = np.column_stack([labels, following])
        done = following == greatest
        if done.any():
            yield which[done], labels[done], indices[done]
            which, voxels, greatest, labels, indices = (
                part[~done] for part in (which, voxels, greatest, labels, indices)
            )
    if which.size:
        for rows, found, numbered in _by_sorting(voxels):
            yield which[rows], found, numbered


def _by_sorting(voxels: Array) -> Iterator[tuple[Array, Array, Array]]:
    order = np.argsort(voxels, axis=1)
    ranked = np.take_along_axis(voxels, order, axis=1)
    fresh = np.ones(voxels.shape, np.bool_)
    np.not_equal(ranked[:, 1:], ranked[:, :-1], out=fresh[:, 1:])
    indices = np.empty(voxels.shape, np.uint32)
    np.put_along_axis(indices, order, np.cumsum(fresh, axis=1, dtype=np.uint32) - np.uint32(1), axis=1)
    counts = fresh.sum(axis=1)
    for count in np.unique(counts).tolist():
        rows = np.flatnonzero(counts == count)
        yield rows, ranked[rows][fresh[rows]].reshape(len(rows), count), indices[rows]
