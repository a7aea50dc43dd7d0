"""What lies inside neurites: mitochondria with cristae, synaptic vesicles, microtubules, smooth reticulum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storefs.sample.noise import SmoothNoise

Plane = npt.NDArray[np.float32]
Sites = npt.NDArray[np.intp]

ROOM_OF_MITOCHONDRION = 330.0  # weight of a curve, in pixels of area
CYTOPLASM_AROUND = 3.5
VESICLE_RADIUS = 3.0
VESICLE_SPACING = 7
LUMEN = 190.0
MEMBRANE_TONE = 62.0


@dataclass(frozen=True, slots=True)
class Section:
    """One section: the neurite of every pixel, how far (pixels) it lies from the next, where the curves pass (yx)."""

    neurite: npt.NDArray[np.int16]
    depth: Plane
    curves: Plane


@dataclass(frozen=True, slots=True)
class _Mitochondrion:
    """A body around a curve: sections `middle` +- `reach`, radius in pixels, flattened and turned."""

    curve: int
    middle: float
    reach: float
    radius: float
    flat: float
    angle: float
    cristae: float


class Organelles:
    """The organelles of all neurites; `owner` and `weight` are those of the curves."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        weight: npt.NDArray[Any],
        owner: npt.NDArray[np.intp],
        rng: np.random.Generator,
    ) -> None:
        nz, ny, nx = shape
        self._owner = owner
        self._bend = SmoothNoise(shape, (max(2, nz // 6), ny // 12 + 2, nx // 12 + 2), rng)
        self._reticulum = SmoothNoise(shape, (max(2, nz // 4), ny // 14 + 2, nx // 14 + 2), rng)
        self._has_vesicles = rng.random(int(owner.max()) + 1) < 0.28  # noqa: PLR2004  # a share of neurites
        roomy = np.flatnonzero(weight > ROOM_OF_MITOCHONDRION)
        self._mitochondria = [_grow(int(curve), nz, rng) for curve in rng.permutation(roomy)[: 2 * len(roomy) // 3]]
        self._tubules = rng.integers(len(owner), size=4 * len(owner))
        self._tubule_offsets = rng.normal(0, 9, (len(self._tubules), 2))

    def paint(self, z: int, grey: Plane, section: Section, rng: np.random.Generator) -> Plane:
        """`grey` with the organelles of section `z`, which keep clear of the membranes."""
        bend = self._bend.plane(z)
        grey = self._paint_reticulum(z, grey, section)
        grey = _stamp(grey, self._tubule_sites(section), radius=1, depth=section.depth)
        taken = np.zeros(grey.shape, bool)
        for body in self._mitochondria:
            if abs(z - body.middle) < body.reach:
                self._paint_mitochondrion(body, z, grey, taken, section, bend)
        return _stamp(grey, self._vesicle_sites(section, taken, bend, rng), radius=VESICLE_RADIUS, depth=section.depth)

    def _paint_mitochondrion(
        self, body: _Mitochondrion, z: int, grey: Plane, taken: npt.NDArray[np.bool_], section: Section, bend: Plane
    ) -> None:
        centre = section.curves[body.curve]
        window = _window(centre, 1.5 * body.radius, grey.shape)
        y, x = (axis - c for axis, c in zip(np.ogrid[window], centre, strict=True))
        u = x * np.cos(body.angle) + y * np.sin(body.angle)
        v = (y * np.cos(body.angle) - x * np.sin(body.angle)) * body.flat
        radius = body.radius * np.sqrt(1 - ((z - body.middle) / body.reach) ** 2) * (1 + 0.12 * bend[window])
        inside = np.minimum(radius - np.hypot(u, v), section.depth[window] - CYTOPLASM_AROUND)
        inside[section.neurite[window] != self._owner[body.curve]] = -9
        waves = np.sin(body.cristae * (u * 0.9 + 0.35 * v) + 2.2 * bend[window])
        matrix = 118 - 34 * np.clip(2.2 * waves - 0.9, -0.3, 1) * (inside > 2)  # noqa: PLR2004  # its own membrane
        rim = np.exp(-(((inside - 1.0) / 1.25) ** 2))
        cover = np.clip(inside + 0.5, 0, 1)
        grey[window] += cover * (matrix * (1 - rim) + 52 * rim - grey[window])
        taken[window] |= inside > -VESICLE_RADIUS

    def _paint_reticulum(self, z: int, grey: Plane, section: Section) -> Plane:
        sheet = np.exp(-(((self._reticulum.plane(z) - 1.05) / 0.06) ** 2))
        return np.asarray(grey * (1 - 0.38 * sheet * np.clip((section.depth - 5) / 3, 0, 1)))

    def _tubule_sites(self, section: Section) -> Sites:
        sites = np.rint(section.curves[self._tubules] + self._tubule_offsets).astype(np.intp)
        inside = _inside(sites, section.neurite.shape)
        sites, owner = sites[inside], self._owner[self._tubules[inside]]
        return np.asarray(sites[section.neurite[tuple(sites.T)] == owner])

    def _vesicle_sites(
        self, section: Section, taken: npt.NDArray[np.bool_], bend: Plane, rng: np.random.Generator
    ) -> Sites:
        ny, nx = taken.shape
        every = (np.arange(3, n - 3, VESICLE_SPACING) for n in (ny, nx))
        sites = np.stack(np.meshgrid(*every, indexing="ij"), axis=-1).reshape(-1, 2)
        sites = sites + rng.integers(-2, 3, sites.shape)
        at = tuple(sites.T)
        in_cloud = self._has_vesicles[section.neurite[at]] & (bend[at] > -0.15)  # noqa: PLR2004  # a share of the area
        free = (section.depth[at] > VESICLE_RADIUS + 2) & ~taken[at]
        return np.asarray(sites[in_cloud & free & (rng.random(len(sites)) < 0.75)])  # noqa: PLR2004  # a share of places


def _stamp(grey: Plane, sites: Sites, radius: float, depth: Plane) -> Plane:
    """Rings of `radius` at `sites`, dark outside, light inside where there is room."""
    reach = int(radius + 2)
    ring = np.zeros(grey.shape, np.float32)
    core = np.zeros(grey.shape, bool)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            shifted = sites + np.array([dy, dx])
            at = tuple(shifted[_inside(shifted, grey.shape)].T)
            distance = np.hypot(dy, dx)
            ring[at] = np.maximum(ring[at], np.exp(-(((distance - radius + 1) / 0.9) ** 2)))
            core[at] |= distance < radius - 1
    ring *= depth > 2  # noqa: PLR2004  # membranes stay in sight
    return np.asarray(np.where(core, LUMEN, grey) * (1 - 0.62 * ring) + MEMBRANE_TONE * 0.62 * ring)


def _grow(curve: int, sections: int, rng: np.random.Generator) -> _Mitochondrion:
    return _Mitochondrion(
        curve=curve,
        middle=rng.uniform(-4, sections + 4),
        reach=rng.uniform(8, 24),
        radius=rng.uniform(14, 24),
        flat=rng.uniform(1.1, 1.7),
        angle=rng.uniform(0, np.pi),
        cristae=rng.uniform(0.75, 1.0),
    )


def _inside(sites: Sites, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.all((sites >= 0) & (sites < shape), axis=1))


def _window(centre: Plane, reach: float, shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, min(n, int(c - reach))), max(0, min(n, int(c + reach) + 1)))
        for c, n in zip(centre, shape, strict=True)
    )
