"""The CATMAID backend keeps the contract of all backends, whatever the tiles are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from storefs.testing import BackendContract
from tests.backends.catmaid.emulator import Mirror
from tests.backends.catmaid.scene import Scene, Shown
from tests.backends.catmaid.specimen import STEPS_OF_Z, Array, colours, n5, name, pyramid, tissue
from tests.backends.dvid.faults import Fault
from tests.small_volume import volume

SIZE = (40, 24)
SHAPE = (3, 61, 70)
ABSENT = (0, 1, 1, 0)  # level, depth, row, column


class ServedStack(BackendContract):
    """A stack from an emulated server and host; one tile of it is missing."""

    kind, extension, orientation = 5, "png", 0
    options = ""

    @pytest.fixture
    def finest(self) -> Array:
        return tissue(SHAPE)

    @pytest.fixture
    def shown(self, em: Scene, finest: Array) -> Shown:
        size = (40, 40) if self.kind == 12 else SIZE
        shown = em.stack(
            finest, STEPS_OF_Z[:3], kind=self.kind, size=size, extension=self.extension, orientation=self.orientation
        )
        absent = name(self.kind, *ABSENT, size=size, extension=self.extension, orientation=self.orientation)
        del em.host.files[next(at for at in em.host.files if at.endswith(absent))]
        width, height = size
        shown.levels[0][..., ABSENT[1], height : 2 * height, :width] = 0
        return shown

    @pytest.fixture
    def url(self, shown: Shown) -> str:
        return shown.url + self.options

    @pytest.fixture
    def expected(self, shown: Shown) -> Mapping[str, Array]:
        return {str(level): array for level, array in enumerate(shown.levels)}

    @pytest.fixture
    def faulty_url(self, em: Scene, finest: Array) -> str:
        size = (40, 40) if self.kind == 12 else SIZE
        depth, height, width = (n - 1 for n in SHAPE)
        facts = {"canary": (width, height, depth)}
        shown = em.stack(
            finest, STEPS_OF_Z[:3], kind=self.kind, size=size, extension=self.extension,
            orientation=self.orientation, facts=facts,
        )  # fmt: skip
        canary = name(
            self.kind, 0, depth, height // size[1], width // size[0],
            size=size, extension=self.extension, orientation=self.orientation,
        )  # fmt: skip
        # the canary is let through, so that the volume opens
        em.host.faults.append(Fault(lambda asked: not asked.target.endswith(canary), status=500, text="out of order"))
        return f"{shown.url}?retries=0" + self.options.replace("?", "&")


class TestGrey(ServedStack):
    """Eight bits, tiles that are not square, a level of half the slices."""


class TestSixteenBits(ServedStack):
    """Sixteen bits."""

    kind = 4

    @pytest.fixture
    def finest(self) -> Array:
        return tissue(SHAPE, "uint16")


class TestColours(ServedStack):
    """Three channels."""

    kind, options = 1, "?channels=rgb"

    @pytest.fixture
    def finest(self) -> Array:
        return colours(SHAPE)


class TestBoss(ServedStack):
    """Square tiles of a zy stack, whose address depends on the orientation."""

    kind, orientation = 12, 2


class TestJpeg(ServedStack):
    """Lossy tiles; what is read is near what was encoded."""

    extension = "jpg"

    def same(self, found: Array, expected: Array) -> None:
        off = np.abs(found.astype(int) - expected.astype(int))
        assert off.mean() < 4
        assert np.array_equal(found == 0, expected == 0) or off.max() < 60


class TestN5(ServedStack):
    """Blocks of an N5 container, its dimensions in another order, one of them missing."""

    @pytest.fixture
    def shown(self, em: Scene, finest: Array) -> Shown:
        levels = pyramid(finest, STEPS_OF_Z[:2])
        em.host.put("a.n5", n5(levels, (32, 24, 2), "2_1_0"))
        del em.host.files["a.n5/vol/s0/1/1/1"]
        mirror = Mirror(f"{em.host.url}/a.n5/vol/%SCALE_DATASET%/2_1_0", 11, "", 64, 64, id=1)
        shown = em.stack(finest, STEPS_OF_Z[:2], mirrors=[mirror])
        shown.levels[0][2:, 24:48, 32:64] = 0
        return shown

    @pytest.fixture
    def faulty_url(self, em: Scene, shown: Shown) -> str:
        faulty = Fault(lambda asked: asked.target.rpartition("/")[2].isdecimal(), status=500, text="out of order")
        em.host.faults.append(faulty)
        return f"{shown.url}?retries=0"


class TestPrecomputed(ServedStack):
    """Chunks of a Neuroglancer volume behind a mirror, one of them missing."""

    @pytest.fixture
    def shown(self, em: Scene, finest: Array) -> Shown:
        size = tuple(n - n % 2 for n in SHAPE)
        data = finest[: size[0], : size[1], : size[2]]
        made = volume(size, (32, 24, 2), "uint8", offset_xyz=(0, 0, 0), absent=((0, 1, 1),), data=data)
        em.host.put("layer", made.files)
        mirror = Mirror(f"{em.host.url}/layer/%SCALE_DATASET%/0_1_2", 14, "", 64, 64, id=1)
        shown = em.stack(data, [(1, 1, 1), (2, 2, 2)], mirrors=[mirror])
        shown.levels[:] = made.arrays
        return shown

    @pytest.fixture
    def faulty_url(self, em: Scene, shown: Shown) -> str:
        em.host.faults.append(Fault(lambda asked: not asked.target.endswith("/info"), status=500, text="no"))
        return f"{shown.url}?retries=0"
