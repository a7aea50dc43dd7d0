"""Bulk reads of DVID ask for boxes across chunks: few requests however small the chunks, or thin the slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storefs
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.emulator import DvidEmulator
from tests.backends.dvid.faults import Fault

BLOCK = 16
START_XYZ = (-16, 32, 0)
SHAPE = (48, 64, 80)
KINDS = {"uint8blk": "uint8", "labelmap": "uint64", "rgba8blk": "uint8"}


@dataclass(frozen=True)
class Scene:
    """A server with one instance of every kind, of the same extent, one block of each absent."""

    lab: Lab
    voxels: dict[str, np.ndarray]

    def open(self, kind: str, **options: object) -> zarr.Array:
        return storefs.open_array(f"dvid://{self.lab.server.url}/{self.lab.root}/{kind}", retries=0, **options)

    def requests(self) -> list[str]:
        return [asked.path for asked in self.lab.server.record.requests]

    def forget(self) -> None:
        self.lab.server.record.forget()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with DvidEmulator() as server:
        lab = Lab(server)
        voxels = {}
        for seed, (kind, dtype) in enumerate(KINDS.items()):
            lab.make(kind, kind, BlockSize=f"{BLOCK},{BLOCK},{BLOCK}")
            tail = (4,) if kind == "rgba8blk" else ()
            whole = np.random.default_rng(seed).integers(1, 200, (*SHAPE, *tail)).astype(dtype)
            for z in range(0, SHAPE[0], BLOCK):
                slab = whole[z : z + BLOCK]
                at = f"{START_XYZ[0]}_{START_XYZ[1]}_{START_XYZ[2] + z}"
                query = "?mutate=true" if kind == "labelmap" else ""
                path = f"{kind}/raw/0_1_2/{SHAPE[2]}_{SHAPE[1]}_{BLOCK}/{at}{query}"
                assert lab.post(path, slab.tobytes()).status == 200
            voxels[kind] = np.moveaxis(whole, -1, 0) if tail else whole
        yield Scene(lab, voxels)
        lab.ask.close()


@pytest.mark.parametrize(("kind", "most"), [("uint8blk", 1), ("rgba8blk", 1), ("labelmap", 4)])
def test_small_chunks_are_read_together(scene, kind, most):
    """A whole array in chunks of one block each takes a request a MiB, not one a chunk."""
    array = scene.open(kind, chunk_shape=(BLOCK, BLOCK, BLOCK))
    assert array.cdata_shape[-3:] == (3, 4, 5)
    scene.forget()
    np.testing.assert_array_equal(array[...], scene.voxels[kind])
    assert len(scene.requests()) <= most


@pytest.mark.parametrize("kind", ["uint8blk", "labelmap"])
@pytest.mark.parametrize("selection", [np.s_[20], np.s_[:, 33], np.s_[:, :, 7], np.s_[20:21, 5, 3:70]])
def test_a_slice_through_chunks_takes_one_request(scene, kind, selection):
    """Whichever way it lies."""
    array = scene.open(kind, chunk_shape=(32, 16, 16))
    scene.forget()
    np.testing.assert_array_equal(array[selection], scene.voxels[kind][selection])
    assert len(scene.requests()) == 1


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_box_is_right(scene, kind, axes, data):
    """Boxes anywhere, strided ones too, of arrays in chunks of any shape: the voxels that zarr's own way gives."""
    chunk = data.draw(st.tuples(*[st.sampled_from([16, 32, 48])] * 3))
    array = scene.open(kind, chunk_shape=chunk, axes=axes)
    whole = scene.voxels[kind] if axes == "zyx" else scene.voxels[kind].T
    bounds = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in whole.shape]
    step = data.draw(st.sampled_from([1, 1, 1, 2]))
    selection = tuple(slice(low, high, step) for low, high in bounds)
    np.testing.assert_array_equal(array[selection], whole[selection])


def test_large_reads_are_cut(scene, monkeypatch):
    """No request asks for more than its share, and together they ask for each voxel once."""
    monkeypatch.setattr("storefs.spans.SHORTEST", 32_768)
    array = scene.open("uint8blk", chunk_shape=(BLOCK, BLOCK, BLOCK))
    scene.forget()
    np.testing.assert_array_equal(array[...], scene.voxels["uint8blk"])
    asked = [asked for asked in scene.requests() if "subvolblocks" in asked]
    sizes = [np.prod([int(n) for n in path.split("/")[-2].split("_")]) for path in asked]
    assert 1 < len(asked) < 60
    assert max(sizes) <= 32_768
    assert sum(sizes) == np.prod(SHAPE)


def test_what_it_takes_is_told_before(scene):
    """storefs.plan counts the requests that are sent."""
    for selection in (np.s_[...], np.s_[20], np.s_[3:40, 10:60, ::2]):
        array = scene.open("uint8blk", chunk_shape=(BLOCK, BLOCK, BLOCK))
        expected = storefs.plan(array, selection).requests
        scene.forget()
        array[selection]
        assert len(scene.requests()) == expected


@pytest.mark.parametrize("option", [{"missing": "error"}, {"memory_cache": "10 MB"}])
def test_where_chunks_matter_chunks_are_read(scene, option):
    """Missing chunks can be told, and kept ones found again, only as chunks."""
    array = scene.open("uint8blk", chunk_shape=(BLOCK, BLOCK, BLOCK), **option)
    scene.forget()
    np.testing.assert_array_equal(array[...], scene.voxels["uint8blk"])
    assert len(scene.requests()) == 60


def test_a_failure_names_a_chunk(scene):
    """The one in which the box begins."""
    array = scene.open("uint8blk", chunk_shape=(BLOCK, BLOCK, BLOCK))
    fault = Fault(where=lambda asked: "subvolblocks" in asked.path, status=500, text="broken")
    scene.lab.server.faults.append(fault)
    try:
        with pytest.raises(storefs.ServerFault, match="at voxel -16,32,16"):
            array[16:, :]
    finally:
        scene.lab.server.faults.remove(fault)
