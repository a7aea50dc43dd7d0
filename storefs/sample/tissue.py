"""A made-up piece of neural tissue: an electron micrograph and its segmentation, from a seed, by numpy alone.

Neurites are bundles of curves that wander from section to section. Every voxel belongs to the neurite nearest to it
in a smoothly warped plane (a power diagram, so that thick and thin ones lie side by side); where the nearest two are
about equally near lies the membrane between them. Arrays are C order, zyx.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storefs.sample.noise import SmoothNoise
from storefs.sample.organelles import Organelles, Section

Plane = npt.NDArray[np.float32]
Voxels = npt.NDArray[Any]

SEED = 4
FIRST_ID = 720_575_940_600_000_000  # far beyond 2^53, where float64 skips numbers
LAST_ID = 720_575_940_661_999_999
AREA_OF_CURVE = 700  # in pixels of a section
CURVES_OF_NEURITE = (1, 1, 1, 2, 2, 3, 5)
TILE = 56
WARP = 12.0
RIPPLE = 1.6
MEMBRANE = 1.7
CYTOPLASM = 172.0


@dataclass(frozen=True, slots=True)
class Tissue:
    """Sections of an electron micrograph (uint8, zyx) and the neurite of every voxel (uint64, zyx)."""

    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint64]


def grow(shape: tuple[int, int, int], seed: int = SEED) -> Tissue:
    """Tissue of `shape` (zyx); the same seed gives the same voxels."""
    rng = np.random.default_rng(seed)
    neurites = _Neurites(shape, rng)
    painter = _Painter(shape, neurites, rng)
    image = np.empty(shape, np.uint8)
    labels = np.empty(shape, np.uint64)
    for z in range(shape[0]):
        section = neurites.section(z)
        image[z] = painter.paint(z, section, np.random.default_rng((seed, z)))
        labels[z] = neurites.ids[section.neurite]
    return Tissue(image, labels)


class _Neurites:
    """The curves of all neurites: positions by section, a weight that makes them thick, and ids."""

    def __init__(self, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
        nz, ny, nx = shape
        margin = 40
        count = max(8, (ny + 2 * margin) * (nx + 2 * margin) // AREA_OF_CURVE)
        start = _spread(count, (ny + 2 * margin, nx + 2 * margin), rng) - margin
        drift = rng.normal(0, 0.55, (count, 2))
        wander = SmoothNoise((nz, count, 2), (max(2, nz // 12), count, 2), rng, smooth=(True, False, False)).whole()
        steps = np.arange(nz)[:, None, None]
        self.paths = (start + drift * (steps - nz / 2) + 9 * wander).astype(np.float32)
        self.owner = _bundles(start, rng)
        thick = rng.lognormal(0, 0.8, self.owner.max() + 1)
        self.weight = (260 * thick[self.owner]).clip(0, 2200).astype(np.float32)
        self.ids = np.sort(rng.choice(LAST_ID - FIRST_ID, self.owner.max() + 1, replace=False)).astype(np.uint64)
        self.ids += np.uint64(FIRST_ID)
        rng.shuffle(self.ids)
        self._warp = [SmoothNoise(shape, (max(2, nz // 10), ny // 22 + 2, nx // 22 + 2), rng) for _ in "yx"]
        self._ripple = [SmoothNoise(shape, (nz, ny // 7 + 2, nx // 7 + 2), rng) for _ in "yx"]
        self._yx = np.mgrid[:ny, :nx].astype(np.float32)
        self._shape = ny, nx

    def section(self, z: int) -> Section:
        """Section `z`, by the power distances from every pixel to all curves."""
        shift = [
            WARP * warp.plane(z) + RIPPLE * ripple.plane(z)
            for warp, ripple in zip(self._warp, self._ripple, strict=True)
        ]
        y, x = (axis + s for axis, s in zip(self._yx, shift, strict=True))
        path = self.paths[z]
        nearest = np.empty(self._shape, np.int16)
        gap = np.empty(self._shape, np.float32)
        for tile in _tiles(self._shape):
            nearest[tile], gap[tile] = self._nearest(path, y[tile], x[tile])
        slope = np.hypot(*np.gradient(gap)).astype(np.float32)
        return Section(nearest, gap / (slope + np.float32(4)), self._unwarped(path, shift))

    def _nearest(self, path: Plane, y: Plane, x: Plane) -> tuple[npt.NDArray[np.int16], Plane]:
        """The neurite nearest to each point, and how much farther (in power) the next one is."""
        near = self._near(path, y, x)
        path, weight, owner = path[near], self.weight[near], self.owner[near]
        # |p - q|^2 - w without the term |p|^2 that all curves share
        power = -2 * path[:, :1] * y.ravel() - 2 * path[:, 1:] * x.ravel()
        power += (path**2).sum(1, keepdims=True) - weight[:, None]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        nearest, gap = _two_nearest(np.split(power, starts[1:]))
        return owner[starts][nearest].reshape(y.shape).astype(np.int16), gap.reshape(y.shape)

    def _near(self, path: Plane, y: Plane, x: Plane) -> npt.NDArray[np.bool_]:
        """The curves that can be among the two nearest neurites of any point, by the box around the points."""
        low, high = np.array([y.min(), x.min()]), np.array([y.max(), x.max()])
        least = (np.maximum(0, np.maximum(low - path, path - high)) ** 2).sum(1) - self.weight
        most = (np.maximum(high - path, path - low) ** 2).sum(1) - self.weight
        by_neurite = np.minimum.reduceat(most, np.flatnonzero(np.diff(self.owner, prepend=-1)))
        return np.asarray(least <= np.partition(by_neurite, 1)[1])

    def _unwarped(self, path: Plane, shift: list[Plane]) -> Plane:
        """The pixels that the warp takes to `path`, nearly."""
        pixels = path
        for _ in range(4):
            y, x = np.rint(pixels).astype(int).clip(0, np.array(self._shape) - 1).T
            pixels = path - np.stack([axis[y, x] for axis in shift], axis=1)
        return pixels


def _tiles(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    for y in range(0, shape[0], TILE):
        for x in range(0, shape[1], TILE):
            yield slice(y, min(y + TILE, shape[0])), slice(x, min(x + TILE, shape[1]))


def _two_nearest(bundles: list[Plane]) -> tuple[npt.NDArray[np.intp], Plane]:
    """For every column the bundle of rows with its smallest value, and how much greater the next bundle's is."""
    first, *others = (bundle.min(axis=0) if len(bundle) > 1 else bundle[0] for bundle in bundles)
    nearest = np.zeros(first.shape, np.intp)
    second = np.full_like(first, np.inf)
    for number, row in enumerate(others, 1):
        np.minimum(second, np.maximum(first, row), out=second)
        np.copyto(nearest, number, where=row < first)
        np.minimum(first, row, out=first)
    return nearest, second - first


def _spread(count: int, extent: tuple[int, int], rng: np.random.Generator) -> Voxels:
    """`count` points that keep some distance: each the best of a few tries."""
    points = rng.random((1, 2)) * extent
    while len(points) < count:
        tries = rng.random((6, 2)) * extent
        nearest = ((tries[:, None] - points) ** 2).sum(2).min(1)
        points = np.vstack([points, tries[nearest.argmax()]])
    return points


def _bundles(points: Voxels, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """The neurite of each point, neighbours bundled, ascending; reorders `points` to match."""
    free = np.ones(len(points), bool)
    order: list[int] = []
    owner: list[int] = []
    for number, start in enumerate(rng.permutation(len(points))):
        if not free[start]:
            continue
        distance = np.where(free, ((points - points[start]) ** 2).sum(1), np.inf)
        members = distance.argsort()[: rng.choice(CURVES_OF_NEURITE)]
        members = members[distance[members] < 60**2]
        free[members] = False
        order += members.tolist()
        owner += [number] * len(members)
    points[:] = points[order]
    return np.unique(owner, return_inverse=True)[1]


class _Painter:
    """Turns sections into grey values: cytoplasm, organelles, membranes, then what a microscope adds."""

    def __init__(self, shape: tuple[int, int, int], neurites: _Neurites, rng: np.random.Generator) -> None:
        nz, ny, nx = shape
        self._tone = rng.normal(0, 9, len(neurites.ids)).astype(np.float32)
        self._organelles = Organelles(shape, neurites.weight, neurites.owner, rng)
        self._density = SmoothNoise(shape, (max(2, nz // 5), ny // 18 + 2, nx // 18 + 2), rng)
        self._mottle = SmoothNoise(shape, (nz, ny // 4 + 2, nx // 4 + 2), rng)
        self._shade = SmoothNoise(shape, (2, 3, 3), rng)
        self._drift = rng.normal(0, 2.5, nz)

    def paint(self, z: int, section: Section, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """The grey values of section `z`, with noise from `rng`."""
        grey = CYTOPLASM + self._tone[section.neurite] + 7 * self._mottle.plane(z)
        grey = self._organelles.paint(z, grey, section, rng)
        density = self._density.plane(z)
        synapse = np.clip(3 * (density - 0.95), 0, 1)
        width = MEMBRANE * (1 + 0.25 * density) + 2.2 * synapse
        membrane = np.exp(-((section.depth / width) ** 2))
        grey = grey * (1 - 0.72 * membrane) + 22 * membrane
        grain = rng.standard_normal(grey.shape, np.float32)
        grey = _soften(grey + 30 * grain) + 5 * rng.standard_normal(grey.shape, np.float32)
        grey += 6 * self._shade.plane(z) + self._drift[z]
        return np.asarray(grey.clip(0, 255).astype(np.uint8))


def _soften(plane: Plane) -> Plane:
    """`plane` blurred a little, as the beam does."""
    for axis in (0, 1):
        before, after = np.roll(plane, 1, axis), np.roll(plane, -1, axis)
        plane = 0.5 * plane + 0.25 * (before + after)
    return plane
