"""Every way in gives the same arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem

import storefs
from storefs import MetadataError, MissingChunk, StorefsError, TransportError, Unsupported, UrlError
from storefs_codecs import DecodeError
from tests.small_volume import Volume, volume, voxels

BOTH = [3, 2]


@pytest.fixture(scope="module")
def layer(tmp_path_factory) -> Volume:
    """uint64 labels at a negative offset, clipped on every axis, two scales, one absent chunk."""
    return volume().write(tmp_path_factory.mktemp("layer") / "seg")


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Volume:
    """A uint8 image in png, of which every clipped chunk is framed."""
    return volume((17, 9, 23), (10, 8, 8), "uint8", encoding="png", absent=()).write(tmp_path_factory.mktemp("image"))


@pytest.fixture
def in_memory(layer):
    """The same layer in fsspec's memory filesystem."""
    memory = MemoryFileSystem()
    for name, data in layer.files.items():
        memory.pipe_file(f"/bucket/seg/{name}", data)
    yield "memory://bucket/seg"
    memory.rm("/bucket", recursive=True)


def same(group: zarr.Group, layer: Volume) -> None:
    """Assert that `group` shows `layer`."""
    assert sorted(group.array_keys()) == ["0", "1"]
    for level, expected in enumerate(layer.arrays):
        found = group[str(level)]
        assert isinstance(found, zarr.Array)
        assert found.dtype == expected.dtype
        assert found.chunks == layer.chunk_xyz[::-1]
        np.testing.assert_array_equal(found[...], expected)


# addresses


@pytest.mark.parametrize("zarr_format", BOTH)
def test_nothing_but_zarr(layer, zarr_format, tmp_path):
    """Zarr alone, in a fresh interpreter, opens a URL as group and as array."""
    code = f"""
import sys, zarr
assert "storefs" not in sys.modules
query = {"" if zarr_format == 3 else "?zarr_format=2"!r}
group = zarr.open("{layer.url}" + query)
assert isinstance(group, zarr.Group)
assert group.metadata.zarr_format == {zarr_format}
again = zarr.open_group("{layer.url}" + query, mode="r")
array = zarr.open_array("{layer.url}/0" + query)
also = zarr.open("{layer.url}/0" + query, mode="r")
import numpy
numpy.savez(sys.argv[1], *(a[:] for a in (group["0"], again["0"], array, also)))
"""
    target = tmp_path / "found.npz"
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(target)], check=True, cwd=tmp_path)
    with np.load(target) as found:
        assert len(found) == 4
        for name in found:
            np.testing.assert_array_equal(found[name], layer.arrays[0])


def test_forms_of_local_addresses(layer, monkeypatch):
    """Absolute, relative and home paths and file URLs, with and without a slash at the end, all open."""
    folder = layer.folder
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for address in (
        f"file://{folder}",
        str(folder),
        f"{folder}/",
        "seg",
        "./seg",
        "../" + folder.parent.name + "/seg",
        "~/seg",
    ):
        url = f"precomputed://{address}"
        same(zarr.open(url), layer)
        same(storefs.open(url), layer)
    same(storefs.open(f"precomputed:{folder}"), layer)


def test_a_relative_address_survives_a_change_of_folder(layer, monkeypatch, tmp_path):
    """A store opened by a relative path goes on reading where it began."""
    monkeypatch.chdir(layer.folder.parent)
    store, by_url = storefs.open_store("precomputed://seg"), zarr.open("precomputed://seg")
    monkeypatch.chdir(tmp_path)
    same(zarr.open(store), layer)
    same(by_url, layer)


def test_pipeline_form(layer, in_memory):
    """Neuroglancer's `address|neuroglancer-precomputed:` opens."""
    for address in (f"file://{layer.folder}/|neuroglancer-precomputed:", f"{in_memory}|neuroglancer-precomputed"):
        same(storefs.open(address), layer)
        np.testing.assert_array_equal(storefs.open_array(address, 1)[:], layer.arrays[1])
    with pytest.raises(UrlError, match="neuroglancer-precomputed"):
        storefs.open(f"file://{layer.folder}|n5:")


def test_memory_and_chains(layer, in_memory):
    """memory://, and formats chained in fsspec's way, open by zarr and by storefs."""
    for url in (
        f"precomputed://{in_memory}",
        f"precomputed::{in_memory}",
        f"precomputed::file://{layer.folder}",
    ):
        same(zarr.open(url), layer)
        same(zarr.open_group(url, mode="r", zarr_format=3), layer)
        same(storefs.open(url), layer)
        np.testing.assert_array_equal(zarr.open_array(f"{url}/1")[:], layer.arrays[1])


def test_store(layer):
    """A store opens in zarr as it is, as group or as array."""
    store = storefs.open_store(layer.url)
    same(zarr.open(store), layer)
    same(zarr.open_group(store, mode="r"), layer)
    np.testing.assert_array_equal(zarr.open_array(store, path="1")[:], layer.arrays[1])
    np.testing.assert_array_equal(zarr.open(store, path="0")[:], layer.arrays[0])


def test_open_array(layer):
    """open_array gives a scale by number, and IndexError where there is none."""
    np.testing.assert_array_equal(storefs.open_array(layer.url)[:], layer.arrays[0])
    np.testing.assert_array_equal(storefs.open_array(layer.url, scale=1)[:], layer.arrays[1])
    for scale in (2, -1):
        with pytest.raises(IndexError, match="0, 1"):
            storefs.open_array(layer.url, scale=scale)


def test_http(layer):
    """A web server's layer opens by zarr, by storefs and chained."""
    from tests.http_server import FolderServer

    server = FolderServer(layer.folder)
    try:
        same(zarr.open(f"precomputed://{server.url}"), layer)
        assert server.requests["/info"] == 1
        same(zarr.open(f"precomputed::{server.url}"), layer)
        same(storefs.open(f"precomputed://{server.url}"), layer)
        assert server.requests["/info"] == 3
    finally:
        server.close()


# consumers


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_dask(layer, scheduler):
    """Dask reads a URL, a store and an array, in threads and in processes."""
    da = pytest.importorskip("dask.array")
    store = storefs.open_store(layer.url)
    lazy = (
        da.from_zarr(layer.url, component="0"),
        da.from_zarr(store, component="0"),
        da.from_zarr(storefs.open_array(layer.url)),
    )
    assert {array.chunksize for array in lazy} == {layer.chunk_xyz[::-1]}
    for found in da.compute(*lazy, scheduler=scheduler, num_workers=2):
        np.testing.assert_array_equal(found, layer.arrays[0])


@pytest.mark.parametrize("zarr_format", BOTH)
def test_xarray(layer, zarr_format):
    """Xarray opens group members by name, keeps labels integers and knows the dimensions."""
    xr = pytest.importorskip("xarray")
    options = {"zarr_format": zarr_format}
    # a dataset holds one size a dimension, so one scale at a time
    for dataset in (
        xr.open_zarr(storefs.open_store(layer.url, **options), drop_variables=["1"]),
        xr.open_zarr(layer.url, storage_options=options, drop_variables=["1"], chunks=None),
    ):
        assert dataset["0"].dims == ("z", "y", "x")
        assert dataset["0"].dtype == np.uint64
        np.testing.assert_array_equal(dataset["0"].values, layer.arrays[0])


def test_simplecache(layer, tmp_path):
    """Fsspec's whole-file cache stands in front, and its copies are used."""
    url = f"simplecache::precomputed::file://{layer.folder}"
    with pytest.warns(match="asynchronous"):
        group = zarr.open(url, storage_options={"simplecache": {"cache_storage": str(tmp_path)}})
    same(group, layer)
    assert len(list(tmp_path.iterdir())) > 30


def test_copies_are_plain_zarr(layer, tmp_path):
    """The portable face copied to disk is a hierarchy that needs nothing of storefs."""
    fs = fsspec.filesystem("precomputed", face="portable", codec="gzip")
    fs.get(str(layer.folder), str(tmp_path / "copy"), recursive=True)
    text = (tmp_path / "copy/0/zarr.json").read_text()
    assert '"storefs.' not in text
    same(zarr.open_group(str(tmp_path / "copy"), mode="r"), layer)


# options


@pytest.mark.parametrize("zarr_format", BOTH)
@pytest.mark.parametrize("axes", ["zyx", "xyz"])
@pytest.mark.parametrize(
    "face", [{}, *({"face": "portable", "codec": c} for c in ("raw", "zstd", "gzip", "blosc"))], ids=str
)
@pytest.mark.parametrize("which", ["layer", "image"])
def test_presentations(request, which, zarr_format, axes, face):
    """Each format, axis order and face gives the same voxels, by keyword, storage_options and query."""
    layer = request.getfixturevalue(which)
    options = {"zarr_format": zarr_format, "axes": axes, **face}
    query = "&".join(f"{name}={value}" for name, value in options.items())
    for group in (
        storefs.open(layer.url, **options),
        storefs.open(f"{layer.url}?{query}"),
        zarr.open(layer.url, storage_options=options),
        zarr.open(f"{layer.url}?{query}"),
    ):
        assert group.metadata.zarr_format == zarr_format
        for level, expected in enumerate(layer.arrays):
            shown = expected if axes == "zyx" else expected.T
            array = group[str(level)]
            np.testing.assert_array_equal(array[...], shown)
            np.testing.assert_array_equal(array[3:9, -4:, ::2], shown[3:9, -4:, ::2])
    if zarr_format == 3:
        assert array.metadata.dimension_names == tuple(axes)


def test_channels(tmp_path):
    """Several channels stand in front, or behind with axes="xyz"."""
    layer = volume((3, 9, 10, 11), (5, 6, 4), "uint16", absent=((0, 0, 0),)).write(tmp_path)
    for zarr_format in BOTH:
        array = storefs.open_array(layer.url, zarr_format=zarr_format)
        np.testing.assert_array_equal(array[:], layer.arrays[0])
        flipped = storefs.open_array(layer.url, zarr_format=zarr_format, axes="xyz")
        assert flipped.shape == (11, 10, 9, 3)
        np.testing.assert_array_equal(flipped[:], layer.arrays[0].T)
    axes = storefs.open(layer.url).attrs["ome"]["multiscales"][0]["axes"]
    assert [(axis["name"], axis["type"]) for axis in axes] == [
        ("c", "channel"),
        ("z", "space"),
        ("y", "space"),
        ("x", "space"),
    ]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32"])
def test_data_types(dtype, tmp_path):
    """Every data type arrives exactly, in both formats and faces."""
    layer = volume((5, 6, 7), (4, 4, 4), dtype, absent=((0, 0, 0),)).write(tmp_path)
    for options in ({}, {"zarr_format": 2}, {"face": "portable"}, {"zarr_format": 2, "face": "portable"}):
        array = storefs.open_array(layer.url, **options)
        assert array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(array[:], layer.arrays[0])


@pytest.mark.parametrize("zarr_format", BOTH)
def test_missing_chunks(layer, zarr_format):
    """An absent chunk is zeros, or with missing="error" a MissingChunk that names it; the rest stays readable."""
    options = {"missing": "error", "zarr_format": zarr_format}
    for array in (
        storefs.open_array(layer.url, **options),
        zarr.open_array(f"{layer.url}/0", storage_options=options),
        zarr.open_array(f"{layer.url}/0?missing=error&zarr_format={zarr_format}"),
    ):
        np.testing.assert_array_equal(array[:8], layer.arrays[0][:8])
        with pytest.raises(MissingChunk, match="4_40/7-17_108-116_15-23") as caught:
            array[8:16, 8:16, 10:20]
        assert caught.value.chunk == "4_40/7-17_108-116_15-23"
        assert str(layer.folder) in str(caught.value)


def test_an_empty_chunk_file_is_absent(tmp_path):
    """A chunk file of no bytes reads as zeros."""
    layer = volume((4, 4, 8), (4, 4, 4), "uint8", absent=((0, 0, 1),), offset_xyz=(0, 0, 0)).write(tmp_path)
    (tmp_path / "4_40" / "4-8_0-4_0-4").write_bytes(b"")
    array = storefs.open_array(layer.url)
    np.testing.assert_array_equal(array[:], layer.arrays[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zar_format": 2}, "did you mean 'zarr_format'"),
        ({"axis": "xyz"}, "did you mean 'axes'"),
        ({"axes": "zxy"}, "expected one of 'zyx', 'xyz'"),
        ({"face": "native2"}, "expected one of 'native', 'portable'"),
        ({"codec": "lz4"}, "expected one of 'raw', 'zstd', 'gzip', 'blosc'"),
        ({"missing": "zero"}, "expected one of 'fill', 'error'"),
        ({"zarr_format": 4}, "expected one of 2, 3"),
        ({"chunk_size": "64"}, "expected x,y,z"),
        ({"timeout": -1}, "above 0"),
        ({"anonymous": "maybe"}, "true or false"),
        ({"colour": "red"}, "unknown option 'colour'"),
    ],
    ids=str,
)
def test_wrong_options(layer, options, message):
    """A wrong option raises UrlError with what is offered, whichever way it is given."""
    ((name, value),) = options.items()
    for attempt in (
        lambda: storefs.open(layer.url, **options),
        lambda: storefs.open_store(layer.url, **options),
        lambda: storefs.open_store(f"{layer.url}?{name}={value}"),
        lambda: zarr.open(layer.url, storage_options=options),
        lambda: zarr.open(f"{layer.url}?{name}={value}"),
    ):
        with pytest.raises(UrlError, match=message):
            attempt()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("precomputd://gs://bucket/x", "did you mean precomputed://"),
        ("gs://bucket/x", "write precomputed://gs://bucket/x"),
        ("/data/layer", "should look like"),
        ("", "should look like"),
        ("precomputed://", "empty"),
        ("precomputed://gss://bucket/x", "did you mean"),
        ("precomputed://http://", "names no host"),
        ("precomputed://s3://", "names no bucket"),
        ("precomputed://https://user:pw@host/x", "holds no password"),
    ],
)
def test_wrong_addresses(url, message):
    """An address that cannot be read raises UrlError and says what one looks like; passwords are not repeated."""
    with pytest.raises(UrlError, match=message) as caught:
        storefs.open(url)
    assert "pw" not in str(caught.value)


# what is there to see


@pytest.mark.parametrize("zarr_format", BOTH)
def test_group_attributes(layer, zarr_format):
    """The group is an OME-Zarr multiscale in nanometres, of voxel centres, with the source and its info."""
    attributes = storefs.open(layer.url, zarr_format=zarr_format).attrs.asdict()
    if zarr_format == 3:
        assert attributes["ome"]["version"] == "0.5"
        (multiscale,) = attributes["ome"]["multiscales"]
    else:
        (multiscale,) = attributes["multiscales"]
        assert multiscale["version"] == "0.4"
    assert multiscale["name"] == "seg"
    assert multiscale["axes"] == [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    assert multiscale["datasets"] == [
        {
            "path": "0",
            "coordinateTransformations": [
                {"type": "scale", "scale": [40, 4, 4]},
                {"type": "translation", "translation": [7.5 * 40, 100.5 * 4, -2.5 * 4]},
            ],
        },
        {
            "path": "1",
            "coordinateTransformations": [
                {"type": "scale", "scale": [80, 8, 8]},
                {"type": "translation", "translation": [3.5 * 80, 50.5 * 8, -1.5 * 8]},
            ],
        },
    ]
    own = attributes["storefs"]
    assert own["source"] == f"file://{layer.folder}"
    assert own["voxel_offset_xyz"] == [-3, 100, 7]
    assert own["resolution_xyz"] == [4, 4, 40]
    assert own["encoding"] == "raw"
    assert own["info"] == layer.info


@pytest.mark.parametrize("zarr_format", BOTH)
def test_array_attributes(layer, zarr_format):
    """Each array carries its own offset, resolution and encoding."""
    own = storefs.open_array(layer.url, 1, zarr_format=zarr_format).attrs["storefs"]
    assert own["voxel_offset_xyz"] == [-2, 50, 3]
    assert own["resolution_xyz"] == [8, 8, 80]
    assert own["encoding"] == "raw"


@pytest.mark.parametrize("zarr_format", BOTH)
def test_members(layer, zarr_format):
    """Members, their metadata and the tree come from consolidated metadata, or by listing without it."""
    for consolidated in (None, True, False):
        store = storefs.open_store(layer.url, zarr_format=zarr_format)
        group = zarr.open_group(store, mode="r", use_consolidated=consolidated)
        assert (group.metadata.consolidated_metadata is None) is (consolidated is False)
        same(group, layer)
        assert "(10, 9, 13)" in str(group.tree())
        assert [name for name, _ in sorted(group.members(max_depth=None))] == ["0", "1"]


# what goes wrong


@pytest.mark.parametrize("mode", [None, "a", "r", "r+"])
def test_no_volume_here(tmp_path, mode):
    """Opening where no volume is says so, in every mode; nothing is created."""
    url = f"precomputed://{tmp_path}/nothing"
    keywords = {} if mode is None else {"mode": mode}
    for attempt in (
        lambda: zarr.open(url, **keywords),
        lambda: zarr.open_group(url, **keywords),
        lambda: zarr.open_array(f"{url}/0", **keywords),
        lambda: zarr.open(f"precomputed::file://{tmp_path}/nothing", **keywords),
        lambda: storefs.open(url),
        lambda: storefs.open_array(url),
    ):
        with pytest.raises(TransportError, match="no precomputed volume here") as caught:
            attempt()
        assert f"file://{tmp_path}/nothing" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["a", "r+"])
def test_writing(layer, mode):
    """A volume opens in writing modes, as zarr's default is one; a write is refused and changes nothing."""
    group = zarr.open(layer.url, mode=mode)
    before = {path: path.stat().st_mtime_ns for path in layer.folder.rglob("*")}
    for write in (
        lambda: group["0"].__setitem__((0, 0, 0), 1),
        lambda: group.create_array("new", shape=(4,), dtype="uint8"),
        lambda: group.create_group("new"),
        lambda: group.attrs.__setitem__("a", 1),
        lambda: group["0"].resize((1, 1, 1)),
    ):
        with pytest.raises(Unsupported, match="read only"):
            write()
    for attempt in (lambda: zarr.open(layer.url, mode="w"), lambda: zarr.create_group(layer.url, overwrite=True)):
        with pytest.raises((Unsupported, zarr.errors.ContainsGroupError)):
            attempt()
    assert before == {path: path.stat().st_mtime_ns for path in layer.folder.rglob("*")}
    same(storefs.open(layer.url), layer)


def test_writing_to_a_store(layer):
    """Zarr refuses to write through our store, saying that it is read only."""
    group = zarr.open(storefs.open_store(layer.url))
    with pytest.raises(ValueError, match="read-only"):
        group["0"][0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(storefs.open_store(layer.url), mode="a")


def test_damaged_chunks_raise(tmp_path):
    """A chunk cut short raises DecodeError naming chunk and volume, by URL and by store; other chunks stay readable."""
    layer = volume((8, 8, 16), (8, 8, 8), "uint16", absent=(), offset_xyz=(0, 0, 0)).write(tmp_path)
    name = "4_40/8-16_0-8_0-8"
    (tmp_path / name).write_bytes(layer.files[name][:-1])
    for options in ({}, {"face": "portable"}, {"zarr_format": 2}):
        for array in (
            storefs.open_array(layer.url, **options),
            zarr.open_array(f"{layer.url}/0", storage_options=options),
        ):
            np.testing.assert_array_equal(array[..., :8], layer.arrays[0][..., :8])
            with pytest.raises(DecodeError, match="expected 1024 bytes, found 1023") as caught:
                array[...]
            assert name in str(caught.value)
            assert str(tmp_path) in str(caught.value)


def test_broken_info(tmp_path):
    """An info that makes no sense is a MetadataError naming file and key, by every way in."""
    (tmp_path / "info").write_text('{"data_type": "uint8", "num_channels": 1, "scales": []}')
    url = f"precomputed://{tmp_path}"
    for attempt in (
        lambda: storefs.open(url),
        lambda: zarr.open(url),
        lambda: zarr.open_array(f"{url}/0"),
        lambda: zarr.open(storefs.open_store(url)),
    ):
        with pytest.raises(MetadataError, match="scales") as caught:
            attempt()
        assert str(tmp_path) in str(caught.value)


def test_an_unsupported_scale_leaves_the_others(tmp_path):
    """A scale in an unknown encoding opens; reading it raises Unsupported; the other scales read."""
    import json

    layer = volume((8, 8, 8), (4, 4, 4), "uint8", absent=())
    info = json.loads(layer.files["info"])
    info["scales"][0]["encoding"] = "wavelet"
    layer = Volume(**{**vars(layer), "files": layer.files | {"info": json.dumps(info).encode()}}).write(tmp_path)
    for options in ({}, {"zarr_format": 2}, {"face": "portable"}):
        for group in (storefs.open(layer.url, **options), zarr.open(layer.url, storage_options=options)):
            np.testing.assert_array_equal(group["1"][:], layer.arrays[1])
            with pytest.raises(Unsupported, match="wavelet"):
                group["0"][:]


# side by side


@pytest.mark.parametrize("name", ["2024/0", "0", "c/0", "0/c/0", "12/34/56"])
def test_folders_named_like_keys(name, tmp_path):
    """A layer opens whatever the folders above it are called."""
    layer = volume((5, 6, 7), (4, 4, 4), "uint8").write(tmp_path / name)
    for zarr_format in BOTH:
        same(zarr.open(layer.url, storage_options={"zarr_format": zarr_format}), layer)
        same(storefs.open(layer.url, zarr_format=zarr_format), layer)
        array = zarr.open_array(f"{layer.url}/1", storage_options={"zarr_format": zarr_format})
        np.testing.assert_array_equal(array[:], layer.arrays[1])


def test_two_volumes_side_by_side(tmp_path):
    """Volumes in one folder, one name beginning like the other, do not mix, also through one filesystem."""
    one = volume((4, 5, 6), (4, 4, 4), "uint8", data=voxels((4, 5, 6), "uint8", 1)).write(tmp_path / "seg")
    two = volume((4, 5, 6), (4, 4, 4), "uint8", data=voxels((4, 5, 6), "uint8", 2)).write(tmp_path / "seg2")
    same(zarr.open(one.url), one)
    same(zarr.open(two.url), two)
    fs = fsspec.filesystem("precomputed", asynchronous=True)
    for layer in (one, two, one):
        same(zarr.open_group(zarr.storage.FsspecStore(fs, path=str(layer.folder)), mode="r"), layer)


def test_a_layer_written_anew(tmp_path):
    """Opening again in the same process shows what is there now."""
    for shape in ((4, 4, 4), (6, 5, 4)):
        layer = volume(shape, (4, 4, 4), "uint8", absent=()).write(tmp_path)
        same(zarr.open(layer.url), layer)
        same(storefs.open(layer.url), layer)


def test_errors_are_one_family(tmp_path):
    """Everything that goes wrong with a volume is a StorefsError."""
    assert all(
        issubclass(kind, StorefsError) for kind in (UrlError, MetadataError, MissingChunk, Unsupported, TransportError)
    )
    assert Path(storefs.__file__).with_name("py.typed").exists()
