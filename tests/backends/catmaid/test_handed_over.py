"""Mirrors whose voxels are no tiles: rendered by CATMAID itself, N5, and volumes of other formats."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import storefs
from tests.backends.catmaid.emulator import TOKEN, Mirror
from tests.backends.catmaid.scene import Scene
from tests.backends.catmaid.specimen import Array, n5, pyramid, tissue
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.emulator import DvidEmulator
from tests.small_volume import volume

SHAPE = (6, 40, 64)
ISOTROPIC = [(1, 1, 1), (2, 2, 2)]


def check(url: str, levels: list[Array], **options: str) -> None:
    """Assert that the levels of a stack are these."""
    group = storefs.open(url, **options)
    for number, level in enumerate(levels):
        np.testing.assert_array_equal(group[str(number)][...], level)


# through CATMAID


def test_hdf5(em: Scene) -> None:
    """Type 3 is rendered by CATMAID, which wants the token; only full resolution is there."""
    finest = tissue(SHAPE)
    em.server.hdf5 = {"vol": {1: finest}}
    em.project.public = False
    shown = em.stack(finest, [(1, 1, 1)], mirrors=[Mirror("vol", 3, "png", 64, 48, id=1)])
    check(shown.url, [finest], token=TOKEN)
    tiles = [seen for seen in em.server.seen if seen.path.endswith("/tile")]
    assert {seen.headers["x-authorization"] for seen in tiles} == {f"Token {TOKEN}"}


def test_hdf5_that_is_disabled(em: Scene) -> None:
    """Where the server renders nothing, its words are in the error."""
    shown = em.stack(mirrors=[Mirror("vol", 3, "png", 64, 48, id=1)])
    with pytest.raises(storefs.StorefsError, match="HDF5 tile loading is currently disabled"):
        storefs.open(shown.url, retries=0)


@pytest.fixture
def precomputed(em: Scene) -> tuple[str, list[Array]]:
    """A precomputed layer on the tile host; its address, and its scales."""
    made = volume(SHAPE, (16, 16, 4), "uint8", offset_xyz=(0, 0, 0), absent=(), data=tissue(SHAPE))
    em.host.put("layer", made.files)
    return f"{em.host.url}/layer", made.arrays


def test_cloudvolume(em: Scene, precomputed: tuple[str, list[Array]]) -> None:
    """Type 13 is read from where CATMAID would read it, without CATMAID."""
    base, levels = precomputed
    mirror = Mirror(f"precomputed://{base}", 13, "png", 64, 48, id=1)
    shown = em.stack(levels[0], ISOTROPIC, mirrors=[mirror])
    check(shown.url, levels)
    assert not any(seen.path.endswith("/tile") for seen in em.server.seen)


def test_precomputed_chunks(em: Scene, precomputed: tuple[str, list[Array]]) -> None:
    """Type 14 is read as a precomputed volume; the token does not go there."""
    base, levels = precomputed
    mirror = Mirror(f"{base}/%SCALE_DATASET%/0_1_2", 14, "", 64, 48, id=1)
    shown = em.stack(levels[0], ISOTROPIC, mirrors=[mirror])
    check(shown.url, levels, token=TOKEN)
    assert not any(TOKEN in str(seen) for seen in em.host.seen)


@pytest.mark.filterwarnings("ignore:.*volume behind its tiles cannot be read")
@pytest.mark.parametrize("place", ["file:///etc", "/etc", "s3://", "precomputed://file:///etc"])
@pytest.mark.parametrize("kind", [13, 14])
def test_servers_name_no_files(em: Scene, kind: int, place: str) -> None:
    """A server cannot lead to files of this machine, or nowhere."""
    shown = em.stack(mirrors=[Mirror(f"{place}/%SCALE_DATASET%/0_1_2" if kind == 14 else place, kind, id=1)])
    with pytest.raises(storefs.StorefsError):
        storefs.open(shown.url, retries=0)


# N5


@pytest.mark.parametrize("dimensions", ["0_1_2", "2_1_0", "1_2_0"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_n5(em: Scene, dimensions: str, dtype: str) -> None:
    """Type 11 is read block by block, whichever N5 dimension is x, y or z."""
    levels = pyramid(tissue((7, 41, 67), dtype), [(1, 1, 1), (2, 2, 1)])
    em.host.put("a.n5", n5(levels, (16, 12, 4), dimensions))
    mirror = Mirror(f"{em.host.url}/a.n5/vol/%SCALE_DATASET%/{dimensions}", 11, "", 64, 64, id=1)
    shown = em.stack(levels[0], [(1, 1, 1), (2, 2, 1)], mirrors=[mirror])
    check(shown.url, levels)


def test_n5_blocks_that_are_missing(em: Scene) -> None:
    """An N5 block that is not there is the fill value; a broken one is an error."""
    finest = tissue((4, 24, 32))
    em.host.put("a.n5", n5([finest], (16, 12, 4)))
    mirror = Mirror(f"{em.host.url}/a.n5/vol/%SCALE_DATASET%/0_1_2", 11, "", 64, 64, id=1)
    shown = em.stack(finest, [(1, 1, 1)], mirrors=[mirror])
    del em.host.files["a.n5/vol/s0/1/1/0"]
    finest = finest.copy()
    finest[:, 12:, 16:] = 0
    check(shown.url, [finest])
    em.host.files["a.n5/vol/s0/1/1/0"] = b"\0\0\0\3" + b"\xff" * 40
    with pytest.raises(Exception, match=r"[Bb]lock|N5|n5|1/1/0") as caught:
        storefs.open(shown.url)["0"][...]
    assert not isinstance(caught.value, FileNotFoundError)


# DVID


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A DVID server with one repository."""
    with DvidEmulator() as server:
        made = Lab(server)
        yield made
        made.ask.close()


PLANES = {0: ("0_1", (0, 1, 2)), 1: ("0_2", (1, 0, 2)), 2: ("1_2", (2, 1, 0))}


@pytest.mark.parametrize("orientation", PLANES)
def test_dvid_blocks(em: Scene, lab: Lab, orientation: int) -> None:
    """Type 6 is read from DVID, and lies in the stack as CATMAID would show it."""
    whole = tissue((32, 32, 64))
    lab.make("gray", "uint8blk", BlockSize="32,32,32")
    assert lab.post("gray/raw/0_1_2/64_32_32/0_0_0", whole.tobytes()).status == 200
    plane, axes = PLANES[orientation]
    base = f"{lab.server.url}/api/node/{lab.root}/gray/raw/{plane}/"
    mirror = Mirror(base, 6, "png", 32, 32, id=1)
    shown = em.stack(whole.transpose(axes), [(1, 1, 1)], mirrors=[mirror], orientation=orientation)
    check(shown.url, [whole.transpose(axes)], token=TOKEN)
    assert not any(TOKEN in str(seen) for seen in lab.server.record.requests)
