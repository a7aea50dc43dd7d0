"""A real server: DVID_TEST_SERVER=http://host:port pytest -m live tests/backends/dvid.

That runs these tests, and all of this folder that ask an emulated server, against the real one. It is to be one for
tests: each makes a repository, and nothing can be deleted over HTTP. DVID_ADMIN_TOKEN is needed where the server wants
it for making repositories. Not with -n: a server of 2026 may end when a repository is made while another request is
under way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import storefs
import storefs.dvid
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.live import SERVER, SERVER_VARIABLE, TOKEN_VARIABLE, LiveServer

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not SERVER, reason=f"live: {SERVER_VARIABLE} names no DVID server for tests"),
]

DTYPES = {"float32blk": "f4", "rgba8blk": "u1", "labelblk": "u8", "labelarray": "u8", "labelmap": "u8"}
DTYPES |= {f"uint{bits}blk": f"u{bits // 8}" for bits in (8, 16, 32, 64)}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The server with a new repository."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with LiveServer() as server:
        lab = Lab(server)
        yield lab
        lab.ask.close()


def test_the_server_is_there():
    """The server answers, says what it is, and knows the data types that are tested."""
    client = storefs.dvid.Client(SERVER)
    assert client.server.heartbeat()
    assert "DVID Version" in client.server.info()
    assert DTYPES.keys() | {"keyvalue", "roi"} <= client.server.compiled_types().keys()


@pytest.mark.parametrize("typename", DTYPES)
@pytest.mark.parametrize("start", [(0, 0, 0), (-96, 32, -64)], ids=["origin", "negative"])
def test_boxes_of_every_type(lab, typename, start):
    """Boxes at random, written over blocks that are not cubes, are read back voxel by voxel and as a whole."""
    block = (32, 16, 48)
    low = [s // b * b for s, b in zip(start, block, strict=True)]
    lab.make("data", typename, BlockSize=",".join(map(str, block)))
    channels = (4,) if typename == "rgba8blk" else ()
    whole = np.zeros((*channels, 96, 64, 128), DTYPES[typename])
    size, offset = "128_64_96", "_".join(map(str, low))
    assert lab.post(f"data/raw/0_1_2/{size}/{offset}?mutate=true", whole.tobytes()).status == 200
    url = f"dvid://{lab.server.url}/{lab.root}/data"
    array = storefs.open_array(url, mode="r+", supervoxels=True)
    assert array.shape == whole.shape
    assert array.attrs["storefs"]["voxel_offset_xyz"] == low
    rng = np.random.default_rng(7)
    for _ in range(6):
        box = tuple(slice(*sorted(rng.choice(n + 1, 2, replace=False))) for n in whole.shape)
        values = rng.integers(1, 250, whole[box].shape).astype(whole.dtype)
        if typename.startswith("label"):
            values += np.uint64(1 << 60)
        array[box] = values
        whole[box] = values
        assert np.array_equal(array[box], values)
    again = storefs.open_array(url, supervoxels=True)
    assert np.array_equal(again[:], whole)
    assert np.array_equal(again[..., 5:90, 7, 100:101], whole[..., 5:90, 7, 100:101])


@pytest.mark.parametrize("compression", ["none", "snappy", "lz4", "gzip", "gzip:9"])
@pytest.mark.parametrize("typename", ["uint8blk", "uint16blk", "rgba8blk", "labelblk", "labelarray"])
@pytest.mark.parametrize("checksum", ["none", "crc32"])
def test_every_way_of_storage(lab, typename, compression, checksum):
    """Voxels are the same however the server stores them."""
    lab.make("data", typename, BlockSize="16,16,16", Compression=compression, Checksum=checksum)
    dtype, channels = DTYPES[typename], (4,) if typename == "rgba8blk" else ()
    voxels = np.random.default_rng(2).integers(0, 200, (32, 16, 48, *channels)).astype(dtype)
    assert lab.post("data/raw/0_1_2/48_16_32/-16_0_16", voxels.tobytes()).status == 200
    found = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/data")[:]
    assert np.array_equal(found, np.moveaxis(voxels, -1, 0) if channels else voxels)


@pytest.mark.parametrize("compression", ["none", "snappy", "lz4", "gzip"])
def test_every_way_of_storage_of_labelmaps(lab, compression):
    """Labels are the same however the server stores them, at every scale."""
    lab.make("seg", "labelmap", BlockSize="32,32,32", MaxDownresLevel="1", Compression=compression)
    labels = (
        np.random.default_rng(2).integers(1, 9, (16, 16, 32)).astype(np.uint64).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    )
    assert lab.post("seg/raw/0_1_2/64_32_32/64_0_32?mutate=true", labels.tobytes()).status == 200
    group = storefs.open(f"dvid://{lab.server.url}/{lab.root}/seg")
    assert np.array_equal(group["0"][:], labels)
    x, y, z = group["1"].attrs["storefs"]["voxel_offset_xyz"]
    assert np.array_equal(group["1"][16 - z :, 0 - y :, 32 - x :], labels[::2, ::2, ::2])


def test_stored_jpeg_is_read(lab):
    """Blocks that the server keeps as JPEG are read as such."""
    lab.make("gray", "uint8blk", BlockSize="32,32,32", Compression="jpeg")
    z, y, x = np.mgrid[:32, :32, :64]
    voxels = (x + y + z).astype(np.uint8)
    assert lab.post("gray/raw/0_1_2/64_32_32/0_0_0", voxels.tobytes()).status == 200
    found = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/gray")[:]
    shown = lab.voxels("gray/raw/0_1_2/64_32_32/0_0_0", (32, 32, 64))
    assert np.abs(found.astype(int) - shown).max() <= 2
    assert np.abs(found.astype(int) - voxels).mean() < 3


def test_versions_differ(lab):
    """Each version shows its own voxels, and those of its ancestors where it has none."""
    storefs.create(f"dvid://{lab.server.url}/{lab.root}/gray", (32, 32, 64), "uint8", block_size=(32, 32, 32))["0"][
        :
    ] = 3
    child = lab.commit()
    storefs.open_array(f"dvid://{lab.server.url}/{child}/gray", mode="r+")[..., 40:] = 9
    old, new = (storefs.open_array(f"dvid://{lab.server.url}/{node}/gray")[:] for node in (lab.root, child))
    assert (old == 3).all()
    assert (new[..., 40:] == 9).all()
    assert (new[..., :40] == 3).all()


@pytest.mark.parametrize("typename", ["labelmap", "labelarray"])
def test_scales_at_negative_coordinates_are_refused(lab, typename):
    """The server fails to make lower scales there, having stored the voxels; storefs sends none."""
    lab.make("seg", typename, BlockSize="32,32,32", MaxDownresLevel="1")
    block = np.ones((32, 32, 32), np.uint64)
    assert lab.post("seg/raw/0_1_2/32_32_32/0_0_-32?mutate=true", block.tobytes()).status == 500
    assert lab.post("seg/raw/0_1_2/32_32_32/0_0_0?mutate=true", block.tobytes()).status == 200
    lab.server.record.forget()
    array = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/seg", mode="r+", supervoxels=True)
    with pytest.raises(storefs.Unsupported, match="negative coordinates"):
        array[:40] = 1
    assert all(seen.method == "GET" for seen in lab.server.record.requests)
