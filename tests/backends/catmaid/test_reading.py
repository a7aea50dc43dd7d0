"""Stacks read as zarr: every kind of tile, every way in."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

import storefs
from tests.backends.catmaid import specimen
from tests.backends.catmaid.scene import SHAPE, SIZE, Scene
from tests.backends.catmaid.specimen import HALVES, STEPS_OF_Z, Array, colours, tissue
from tests.backends.dvid.faults import Fault

PLAIN = (1, 2, 4, 5, 7, 9, 10, 12)


def check(group: zarr.Group, levels: list[Array]) -> None:
    """Assert that a group is these levels, voxel for voxel."""
    assert sorted(group.array_keys()) == [str(level) for level in range(len(levels))]
    for number, level in enumerate(levels):
        np.testing.assert_array_equal(group[str(number)][...], level)


# tiles


@pytest.mark.parametrize("orientation", [0, 1, 2])
@pytest.mark.parametrize("kind", PLAIN)
def test_every_tile_type(em: Scene, kind: int, orientation: int) -> None:
    """Every level of every type is right, with factors of z, tiles that are not square, at every orientation."""
    size = (48, 48) if kind == 12 else SIZE
    shown = em.stack(tissue(SHAPE), STEPS_OF_Z, kind=kind, size=size, orientation=orientation)
    check(storefs.open(shown.url), shown.levels)


def test_every_tile_is_asked_for_once(em: Scene) -> None:
    """Reading all of a level takes each of its tiles once, and nothing else of the host."""
    shown = em.stack(tissue(SHAPE), kind=5)
    array = storefs.open(shown.url)["1"]
    em.host.forget()
    array[...]
    level_1 = sorted(at for at in em.host.files if at.split("/")[1] == "1")
    assert sorted(em.host.asked) == level_1


@pytest.mark.parametrize("extension", ["png", "webp", "gif", "tif"])
def test_lossless_formats(em: Scene, extension: str) -> None:
    """PNG, WebP, GIF and TIFF tiles give their pixels."""
    shown = em.stack(tissue(SHAPE), extension=extension)
    check(storefs.open(shown.url), shown.levels)


def test_jpeg(em: Scene) -> None:
    """JPEG tiles give the pixels that another decoder gives."""
    shown = em.stack(tissue((2, 48, 64)), [(1, 1, 1)], extension="jpg")
    tiles = [specimen.decoded_jpeg(specimen.jpeg(plane)) for plane in shown.finest]
    off = np.abs(storefs.open_array(shown.url)[...].astype(int) - np.stack(tiles))
    assert off.max() <= 1


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bits(em: Scene, extension: str) -> None:
    """Tiles of 16 bits make an array of uint16, low bytes and all."""
    shown = em.stack(tissue(SHAPE, "uint16"), extension=extension)
    assert shown.finest.dtype == np.uint16
    group = storefs.open(shown.url)
    assert group["0"].dtype == np.uint16
    check(group, shown.levels)


@pytest.mark.parametrize("short", [True, False])
def test_edges(em: Scene, *, short: bool) -> None:
    """Tiles short at the edge, and tiles padded with something, give the same array."""
    shown = em.stack(tissue(SHAPE), short=short, padding=77)
    check(storefs.open(shown.url), shown.levels)


def test_levels_by_rule(em: Scene) -> None:
    """Without factors there are as many levels as it takes to fit into one tile."""
    shown = em.stack(tissue((2, 200, 300)), [(1, 1, 1), (2, 2, 1), (4, 4, 1)], size=(128, 96))
    shown.stack.factors = None
    check(storefs.open(shown.url), shown.levels)


def test_content_is_what_counts(em: Scene) -> None:
    """Neither the extension nor the content type, wrong or missing, says what a tile is."""
    for told in ("text/plain", "image/jpg", "image/jpeg; charset=utf-8", None):
        em.host.content_type = lambda at, told=told: told  # type: ignore[misc]  # bound now
        shown = em.stack(tissue(SHAPE), extension="jpg", encode=specimen.png)
        check(storefs.open(shown.url), shown.levels)


def test_gzipped_tiles(em: Scene) -> None:
    """Tiles that a server wraps in Content-Encoding gzip are unwrapped."""
    em.host.gzipped = True
    shown = em.stack(tissue(SHAPE))
    check(storefs.open(shown.url), shown.levels)


# channels


def luma(rgb: Array) -> Array:
    """Grey of colours (czyx), as Pillow makes it."""
    red, green, blue = rgb.astype(np.uint32)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


@pytest.mark.parametrize("channels", ["luma", "first", "rgb", None])
def test_colours(em: Scene, channels: str | None) -> None:
    """Colours are read as luma, as their first channel, or as a channel axis in front; luma where nothing is said."""
    shown = em.stack(colours(SHAPE), STEPS_OF_Z)
    expected = {"rgb": lambda rgb: rgb, "first": lambda rgb: rgb[0]}.get(channels or "", luma)
    group = storefs.open(shown.url, **({} if channels is None else {"channels": channels}))
    check(group, [expected(level) for level in shown.levels])
    assert group["0"].metadata.dimension_names == (("c", "z", "y", "x") if channels == "rgb" else ("z", "y", "x"))


@pytest.mark.parametrize("channels", ["luma", "first", "rgb"])
def test_grey_served_as_colours(em: Scene, channels: str) -> None:
    """Grey data in RGB tiles is the grey, or the grey three times."""
    grey = tissue(SHAPE)
    shown = em.stack(np.stack([grey] * 3))
    expected = shown.levels if channels == "rgb" else [level[0] for level in shown.levels]
    check(storefs.open(shown.url, channels=channels), expected)


def test_grey_tiles_asked_for_as_colours(em: Scene) -> None:
    """Where the tiles are grey, channels="rgb" gives the grey three times, not an error."""
    shown = em.stack(tissue(SHAPE))
    array = storefs.open_array(shown.url, channels="rgb")
    assert array.shape == (3, *SHAPE)
    assert all(np.array_equal(channel, shown.finest) for channel in array[...])


# missing tiles and broken slices


def remove(em: Scene, *names: str) -> None:
    """Take tiles from the host, by the ends of their names."""
    for name in names:
        for at in [at for at in em.host.files if at.endswith(name)]:
            del em.host.files[at]


@pytest.mark.parametrize("status", [404, 410])
def test_missing_tiles(em: Scene, status: int) -> None:
    """404 and 410 are the fill value: 0, or what is asked for; missing="error" names the tile."""
    shown = em.stack(tissue(SHAPE), kind=5)
    remove(em, "0/2/1/1.png")
    if status == 410:
        em.host.faults.append(Fault(lambda asked: asked.target.endswith("0/2/1/1.png"), status=410))
    box = np.s_[2, 48:96, 64:128]
    shown.finest[box] = 0
    assert np.array_equal(storefs.open_array(shown.url)[...], shown.finest)
    shown.finest[box] = 9
    assert np.array_equal(storefs.open_array(shown.url, fill_value=9)[...], shown.finest)
    strict = storefs.open_array(shown.url, missing="error")
    assert np.array_equal(strict[:2], shown.finest[:2])
    with pytest.raises(storefs.MissingChunk, match="0/2/1/1"):
        strict[2]


def test_short_tiles_end_in_the_fill_value(em: Scene) -> None:
    """What a short tile lacks inside the array is the fill value, not black."""
    shown = em.stack(tissue(SHAPE), [(1, 1, 1)], kind=5)
    at = next(at for at in em.host.files if at.endswith("0/0/0/0.png"))
    em.host.files[at] = specimen.png(shown.finest[0, :30, :20])
    expected = shown.finest[0, :48, :64].copy()
    expected[30:], expected[:, 20:] = 7, 7
    assert np.array_equal(storefs.open_array(shown.url, fill_value=7)[0, :48, :64], expected)


def test_tiles_that_are_too_long_are_cropped(em: Scene) -> None:
    """What a tile has beyond its place does not spill over."""
    shown = em.stack(tissue(SHAPE), [(1, 1, 1)], kind=5)
    at = next(at for at in em.host.files if at.endswith("0/0/0/0.png"))
    bigger = np.full((60, 80), 9, np.uint8)
    bigger[:48, :64] = shown.finest[0, :48, :64]
    em.host.files[at] = specimen.png(bigger)
    assert np.array_equal(storefs.open_array(shown.url)[0], shown.finest[0])


def test_black_instead_of_404(em: Scene) -> None:
    """A host that answers a stock black image with 200 for what is missing is believed."""
    em.host.black = specimen.jpeg(np.zeros((1024, 1024), np.uint8))
    shown = em.stack(tissue(SHAPE), kind=5)
    remove(em, "0/2/1/1.png")
    shown.finest[2, 48:96, 64:128] = 0
    assert np.array_equal(storefs.open_array(shown.url, fill_value=9)[...], shown.finest)


BROKEN = (0, 2, 3, 99)
POLICIES = {
    "fill": [None, 1, None, None, 4, 5],
    "nearest": [1, 1, 1, 4, 4, 5],
    "previous": [1, 1, 1, 1, 4, 5],
    "next": [1, 1, 4, 4, 4, 5],
}


@pytest.mark.parametrize("policy", [None, *POLICIES])
def test_broken_slices(em: Scene, policy: str | None) -> None:
    """Broken slices are filled, or show a neighbour, and are never asked for; ties go to the lower slice."""
    shown = em.stack(tissue((6, 48, 64)), HALVES[:2], kind=5, facts={"broken_slices": BROKEN, "canary": (0, 0, 1)})
    group = storefs.open(shown.url, fill_value=3, **({} if policy is None else {"broken": policy}))
    taken = POLICIES[policy or "fill"]
    if policy == "previous":
        taken = [None, *taken[1:]]  # nothing lies before the first
    for number, level in enumerate(shown.levels):
        expected = [np.full_like(level[0], 3) if z is None else level[z] for z in taken]
        np.testing.assert_array_equal(group[str(number)][...], np.stack(expected))
    asked = {int(at.split("/")[2]) for at in em.host.asked}
    assert not asked & set(BROKEN)


def test_broken_slices_at_steps_of_z(em: Scene) -> None:
    """A coarse slice is broken where all its slices are."""
    shown = em.stack(tissue((6, 48, 64)), [(1, 1, 1), (2, 2, 2)], kind=5, facts={"broken_slices": (2, 3, 4)})
    coarse = storefs.open(shown.url)["1"][...]
    assert not coarse[1].any()
    assert np.array_equal(coarse[2], shown.levels[1][2])


# space


ALONG = {0: ("x", "y", "z"), 1: ("x", "z", "y"), 2: ("z", "y", "x")}


@pytest.mark.parametrize("orientation", [0, 1, 2])
def test_space(em: Scene, orientation: int) -> None:
    """Sizes are along the stack's axes, the attributes say how the stack lies in the project."""
    facts = {"resolution": (4.0, 5.0, 40.0)}
    shown = em.stack(tissue(SHAPE), STEPS_OF_Z, orientation=orientation, translation=(10.0, 20.0, 30.0), facts=facts)
    group = storefs.open(shown.url)
    told = group.attrs["storefs"]
    assert told["orientation"] in (orientation, ("xy", "xz", "zy")[orientation])
    assert list(told["translation_xyz"]) == [10.0, 20.0, 30.0]
    for level, (fx, fy, fz) in enumerate(STEPS_OF_Z):
        assert group[str(level)].attrs["storefs"]["resolution_xyz"] == [4.0 * fx, 5.0 * fy, 40.0 * fz]
    (multiscale,) = group.attrs["ome"]["multiscales"]
    for level, (fx, fy, fz) in enumerate(STEPS_OF_Z):
        transforms = {t["type"]: t for t in multiscale["datasets"][level]["coordinateTransformations"]}
        assert transforms["scale"]["scale"] == [40.0 * fz, 5.0 * fy, 4.0 * fx]
    # all levels share a corner: centres of voxel 0 differ by half the difference of the voxel sizes
    corners = []
    for level in range(len(STEPS_OF_Z)):
        transforms = {t["type"]: t for t in multiscale["datasets"][level]["coordinateTransformations"]}
        scale, centre = transforms["scale"]["scale"], transforms["translation"]["translation"]
        corners.append([c - s / 2 for c, s in zip(centre, scale, strict=True)])
    assert all(np.allclose(corner, corners[0]) for corner in corners)


# ways in


def test_zarr_opens_the_address(em: Scene) -> None:
    """`zarr.open` takes the address, as a group and as an array of it."""
    shown = em.stack(tissue(SHAPE))
    check(zarr.open_group(shown.url, mode="r"), shown.levels)
    array = zarr.open_array(f"{shown.url}/1", mode="r")
    assert np.array_equal(array[...], shown.levels[1])


@pytest.mark.parametrize("options", [{"axes": "xyz"}, {"zarr_format": 2}, {"face": "portable"}], ids=str)
def test_other_presentations(em: Scene, options: dict[str, Any]) -> None:
    """Axes, zarr format and face are the caller's choice."""
    shown = em.stack(tissue(SHAPE))
    levels = [level.T for level in shown.levels] if "axes" in options else shown.levels
    check(storefs.open(shown.url, **options), levels)


def test_fsspec(em: Scene) -> None:
    """Documents and chunks are files of an fsspec filesystem."""
    shown = em.stack(tissue(SHAPE))
    with fsspec.open(f"{shown.url}/zarr.json") as file:
        assert b"multiscales" in file.read()
    fs = fsspec.filesystem("catmaid")
    names = [name.rpartition("/")[2] for name in fs.ls(shown.url, detail=False)]
    assert sorted(names) == ["0", "1", "2", "zarr.json"]
    mapper = fsspec.get_mapper(shown.url)
    assert len(mapper["0/c/0/0/0"]) > 0


def test_dask_and_xarray(em: Scene) -> None:
    """Dask and xarray read the arrays lazily."""
    shown = em.stack(tissue(SHAPE))
    dask_array = pytest.importorskip("dask.array")
    lazy = dask_array.from_zarr(storefs.open_array(shown.url))
    assert float(lazy.mean().compute(scheduler="threads")) == pytest.approx(float(shown.finest.mean()))
    xarray = pytest.importorskip("xarray")
    store = storefs.open_store(shown.url)
    dataset = xarray.open_zarr(store, consolidated=False, drop_variables=["1", "2"])
    assert np.array_equal(dataset["0"].values, shown.finest)


def total(array: zarr.Array[Any]) -> int:
    """Sum of an array, in whatever process."""
    return int(np.asarray(array[...], np.int64).sum())


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork of a process with threads
def test_other_processes(em: Scene, method: str) -> None:
    """Arrays go to processes of every kind and read the same there."""
    shown = em.stack(tissue(SHAPE))
    group = storefs.open(shown.url)
    group["0"][0]
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        found = list(pool.map(total, [group["0"], group["1"]]))
    assert found == [int(level.astype(np.int64).sum()) for level in shown.levels[:2]]


def test_pickles_are_small(em: Scene) -> None:
    """A store is pickled as its address and options."""
    shown = em.stack(tissue(SHAPE))
    store = storefs.open_store(shown.url)
    zarr.open_group(store, mode="r")["0"][...]
    assert len(pickle.dumps(store)) < 1024
