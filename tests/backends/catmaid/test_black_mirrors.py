"""Mirrors that answer with a black image whatever they are asked for, and data that are black in places."""

from __future__ import annotations

import numpy as np
import pytest

import storefs
from tests.backends.catmaid import specimen
from tests.backends.catmaid.scene import SHAPE, SIZE, Scene
from tests.backends.catmaid.specimen import pyramid, tissue
from tests.backends.catmaid.tile_hosts import TileHost

QUICK = {"retries": 0, "timeout": 5}


@pytest.mark.parametrize("mirror", [None, "fastest"])
def test_a_black_mirror_is_no_mirror(em: Scene, mirror: str | None) -> None:
    """A host that answers every address with a stock black image is passed over for one that has the data."""
    levels = pyramid(tissue(SHAPE))
    with TileHost() as black:
        mirrors = [em.mirror(levels, black, title="black"), em.mirror(levels, title="good", position=1)]
        black.files.clear()
        black.black = specimen.jpeg(np.zeros((1024, 1024), np.uint8))
        shown = em.stack(tissue(SHAPE), mirrors=mirrors)
        with pytest.warns(UserWarning, match="nothing but black"):
            array = storefs.open_array(shown.url, **({} if mirror is None else {"mirror": mirror}))
        assert np.array_equal(array[...], shown.finest)


def test_a_black_corner_is_no_fault(em: Scene) -> None:
    """A mirror whose data are black at the canary and not elsewhere is read before the next, without a warning."""
    finest = tissue(SHAPE)
    finest[:, :48, :64] = 0
    levels = pyramid(finest)
    mirrors = [em.mirror(levels, title="first"), em.mirror(levels, title="second", position=1)]
    group = storefs.open(em.stack(finest, mirrors=mirrors).url)
    assert [mirror["title"] for mirror in group.attrs["storefs"]["mirrors"] if mirror["in_use"]] == ["first"]
    assert np.array_equal(group["0"][...], finest)


def test_black_everywhere_is_told(em: Scene) -> None:
    """Where the only mirror has nothing but black to show, it is read with a warning, as what its images are."""
    shown = em.stack(np.zeros(SHAPE, np.uint16))
    with pytest.warns(UserWarning, match="nothing but black"):
        array = storefs.open_array(shown.url)
    assert array.dtype == np.uint16
    assert not array[...].any()


def test_a_black_mirror_takes_over_from_none(em: Scene) -> None:
    """When a mirror dies, one that answers everything with black does not stand in for it."""
    levels = pyramid(tissue(SHAPE))
    with TileHost() as black:
        mirrors = [em.mirror(levels, title="good"), em.mirror(levels, black, title="black", position=1)]
        black.files.clear()
        black.black = specimen.jpeg(np.zeros(SIZE[::-1], np.uint8))
        array = storefs.open_array(em.stack(tissue(SHAPE), mirrors=mirrors).url, fallback=True, **QUICK)
        em.host.dies_after = 0
        with pytest.raises(storefs.TransportError):
            array[...]
