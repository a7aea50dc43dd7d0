"""Type 11: N5 datasets read block by block."""

from __future__ import annotations

import gzip
import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import storefs
import storefs.catmaid
from storefs.backends.catmaid.info import parse_stack_info
from storefs.backends.catmaid.levels import levels_of
from storefs.backends.catmaid.mirrors import MirrorWarning
from storefs.backends.catmaid.n5 import find_datasets, parse_attributes
from storefs.backends.catmaid.reading import Reading
from storefs.errors import MetadataError, Unsupported
from storefs.plans import At, Body, Race
from storefs.testing import BackendContract
from storefs_codecs import DecodeError
from tests.backends.catmaid.emulator import CatmaidEmulator, Link, Mirror, Project, Stack
from tests.backends.catmaid.stack_infos import mirror, stack_info
from tests.backends.catmaid.tile_hosts import TileHost
from tests.backends.dvid.faults import Fault

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "catmaid" / "tile_urls.json"
FACTORS = ((1, 1, 1), (2, 2, 1), (4, 4, 2))


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """Voxels of which none is 0."""
    return np.random.default_rng(seed).integers(1, 120, shape).astype(dtype)


def write_dataset(
    folder: Path,
    voxels: np.ndarray,
    block: tuple[int, int, int],
    *,
    old: bool = False,
    leave_out: tuple[int, ...] | None = None,
) -> None:
    """An N5 dataset of `voxels`, C order: its last axis is N5's first dimension, as is that of `block`; gzip."""
    size = voxels.shape[::-1]
    compression = {"compressionType": "gzip"} if old else {"compression": {"type": "gzip", "useZlib": False}}
    attributes = {"dimensions": list(size), "blockSize": list(block), "dataType": voxels.dtype.name, **compression}
    folder.mkdir(parents=True)
    (folder / "attributes.json").write_text(json.dumps(attributes))
    for index in itertools.product(*(range(-(-n // b)) for n, b in zip(size, block, strict=True))):
        if index == leave_out:
            continue
        box = tuple(slice(i * b, (i + 1) * b) for i, b in zip(index, block, strict=True))[::-1]
        part = voxels[box]
        head = struct.pack(">HH", 0, 3) + struct.pack(">3I", *part.shape[::-1])
        body = gzip.compress(part.astype(part.dtype.newbyteorder(">")).tobytes(), mtime=0)
        target = folder.joinpath(*map(str, index))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(head + body)


def files_of(folder: Path) -> dict[str, bytes]:
    """What lies below `folder`, by path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def halves(finest: np.ndarray) -> list[np.ndarray]:
    """The levels of FACTORS of a stack (zyx)."""
    return [
        finest[::fz, ::fy, ::fx][: -(-finest.shape[0] // fz), : finest.shape[1] // fy, : finest.shape[2] // fx]
        for fx, fy, fz in FACTORS
    ]


def written(folder: Path, stack: np.ndarray, axes: tuple[int, int, int], blocks) -> list[np.ndarray]:
    """The levels of a stack (zyx), written as N5 datasets whose dimensions `axes` are the stack's x, y, z."""
    levels = halves(stack)
    # N5 dimension d lies along the stack's axis axes.index(d); C order begins with the last dimension
    order = [2 - axes.index(d) for d in (2, 1, 0)]
    for n, (level, block) in enumerate(zip(levels, blocks, strict=False)):
        write_dataset(folder / f"s{n}", level.transpose(order), block)
    return levels


class TestBlocks(BackendContract):
    """A stack of N5 blocks, clipped, one of them absent, keeps the contract of all backends."""

    @pytest.fixture
    def host(self, tmp_path) -> Iterator[TileHost]:
        write_dataset(tmp_path / "s0", noise((14, 22, 27)).transpose(2, 0, 1), (8, 7, 6), leave_out=(1, 1, 1))
        write_dataset(tmp_path / "s1", noise((14, 11, 13), seed=1).transpose(2, 0, 1), (5, 6, 7))
        with TileHost(files_of(tmp_path)) as host:
            yield host

    @pytest.fixture
    def url(self, host) -> Iterator[str]:
        found = Mirror(f"{host.url}/%SCALE_DATASET%/2_0_1", 11)
        stack = Stack(2, "a", (27, 22, 14), [found], factors=list(FACTORS[:2]))
        with CatmaidEmulator(Project(1, "p", [Link(stack)])) as server:
            yield f"catmaid://{server.url}/1/2"

    @pytest.fixture
    def expected(self):
        finest = noise((14, 22, 27))
        finest[7:14, 8:16, 6:12] = 0
        return {"0": finest, "1": noise((14, 11, 13), seed=1)}

    @pytest.fixture
    def faulty_url(self, host, url):
        host.faults.append(Fault(where=lambda asked: "attributes" not in asked.path, status=500, text="broken"))
        return f"{url}?retries=0"


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("where", ["files", "http"])
def test_every_order_of_axes(tmp_path, axes, where):
    """Levels, with blocks of their own sizes, come back along the stack's axes, whatever N5's order."""
    stack = noise((14, 22, 27))
    levels = written(tmp_path, stack, axes, [(8, 7, 6), (5, 8, 4), (9, 3, 6)])
    spec = "_".join(map(str, axes))
    with TileHost(files_of(tmp_path)) as host:
        base = f"file://{tmp_path}" if where == "files" else host.url
        info = stack_info(stack.shape, mirror(11, f"{base}/%SCALE_DATASET%/{spec}"), factors=FACTORS)
        group = storefs.catmaid.open_tiles(info)
        assert sorted(group.array_keys()) == ["0", "1", "2"]
        for n, level in enumerate(levels):
            np.testing.assert_array_equal(group[str(n)][:], level)
    blocks = [(8, 7, 6), (5, 8, 4), (9, 3, 6)]
    assert group["1"].chunks == tuple(blocks[1][axis] for axis in axes[::-1])
    assert group["1"].attrs["storefs"]["dataset"] == f"{base}/s1"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint64", "int32", "float32", "float64"])
def test_every_type(tmp_path, dtype):
    """Voxels of every width come back exactly."""
    stack = noise((6, 9, 11), dtype)
    write_dataset(tmp_path / "em", stack, (4, 4, 4))
    array = storefs.catmaid.open_tiles(stack_info(stack.shape, mirror(11, f"file://{tmp_path}/em/0_1_2")))["0"]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array[:], stack)


@pytest.mark.parametrize("options", [{}, {"axes": "xyz"}, {"zarr_format": 2}, {"face": "portable"}])
def test_stacks_of_another_size(tmp_path, options):
    """The array has the stack's size: what the dataset has more is cut, what it lacks is filled."""
    stack = noise((10, 20, 30))
    write_dataset(tmp_path / "s0", stack, (8, 8, 8))
    info = stack_info((13, 17, 44), mirror(11, f"file://{tmp_path}/%SCALE_DATASET%/0_1_2"))
    found = storefs.catmaid.open_tiles(info, **options)["0"][:]
    expected = np.pad(stack, ((0, 3), (0, 0), (0, 14)))[:, :17]
    np.testing.assert_array_equal(found.T if "axes" in options else found, expected)


def test_absent_blocks_and_levels(tmp_path):
    """A block that is not stored is the fill value, and levels end with the first dataset that is missing."""
    stack = noise((10, 20, 30))
    write_dataset(tmp_path / "s0", stack, (8, 8, 8), leave_out=(1, 1, 0))
    write_dataset(tmp_path / "s2", stack, (8, 8, 8))
    info = stack_info(stack.shape, mirror(11, f"file://{tmp_path}/%SCALE_DATASET%/0_1_2"), factors=FACTORS)
    group = storefs.catmaid.open_tiles(info)
    assert list(group.array_keys()) == ["0"]
    stack[:8, 8:16, 8:16] = 0
    np.testing.assert_array_equal(group["0"][:], stack)
    stack[:8, 8:16, 8:16] = 7
    np.testing.assert_array_equal(storefs.catmaid.open_tiles(info, fill_value=7)["0"][:], stack)
    with pytest.raises(storefs.MissingChunk):
        storefs.catmaid.open_tiles(info, missing="error")["0"][:]


def test_blocks_are_handed_on_as_stored(tmp_path):
    """The array's codec is that of N5 blocks, and its chunks are the files."""
    stack = noise((16, 16, 16))
    write_dataset(tmp_path / "s0", stack, (8, 8, 8))
    store = storefs.open_store(
        "catmaid://tiles",
        stack_info=stack_info(stack.shape, mirror(11, f"file://{tmp_path}/%SCALE_DATASET%/2_1_0")),
    )
    assert store.source.open().backend.hierarchy.arrays[0].encoding.name == "n5_block"
    from zarr.core.sync import sync

    assert bytes(sync(store.source.get("0/c/1/0/0"))) == (tmp_path / "s0/1/0/0").read_bytes()


def test_the_first_version_of_n5(tmp_path):
    """Attributes of old name the compression in one word."""
    stack = noise((5, 6, 7))
    write_dataset(tmp_path / "em", stack, (4, 4, 4), old=True)
    info = stack_info(stack.shape, mirror(11, f"file://{tmp_path}/em/0_1_2"))
    np.testing.assert_array_equal(storefs.catmaid.open_tiles(info)["0"][:], stack)


@pytest.mark.parametrize(
    ("broken", "shown"), [("fill", {2: None, 8: None, 9: None}), ("nearest", {2: 1, 8: 7, 9: 10}), ("next", {2: 3})]
)
def test_broken_slices(tmp_path, broken, shown):
    """Broken slices in the middle of blocks are filled, or others stand for them."""
    stack = noise((12, 10, 10))
    write_dataset(tmp_path / "s0", stack, (4, 4, 4), leave_out=(0, 0, 1))
    base = f"file://{tmp_path}/%SCALE_DATASET%/0_1_2"
    info = stack_info(stack.shape, mirror(11, base), broken_slices={str(z): 1 for z in shown})
    stack[4:8, :4, :4] = 0
    expected = stack.copy()
    for z, other in shown.items():
        expected[z] = 0 if other is None else stack[other]
    np.testing.assert_array_equal(storefs.catmaid.open_tiles(info, broken=broken)["0"][:], expected)


@pytest.mark.parametrize("compression", ["raw", "gzip", "blosc", "bzip2", "xz", "zstd"])
def test_as_tensorstore_writes(tmp_path, compression):
    """Datasets that TensorStore wrote come back, level by level."""
    tensorstore = pytest.importorskip("tensorstore")
    stack = noise((20, 30, 40), "uint16")
    settings = {"type": "blosc", "cname": "lz4", "clevel": 3, "shuffle": 1} if compression == "blosc" else {}
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": f"{tmp_path}/em.n5/s0/"},
        "metadata": {"compression": {"type": compression, **settings}, "blockSize": [16, 8, 4]},
    }
    store = tensorstore.open(spec, create=True, dtype="uint16", shape=stack.shape[::-1]).result()
    store[...] = stack.transpose()
    info = stack_info(stack.shape, mirror(11, f"file://{tmp_path}/em.n5/%SCALE_DATASET%/0_1_2"))
    array = storefs.catmaid.open_tiles(info)["0"]
    assert array.chunks == (4, 8, 16)
    np.testing.assert_array_equal(array[:], stack)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the addresses (../shared/golden/catmaid) are not here")
def test_recorded_addresses():
    """Datasets and blocks lie where CATMAID looks for them."""
    cases = [case for case in json.loads(GOLDEN.read_text())["blocks"] if case["tile_source_type"] == 11]
    assert cases
    attributes = {"dimensions": [999] * 3, "blockSize": [64] * 3, "dataType": "uint8", "compression": {"type": "raw"}}
    for case in cases:
        info = parse_stack_info(stack_info((999, 999, 999), mirror(11, case["image_base"]), factors=FACTORS), "a://b")
        plan = find_datasets(info.mirrors[0], info, levels_of(info), Reading())
        race = next(plan)
        assert isinstance(race, Race)
        assert race.requests[case["level"]].request.path == case["attributes"]
        body = Body(json.dumps(attributes).encode())
        with pytest.raises(StopIteration) as stop:
            plan.send([(body, 0.0)] * 3)
        asked = next(stop.value.value[case["level"]].stored(tuple(case["block_xyz"][::-1])))
        assert isinstance(asked, At)
        assert asked.request.path == case["url"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dataType": "object"}, "dataType"),
        ({"dataType": None}, "dataType"),
        ({"dimensions": [1, 2]}, "2 dimensions"),
        ({"dimensions": [1, 2, 3, 4], "blockSize": [1, 1, 1, 1]}, "4 dimensions"),
        ({"dimensions": "big"}, "dimensions"),
        ({"dimensions": [1, 2, -3]}, "dimensions"),
        ({"dimensions": [1, 2, 1e9]}, "dimensions"),
        ({"blockSize": [0, 1, 1]}, "blockSize"),
        ({"blockSize": [1 << 20] * 3}, "impossibly big"),
        ({"compression": None}, "compression"),
        ({"compression": {"kind": "gzip"}}, "compression"),
        ({"compression": {"type": "jpeg"}}, "jpeg"),
    ],
)
def test_attributes_that_make_no_sense(changes, problem):
    """The key at fault is named."""
    sound = {"dimensions": [9, 9, 9], "blockSize": [4, 4, 4], "dataType": "uint8", "compression": {"type": "raw"}}
    with pytest.raises(MetadataError, match=problem):
        parse_attributes(sound | changes, "https://host/em", (0, 1, 2))


def test_what_is_not_offered_is_unsupported():
    """Another number of dimensions is understood, and said not to be offered."""
    document = {"dimensions": [9] * 4, "blockSize": [4] * 4, "dataType": "uint8", "compression": {"type": "raw"}}
    with pytest.raises(Unsupported):
        parse_attributes(document, "https://host/em", (0, 1, 2))


def test_broken_bytes(tmp_path):
    """A block that does not decode raises, naming the level and the place."""
    write_dataset(tmp_path / "s0", noise((8, 8, 8)), (4, 4, 4))
    (tmp_path / "s0/1/0/0").write_bytes(b"\0\0\0\3short")
    info = stack_info((8, 8, 8), mirror(11, f"file://{tmp_path}/%SCALE_DATASET%/0_1_2"))
    with pytest.raises(DecodeError, match="level 0 at voxel 4,0,0"):
        storefs.catmaid.open_tiles(info)["0"][:]


def test_a_dead_mirror_is_skipped(tmp_path):
    """A mirror without datasets is passed over with a warning, with broken attributes too."""
    stack = noise((8, 8, 8))
    write_dataset(tmp_path / "good" / "s0", stack, (4, 4, 4))
    (tmp_path / "bad" / "s0").mkdir(parents=True)
    (tmp_path / "bad" / "s0" / "attributes.json").write_text("{")
    bases = [f"file://{tmp_path}/{name}/%SCALE_DATASET%/0_1_2" for name in ("none", "bad", "good")]
    mirrors = [mirror(11, base, title=str(n), id=n, position=n) for n, base in enumerate(bases)]
    with pytest.warns(MirrorWarning) as caught:
        group = storefs.catmaid.open_tiles(stack_info(stack.shape, *mirrors))
    said = " ".join(str(warning.message) for warning in caught)
    assert "no N5 dataset here" in said
    assert "no JSON" in said
    np.testing.assert_array_equal(group["0"][:], stack)
    with pytest.raises(storefs.StorefsError, match="order of axes"):
        storefs.catmaid.open_tiles(stack_info(stack.shape, mirror(11, f"file://{tmp_path}/good/%SCALE_DATASET%")))


@pytest.mark.parametrize("choice", ["fastest", 4, "n5"])
def test_it_can_be_chosen(tmp_path, choice):
    """By name, by number, and where nothing can be raced."""
    stack = noise((8, 8, 8))
    write_dataset(tmp_path / "s0", stack, (4, 4, 4))
    found = mirror(11, f"file://{tmp_path}/%SCALE_DATASET%/0_1_2", title="n5", id=4)
    array = storefs.catmaid.open_tiles(stack_info(stack.shape, found), mirror=choice)["0"]
    np.testing.assert_array_equal(array[:], stack)


def test_factors_that_are_not_the_dataset_s(tmp_path):
    """Where datasets are smaller along z than the stack's factors say, a warning tells that levels do not fit."""
    finest = noise((16, 32, 32))
    for number, voxels in enumerate((finest, finest[::2, ::2, ::2])):
        write_dataset(tmp_path / "a.n5" / f"s{number}", voxels, (16, 16, 4))
    info = stack_info(finest.shape, mirror(11, f"file://{tmp_path}/a.n5/%SCALE_DATASET%/0_1_2"), factors=FACTORS[:2])
    with pytest.warns(MirrorWarning, match=r"level 1 of the volume has \(8, 16, 16\) voxels"):
        group = storefs.catmaid.open_tiles(info)
    np.testing.assert_array_equal(group["0"][:], finest)
