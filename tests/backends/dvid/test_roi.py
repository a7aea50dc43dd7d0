"""roi instances as mask arrays, imagetile pyramids as tile arrays, and both through the client."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import storefs
import storefs.dvid
from storefs.backends.dvid.roi import parse_spans
from storefs.backends.dvid.tiles import parse_levels
from storefs.errors import MetadataError, TransportError
from tests.backends.dvid.emulator import DvidEmulator

GOLDEN = Path(__file__).parents[3] / "../shared/golden/dvid"
ROOT = "5f2c9a4e7b1d4f0c8e6a3d92b07c1e54"
SPANS = [[-1, 0, -3, -2], [2, 1, 0, 0], [2, 1, 4, 6], [7, 5, 1, 2]]
LEVELS = {str(n): {"Resolution": [10 * 2**n] * 3, "TileSize": [64, 64, 64]} for n in range(2)}


@pytest.fixture
def server():
    with DvidEmulator(admin_needed=False) as found:
        yield found


@pytest.fixture
def client(server):
    return storefs.dvid.Client(server.url)


@pytest.fixture
def uuid(client):
    return client.repos.create("brain")


def blocks_of(spans):
    """The same region as a set of blocks z, y, x."""
    return {(z, y, x) for z, y, first, last in spans for x in range(first, last + 1)}


# regions


def test_regions_through_the_client(client, server, uuid):
    """Spans are replaced, read, asked for points, masked, partitioned and deleted."""
    client.instances.create(uuid, "roi", "region", block_size=(16, 16, 32))
    assert client.rois.spans(uuid, "region").shape == (0, 4)
    client.rois.set_spans(uuid, "region", SPANS[::-1])
    np.testing.assert_array_equal(client.rois.spans(uuid, "region"), SPANS)
    assert client.rois.block_size(uuid, "region") == (16, 16, 32)
    inside = client.rois.contains(uuid, "region", [(-40, 3, -5), (0, 16, 64), (16, 16, 64), (64, 16, 64)])
    assert inside.tolist() == [True, True, False, True]
    mask = client.rois.mask(uuid, "region", ((60, 10, -5), (70, 20, 20)))
    assert mask.shape == (10, 10, 25)
    assert mask[4:, 6:, 5:21].all()
    assert mask.sum() == 6 * 4 * 16
    assert client.rois.partition(uuid, "region", 2)["NumActiveBlocks"] == 8
    client.rois.delete(uuid, "region")
    assert client.rois.spans(uuid, "region").shape == (0, 4)
    with pytest.raises(ValueError, match="spans"):
        client.rois.set_spans(uuid, "region", [[0, 0, 3, 2]])
    client.versions.commit(uuid)
    with pytest.raises(TransportError, match="nothing was sent"):
        client.rois.set_spans(uuid, "region", SPANS)


def test_spans_of_a_mask():
    """A mask with one cell a block gives the spans that cover it."""
    mask = np.zeros((2, 2, 6), np.uint8)
    mask[0, 1, [0, 1, 4]] = 1
    mask[1, 0] = 1
    expected = [[10, 21, 30, 31], [10, 21, 34, 34], [11, 20, 30, 35]]
    np.testing.assert_array_equal(storefs.dvid.spans_of(mask, (10, 20, 30)), expected)


@pytest.mark.parametrize("block", [(32, 32, 32), (16, 32, 64)])
def test_a_region_is_an_array(client, server, uuid, block):
    """The array is 1 where the server's mask is, begins at the first block, and costs no request a chunk."""
    client.instances.create(uuid, "uint8blk", "gray", voxel_size=(8, 8, 40))
    client.instances.create(uuid, "roi", "region", block_size=block)
    client.rois.set_spans(uuid, "region", SPANS)
    array = storefs.open_array(f"dvid://{server.url}/{uuid}/region")
    server.record.forget()
    voxels = array[:]
    assert not server.record.requests
    assert voxels.dtype == np.uint8
    x, y, z = array.attrs["storefs"]["voxel_offset_xyz"]
    assert (z, y, x) == tuple(n * b for n, b in zip((-1, 0, -3), block[::-1], strict=True))
    stop = tuple(n + s for n, s in zip((z, y, x), array.shape, strict=True))
    np.testing.assert_array_equal(voxels, client.rois.mask(uuid, "region", ((z, y, x), stop)))
    assert voxels.sum() == len(blocks_of(SPANS)) * np.prod(block)
    assert array.attrs["storefs"]["resolution_xyz"] == [8, 8, 40]


def test_regions_through_zarr(client, server, uuid):
    """zarr.open gives the same group; absent chunks are not listed; an empty region is an empty array."""
    client.instances.create(uuid, "roi", "region")
    url = f"dvid://{server.url}/{uuid}/region"
    assert storefs.open_array(url).shape == (0, 0, 0)
    client.rois.set_spans(uuid, "region", [[0, 0, 0, 0], [9, 9, 9, 9]])
    group = zarr.open_group(url, mode="r")
    assert group["0"].shape == (320, 320, 320)
    assert group["0"].nchunks_initialized == 2
    assert group["0"][:].sum() == 2 * 32**3


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_hostile_spans(data):
    """Whatever JSON a server sends is spans or a MetadataError."""
    leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
    document = data.draw(st.recursive(leaf, lambda inner: st.lists(inner, max_size=5), max_leaves=12))
    try:
        assert parse_spans(document, "").shape[1] == 4
    except MetadataError:
        return


# tiles


@pytest.fixture
def tiles(client, server, uuid):
    """Tiles generated from an image whose extents begin and end anywhere."""
    client.instances.create(uuid, "uint8blk", "gray", block_size=(32, 32, 32))
    voxels = np.random.default_rng(3).integers(0, 255, (64, 160, 192), dtype=np.uint8)
    client.voxels.write(uuid, "gray", (0, 64, 64), voxels)
    client.instances.set_extents(uuid, "gray", (70, 64, 3), (250, 220, 60))
    client.instances.create(uuid, "imagetile", "tiles", source="gray", tile_format="png")
    server.generate_tiles(uuid, "tiles", LEVELS)
    return f"dvid://{server.url}/{uuid}/tiles", voxels


@pytest.mark.parametrize("plane", ["xy", "xz", "yz"])
def test_tiles_are_arrays(tiles, plane):
    """Each plane is a group of arrays zyx; the finest is the image, whichever way it was cut."""
    url, voxels = tiles
    array = storefs.open(url)[f"{plane}/0"]
    x, y, z = array.attrs["storefs"]["voxel_offset_xyz"]
    expected = np.zeros((64, 256, 256), np.uint8)
    expected[:, 64:224, 64:256] = voxels
    stop = [a + n for a, n in zip((z, y, x), array.shape, strict=True)]
    expected = expected[z : stop[0], y : stop[1], x : stop[2]]
    assert array.chunks == {"xy": (1, 64, 64), "xz": (64, 1, 64), "yz": (64, 64, 1)}[plane]
    np.testing.assert_array_equal(array[:], expected)


def test_lower_scales_of_tiles(tiles, client, uuid):
    """A lower scale halves its plane and keeps its slices."""
    url, voxels = tiles
    group = storefs.open(url)
    fine, coarse = group["xy/0"], group["xy/1"]
    assert coarse.shape == (fine.shape[0], 111, 126)
    assert coarse.attrs["storefs"]["voxel_offset_xyz"] == [0, 0, 3]
    assert coarse.attrs["storefs"]["resolution_xyz"] == [20, 20, 10]
    mean = voxels[3, :, :].reshape(80, 2, 96, 2).sum(axis=(1, 3), dtype=np.uint32) // 4
    np.testing.assert_array_equal(coarse[0, 32:111, 32:126], mean[:79, :94])
    tile = client.tiles.read(uuid, "tiles", "xy", 0, (1, 1, 3))
    np.testing.assert_array_equal(tile, voxels[3, :64, :64])
    assert client.tiles.read(uuid, "tiles", "xy", 0, (90, 90, 3)) is None
    with pytest.raises(ValueError, match="has planes"):
        client.tiles.read(uuid, "tiles", "xy", 7, (0, 0, 0))


def test_posted_tiles(client, server, uuid):
    """Tiles that were posted lie where the metadata says; those that are missing read as 0."""
    import imagecodecs

    client.instances.create(uuid, "imagetile", "tiles", tile_format="png")
    metadata = {"MinTileCoord": [0, 0, 0], "MaxTileCoord": [1, 0, 0], "Levels": {"0": LEVELS["0"]}}
    client.tiles.set_metadata(uuid, "tiles", metadata)
    assert client.tiles.metadata(uuid, "tiles") == metadata
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64), dtype=np.uint8)
    client.tiles.write(uuid, "tiles", "xy", 0, (1, 0, 5), imagecodecs.png_encode(pixels))
    array = storefs.open(f"dvid://{server.url}/{uuid}/tiles")["xy/0"]
    assert array.shape == (64, 64, 128)
    found = array[:]
    np.testing.assert_array_equal(found[5, :, 64:], pixels)
    assert found.sum() == pixels.sum()


@pytest.mark.parametrize(
    "levels", [None, {}, {"x": {}}, {"0": {}}, {"0": {"Resolution": [1, 1, 1], "TileSize": [0, 1, 1]}}, {"0": 5}]
)
def test_hostile_tile_metadata(levels):
    """Levels that make no sense are a MetadataError."""
    with pytest.raises(MetadataError):
        parse_levels({"Levels": levels}, "")


# against the recorded exchanges


@pytest.fixture(scope="module")
def recorded():
    if not GOLDEN.exists():
        pytest.skip("../shared/golden/dvid not found")
    from tests.backends.dvid.any_client import ForgivingReplay

    with ForgivingReplay(GOLDEN) as server:
        yield server


@pytest.mark.parametrize("name", ["roi_body", "empty_roi"])
def test_recorded_regions(recorded, name):
    """A recorded region is the mask array that its spans stand for."""
    array = storefs.open_array(f"dvid://{recorded.url}/{ROOT}/{name}")
    record = next(
        r for r in recorded.by_id.values() if r["path"].endswith(f"/{ROOT}/{name}/roi") and r["group"] == "read"
    )
    spans = json.loads(recorded.body(record)) or []
    side = 32
    assert int(array[:].sum(dtype=np.int64)) == len(blocks_of(spans)) * side**3
    if spans:
        x, y, z = array.attrs["storefs"]["voxel_offset_xyz"]
        sz, sy, first, _ = spans[0]
        assert array[sz * side - z, sy * side - y, first * side - x] == 1


def test_recorded_tiles(recorded):
    """A recorded tile of a real server is the slice of the image it was made from."""
    client = storefs.dvid.Client(recorded.url)
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    about = manifest["arrays"]["gray"]
    with np.load(GOLDEN / about["file"]) as file:
        gray, origin = file[about["key"]], np.array(about["origin_zyx"])
    records = [r for r in recorded.by_id.values() if "/tiles_png/tile/xy/0/2_2_90" in r["path"]]
    assert records
    from storefs_codecs.png import Png

    tile = Png((1, 64, 64), "uint8").decode_chunk(recorded.body(records[0]))[0]
    z, y, x = np.array([90, 128, 128]) - origin
    np.testing.assert_array_equal(tile, gray[z, y : y + 64, x : x + 64])
    levels = parse_levels(client.tiles.metadata(ROOT, "tiles_png"), "")
    assert [level.tile_size for level in levels[:2]] == [(64, 64, 64)] * 2
