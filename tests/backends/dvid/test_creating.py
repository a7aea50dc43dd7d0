"""Creating DVID volumes with storefs.create, on an emulated server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import storefs
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.emulator import DvidEmulator


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An emulator with one repository."""
    with DvidEmulator() as server:
        lab = Lab(server)
        yield lab
        lab.ask.close()


def at(lab: Lab, name: str, node: str = "") -> str:
    return f"dvid://{lab.server.url}/{node or lab.root}/{name}"


def extended(lab: Lab, name: str) -> dict[str, object]:
    return lab.get(f"{name}/info").json["Extended"]


def changes(lab: Lab) -> list[str]:
    return [seen.path for seen in lab.server.record.requests if seen.method == "POST"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "float32", ">u2", np.uint8])
def test_a_volume_is_made_written_and_read_back(lab, dtype):
    """Shape and data type are those asked for, before and after writing, and so are the server's extents."""
    group = storefs.create(at(lab, "new"), (40, 33, 50), dtype, voxel_size=(4, 4, 40))
    array = group["0"]
    assert array.shape == (40, 33, 50)
    assert array.dtype == np.dtype(dtype).newbyteorder("=")
    assert array.attrs["storefs"]["resolution_xyz"] == [4.0, 4.0, 40.0]
    voxels = np.random.default_rng(1).integers(1, 250, array.shape).astype(array.dtype)
    array[...] = voxels
    again = storefs.open_array(at(lab, "new"))
    assert again.shape == (40, 33, 50)
    assert np.array_equal(again[:], voxels)
    said = extended(lab, "new")
    assert (said["MinPoint"], said["MaxPoint"]) == ([0, 0, 0], [49, 32, 39])
    assert lab.get("new/info").json["Base"]["TypeName"] == f"{np.dtype(dtype).name}blk"


@pytest.mark.parametrize("typename", ["labelmap", "labelarray"])
def test_labels_are_made_with_scales(lab, typename):
    """A labelmap can be written at once and has the scales asked for."""
    group = storefs.create(at(lab, "seg"), (64, 64, 70), type=typename, scales=3, block_size=(32, 32, 32))
    assert [group[str(n)].shape for n in range(3)] == [(64, 64, 70), (32, 32, 35), (16, 16, 18)]
    labels = np.full((64, 64, 70), 2**63 + 5, np.uint64)
    labels[10:20] = 7
    group["0"][...] = labels
    again = storefs.open_array(at(lab, "seg"), supervoxels=True)
    assert np.array_equal(again[:64, :64, :70], labels)
    assert not again[..., 70:].any()
    if typename == "labelmap":  # the older type keeps no counts
        assert lab.get("seg/size/7").json["voxels"] == 10 * 64 * 70
    # extents of a labelarray grow by whole blocks and cannot be set
    assert extended(lab, "seg")["MaxPoint"] == [69 if typename == "labelmap" else 95, 63, 63]


def test_uint64_alone_is_an_image(lab):
    """Labels are made only when they are asked for."""
    storefs.create(at(lab, "plain"), (8, 8, 8), "uint64")
    storefs.create(at(lab, "seg"), (8, 8, 8), "uint64", type="labelmap")
    types = {name: item["Base"]["TypeName"] for name, item in _repo(lab)["DataInstances"].items()}
    assert types == {"plain": "uint64blk", "seg": "labelmap"}


def _repo(lab: Lab) -> dict[str, dict[str, dict[str, dict[str, str]]]]:
    return lab.ask("GET", f"/api/repo/{lab.root}/info").json


def test_channels_and_background(lab):
    """Four channels of uint8 make an rgba8blk; background, compression and units reach the server."""
    group = storefs.create(
        at(lab, "colour"), (4, 20, 20, 20), "uint8", background=9, compression="gzip:4", units="micrometers"
    )
    group["0"][2, 3:5] = 6
    assert storefs.open_array(at(lab, "colour"))[:].sum() == 6 * 2 * 20 * 20
    said = extended(lab, "colour")
    assert said["Background"] == 9
    assert said["VoxelUnits"] == ["micrometers"] * 3
    assert lab.get("colour/info").json["Base"]["Compression"].startswith("gzip")
    assert group["0"].attrs["storefs"]["resolution_xyz"] == [8000.0] * 3


@pytest.mark.parametrize(
    ("offset", "first", "shape"), [((32, 64, -32), (32, 64, -32), (9, 9, 9)), ((5, 0, -3), (0, 0, -32), (38, 9, 14))]
)
def test_offsets_place_the_first_voxel(lab, offset, first, shape):
    """The extents begin at the offset exactly, the array with the block that holds it."""
    array = storefs.create(at(lab, "new"), (9, 9, 9), "uint8", offset=offset)["0"]
    assert tuple(array.attrs["storefs"]["voxel_offset_xyz"]) == first
    assert array.shape == shape
    start = tuple(o - f for o, f in zip(offset, first, strict=True))[::-1]
    array[tuple(slice(n, n + 9) for n in start)] = 4
    said = extended(lab, "new")
    assert (said["MinPoint"], said["MaxPoint"]) == (list(offset), [n + 8 for n in offset])
    assert (lab.voxels(f"new/raw/0_1_2/9_9_9/{'_'.join(map(str, offset))}", (9, 9, 9)) == 4).all()


def test_options_of_open_hold(lab):
    """Axes, chunk shape and zarr format are those asked for; the shape goes along the axes as shown."""
    group = storefs.create(at(lab, "new"), (10, 20, 30), "uint8", axes="xyz", chunk_shape=(32, 32, 64), zarr_format=2)
    assert (group["0"].shape, group["0"].chunks) == ((10, 20, 30), (32, 32, 64))
    assert extended(lab, "new")["MaxPoint"] == [9, 19, 29]
    assert group.metadata.zarr_format == 2
    query = storefs.create(at(lab, "other") + "?axes=xyz", (10, 20, 30), "uint8")
    assert query["0"].shape == (10, 20, 30)


def test_a_branch_can_be_named(lab):
    """The address may name a branch, whose leaf is where the instance is made."""
    child = lab.commit()
    storefs.create(f"dvid://{lab.server.url}/{lab.root[:8]}:master/new", (5, 5, 5), "uint8")["0"][...] = 3
    assert lab.voxels("new/raw/0_1_2/5_5_5/0_0_0", (5, 5, 5), node=child).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "int32"}, "no int32; nearest is uint32"),
        ({"dtype": "float64"}, "nearest is float32"),
        ({"dtype": "bool"}, "nearest is uint8"),
        ({"dtype": "complex64"}, "it has uint8, uint16"),
        ({}, "dtype=… or type=…"),
        ({"dtype": "uint32", "type": "labelmap"}, "a labelmap holds uint64, not uint32"),
        ({"type": "keyvalue"}, "Client"),
        ({"type": "grayscale8"}, "not made here: uint8blk"),
        ({"dtype": "uint8", "scales": 2}, "name_1"),
        ({"dtype": "uint16", "shape": (4, 8, 8, 8)}, "a rgba8blk holds uint8, not uint16"),
        ({"dtype": "uint8", "shape": (3, 8, 8, 8)}, r"\(4, z, y, x\)"),
        ({"dtype": "uint8", "shape": (8, 8)}, r"\(z, y, x\)"),
        ({"dtype": "uint8", "shape": (8, 0, 8)}, "expected positive numbers"),
        ({"dtype": "uint8", "offset": (0, 0, 2**31)}, "within 32 bits"),
        ({"dtype": "uint8", "offset": (0, 0)}, "offset: expected three numbers"),
        ({"dtype": "uint8", "units": "parsecs"}, "units: expected one of nanometers"),
        ({"dtype": "uint8", "voxel_size": (4, 4)}, "voxel_size: expected three numbers"),
        ({"dtype": "uint8", "background": 256}, "background: expected 0 to 255"),
        ({"type": "labelmap", "scales": 0}, "scales: expected 1 or more"),
        ({"type": "labelmap", "block_size": (40, 40, 40)}, "multiples of 16"),
        ({"type": "labelmap", "compression": "lz4"}, "leave it at gzip"),
        ({"dtype": "uint8", "sale": 3}, "unknown option 'sale'"),
    ],
)
def test_what_cannot_be_made_is_told_before_anything_is_sent(lab, settings, said):
    """Mistakes are told in words, with what is offered, and the server is left as it is."""
    before = changes(lab)
    with pytest.raises((storefs.UrlError, storefs.Unsupported), match=said):
        storefs.create(at(lab, "new"), **{"shape": (8, 8, 8), **settings})
    assert changes(lab) == before


def test_names_and_versions_are_checked(lab):
    """Names that are taken, locked and unknown versions are told, and nothing is made."""
    storefs.create(at(lab, "new"), (8, 8, 8), "uint8")
    before = changes(lab)
    with pytest.raises(storefs.TransportError, match=r'new.*uint8blk.*exists.*mode="r\+"'):
        storefs.create(at(lab, "new"), (8, 8, 8), "uint8")
    with pytest.raises(storefs.NoSuchVolume, match="no version"):
        storefs.create(at(lab, "other", "f" * 32), (8, 8, 8), "uint8")
    for incomplete in (f"dvid://{lab.server.url}/{lab.root}", f"dvid://{lab.server.url}", at(lab, "a/b")):
        with pytest.raises(storefs.UrlError, match="dvid://https://host/uuid/name"):
            storefs.create(incomplete, (8, 8, 8), "uint8")
    with pytest.raises(storefs.UrlError, match="cannot name a data instance"):
        storefs.create(at(lab, "log"), (8, 8, 8), "uint8")
    assert changes(lab) == before
    child = lab.commit()
    with pytest.raises(storefs.TransportError, match="locked, so nothing was made"):
        storefs.create(at(lab, "other"), (8, 8, 8), "uint8")
    storefs.create(at(lab, "other", child), (8, 8, 8), "uint8")


def test_other_formats_say_that_they_cannot(tmp_path):
    """A format without creation says so and names those that have it."""
    with pytest.raises(storefs.Unsupported, match="precomputed volumes cannot be created; offered for: dvid://"):
        storefs.create(f"precomputed://{tmp_path}", (8, 8, 8), "uint8")


def test_scales_and_negative_coordinates_do_not_go_together(lab):
    """Lower scales that the server would lose are refused before the instance is made."""
    with pytest.raises(storefs.UrlError, match="negative coordinates"):
        storefs.create(
            f"dvid://{lab.server.url}/{lab.root}/seg",
            shape=(64, 64, 64),
            dtype="uint64",
            type="labelmap",
            scales=2,
            offset=(-64, 0, 0),
        )
    assert "seg" not in storefs.open(f"dvid://{lab.server.url}/{lab.root}").attrs["storefs"]["instances"]
