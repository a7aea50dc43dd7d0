"""Selections as zarr hands them to codecs, numpy-style indexes into one chunk."""

from __future__ import annotations

from typing import Any

import numpy as np


def lattice(selection: Any, shape: tuple[int, ...]) -> tuple[slice, ...] | None:  # noqa: ANN401  # zarr's selectors are untyped
    """`selection` as one slice of a positive step an axis, none of them empty; None where it is something else."""
    items = selection if isinstance(selection, tuple) else (selection,)
    if len(items) != len(shape):
        return None
    found = []
    for item, length in zip(items, shape, strict=True):
        if isinstance(item, slice):
            start, stop, step = item.indices(length)
        elif isinstance(item, int | np.integer):
            start, stop, step = int(item), int(item) + 1, 1
        else:
            return None
        if step < 1 or not 0 <= start < stop:
            return None
        found.append(slice(start, stop, step))
    return tuple(found)


def plain_box(selection: Any, shape: tuple[int, ...]) -> tuple[slice, ...] | None:  # noqa: ANN401  # zarr's selectors are untyped
    """`selection` as one slice an axis, None where it is no solid box."""
    found = lattice(selection, shape)
    return None if found is None or any(along.step != 1 for along in found) else found


def kept_axes(selection: Any) -> tuple[int | slice, ...]:  # noqa: ANN401  # zarr's selectors are untyped
    """The index that drops, from the voxels of `lattice`, the axes that `selection` drops."""
    items = selection if isinstance(selection, tuple) else (selection,)
    return tuple(slice(None) if isinstance(item, slice) else 0 for item in items)
