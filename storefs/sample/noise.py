"""Smooth noise: random values on a coarse lattice, interpolated by cubic B-splines."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]


class SmoothNoise:
    """Noise of about unit variance over `shape`, with `knots` random values along every axis."""

    def __init__(
        self,
        shape: tuple[int, ...],
        knots: tuple[int, ...],
        rng: np.random.Generator,
        smooth: tuple[bool, ...] = (True, True, True),
    ) -> None:
        self._weights = [
            _spline_weights(n, k) if spline else np.eye(n, dtype=np.float32)
            for n, k, spline in zip(shape, knots, smooth, strict=True)
        ]
        lattice = rng.standard_normal([w.shape[1] for w in self._weights], np.float32)
        # a spline averages about four knots an axis, which costs variance
        self._lattice = lattice * np.float32(1.45 ** sum(smooth))

    def plane(self, z: int) -> Field:
        """Section `z` of a three-dimensional field, yx."""
        _, along_y, along_x = self._weights
        return self._float32(along_y @ np.tensordot(self._weights[0][z], self._lattice, 1) @ along_x.T)

    def whole(self) -> Field:
        """The field."""
        field: Any = self._lattice
        for weights in self._weights:
            field = np.moveaxis(np.tensordot(weights, field, (1, 0)), 0, -1)
        return self._float32(field)

    @staticmethod
    def _float32(field: Any) -> Field:  # noqa: ANN401  # numpy widens what it multiplies
        return np.asarray(field, np.float32)


def _spline_weights(size: int, knots: int) -> Field:
    """The matrix that interpolates `size` samples from `knots + 3` random values."""
    position = np.linspace(0, knots, size, endpoint=False)
    cell = position.astype(int)
    t = position - cell
    weights = np.zeros((size, knots + 3), np.float32)
    basis = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for shift, values in enumerate(basis):
        weights[np.arange(size), cell + shift] = values / 6
    return weights
