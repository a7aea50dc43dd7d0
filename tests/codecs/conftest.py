"""Chunks that look like the real thing, made without any data from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

ChunkMaker = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def image_chunk() -> ChunkMaker:
    """Makes chunks like microscope images: smooth, a little noisy, over the whole range of the dtype."""

    def make(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray[Any, Any]:
        rng = np.random.default_rng(seed)
        waves = sum(
            np.sin(np.arange(n) * (0.2 + 0.1 * axis) + axis).reshape([-1] + [1] * (len(shape) - axis - 1))
            for axis, n in enumerate(shape)
        )
        smooth = (waves - waves.min()) / max(float(np.ptp(waves)), 1e-6) + rng.normal(0, 0.01, shape)
        if np.dtype(dtype).kind == "f":
            return smooth.astype(dtype)
        limits = np.iinfo(dtype)
        span = float(limits.max) - float(limits.min)
        return (np.clip(smooth, 0.01, 0.99) * span + float(limits.min)).astype(dtype)

    return make


@pytest.fixture(scope="session")
def label_chunk() -> ChunkMaker:
    """Makes chunks like segmentations: solid regions with ids spread over the whole range of the dtype."""

    def make(shape: tuple[int, ...], dtype: str = "uint64", seed: int = 0) -> np.ndarray[Any, Any]:
        rng = np.random.default_rng(seed)
        limits = np.iinfo(dtype)
        ids = np.append(rng.integers(limits.min, limits.max, 11, dtype, endpoint=True), limits.max).astype(dtype)
        cell = sum(
            (np.arange(n) // 3 * (axis + 1)).reshape([-1] + [1] * (len(shape) - axis - 1))
            for axis, n in enumerate(shape)
        )
        return ids[cell % ids.size]

    return make
