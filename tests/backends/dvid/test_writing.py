"""Writing DVID volumes through zarr, to an emulated server."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import zarr

import storefs
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.emulator import DvidEmulator
from tests.backends.dvid.faults import Fault


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An emulator with one repository."""
    with DvidEmulator() as server:
        lab = Lab(server)
        yield lab
        lab.ask.close()


@pytest.fixture
def gray(lab) -> str:
    """An image instance without voxels whose extents are not aligned to blocks."""
    lab.make("gray", "uint8blk", BlockSize="16,16,16")
    lab.post("gray/extents", {"MinPoint": [5, 3, -7], "MaxPoint": [60, 40, 30]})
    return f"dvid://{lab.server.url}/{lab.root}/gray"


@pytest.fixture
def labels(lab) -> str:
    """A labelmap of 2 x 2 x 2 blocks, the upper ones beyond its extents."""
    lab.make("seg", "labelmap", BlockSize="32,32,32")
    lab.post("seg/extents", {"MinPoint": [0, 0, 0], "MaxPoint": [63, 63, 40]})
    return f"dvid://{lab.server.url}/{lab.root}/seg"


def extents(lab: Lab, name: str) -> list[list[int]]:
    found = lab.get(f"{name}/info").json["Extended"]
    return [found["MinPoint"], found["MaxPoint"]]


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
@pytest.mark.parametrize("options", [{}, {"face": "portable"}, {"zarr_format": 2}, {"chunk_shape": (16, 16, 16)}])
def test_any_box_can_be_assigned(gray, axes, options):
    """Boxes at random, strided and scattered voxels end up where numpy puts them, and nowhere else."""
    array = storefs.open_array(gray, mode="r+", axes=axes, **options)
    expected = np.zeros(array.shape, np.uint8)
    rng = np.random.default_rng(5)
    for _ in range(12):
        box = tuple(slice(*sorted(rng.choice(n + 1, 2, replace=False))) for n in array.shape)
        values = rng.integers(1, 255, [s.stop - s.start for s in box]).astype(np.uint8)
        array[box] = values
        expected[box] = values
    array[::7, 3, ::5] = 9
    expected[::7, 3, ::5] = 9
    array.oindex[[1, 5], :, [2, 3]] = 7
    expected[np.ix_([1, 5], range(expected.shape[1]), [2, 3])] = 7
    assert np.array_equal(array[:], expected)
    again = storefs.open_array(gray, axes=axes)[:]
    assert np.array_equal(again, expected)


def test_a_url_opened_for_writing_writes(gray):
    """zarr.open of the address alone can write."""
    zarr.open(gray, mode="r+")["0"][2:5, 1, :] = 4
    assert (storefs.open_array(gray)[2:5, 1, :] == 4).all()


def test_aligned_boxes_are_not_read_first(gray, lab):
    """Whole blocks go straight out: nothing but the check of the lock and the voxels is sent."""
    array = storefs.open_array(gray, mode="r+")
    start = array.attrs["storefs"]["voxel_offset_xyz"]
    assert start == [0, 0, -16]
    before = len(lab.server.record.requests)
    array[16:32, 16:32, 16:32] = 7
    sent = [(seen.method, seen.path.rsplit("/", 3)[-3:]) for seen in lab.server.record.requests[before:]]
    assert [method for method, _ in sent] == ["GET", "POST"]
    assert sent[1][1] == ["0_1_2", "16_16_16", "16_16_0"]


def test_voxels_beyond_the_array_stay(gray, lab):
    """Stored voxels of an edge block that lie outside the array survive a write beside them."""
    block = np.full((16, 16, 16), 9, np.uint8)
    assert lab.post("gray/raw/0_1_2/16_16_16/48_32_16", block.tobytes()).status == 200
    lab.post("gray/extents", {"MinPoint": [5, 3, -7], "MaxPoint": [60, 40, 30]})
    storefs.open_array(gray, mode="r+")[...] = 1
    found = lab.voxels("gray/raw/0_1_2/16_16_16/48_32_16", (16, 16, 16))
    assert (found[:15, :9, :13] == 1).all()
    assert found[15, 15, 15] == 9


def test_extents_stay_those_of_the_array(gray, lab):
    """The server's block padding does not show in the extents after a write."""
    array = storefs.open_array(gray, mode="r+")
    array[40:, 30:, 50:] = 3
    assert extents(lab, "gray") == [[5, 3, -7], [60, 40, 30]]
    array[0, 0, 0] = 3
    assert extents(lab, "gray") == [[0, 0, -16], [60, 40, 30]]


def test_writers_of_one_process_lose_nothing(labels):
    """Threads that write into the same block at the same time all find their voxels again."""
    array = storefs.open_array(labels, mode="r+", supervoxels=True, chunk_shape=(32, 32, 32))
    other = zarr.open(labels + "?supervoxels=true", mode="r+")["0"]
    expected = np.arange(array.shape[0], dtype=np.uint64)[:, None, None] + np.uint64(2**60)

    def write(plane: int) -> None:
        (array if plane % 2 else other)[plane] = expected[plane, 0, 0]

    threads = [threading.Thread(target=write, args=(plane,)) for plane in range(array.shape[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(array[:], np.broadcast_to(expected, array.shape))


@pytest.mark.parametrize("fault", [Fault(status=503, times=2), Fault(reset=True, times=1), Fault(cut=True, times=1)])
def test_a_repeated_write_counts_labels_once(labels, lab, fault):
    """When a write has to be sent again, the sizes of labels stay right."""
    fault.where = lambda asked: asked.method == "POST" and "/raw/" in asked.path
    lab.server.faults.append(fault)
    storefs.open_array(labels, mode="r+", supervoxels=True)[:32] = 5
    assert lab.get("seg/size/5").json["voxels"] == 32 * 64 * 64


def test_what_cannot_be_written_is_refused_before_anything_is_sent(labels, gray, lab):
    """Locked versions, mapped bodies and lower scales are refused, and no voxel leaves."""
    with pytest.raises(storefs.Unsupported, match="supervoxels=True"):
        storefs.open_array(labels, mode="r+")[0] = 1
    lab.commit()
    with pytest.raises(storefs.TransportError, match="locked, so nothing was sent"):
        storefs.open_array(gray, mode="r+")[0] = 1
    posted = [seen.path for seen in lab.server.record.requests if seen.method == "POST" and "/raw/" in seen.path]
    assert posted == []


def test_read_only_is_the_default(gray):
    """storefs.open gives arrays that zarr itself refuses to write."""
    with pytest.raises(ValueError, match="read-only"):
        storefs.open_array(gray)[0] = 1


def test_precomputed_volumes_say_that_they_are_read_only(tmp_path):
    """A format without writing says so, naming the volume."""
    from tests.layers import voxels, write_layer

    write_layer(tmp_path / "layer", voxels((8, 8, 8)), (8, 8, 8))
    with pytest.raises(storefs.Unsupported, match="read only"):
        storefs.open_array(f"precomputed://{tmp_path}/layer", mode="r+")[0] = 1


def test_channels_are_merged(lab):
    """Writing some channels of some voxels leaves the others."""
    lab.make("colour", "rgba8blk", BlockSize="16,16,16")
    lab.post("colour/extents", {"MinPoint": [0, 0, 0], "MaxPoint": [19, 19, 19]})
    array = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/colour", mode="r+")
    expected = np.zeros((4, 20, 20, 20), np.uint8)
    array[1, 2:9] = 5
    expected[1, 2:9] = 5
    array[:, 3, 4:, 7] = 8
    expected[:, 3, 4:, 7] = 8
    assert np.array_equal(array[:], expected)
