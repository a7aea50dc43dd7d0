"""Layers written by other software read as the arrays that their writers and a second reader agree on."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

import storefs
from tests.backends.precomputed.golden import (
    LAYERS,
    Array,
    assemble,
    assert_within,
    case,
    case_names,
    cases,
    expected,
    need_library,
)

# the other cases must raise, and have tests of their own
NAMES = [name for name in case_names(LAYERS) if not case(LAYERS, name).get("must_raise")]
# each holds something that only one way of showing a chunk could get wrong
TELLING = (
    "raw_uint8_3ch",
    "cseg_uint64_2ch",
    "jpeg_rgb",
    "sharded_holes",
    "cv_holes_gz",
    "offset_negative",
    "multiscale_mixed_encodings",
    "png_uint16_4ch",
)
ABSENT_LAYERS = ("all_zero", "holes", "sharded_all_zero", "sharded_missing_shard", "cv_holes_gz", "zero_length_chunk")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all layers, with the redirect that needs its address filled in beside it."""
    if not LAYERS.is_dir():
        pytest.skip("../shared/golden/precomputed not found")
    folder = tmp_path_factory.mktemp("redirects") / "layer"
    folder.mkdir()
    text = (LAYERS / "redirect_scheme/layer/info").read_text()
    assert "{BASE}" in text
    (folder / "info").write_text(text.replace("{BASE}", f"file://{LAYERS}"))
    return folder


def layer(name: str, base: Path) -> str:
    return str(base) if name == "redirect_scheme" else f"{LAYERS / name / case(LAYERS, name)['path']}"


def read_group(group: zarr.Group) -> Callable[[str], Array]:
    return lambda path: np.asarray(group[path][...])


def native(url: str) -> Callable[[str], Array]:
    return read_group(storefs.open(url))


def reversed_axes(url: str) -> Callable[[str], Array]:
    group = storefs.open(url, axes="xyz")
    return lambda path: np.asarray(group[path][...]).T


def reversed_portable(url: str) -> Callable[[str], Array]:
    group = storefs.open(url, axes="xyz", face="portable", codec="raw")
    return lambda path: np.asarray(group[path][...]).T


def version2(url: str) -> Callable[[str], Array]:
    return read_group(storefs.open(url, zarr_format=2))


def version2_portable(url: str) -> Callable[[str], Array]:
    return read_group(storefs.open(url, zarr_format=2, face="portable", codec="gzip"))


def version2_reversed(url: str) -> Callable[[str], Array]:
    group = storefs.open(url, zarr_format=2, axes="xyz")
    return lambda path: np.asarray(group[path][...]).T


def portable(codec: str) -> Callable[[str], Callable[[str], Array]]:
    def way(url: str) -> Callable[[str], Array]:
        return read_group(storefs.open(url, face="portable", codec=codec))

    way.__name__ = f"portable_{codec}"
    return way


def by_name(url: str) -> Callable[[str], Array]:
    group = zarr.open(url, mode="r")
    assert isinstance(group, zarr.Group)
    return read_group(group)


def by_filesystem(url: str) -> Callable[[str], Array]:
    root = url.removeprefix("precomputed://")
    return lambda path: assemble(fsspec.filesystem("precomputed"), root, path)


WAYS = (
    reversed_axes,
    by_name,
    version2,
    portable("zstd"),
    by_filesystem,
    version2_portable,
    portable("raw"),
    reversed_portable,
    portable("gzip"),
    version2_reversed,
    portable("blosc"),
)


def check(name: str, base: Path, way: Callable[[str], Callable[[str], Array]]) -> None:
    facts = case(LAYERS, name)
    arrays = expected(LAYERS, name)
    read = way(f"precomputed://{layer(name, base)}")
    for number, scale in enumerate(facts["scales"]):
        need_library(scale["encoding"])
        if scale["expected"] is None or scale["encoding"] in ("npz", "zfpc"):
            with pytest.raises(storefs.Unsupported, match=scale["encoding"]):
                read(str(number))
            continue
        assert_within(read(str(number)), arrays[scale["expected"]], facts["tolerance"])


@cases(LAYERS, *NAMES)
def test_layer(name, base):
    """Every scale of a layer reads as expected, natively."""
    check(name, base, native)


@cases(LAYERS, *NAMES)
def test_layer_another_way(name, base):
    """A layer reads the same by another way in; layers take turns, so that each way meets many."""
    check(name, base, WAYS[NAMES.index(name) % len(WAYS)])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@cases(LAYERS, *TELLING)
def test_telling_layer_every_way(name, base, way):
    """Several channels, clipped edges, holes, shards and mixed encodings read the same by every way in."""
    check(name, base, way)


@cases(LAYERS, *ABSENT_LAYERS)
def test_absent_chunks_are_errors_on_request(name, base):
    """With missing="error" an absent chunk is no zero but MissingChunk, which names it."""
    array = storefs.open_array(f"precomputed://{layer(name, base)}", missing="error")
    with pytest.raises(storefs.MissingChunk, match=r"\[chunk 10_10_10/\d+-\d+_\d+-\d+_\d+-\d+") as caught:
        array[...]
    assert not isinstance(caught.value, FileNotFoundError)


@cases(LAYERS, "two_chunk_sizes", "two_chunk_sizes_second_only")
def test_chunk_size_is_chosen(name, base):
    """Of several chunk_sizes the wanted one is read, by keyword or by query; one that is not offered is refused."""
    url = f"precomputed://{layer(name, base)}"
    arrays = expected(LAYERS, name)
    wanted = arrays.get("s0_chunk1", arrays["s0"])
    assert wanted.any()
    for second in (storefs.open_array(url, chunk_size=(44, 38, 1)), storefs.open_array(f"{url}?chunk_size=44,38,1")):
        assert second.chunks == (1, 38, 44)
        assert_within(second[...], wanted, 0)
    first = storefs.open_array(url)
    assert first.chunks == (16, 16, 16)
    assert_within(first[...], arrays["s0"], 0)
    assert first.attrs["storefs"]["chunk_sizes"] == [[16, 16, 16], [44, 38, 1]]
    with pytest.raises(storefs.Unsupported, match=r"chunk_size \[8, 8, 8\] is not offered.*44, 38, 1"):
        storefs.open(url, chunk_size=(8, 8, 8))


def test_redirect_in_a_circle(base):
    """A redirect to itself is a UrlError that shows the circle."""
    with pytest.raises(storefs.UrlError, match=r"redirects in a circle.*redirect_cycle"):
        storefs.open(f"precomputed://{LAYERS}/redirect_cycle/layer")


@pytest.mark.parametrize("opened", [storefs.open, storefs.open_array])
def test_redirect_to_nothing(base, opened):
    """A redirect to nothing is NoSuchVolume naming the target."""
    with pytest.raises(storefs.NoSuchVolume, match="does_not_exist"):
        opened(f"precomputed://{LAYERS}/redirect_missing/layer")


@pytest.mark.parametrize("through", ["store", "filesystem"])
def test_redirect_to_nothing_through_zarr(base, through):
    """Zarr, which reads FileNotFoundError as "nothing here", still hears which target is missing."""
    url = f"precomputed://{LAYERS}/redirect_missing/layer"
    with pytest.raises(storefs.TransportError, match="does_not_exist") as caught:
        zarr.open(storefs.open_store(url) if through == "store" else url, mode="r")
    assert not isinstance(caught.value, FileNotFoundError)


@cases(LAYERS, "redirect_relative", "redirect_scheme")
def test_redirected_layer_names_its_target(name, base):
    """The attributes of a redirected layer name the place where it really lives."""
    source = storefs.open(f"precomputed://{layer(name, base)}").attrs["storefs"]["source"]
    assert source == f"file://{LAYERS}/info_no_voxel_offset/layer"


@cases(LAYERS, "mesh_legacy", "mesh_multires_sharded", "skeletons_sharded", "skeletons_unsharded")
def test_folders_beside_the_scales_are_no_volumes(name, base):
    """A mesh or skeleton folder is refused as what it is, and so is a scale's folder."""
    facts = case(LAYERS, name)
    folder = facts.get("mesh_dir") or facts["skeleton_dir"]
    with pytest.raises(storefs.MetadataError, match=r"@type: this is .*, not a volume"):
        storefs.open(f"precomputed://{layer(name, base)}/{folder}")
    with pytest.raises(storefs.NoSuchVolume, match="no info file"):
        storefs.open(f"precomputed://{layer(name, base)}/10_10_10")


@cases(LAYERS, *(name for name in NAMES if not name.startswith("redirect")))
def test_info_survives(name, base):
    """The info file as it was, unknown keys included, is in the group's attributes."""
    text = (Path(layer(name, base)) / "info").read_text("utf-8-sig")
    assert storefs.open(f"precomputed://{layer(name, base)}").attrs["storefs"]["info"] == json.loads(text)


@cases(LAYERS, "offset_negative", "offset_huge", "igneous_pyramid_seg_gz", "raw_uint8_3ch")
def test_positions(name, base):
    """Every scale carries its integer offset, its resolution and, in OME-Zarr terms, the centre of its first voxel."""
    info = json.loads((Path(layer(name, base)) / "info").read_text())
    group = storefs.open(f"precomputed://{layer(name, base)}")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    assert [dataset["path"] for dataset in datasets] == [str(i) for i in range(len(info["scales"]))]
    for dataset, scale in zip(datasets, info["scales"], strict=True):
        own = group[dataset["path"]].attrs["storefs"]
        assert own["voxel_offset_xyz"] == scale["voxel_offset"]
        assert own["resolution_xyz"] == scale["resolution"]
        zoom, shift = dataset["coordinateTransformations"]
        centre = [(o + 0.5) * r for o, r in zip(scale["voxel_offset"], scale["resolution"], strict=True)]
        assert zoom["scale"][-3:] == scale["resolution"][::-1]
        assert shift["translation"][-3:] == centre[::-1]


@cases(LAYERS, "sharded_index_data_files")
def test_shards_in_two_files(name, base, tmp_path):
    """The obsolete shards in two files, .index and .data, hold no .shard file at all and still read right."""
    copy = tmp_path / "layer"
    shutil.copytree(layer(name, base), copy)
    assert list(copy.rglob("*.index"))
    assert list(copy.rglob("*.data"))
    assert not list(copy.rglob("*.shard"))
    wanted = expected(LAYERS, name)["s0"]
    assert wanted.any()
    assert_within(storefs.open_array(f"precomputed://{copy}")[...], wanted, 0)


@cases(LAYERS, "sharded_holes", "holes", "cv_holes_gz", "ngs_raw_dirs_gz", "mixed_suffixes")
def test_listing_names_what_is_stored(name, base):
    """Listing gives every chunk that the source has, the absent ones not, and they are those that cat finds."""
    facts = case(LAYERS, name)["scales"][0]
    root = layer(name, base)
    filesystem = fsspec.filesystem("precomputed")
    listed = [path for path in filesystem.find(root) if path.startswith(f"{root}/0/c/")]
    assert 0 < len(listed) == len(set(listed))
    if "sharded" not in name:
        assert len(listed) == facts["chunks_present"]
    for payload in filesystem.cat(listed).values():
        assert len(payload)
    chunk = storefs.open_array(f"precomputed://{root}").chunks
    wanted = expected(LAYERS, name)["s0"][0]
    unlisted = 0
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(wanted.shape, chunk, strict=True))):
        path = "/".join([f"{root}/0/c", *map(str, index)])
        if path not in listed:
            unlisted += 1
            assert not wanted[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk, strict=True))].any()
            with pytest.raises(FileNotFoundError):
                filesystem.cat_file(path)
    assert unlisted + len(listed) == facts["chunks_total"]
