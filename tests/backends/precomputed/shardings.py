"""A sharding specification to change."""

from __future__ import annotations

from typing import Any

from storefs.backends.precomputed.sharding import Sharding

GRID = (4, 4, 4)


def sharding(**changes: Any) -> Sharding:
    facts: dict[str, Any] = {
        "hash": "identity",
        "preshift_bits": 0,
        "minishard_bits": 1,
        "shard_bits": 1,
        "minishard_index_encoding": "raw",
        "data_encoding": "raw",
        "grid_xyz": GRID,
    }
    return Sharding(**facts | changes)
