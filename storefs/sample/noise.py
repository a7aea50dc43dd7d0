"""Smooth noise: random values on a coarse lattice, interpolated by cubic B-splines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]

# a spline averages about four knots, which costs variance on every axis
_GAIN = 1.45


class SmoothNoise:
    """Noise of about unit variance over `shape`, with `knots` random values along every axis.

    An axis of which `smooth` is False has a random value of its own at every sample.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        knots: tuple[int, ...],
        rng: np.random.Generator,
        smooth: tuple[bool, ...] = (True, True, True),
    ) -> None:
        self._splines = [_spline(n, k) if s else None for n, k, s in zip(shape, knots, smooth, strict=True)]
        lattice = [n if spline is None else k + 3 for n, k, spline in zip(shape, knots, self._splines, strict=True)]
        self._values = rng.standard_normal(lattice, np.float32) * np.float32(_GAIN ** sum(smooth))

    def plane(self, z: int) -> Field:
        """Section `z` of the field."""
        spline = self._splines[0]
        if spline is None:
            return _interpolated(self._values[z], self._splines[1:])
        near = self._values[spline.cell[z] : spline.cell[z] + 4]
        section = sum(weight * values for weight, values in zip(spline.weights[:, z], near, strict=True))
        return _interpolated(np.asarray(section), self._splines[1:])

    def whole(self) -> Field:
        """The field."""
        return _interpolated(self._values, self._splines)


@dataclass(frozen=True, slots=True)
class _Spline:
    """For every sample the first of the four knots around it, and the weights of the four."""

    cell: npt.NDArray[np.intp]
    weights: Field


def _spline(size: int, knots: int) -> _Spline:
    position = np.linspace(0, knots, size, endpoint=False)
    cell = position.astype(np.intp)
    t = position - cell
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return _Spline(cell, (np.stack(weights) / 6).astype(np.float32))


def _interpolated(values: Field, splines: list[_Spline | None]) -> Field:
    for axis, spline in enumerate(splines):
        if spline is None:
            continue
        column = (slice(None), *[None] * (values.ndim - axis - 1))
        values = np.asarray(
            sum(w[column] * np.take(values, spline.cell + k, axis) for k, w in enumerate(spline.weights))
        )
    return values
