"""Selections as zarr hands them to codecs, numpy-style indexes into one chunk."""

from __future__ import annotations

from typing import Any

import numpy as np


def plain_box(selection: Any, shape: tuple[int, ...]) -> tuple[slice, ...] | None:  # noqa: ANN401  # zarr's selectors are untyped
    """`selection` as one slice an axis, None where it is no solid box."""
    items = selection if isinstance(selection, tuple) else (selection,)
    if len(items) != len(shape):
        return None
    box = []
    for item, length in zip(items, shape, strict=True):
        if isinstance(item, slice):
            start, stop, step = item.indices(length)
        elif isinstance(item, int | np.integer):
            start, stop, step = int(item), int(item) + 1, 1
        else:
            return None
        if step != 1 or stop <= start:
            return None
        box.append(slice(start, stop, 1))
    return tuple(box)


def kept_axes(selection: Any) -> tuple[int | slice, ...]:  # noqa: ANN401  # zarr's selectors are untyped
    """The index that drops, from the voxels of `plain_box`, the axes that `selection` drops."""
    items = selection if isinstance(selection, tuple) else (selection,)
    return tuple(slice(None) if isinstance(item, slice) else 0 for item in items)


def lattice(items: tuple[Any, ...], extent: tuple[int, ...]) -> tuple[slice, ...] | None:
    """`items`, one an axis, as slices of positive steps; None where they are no such, or reach beyond `extent`."""
    box = []
    for item, length in zip(items, extent, strict=True):
        if isinstance(item, slice):
            start, stop, step = item.indices(length)
            # what numpy would clip is meant to be padding
            if item.stop is not None and item.stop > length:
                return None
        elif isinstance(item, int | np.integer):
            start, stop, step = int(item), int(item) + 1, 1
        else:
            return None
        if step < 1 or not 0 <= start < stop <= length:
            return None
        box.append(slice(start, stop, step))
    return tuple(box)
