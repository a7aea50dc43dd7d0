"""What lies inside neurites: mitochondria with cristae, synaptic vesicles, microtubules, smooth reticulum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storefs.sample.noise import SmoothNoise

Plane = npt.NDArray[np.float32]

ROOM_OF_MITOCHONDRION = 420.0  # weight of a curve, in pixels of area
VESICLE_RADIUS = 3.0
LUMEN = 190.0
MEMBRANE_TONE = 62.0


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
    """The organelles of all neurites; `paths` are their curves (section, curve, yx)."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        paths: npt.NDArray[Any],
        weight: npt.NDArray[Any],
        owner: npt.NDArray[np.intp],
        rng: np.random.Generator,
    ) -> None:
        nz, ny, nx = shape
        self._paths, self._owner, self._rng = paths, owner, rng
        self._bend = SmoothNoise(shape, (max(2, nz // 6), ny // 12 + 2, nx // 12 + 2), rng)
        self._reticulum = SmoothNoise(shape, (max(2, nz // 4), ny // 14 + 2, nx // 14 + 2), rng)
        neurites = int(owner.max()) + 1
        self._has_vesicles = rng.random(neurites) < 0.28
        self._yx = np.mgrid[:ny, :nx].astype(np.float32)
        roomy = np.flatnonzero(weight > ROOM_OF_MITOCHONDRION)
        self._mitochondria = [_grow(curve, nz, rng) for curve in roomy if rng.random() < 0.6]
        tubes = rng.integers(len(paths[0]), size=4 * len(paths[0]))
        self._tubules = tubes, rng.normal(0, 9, (len(tubes), 2))

    def paint(self, z: int, grey: Plane, neurite: npt.NDArray[np.int16], depth: Plane) -> Plane:
        """`grey` with the organelles of section `z`, which keep clear of the membranes (`depth` pixels away)."""
        bend = self._bend.plane(z)
        grey = self._paint_reticulum(z, grey, depth)
        grey = self._stamp(grey, self._tubule_sites(z, neurite), radius=1.0, depth=depth)
        taken = np.zeros(grey.shape, bool)
        for body in self._mitochondria:
            self._paint_mitochondrion(body, z, (grey, taken), neurite, depth, bend)
        sites = self._vesicle_sites(neurite, depth, taken, bend)
        return self._stamp(grey, sites, radius=VESICLE_RADIUS, depth=depth)

    def _paint_mitochondrion(
        self,
        body: _Mitochondrion,
        z: int,
        canvas: tuple[Plane, npt.NDArray[np.bool_]],
        neurite: npt.NDArray[np.int16],
        depth: Plane,
        bend: Plane,
    ) -> None:
        along = (z - body.middle) / body.reach
        if abs(along) >= 1:
            return
        grey, taken = canvas
        window = _window(self._paths[z, body.curve], 2 * body.radius, grey.shape)
        y, x = (axis[window] - centre for axis, centre in zip(self._yx, self._paths[z, body.curve], strict=True))
        u = x * np.cos(body.angle) + y * np.sin(body.angle)
        v = (y * np.cos(body.angle) - x * np.sin(body.angle)) * body.flat
        radius = body.radius * np.sqrt(1 - along**2) * (1 + 0.12 * bend[window])
        # pixels inside the body's own membrane, and inside the neurite with some cytoplasm around
        inside = np.minimum((radius - np.hypot(u, v)), depth[window] - 4.5)
        inside = np.where(neurite[window] == self._owner[body.curve], inside, -9)
        cover = np.clip(inside + 0.5, 0, 1)
        waves = np.sin(body.cristae * (u * 0.9 + 0.35 * v) + 2.2 * bend[window])
        matrix = 118 - 34 * np.clip(2.2 * waves - 0.9, -0.3, 1) * (inside > 2)
        rim = np.exp(-(((inside - 1.0) / 1.25) ** 2))
        tone = matrix * (1 - rim) + 52 * rim
        grey[window] = grey[window] * (1 - cover) + tone * cover
        taken[window] |= inside > -3

    def _paint_reticulum(self, z: int, grey: Plane, depth: Plane) -> Plane:
        field = self._reticulum.plane(z)
        sheet = np.exp(-(((field - 1.05) / 0.06) ** 2)) * np.clip((depth - 5) / 3, 0, 1)
        return grey * (1 - 0.38 * sheet)

    def _tubule_sites(self, z: int, neurite: npt.NDArray[np.int16]) -> npt.NDArray[Any]:
        curve, offset = self._tubules
        sites = np.rint(self._paths[z, curve] + offset).astype(int)
        inside = _inside(sites, neurite.shape)
        sites, curve = sites[inside], curve[inside]
        return sites[neurite[tuple(sites.T)] == self._owner[curve]]

    def _vesicle_sites(
        self, neurite: npt.NDArray[np.int16], depth: Plane, taken: npt.NDArray[np.bool_], bend: Plane
    ) -> npt.NDArray[Any]:
        spacing = 7
        ny, nx = neurite.shape
        sites = np.stack(np.mgrid[3 : ny - 3 : spacing, 3 : nx - 3 : spacing], axis=-1).reshape(-1, 2)
        sites = sites + self._rng.integers(-2, 3, sites.shape)
        at = tuple(sites.T.clip(0, np.array([[ny - 1], [nx - 1]])))
        cloud = self._has_vesicles[neurite[at]] & (depth[at] > 5) & ~taken[at] & (bend[at] > -0.15)
        return sites[cloud & (self._rng.random(len(sites)) < 0.75)]

    def _stamp(self, grey: Plane, sites: npt.NDArray[Any], radius: float, depth: Plane) -> Plane:
        """Rings of `radius` at `sites`, dark outside, light inside where there is room."""
        reach = int(radius + 2)
        ring = np.zeros(grey.shape, np.float32)
        core = np.zeros(grey.shape, np.float32)
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                shifted = sites + (dy, dx)
                at = tuple(shifted[_inside(shifted, grey.shape)].T)
                distance = np.hypot(dy, dx)
                ring[at] = np.maximum(ring[at], np.exp(-(((distance - radius + 1) / 0.9) ** 2)))
                core[at] = np.maximum(core[at], float(distance < radius - 1))
        ring *= depth > 2
        grey = np.where(core > ring, LUMEN, grey)
        return grey * (1 - 0.62 * ring) + MEMBRANE_TONE * 0.62 * ring


def _grow(curve: int, sections: int, rng: np.random.Generator) -> _Mitochondrion:
    return _Mitochondrion(
        curve=curve,
        middle=rng.uniform(-4, sections + 4),
        reach=rng.uniform(7, 20),
        radius=rng.uniform(17, 27),
        flat=rng.uniform(1.1, 1.7),
        angle=rng.uniform(0, np.pi),
        cristae=rng.uniform(0.75, 1.0),
    )


def _inside(sites: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    return np.all((sites >= 0) & (sites < shape), axis=1)


def _window(centre: npt.NDArray[Any], reach: float, shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, int(c - reach)), max(0, min(n, int(c + reach) + 1))) for c, n in zip(centre, shape, strict=True)
    )
