"""Arrays in other processes, where another mirror may be the one that answers: the same voxels, or an error."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zarr

import storefs
from tests.backends.catmaid.scene import SHAPE, Scene, Shown
from tests.backends.catmaid.specimen import pyramid, tissue
from tests.backends.catmaid.tile_hosts import TileHost
from tests.backends.dvid.faults import Fault

QUICK = {"retries": 0, "timeout": 5}


@pytest.fixture
def two(em: Scene) -> Iterator[Shown]:
    """A stack on two mirrors with tiles of different sizes."""
    levels = pyramid(tissue(SHAPE))
    with TileHost() as other:
        mirrors = [em.mirror(levels, title="a"), em.mirror(levels, other, title="b", position=1, size=(32, 32))]
        yield em.stack(tissue(SHAPE), mirrors=mirrors)


def elsewhere(em: Scene, value: Any) -> Any:
    """`value` as another process gets it, where the first host is down."""
    data = pickle.dumps(value)
    em.host.faults.append(Fault(status=500, text="down"))
    return pickle.loads(data)


@pytest.mark.parametrize("options", [{}, {"axes": "xyz"}, {"zarr_format": 2}, {"face": "portable"}], ids=str)
@pytest.mark.parametrize("bulk", [True, False])
def test_a_mirror_that_dies(em: Scene, two: Shown, options: dict[str, Any], *, bulk: bool) -> None:
    """An array that another process gets keeps to its mirror: tiles of another size are not taken for its own."""
    store = storefs.open_store(two.url, **QUICK, **options)
    group = storefs.open(two.url, **QUICK, **options) if bulk else zarr.open_group(store, mode="r")
    again = elsewhere(em, group["0"])
    with pytest.raises(storefs.ServerFault, match="500"):
        again[...]
    data = pickle.dumps(again)
    em.host.faults.clear()
    found = pickle.loads(data)[...]
    assert np.array_equal(found.T if "axes" in options else found, two.finest)


def test_the_fastest_mirror_stays(em: Scene, two: Shown) -> None:
    """Which mirror was the fastest is not found out anew in every process."""
    em.host.latency = 0.2
    group = storefs.open(two.url, mirror="fastest", **QUICK)
    assert group["0"].chunks == (1, 32, 32)
    data = pickle.dumps(group["0"])
    em.host.latency = 0.0
    em.host.forget()
    assert np.array_equal(pickle.loads(data)[...], two.finest)
    assert em.host.seen == []


@pytest.mark.filterwarnings("ignore::storefs.backends.catmaid.mirrors.MirrorWarning")
def test_a_project_that_looks_different(em: Scene, two: Shown) -> None:
    """Where a stack of a project is read from another mirror in another process, that is an error."""
    group = storefs.open(f"{em.url}/1", **QUICK)
    again = elsewhere(em, group[f"{two.stack.id}/0"])
    with pytest.raises(storefs.TransportError, match="open it anew"):
        again[...]


@pytest.mark.filterwarnings("ignore::storefs.backends.catmaid.mirrors.MirrorWarning")
def test_through_fsspec(em: Scene, two: Shown) -> None:
    """Arrays that zarr has opened by their address raise as well, and give no other mirror's tiles."""
    array = zarr.open_group(two.url, mode="r", storage_options=QUICK)["0"]
    assert isinstance(array, zarr.Array)
    assert np.array_equal(array[...], two.finest)
    data = pickle.dumps(array)
    type(array.store.fs).clear_instance_cache()
    em.host.faults.append(Fault(status=500, text="down"))
    again = pickle.loads(data)
    with pytest.raises(storefs.TransportError, match="open it anew"):
        again[...]
