"""Mirrors whose pixels lie in DVID or precomputed volumes, read from there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import storefs
import storefs.catmaid
from storefs.backends.catmaid.info import parse_stack_info
from storefs.backends.catmaid.mirrors import MirrorWarning
from storefs.backends.catmaid.views import volume_of
from storefs.model import ChunkId
from storefs.testing import BackendContract
from tests.backends.catmaid.emulator import CatmaidEmulator, Link, Mirror, Project, Stack
from tests.backends.catmaid.stack_infos import mirror, stack_info
from tests.backends.catmaid.tile_hosts import TileHost
from tests.backends.dvid.asking import Lab
from tests.backends.dvid.emulator import DvidEmulator
from tests.backends.dvid.faults import Fault
from tests.layers import Sharded, voxels, write_layer
from tests.small_volume import volume as two_scales

PAIRS = ("0_1", "0_2", "1_2")
# numpy axes of the volume (zyx) along the stack's z, y, x, by orientation
TURNED = ((0, 1, 2), (1, 0, 2), (2, 1, 0))
LEVELS = {
    "0": {"Resolution": [8.0, 8.0, 8.0], "TileSize": [32, 32, 32]},
    "1": {"Resolution": [16.0, 16.0, 16.0], "TileSize": [32, 32, 32]},
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A DVID server with one repository."""
    with DvidEmulator() as server:
        lab = Lab(server)
        yield lab
        lab.ask.close()


@pytest.fixture
def gray(lab: Lab) -> np.ndarray:
    """A uint8blk "gray" whose array does not begin at DVID's voxel 0, as it is from there on; the rest is 0."""
    lab.make("gray", "uint8blk", BlockSize="16,16,16")
    voxels = np.random.default_rng(1).integers(1, 255, (48, 64, 80), dtype=np.uint8)
    size, start = "80_64_48", "-16_32_16"
    assert lab.post(f"gray/raw/0_1_2/{size}/{start}", voxels.tobytes()).status == 200
    return np.pad(voxels, ((16, 40), (32, 40), (0, 60)))[:, :, 16:]


@pytest.mark.parametrize("orientation", [0, 1, 2])
def test_dvid_blocks(lab, gray, orientation):
    """Type 6: stack voxel 0 is DVID's voxel 0, and the stack's axes are turned by its orientation."""
    base = f"{lab.server.url}/api/node/{lab.root}/gray/raw/{PAIRS[orientation]}/"
    expected = gray.transpose(TURNED[orientation])
    size = tuple(n - 5 for n in expected.shape)
    info = stack_info(size, mirror(6, base), orientation=orientation, factors=((1, 1, 1), (2, 2, 1)))
    group = storefs.catmaid.open_tiles(info)
    assert sorted(group.array_keys()) == ["0"]
    array = group["0"]
    assert array.shape == size
    inner = storefs.open_array(f"dvid://{lab.server.url}/{lab.root}/gray")
    assert array.chunks == tuple(inner.chunks[axis] for axis in TURNED[orientation])
    np.testing.assert_array_equal(array[:], expected[tuple(map(slice, size))])
    np.testing.assert_array_equal(array[3:21, 5:70:3, 40], expected[3:21, 5:70:3, 40])
    about = array.attrs["storefs"]
    assert about["volume"] == f"dvid://{lab.server.url}/{lab.root}/gray"
    assert about["volume_axes"] == ("xyz", "xzy", "zyx")[orientation]
    assert about["resolution_xyz"] == [4.0, 5.0, 40.0]


@pytest.mark.parametrize("orientation", [0, 1, 2])
def test_dvid_tiles(lab, gray, orientation):
    """Type 8: levels are those of the plane that the stack shows, tiles are chunks."""
    lab.make("tiles", "imagetile", source="gray", format="png")
    lab.server.generate_tiles(lab.root, "tiles", LEVELS)
    base = f"{lab.server.url}/api/node/{lab.root}/tiles/tile/"
    cut = gray[:64, :96, :64]  # to where there are voxels
    expected = cut.transpose(TURNED[orientation])
    depth, height, width = expected.shape
    mean = expected.reshape(depth, height // 2, 2, width // 2, 2).sum(axis=(2, 4), dtype=np.uint32) // 4
    info = stack_info(
        expected.shape, mirror(8, base, "", 512), orientation=orientation, factors=((1, 1, 1), (2, 2, 1), (4, 4, 1))
    )
    group = storefs.catmaid.open_tiles(info)
    assert sorted(group.array_keys()) == ["0", "1"]
    assert group["0"].chunks == (1, 32, 32)
    np.testing.assert_array_equal(group["0"][:], expected)
    np.testing.assert_array_equal(group["1"][:], mean)
    assert group["1"].attrs["storefs"]["volume_array"] == f"{('xy', 'xz', 'yz')[orientation]}/1"


@pytest.fixture
def layer(tmp_path: Path):
    """A precomputed volume of two scales beginning anywhere, with an absent chunk."""
    return two_scales(shape=(40, 36, 50), chunk_xyz=(16, 12, 8), dtype="uint8").write(tmp_path / "layer")


FACTORS = ((1, 1, 1), (2, 2, 2), (4, 4, 4))


class TestTurnedPrecomputed(BackendContract):
    """A stack that is a turned precomputed volume, clipped, lacking a chunk, keeps the contract of all backends."""

    @pytest.fixture
    def host(self, layer) -> Iterator[TileHost]:
        with TileHost(dict(layer.files)) as host:
            yield host

    @pytest.fixture
    def url(self, host) -> Iterator[str]:
        found = Mirror(f"{host.url}/%SCALE_DATASET%/1_2_0", 14)
        stack = Stack(2, "a", (36, 40, 50), [found], factors=list(FACTORS[:2]))
        with CatmaidEmulator(Project(1, "p", [Link(stack)])) as server:
            yield f"catmaid://{server.url}/1/2"

    @pytest.fixture
    def expected(self, layer):
        return {str(n): array.transpose(2, 0, 1) for n, array in enumerate(layer.arrays)}

    @pytest.fixture
    def faulty_url(self, host, url):
        host.faults.append(Fault(where=lambda asked: "info" not in asked.path, status=500, text="broken"))
        return f"{url}?retries=0"


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_precomputed(layer, axes):
    """Type 14: scales are levels by their place and begin where the arrays begin, axes are those that are named."""
    base = f"file://{layer.folder}/%SCALE_DATASET%/{'_'.join(map(str, axes))}"
    turned = tuple(2 - axis for axis in axes[::-1])
    finest, coarse = (array.transpose(turned) for array in layer.arrays)
    size = tuple(n + extra for n, extra in zip(finest.shape, (3, -1, 0), strict=True))
    group = storefs.catmaid.open_tiles(stack_info(size, mirror(14, base), factors=FACTORS))
    assert sorted(group.array_keys()) == ["0", "1"]
    assert group["0"].chunks == tuple(layer.chunk_xyz[axis] for axis in axes[::-1])
    expected = np.pad(finest, ((0, 3), (0, 0), (0, 0)))[:, :-1]
    np.testing.assert_array_equal(group["0"][:], expected)
    shape = group["1"].shape
    expected = np.pad(coarse, ((0, 3), (0, 3), (0, 3)))[tuple(map(slice, shape))]
    np.testing.assert_array_equal(group["1"][:], expected)


def test_chunks_are_fetched_once(layer):
    """With chunks that fit, an array costs one request for each chunk."""
    with TileHost(dict(layer.files)) as host:
        base = f"{host.url}/%SCALE_DATASET%/0_1_2"
        array = storefs.catmaid.open_tiles(stack_info((40, 36, 50), mirror(14, base)))["0"]
        host.forget()
        np.testing.assert_array_equal(array[:], layer.arrays[0])
        chunks = [name for name in host.asked if name != "info"]
        assert len(chunks) == len(set(chunks)) == 5 * 3 * 4


@pytest.mark.parametrize("prefix", ["precomputed://", ""])
def test_by_the_server(layer, prefix):
    """Type 13 is read from the volume itself, no CATMAID server asked; z counts as the volume does."""
    with TileHost(dict(layer.files)) as host:
        found = mirror(13, f"{prefix}{host.url}", "jpeg")
        group = storefs.catmaid.open_tiles(stack_info((50, 36, 50), found, factors=FACTORS[:2]))
        z = layer.offset_xyz[2]
        expected = np.pad(layer.arrays[0], ((z, 10), (0, 0), (0, 0)))[:50]
        np.testing.assert_array_equal(group["0"][:], expected)
        expected = np.pad(layer.arrays[1], ((z // 2, 10), (0, 0), (0, 0)))[:25]
        np.testing.assert_array_equal(group["1"][:], expected)
        chunks = [name for name in host.asked if name != "info"]
        assert len(chunks) == len(set(chunks))  # each once, though slabs of chunks do not meet slabs of chunks


def test_channels(tmp_path):
    """Channels of the volume stand in front, whatever the axes."""
    made = two_scales((3, 20, 18, 25), dtype="uint8").write(tmp_path)
    info = stack_info((25, 18, 20), mirror(14, f"file://{tmp_path}/%SCALE_DATASET%/2_1_0"))
    stack = storefs.catmaid.Stack(info)
    expected = made.arrays[0].transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(stack.group["0"][:], expected)
    np.testing.assert_array_equal(stack.read([[1, 2, 3], [9, 8, 7]]), expected[:, 1:9, 2:8, 3:7])


@pytest.mark.parametrize("options", [{"axes": "xyz"}, {"zarr_format": 2}, {"face": "portable"}, {"fill_value": 9}])
def test_presentations(layer, options):
    """The usual options hold for stacks that are volumes elsewhere; what is absent is the fill value."""
    base = f"file://{layer.folder}/%SCALE_DATASET%/0_1_2"
    array = storefs.catmaid.open_tiles(stack_info((40, 36, 50), mirror(14, base)), **options)["0"]
    expected = layer.arrays[0].copy()
    for cell in layer.absent:
        at = tuple(slice(i * c, (i + 1) * c) for i, c in zip(cell, layer.chunk_xyz[::-1], strict=True))
        expected[at] = options.get("fill_value", 0)
    np.testing.assert_array_equal(array[:], expected.T if "axes" in options else expected)


@pytest.mark.parametrize(
    ("broken", "shown"),
    [("fill", {2: None, 3: None, 8: None}), ("nearest", {2: 1, 3: 4, 8: 7}), ("previous", {2: 1, 3: 1, 8: 7})],
)
def test_broken_slices(layer, broken, shown):
    """Broken slices are filled, or others stand for them, as with tiles."""
    base = f"file://{layer.folder}/%SCALE_DATASET%/0_1_2"
    info = stack_info((40, 36, 50), mirror(14, base), broken_slices={str(z): 1 for z in shown})
    expected = layer.arrays[0].copy()
    for z, other in shown.items():
        expected[z] = 0 if other is None else layer.arrays[0][other]
    np.testing.assert_array_equal(storefs.catmaid.open_tiles(info, broken=broken)["0"][:], expected)


# which mirror


@pytest.mark.parametrize(
    ("kind", "base", "orientation", "expected"),
    [
        (6, "http://h:8000/api/node/ab12/gray/raw/0_1/", 0, ("dvid://http://h:8000/ab12/gray", (0, 1, 2), "")),
        (6, "https://h/api/node/ab/gray/raw/0_2", 1, ("dvid://https://h/ab/gray", (0, 2, 1), "")),
        (6, "https://h/api/node/ab/gray/raw/1_2/", 2, ("dvid://https://h/ab/gray", (2, 1, 0), "")),
        (6, "https://h/api/node/ab/gray/raw/0_1/", 1, None),
        (6, "https://h/dvid/api/node/ab/gray/raw/0_1/", 0, None),
        (6, "https://h/api/node/ab/gray/tile/", 0, None),
        (8, "https://h/api/node/ab/gray/tile/", 0, ("dvid://https://h/ab/gray", (0, 1, 2), "xy")),
        (8, "https://h/api/node/ab/gray/tile/", 1, ("dvid://https://h/ab/gray", (0, 2, 1), "xz")),
        (8, "https://h/api/node/ab/gray/tile", 2, ("dvid://https://h/ab/gray", (2, 1, 0), "yz")),
        (8, "https://h/api/node/ab/gray/raw/0_1/", 0, None),
        (13, "precomputed://gs://bucket/path", 0, ("precomputed://gs://bucket/path", (0, 1, 2), "")),
        (13, "gs://bucket/path/", 2, ("precomputed://gs://bucket/path", (0, 1, 2), "")),
        (13, "graphene://https://h/x", 0, None),
        (13, "file:///data", 0, None),
        (14, "gs://bucket/path/%SCALE_DATASET%/0_1_2", 0, ("precomputed://gs://bucket/path", (0, 1, 2), "")),
        (14, "gs://bucket/path/0_1_2", 0, ("precomputed://gs://bucket/path", (0, 1, 2), "")),
        (
            14,
            "https://storage.googleapis.com/bucket/path/%SCALE_DATASET%/1_2_0/",
            1,
            ("precomputed://https://storage.googleapis.com/bucket/path", (1, 2, 0), ""),
        ),
        (14, "gs://bucket/path/%SCALE_DATASET%", 0, None),
        (14, "gs://bucket/path/%SCALE_DATASET%/0_1_1", 0, None),
        (5, "https://h/api/node/ab/gray/tile/", 0, None),
    ],
)
def test_addresses(kind, base, orientation, expected):
    """A mirror's base tells the volume and its axes, or nothing."""
    info = parse_stack_info(stack_info((9, 9, 9), mirror(kind, base)), "https://catmaid.example.org/3/7")
    found = volume_of(info.mirrors[0], orientation)
    assert expected == (None if found is None else (found.url, found.axes_xyz, found.group))


def test_a_volume_out_of_reach_is_skipped(layer, tmp_path):
    """A mirror whose volume cannot be described is passed over with a warning that says why."""
    first = mirror(14, f"file://{tmp_path}/nothing/%SCALE_DATASET%/0_1_2", title="first")
    second = mirror(14, f"file://{layer.folder}/%SCALE_DATASET%/0_1_2", title="second", id=2, position=1)
    with pytest.warns(MirrorWarning, match="first.*no precomputed volume here"):
        group = storefs.catmaid.open_tiles(stack_info((40, 36, 50), first, second))
    np.testing.assert_array_equal(group["0"][:], layer.arrays[0])
    assert [m["in_use"] for m in group.attrs["storefs"]["mirrors"]] == [False, True]


def test_a_volume_that_cannot_be_decoded_is_skipped(layer, tmp_path):
    """A mirror whose encoding is not offered leaves the stack to the next."""
    info = layer.info | {"scales": [scale | {"encoding": "zfp"} for scale in layer.info["scales"]]}
    (tmp_path / "info").write_text(json.dumps(info))
    first = mirror(14, f"file://{tmp_path}/%SCALE_DATASET%/0_1_2", title="first")
    second = mirror(14, f"file://{layer.folder}/%SCALE_DATASET%/0_1_2", title="second", id=2, position=1)
    with pytest.warns(MirrorWarning, match="first.*zfp"):
        group = storefs.catmaid.open_tiles(stack_info((40, 36, 50), first, second))
    np.testing.assert_array_equal(group["0"][:], layer.arrays[0])


@pytest.mark.parametrize(
    ("made", "kind", "path"), [("uint8blk", 8, "tile"), ("keyvalue", 6, "raw/0_1"), ("imagetile", 6, "raw/0_1")]
)
def test_the_wrong_kind_of_instance(lab, made, kind, path):
    """A base that names an instance of another kind is no volume, and no tiles come from it either."""
    lab.make("thing", made)
    base = f"{lab.server.url}/api/node/{lab.root}/thing/{path}/"
    tiles_tried = pytest.warns(MirrorWarning, match="volume behind its tiles cannot be read")
    with tiles_tried, pytest.raises(storefs.StorefsError):
        storefs.catmaid.open_tiles(stack_info((4, 4, 4), mirror(kind, base)), retries=0)


def test_an_instance_without_data(lab):
    """A stack over an instance that holds nothing yet reads as the fill value."""
    lab.make("empty", "uint8blk", BlockSize="16,16,16")
    base = f"{lab.server.url}/api/node/{lab.root}/empty/raw/0_1/"
    array = storefs.catmaid.open_tiles(stack_info((4, 5, 6), mirror(6, base)), fill_value=3)["0"]
    assert (array[:] == 3).all()


def test_an_unreadable_base_is_named(tmp_path):
    """Where no mirror is left, the error says what each base lacks."""
    with pytest.raises(storefs.StorefsError, match="order of axes"):
        storefs.catmaid.open_tiles(stack_info((4, 4, 4), mirror(14, f"file://{tmp_path}/%SCALE_DATASET%")))
    with pytest.raises(storefs.StorefsError, match="no precomputed volume here"):
        storefs.catmaid.open_tiles(stack_info((4, 4, 4), mirror(14, f"file://{tmp_path}/%SCALE_DATASET%/0_1_2")))


def test_tiles_where_the_address_is_no_instance(lab, gray):
    """Type 6 behind a proxy's prefix is no address of DVID, and is read as tiles."""
    import imagecodecs

    with TileHost() as host:
        host.put(
            "dvid/api/node/ab/gray/raw/0_1/64_64", {"0_0_0/png": bytes(imagecodecs.png_encode(gray[20, :64, :64]))}
        )
        base = f"{host.url}/dvid/api/node/ab/gray/raw/0_1/"
        group = storefs.catmaid.open_tiles(stack_info((1, 64, 64), mirror(6, base)))
        assert group["0"].chunks == (1, 64, 64)
        np.testing.assert_array_equal(group["0"][0], gray[20, :64, :64])


def test_tiles_where_the_server_fails(gray):
    """Where DVID cannot say what the instance is, its tiles are read, which is said, as they may be lossy."""
    import imagecodecs

    with TileHost() as host:
        base = "api/node/ab/gray/raw/0_1/64_64"
        host.put(base, {"0_0_0/png": bytes(imagecodecs.png_encode(gray[20, :64, :64]))})
        host.faults.append(Fault(lambda asked: "png" not in asked.path, status=500))
        info = stack_info((1, 64, 64), mirror(6, f"{host.url}/api/node/ab/gray/raw/0_1/"))
        with pytest.warns(MirrorWarning, match="compressed with loss"):
            group = storefs.catmaid.open_tiles(info, retries=0)
        np.testing.assert_array_equal(group["0"][0], gray[20, :64, :64])


def test_a_server_names_no_local_files(layer):
    """What a server says leads to no files of this machine, also by way of a redirect."""
    with TileHost({"info": json.dumps({"redirect": f"file://{layer.folder}"}).encode()}) as host:
        for base in (f"file://{layer.folder}", host.url):
            stack = Stack(2, "a", (50, 36, 40), [Mirror(f"{base}/%SCALE_DATASET%/0_1_2", 14)])
            refused = pytest.raises(storefs.StorefsError, match=r"no web server or bucket|local file")
            with CatmaidEmulator(Project(1, "p", [Link(stack)])) as server, refused:
                storefs.open(f"catmaid://{server.url}/1/2")


def test_no_tokens_go_along(lab, gray, monkeypatch):
    """Neither the stack's credentials nor the environment's tokens reach a server that only a stack names."""
    monkeypatch.setenv("DVID_TOKEN", "s3cr3t")
    monkeypatch.setenv("DVID_ADMIN_TOKEN", "s3cr3t")
    base = f"{lab.server.url}/api/node/{lab.root}/gray/raw/0_1/"
    before = len(lab.server.record.requests)
    options = {"token": "s3cr3t", "user": "me", "password": "s3cr3t", "mirror_auth": ("me", "s3cr3t")}
    group = storefs.catmaid.open_tiles(stack_info((40, 60, 60), mirror(6, base)), **options)
    assert group["0"][20, 40, 10] == gray[20, 40, 10]
    seen = lab.server.record.requests[before:]
    assert seen
    assert not [asked for asked in seen if "s3cr3t" in f"{asked.query}{asked.headers}"]
    assert not [asked for asked in seen if "Authorization" in asked.headers]


def test_failures_name_both_ends(layer):
    """A broken chunk raises, with the level of the stack or the chunk of the volume, and its address."""
    base = f"file://{layer.folder}/%SCALE_DATASET%/0_1_2"
    array = storefs.catmaid.open_tiles(stack_info((40, 36, 50), mirror(14, base)))["0"]
    name = next(name for name in layer.files if name != "info")
    (layer.folder / name).write_bytes(b"short")
    with pytest.raises(ValueError, match=f"{name}.*{layer.folder}"):
        array[:]


def test_chunk_names(layer):
    """A chunk of a view is called by level and first voxel."""
    store = storefs.open_store(
        "catmaid://tiles",
        stack_info=stack_info((40, 36, 50), mirror(14, f"file://{layer.folder}/%SCALE_DATASET%/0_1_2")),
    )
    assert store.source.open().backend.name(ChunkId("0", (1, 0, 2))) == "level 0 at voxel 32,0,8"


def test_a_large_layer_of_one_scale(tmp_path):
    """Chunks that are larger than the stack do no harm."""
    noise = voxels((30, 20, 10))
    write_layer(tmp_path, noise, (64, 64, 64), offset=(5, 6, 7))
    info = stack_info((8, 20, 30), mirror(14, f"file://{tmp_path}/%SCALE_DATASET%/0_1_2"))
    np.testing.assert_array_equal(storefs.catmaid.open_tiles(info)["0"][:], noise[:8])


def test_kept_on_disk(layer, tmp_path):
    """The options that keep answers on disk hold for the volume behind a mirror as well."""
    cache = tmp_path / "cache"
    with TileHost(dict(layer.files)) as host:
        info = stack_info((40, 36, 50), mirror(14, f"{host.url}/%SCALE_DATASET%/0_1_2"))
        first = storefs.catmaid.open_tiles(info, cache=cache)["0"][:]
    again = storefs.catmaid.open_tiles(info, cache=cache, offline=True)["0"][:]
    np.testing.assert_array_equal(first, layer.arrays[0])
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("broken", [{}, {"21": 1}])
def test_blocks_come_together_and_slices_alone(lab, gray, broken):
    """Blocks of DVID come in one request for each chunk, and a slice does not cost the whole of it."""
    base = f"{lab.server.url}/api/node/{lab.root}/gray/raw/0_1/"
    info = stack_info((48, 64, 60), mirror(6, base), broken_slices=broken)
    array = storefs.catmaid.open_tiles(info)["0"]
    expected = gray[:48, :64, :60].copy()
    expected[[int(z) for z in broken]] = 0
    before = len(lab.server.record.requests)
    np.testing.assert_array_equal(array[:], expected)
    assert len(lab.server.record.requests) - before == 1
    for z in (3, 20, 21, 40):
        np.testing.assert_array_equal(array[z], expected[z])
    np.testing.assert_array_equal(array[18:24, 40:50, 3], expected[18:24, 40:50, 3])
    asked = [seen.path.split("/", 5)[5] for seen in lab.server.record.requests[before + 1 :]]
    assert [path for path in asked if path.startswith("raw")]
    sizes = [np.prod([int(n) for n in path.split("/")[-2].split("_")]) for path in asked]
    assert max(sizes) <= 16 * 64 * 64


def test_a_group_of_stacks(lab, gray):
    """Below the address of a project the same stack reads the same, in parts too."""
    base = f"{lab.server.url}/api/node/{lab.root}/gray/raw/0_1/"
    stack = Stack(2, "a", (60, 64, 48), [Mirror(base, 6)])
    with CatmaidEmulator(Project(1, "p", [Link(stack)])) as server:
        array = storefs.open(f"catmaid://{server.url}/1")["2/0"]
        np.testing.assert_array_equal(array[:], gray[:48, :64, :60])
        np.testing.assert_array_equal(array[20, 40:], gray[20, 40:64, :60])


@pytest.mark.parametrize("where", ["files", "http"])
def test_encoded_volumes(tmp_path, where):
    """Encoded chunks are decoded on their way, clipped ones too, in whatever order of axes."""
    made = two_scales((20, 18, 25), dtype="uint16", encoding="png").write(tmp_path)
    with TileHost(dict(made.files)) as host:
        base = f"file://{tmp_path}" if where == "files" else host.url
        group = storefs.catmaid.open_tiles(
            stack_info((25, 18, 20), mirror(14, f"{base}/%SCALE_DATASET%/2_1_0"), factors=FACTORS)
        )
        for name in ("0", "1"):
            shape = group[name].shape
            padded = np.pad(made.arrays[int(name)].T, [(0, n) for n in shape])
            np.testing.assert_array_equal(group[name][:], padded[tuple(map(slice, shape))])
            assert group[name].dtype == np.uint16


@pytest.mark.parametrize("where", ["files", "http"])
def test_sharded_volumes(tmp_path, where):
    """Shards are found through their indexes."""
    noise = voxels((30, 20, 10), "uint64")
    write_layer(tmp_path, noise, (8, 8, 8), offset=(5, 6, 7), sharded=Sharded(data_gzip=True))
    files = {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    with TileHost(files) as host:
        base = f"file://{tmp_path}" if where == "files" else host.url
        info = stack_info((10, 20, 30), mirror(14, f"{base}/%SCALE_DATASET%/0_1_2"))
        array = storefs.catmaid.open_tiles(info)["0"]
        assert array.dtype == np.uint64
        np.testing.assert_array_equal(array[:], noise)
