"""Broken slices: what is shown in their place."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal

Policy = Literal["fill", "nearest", "previous", "next"]
POLICIES: tuple[Policy, ...] = ("fill", "nearest", "previous", "next")


def shown_slice(depth: int, count: int, broken: AbstractSet[int], policy: Policy) -> int | None:
    """The slice whose images stand for slice `depth` of `count`; None where there is none and it is filled.

    "nearest" takes the lower of two as near, as CATMAID's viewer does.
    """
    if depth not in broken:
        return depth
    if policy == "fill":
        return None
    below = next((z for z in range(depth - 1, -1, -1) if z not in broken), None) if policy != "next" else None
    above = next((z for z in range(depth + 1, count) if z not in broken), None) if policy != "previous" else None
    if below is None or above is None:
        return below if above is None else above
    return below if depth - below <= above - depth else above
