"""DVID volumes read as zarr, from an emulated server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import zarr

import storefs
from storefs.testing import BackendContract
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


def post(lab: Lab, name: str, start: tuple[int, int, int], voxels: np.ndarray) -> None:
    """Write whole blocks at voxel `start` (x, y, z)."""
    size = "_".join(str(n) for n in voxels.shape[:3][::-1])
    at = "_".join(str(n) for n in start)
    query = "?mutate=true" if voxels.dtype == np.uint64 else ""
    assert lab.post(f"{name}/raw/0_1_2/{size}/{at}{query}", voxels.tobytes()).status == 200


def noise(shape: tuple[int, ...], dtype: str, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 200, shape).astype(dtype) + (np.uint64(2**60) if dtype == "uint64" else 0)


@pytest.fixture
def gray(lab: Lab) -> tuple[str, np.ndarray]:
    """A uint8 instance of 3 x 2 x 2 blocks, one of them absent, at a negative place; its address and voxels."""
    lab.make("gray", "uint8blk", BlockSize="16,16,16", VoxelSize="4,4,40")
    whole = np.zeros((32, 32, 48), np.uint8)
    for z, y, x in np.ndindex(2, 2, 3):
        if (z, y, x) != (1, 1, 2):
            block = noise((16, 16, 16), "uint8", z * 9 + y * 3 + x)
            whole[z * 16 : z * 16 + 16, y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] = block
            post(lab, "gray", (-16 + x * 16, 32 + y * 16, z * 16), block)
    return f"dvid://{lab.server.url}/{lab.root}/gray", whole


class TestGray(BackendContract):
    """An image instance keeps the contract of all backends."""

    @pytest.fixture
    def url(self, gray):
        return f"{gray[0]}?chunk_shape=32,16,16"

    @pytest.fixture
    def expected(self, gray):
        return {"0": gray[1]}

    @pytest.fixture
    def faulty_url(self, gray, lab):
        lab.server.faults.append(Fault(where=lambda asked: "subvolblocks" in asked.path, status=500, text="broken"))
        return f"{gray[0]}?chunk_shape=32,16,16&retries=0"


def test_opens_with_its_place_in_the_world(gray):
    """Offset, voxel size and the pinned version stand in the attributes."""
    url, voxels = gray
    group = zarr.open_group(url, mode="r")
    about = group.attrs["storefs"]
    assert about["voxel_offset_xyz"] == [-16, 32, 0]
    assert about["resolution_xyz"] == [4.0, 4.0, 40.0]
    assert len(about["resolved_uuid"]) == 32
    np.testing.assert_array_equal(group["0"][:], voxels)


def test_one_request_brings_many_blocks(gray, lab):
    """A volume of a few MiB comes in one request."""
    url, voxels = gray
    array = storefs.open_array(url)
    before = len(lab.server.record.requests)
    assert np.array_equal(array[:], voxels)
    assert len(lab.server.record.requests) == before + 1


def test_text_behind_a_good_body_is_an_error(gray, lab):
    """What the server says after the first byte is raised, with its words, not read as voxels."""
    url, _ = gray
    lab.server.faults.append(Fault(where=lambda asked: "subvolblocks" in asked.path, append="store ran out of files"))
    array = storefs.open_array(url, retries=0)
    with pytest.raises(storefs.ServerFault, match="store ran out of files"):
        array[:]


@pytest.mark.parametrize("fault", [Fault(cut=True), Fault(reset=True), Fault(shorten=7), Fault(status=500, text="no")])
def test_no_fault_reads_as_zeros(gray, lab, fault):
    """Answers that break off, never come or are too short raise, naming the place."""
    url, _ = gray
    array = storefs.open_array(url, retries=0)
    fault.where = lambda asked: "subvolblocks" in asked.path
    lab.server.faults.append(fault)
    with pytest.raises(storefs.TransportError, match="gray at voxel -16,32,0"):
        array[:]


def test_a_busy_server_is_asked_again(gray, lab):
    """A 503 is waited out."""
    url, voxels = gray
    lab.server.faults.append(Fault(where=lambda asked: "subvolblocks" in asked.path, status=503, times=2))
    assert np.array_equal(storefs.open_array(url)[:], voxels)


def test_a_server_that_stays_busy_is_given_up(gray, lab):
    """After `retry_timeout` the 503 is raised with the server's words."""
    url, _ = gray
    lab.server.faults.append(Fault(where=lambda asked: "subvolblocks" in asked.path, status=503))
    with pytest.raises(storefs.ServerFault, match="503"):
        storefs.open_array(url, retry_timeout=0.3)[:]


@pytest.mark.parametrize("typename", ["uint16blk", "uint32blk", "uint64blk", "float32blk"])
def test_every_width(lab, typename):
    """Voxels of every width come back exactly."""
    lab.make("wide", typename, BlockSize="16,16,16")
    dtype = typename.removesuffix("blk")
    voxels = noise((16, 16, 32), dtype)
    post(lab, "wide", (16, 0, -16), voxels)
    array = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/wide")
    assert array.dtype == dtype
    assert np.array_equal(array[:], voxels)


def test_colours_are_a_channel_axis(lab):
    """rgba8 is shown as czyx."""
    lab.make("colour", "rgba8blk", BlockSize="16,16,16")
    voxels = noise((16, 16, 16, 4), "uint8")
    post(lab, "colour", (0, 0, 0), voxels)
    array = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/colour")
    assert array.metadata.dimension_names == ("c", "z", "y", "x")
    assert np.array_equal(array[:], np.moveaxis(voxels, -1, 0))


def test_labels_are_bodies_or_supervoxels(lab):
    """Mapped bodies by default, what was written by option; ids beyond 2^53 exact; scales are the server's."""
    lab.make("seg", "labelmap", BlockSize="32,32,32", MaxDownresLevel="1")
    voxels = np.repeat(np.repeat(np.array([[[1, 2**60 + 1]]], np.uint64), 32, 0), 32, 1).repeat(32, 2)
    post(lab, "seg", (32, 0, 0), voxels)
    assert lab.post("seg/merge", [2**60 + 1, 1]).status == 200
    url = f"dvid://{lab.server.url}/{lab.root}/seg"
    bodies, supervoxels = storefs.open(url), storefs.open(url, supervoxels=True)
    assert np.unique(bodies["0"][:]).tolist() == [2**60 + 1]
    assert np.array_equal(supervoxels["0"][:], voxels)
    assert np.array_equal(supervoxels["1"][..., -32:], voxels[::2, ::2, ::2])


def test_a_pyramid_of_siblings(lab):
    """`gray`, `gray_1` are one multiscale; the factor is in the name where the voxel size was left alone."""
    lab.make("gray", "uint8blk", BlockSize="16,16,16")
    lab.make("gray_1", "uint8blk", BlockSize="16,16,16")
    post(lab, "gray", (0, 0, 0), noise((32, 32, 32), "uint8"))
    post(lab, "gray_1", (0, 0, 0), noise((16, 16, 16), "uint8"))
    group = storefs.open(f"dvid://{lab.server.url}/{lab.root}")["gray"]
    assert sorted(group.array_keys()) == ["0", "1"]
    assert group["1"].attrs["storefs"]["resolution_xyz"] == [16.0, 16.0, 16.0]


def test_an_instance_without_data_is_an_empty_array(lab):
    """Null extents open as a shape of zeros, with a note."""
    lab.make("nothing", "uint8blk")
    array = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/nothing")
    assert array.shape == (0, 0, 0)
    assert "no data yet" in array.attrs["storefs"]["note"]


def test_addresses(gray, lab):
    """A prefix, a branch and the server itself open; a branch is pinned to the version it is at."""
    _, voxels = gray
    server = lab.server.url
    child = lab.commit()
    assert np.array_equal(storefs.open_array(f"dvid://{server}/{lab.root[:6]}/gray")[:], voxels)
    branch = storefs.open(f"dvid://{server}/{lab.root[:6]}:master/gray")
    assert branch.attrs["storefs"]["resolved_uuid"] == child
    repos = storefs.open(f"dvid://{server}")
    assert list(repos.group_keys()) == [lab.root]
    assert set(repos[lab.root].group_keys()) == {lab.root, child}


def test_what_is_not_there_is_said(gray, lab):
    """Unknown versions and instances raise with the server's words or a suggestion."""
    server = lab.server.url
    with pytest.raises(storefs.NoSuchVolume, match="no version 'ffff'"):
        storefs.open(f"dvid://{server}/ffff/gray")
    with pytest.raises(storefs.NoSuchVolume, match="did you mean 'gray'"):
        storefs.open(f"dvid://{server}/{lab.root}/grey")
    with pytest.raises(storefs.ServerFault, match="no connection"):
        storefs.open("dvid://http://127.0.0.1:9/abc/gray", retries=0)


def test_no_token_is_ever_shown(gray, monkeypatch):
    """Tokens from options and environment stay out of errors, reprs and pickles."""
    import pickle

    url, _ = gray
    monkeypatch.setenv("DVID_ADMIN_TOKEN", "s3cr3t-admin")
    store = storefs.open_store(url, token="s3cr3t-user")
    with pytest.raises(storefs.NoSuchVolume) as caught:
        storefs.open(url + "s", token="s3cr3t-user")
    assert "s3cr3t" not in f"{caught.value!r} {caught.value} {store!r} {pickle.dumps(store)!r}"


def test_a_small_box_is_asked_for_alone(lab):
    """A few voxels of a big chunk bring a few bytes, a slab its blocks, and both the right voxels."""
    lab.make("big", "uint8blk", BlockSize="32,32,32")
    whole = noise((64, 64, 128), "uint8")
    post(lab, "big", (-32, 0, 0), whole)
    array = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/big")
    before = len(lab.server.record.requests)
    assert array[5, 6, 7] == whole[5, 6, 7]
    assert np.array_equal(array[40, 3:60, :], whole[40, 3:60, :])
    assert np.array_equal(array[2:30, 33:60, 70:90], whole[2:30, 33:60, 70:90])
    assert np.array_equal(array[::3, 1, 2:40:5], whole[::3, 1, 2:40:5])
    asked = [seen.path.split("/", 5)[5] for seen in lab.server.record.requests[before:]]
    assert asked == [
        "raw/0_1_2/1_1_1/-25_6_5",
        "raw/0_1_2/128_57_1/-32_3_40",
        "subvolblocks/32_32_32/32_32_0",
        "subvolblocks/128_64_64/-32_0_0",
    ]


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
def test_boxes_of_labels_and_colours(lab, axes):
    """Parts of label and channel volumes read like parts of the whole, at both axis orders."""
    lab.make("seg", "labelmap", BlockSize="32,32,32")
    post(lab, "seg", (0, 32, 0), noise((32, 64, 96), "uint64"))
    lab.make("colour", "rgba8blk", BlockSize="16,16,16")
    post(lab, "colour", (0, 0, 0), noise((32, 32, 32, 4), "uint8"))
    for name in ("seg", "colour"):
        array = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/{name}", axes=axes)
        whole = array[...]
        for box in ((3, 4, 5), (slice(1, 9), 4, slice(2, 30)), (slice(3, 30), slice(0, 17), slice(16, 32))):
            index = (*box[::-1], ...) if axes == "xyz" else (..., *box)
            np.testing.assert_array_equal(array[index], whole[index])


def test_a_view_through_a_roi(lab):
    """`roi=` blanks what lies outside; a roi whose blocks are of another size would mask the wrong place."""
    lab.make("gray", "uint8blk", BlockSize="32,32,32")
    whole = noise((32, 32, 64), "uint8")
    post(lab, "gray", (0, 0, 0), whole)
    for name, size in (("part", "32,32,32"), ("coarse", "64,64,64")):
        lab.make(name, "roi", BlockSize=size)
        assert lab.post(f"{name}/roi", [[0, 0, 1, 1]]).status == 200
    url = f"dvid://{lab.server.url}/{lab.root}/gray"
    expected = whole.copy()
    expected[..., :32] = 0
    assert np.array_equal(storefs.open_array(url, roi="part")[:], expected)
    with pytest.raises(storefs.Unsupported, match="blocks of"):
        storefs.open(url, roi="coarse")
    with pytest.raises(storefs.Unsupported, match="not roi"):
        storefs.open(url, roi="gray")
