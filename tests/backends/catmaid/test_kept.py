"""What is kept of a stack, told and forgotten: its tiles, and the volumes of other formats behind its mirrors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import storefs
from storefs.cost import plan
from tests.backends.catmaid import specimen
from tests.backends.catmaid.emulator import Mirror
from tests.backends.catmaid.scene import SHAPE, SIZE, Scene
from tests.backends.catmaid.specimen import tissue
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.emulator import DvidEmulator
from tests.small_volume import Volume, volume


def layer(em: Scene) -> tuple[str, Volume]:
    """A stack whose one mirror is a precomputed layer of 27 chunks at its finest scale; its address, the layer."""
    made = volume((12, 48, 48), (16, 16, 4), "uint8", offset_xyz=(5, -7, 3), absent=())
    em.host.put("layer", made.files)
    mirror = Mirror(f"{em.host.url}/layer/%SCALE_DATASET%/0_1_2", 14, "", *SIZE, id=1)
    return em.stack(made.arrays[0], [(1, 1, 1), (2, 2, 2)], mirrors=[mirror]).url, made


def spoil(em: Scene) -> None:
    """Put other tiles or chunks in place of what is served."""
    for at in [at for at in em.host.files if not at.endswith("info")]:
        blank = specimen.png(np.full(SIZE[::-1], 7, np.uint8))
        em.host.files[at] = blank if at.endswith("png") else b"\7" * len(em.host.files[at])


@pytest.mark.parametrize("selection", [None, np.s_[0]], ids=str)
def test_tiles_are_forgotten(em: Scene, selection: int | None) -> None:
    """After clear_cache tiles are fetched anew, of a whole array or a part of it."""
    array = storefs.open_array(em.stack(tissue(SHAPE), kind=5).url)
    array[0]
    spoil(em)
    assert not (array[0] == 7).all()
    storefs.clear_cache(array, selection)
    assert (array[0] == 7).all()


@pytest.mark.parametrize("selection", [None, np.s_[:2]], ids=str)
@pytest.mark.parametrize("on_disk", [True, False])
def test_volumes_behind_are_forgotten(em: Scene, tmp_path: Path, selection: slice | None, *, on_disk: bool) -> None:
    """After clear_cache the chunks of the volume in which a stack lies are fetched anew, kept on disk or not."""
    url, made = layer(em)
    array = storefs.open_array(url, **({"cache": str(tmp_path)} if on_disk else {}))
    assert np.array_equal(array[:2], made.arrays[0][:2])
    spoil(em)
    storefs.clear_cache(array, selection)
    assert (array[:2] == 7).all()


def test_volumes_behind_are_counted(em: Scene, tmp_path: Path) -> None:
    """Statistics of a stack that lies in a volume of another format tell what that volume was asked for."""
    url, _ = layer(em)
    array = storefs.open_array(url, cache=str(tmp_path))
    before = len(em.host.seen)
    array[...]
    told = storefs.statistics(array)
    assert len(em.host.seen) - before == 27
    assert told.requests == 1 + 1 + 27  # the stack's info, the volume's, chunks
    assert told.disk_cache is not None
    assert told.disk_cache.misses == 27
    storefs.open_array(url, cache=str(tmp_path))[...]
    again = storefs.open_array(url, cache=str(tmp_path))
    again[...]
    served = storefs.statistics(again).disk_cache
    assert served is not None
    assert served.hits == 27


def test_volumes_behind_are_planned_for(em: Scene, tmp_path: Path) -> None:
    """A plan counts the requests for the chunks of the volume behind, and which of them are kept."""
    url, _ = layer(em)
    array = storefs.open_array(url, cache=str(tmp_path))
    assert plan(array).requests == 27
    assert plan(array).cached_chunks == 0
    array[...]
    assert plan(array).cached_chunks == 27


def test_slices_that_are_filled_cost_nothing(em: Scene) -> None:
    """A plan of broken slices that are filled has neither requests nor bytes."""
    array = storefs.open_array(em.stack(tissue(SHAPE), facts={"broken_slices": (1,)}).url)
    cost = plan(array, np.s_[1])
    assert (cost.requests, cost.bytes_fetched) == (0, 0)


def test_what_changes_is_not_kept(em: Scene, tmp_path: Path) -> None:
    """Voxels of a DVID version that is not locked are not kept on disk, as tiles neither: that is an error."""
    with DvidEmulator() as server:
        lab = Lab(server)
        lab.make("gray", "uint8blk", BlockSize="32,32,32")
        assert lab.post("gray/raw/0_1_2/64_32_32/0_0_0", tissue((32, 32, 64)).tobytes()).status == 200
        lab.ask.close()
        base = f"{server.url}/api/node/{lab.root}/gray/raw/0_1/"
        shown = em.stack(tissue((32, 32, 64)), [(1, 1, 1)], mirrors=[Mirror(base, 6, "png", 32, 32, id=1)])
        with pytest.raises(storefs.Unsupported, match="may change"):
            storefs.open(shown.url, cache=str(tmp_path))
        assert np.array_equal(storefs.open_array(shown.url)[...], shown.finest)
