"""VirtualFileSystem behaves as an fsspec filesystem: fsspec's own suite on a double, then a real volume."""

from __future__ import annotations

import json
import posixpath
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests
from zarr.core.sync import sync

from storefs import MissingChunk, StorefsError, TransportError, Unsupported, UrlError
from storefs.filesystem import VirtualFileSystem
from tests.dict_source import DictSource
from tests.small_volume import Volume, raw, volume

ROOT = "virtual"


class DictFileSystem(VirtualFileSystem):
    """VirtualFileSystem over one dictionary whose keys may be anything."""

    protocol: ClassVar[str] = "dictionary"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.source = DictSource(ROOT, {})

    async def _resolve(self, path: str) -> tuple[DictSource, str]:
        return self.source, self._strip_protocol(path).removeprefix(ROOT).strip("/")


class TestGet(AbstractGetTests, AbstractFixtures):
    """fsspec's suite of `get`; what it writes beforehand is put into the dictionary."""

    @pytest.fixture
    def fs(self):
        return DictFileSystem()

    @pytest.fixture
    def fs_path(self):
        return ROOT

    @pytest.fixture
    def fs_join(self):
        return posixpath.join

    @pytest.fixture
    def supports_empty_directories(self):
        return False

    def put(self, fs, *names: str) -> str:
        fs.source.values |= {f"source/{name}": b"" for name in names}
        return f"{ROOT}/source"

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, fs):
        return self.put(fs, "file1", "file2", "subdir/subfile1", "subdir/subfile2", "subdir/nesteddir/nestedfile")

    @pytest.fixture
    def fs_glob_edge_cases_files(self, fs):
        below = ("subfile1", "subfile2", "nesteddir/nestedfile")
        return self.put(fs, "file1", "file2", *(f"subdir{i}/{name}" for i in range(2) for name in below))

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, fs):
        return self.put(fs, "subdir.txt", "subdir/subfile.txt")

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, fs):
        from hashlib import md5

        names = {i: md5(str(i).encode()).hexdigest() for i in range(10)}
        fs.source.values |= {f"source/{name}.txt": str(i).encode() for i, name in names.items()}
        return f"{ROOT}/source"

    def test_get_directory_recursive(self, fs, fs_join, fs_path, local_fs, local_join, local_target):
        """Fsspec's test of the same name writes through the filesystem: here the file is there before."""
        fs.source.values["src/file"] = b""
        for nested in (False, True):
            fs.get(fs_join(fs_path, "src"), local_target, recursive=True)
            assert local_fs.isfile(local_join(local_target, "file"))
            assert local_fs.isfile(local_join(local_target, "src", "file")) is nested
        local_fs.rm(local_target, recursive=True)
        for _ in range(2):
            fs.get(fs_join(fs_path, "src") + "/", local_target, recursive=True)
            assert local_fs.isfile(local_join(local_target, "file"))
            assert not local_fs.exists(local_join(local_target, "src"))


# a real volume


@pytest.fixture(scope="module")
def layer(tmp_path_factory) -> Volume:
    """Raw uint64, clipped, two scales, one absent chunk, in a folder with a number for a name."""
    return volume().write(tmp_path_factory.mktemp("data") / "2024" / "0")


@pytest.fixture
def fs():
    return fsspec.filesystem("precomputed")


@pytest.fixture
def root(layer) -> str:
    return str(layer.folder)


def chunk(layer: Volume) -> bytes:
    """The first chunk of the finest scale as stored."""
    return raw(layer.arrays[0][:8, :8, :10])


def test_ls(fs, root, layer):
    """Ls names documents, arrays and chunks by full path, with the sizes of documents."""
    assert fs.ls(layer.url, detail=False) == [f"{root}/{name}" for name in ("0", "1", "zarr.json")]
    entries = {entry["name"]: entry for entry in fs.ls(root)}
    assert entries[f"{root}/0"] == {"name": f"{root}/0", "size": 0, "type": "directory"}
    assert entries[f"{root}/zarr.json"]["size"] == len(fs.cat(f"{root}/zarr.json"))
    assert fs.ls(f"{root}/0/c/2/1", detail=False) == [f"{root}/0/c/2/1/{i}" for i in range(3)]
    assert fs.ls(f"{root}/0/zarr.json", detail=False) == [f"{root}/0/zarr.json"]
    assert fs.ls(f"{root}/0/c/0/0/0")[0]["size"] == 8 * 8 * 10 * 8
    for missing in ("2", "0/c/9", "0/c/0/0/9", "0/c/1/1/1", "0/nothing"):
        with pytest.raises(FileNotFoundError):
            fs.ls(f"{root}/{missing}")


def test_info(fs, root):
    """Info tells files from folders and gives true sizes; what is absent raises FileNotFoundError."""
    assert fs.info(root)["type"] == "directory"
    assert fs.info(f"{root}/0")["type"] == fs.info(f"{root}/0/c/1")["type"] == "directory"
    assert fs.info(f"{root}/0/c/0/0/0") == {"name": f"{root}/0/c/0/0/0", "size": 5120, "type": "file"}
    assert fs.size(f"{root}/0/zarr.json") == len(fs.cat(f"{root}/0/zarr.json"))
    assert fs.isdir(root)
    assert fs.isfile(f"{root}/zarr.json")
    assert not fs.isfile(f"{root}/0")
    with pytest.raises(FileNotFoundError):
        fs.info(f"{root}/0/c/1/1/1")


def test_exists(fs, root, tmp_path):
    """Exists knows documents, folders and stored chunks, and neither absent chunks nor absent volumes."""
    for there in ("", "/", "/zarr.json", "/0", "/0/c", "/0/c/2", "/0/c/0/0/0", "/1/zarr.json"):
        assert fs.exists(root + there), there
    for absent in ("/.zgroup", "/2", "/0/c/3", "/0/c/1/1/1", "/info"):
        assert not fs.exists(root + absent), absent
    assert not fs.exists(tmp_path)


def test_cat(fs, root, layer):
    """Cat gives bytes as stored, whole or in part, counted from either end."""
    expected = chunk(layer)
    name = f"{root}/0/c/0/0/0"
    assert fs.cat(name) == expected
    for start, end in ((0, 10), (5, None), (None, 7), (-9, None), (-9, -2), (5000, 9000), (6000, 7000), (3, 3)):
        assert fs.cat_file(name, start=start, end=end) == expected[start:end]
    assert fs.cat([name, f"{root}/zarr.json"])[name] == expected
    with pytest.raises(FileNotFoundError):
        fs.cat(f"{root}/0/c/1/1/1")
    assert set(fs.cat([name, f"{root}/0/c/1/1/1"], on_error="omit")) == {name}


def test_cat_ranges(fs, root, layer):
    """cat_ranges gives the parts in order; an absent one is its error."""
    expected = chunk(layer)
    names = [f"{root}/0/c/0/0/0"] * 3 + [f"{root}/0/c/1/1/1"]
    parts = fs.cat_ranges(names, [0, 100, -8, 0], [8, 200, None, 4])
    assert parts[:3] == [expected[:8], expected[100:200], expected[-8:]]
    assert isinstance(parts[3], FileNotFoundError)


def test_only_absence_is_left_out(root, tmp_path):
    """A chunk that cannot be had is raised, also where errors are to be returned or left out."""
    fs = fsspec.filesystem("precomputed", missing="error")
    names = [f"{root}/0/c/0/0/0", f"{root}/0/c/1/1/1"]
    for on_error in ("raise", "return", "omit"):
        with pytest.raises(MissingChunk):
            fs.cat(names, on_error=on_error)
    with pytest.raises(MissingChunk):
        fs.cat_ranges(names, 0, 4, on_error="return")


def test_find(fs, root, layer):
    """Find names exactly the documents and the chunks that are stored, as deep as asked for."""
    found = fs.find(root)
    assert len(found) == 3 + sum(name != "info" for name in layer.files)
    assert f"{root}/0/c/1/1/1" not in found
    assert fs.find(f"{root}/1/c/0") == [name for name in found if name.startswith(f"{root}/1/c/0/")]
    assert fs.find(f"{root}/zarr.json") == [f"{root}/zarr.json"]
    assert fs.find(root, maxdepth=1) == [f"{root}/zarr.json"]
    shallow = fs.find(root, maxdepth=2, withdirs=True, detail=True)
    assert {name: entry["type"] for name, entry in shallow.items()} == {
        root: "directory",
        f"{root}/0": "directory",
        f"{root}/0/c": "directory",
        f"{root}/0/zarr.json": "file",
        f"{root}/1": "directory",
        f"{root}/1/c": "directory",
        f"{root}/1/zarr.json": "file",
        f"{root}/zarr.json": "file",
    }
    assert fs.find(f"{root}/0/c/9") == []
    assert fs.find("/no/such/place") == []


def test_glob_and_walk(fs, root):
    """Glob and walk see the same tree."""
    assert fs.glob(f"{root}/*/zarr.json") == [f"{root}/0/zarr.json", f"{root}/1/zarr.json"]
    assert len(fs.glob(f"{root}/1/c/**")) > 8
    assert next(iter(fs.walk(root)))[1:] == (["0", "1"], ["zarr.json"])
    walked = [name for folder, _, names in fs.walk(f"{root}/1") for name in names]
    assert len(walked) == 1 + len(fs.find(f"{root}/1/c"))


def test_open(fs, root, layer):
    """Files open for reading, binary or text; opening for writing is refused."""
    with fs.open(f"{root}/0/c/0/0/0") as file:
        file.seek(16)
        assert file.read(32) == chunk(layer)[16:48]
    with fsspec.open(f"precomputed://{root}/0/zarr.json", "r") as file:
        assert json.load(file)["shape"] == [20, 18, 25]
    with pytest.raises(FileNotFoundError):
        fs.open(f"{root}/0/c/1/1/1")
    with pytest.raises(Unsupported, match="read only"):
        fs.open(f"{root}/0/c/1/1/1", "wb")


def test_get(fs, root, layer, tmp_path):
    """Get copies a file, or all that find names into a zarr hierarchy that zarr reads by itself."""
    import zarr

    fs.get(f"{root}/zarr.json", str(tmp_path / "one.json"))
    assert (tmp_path / "one.json").read_bytes() == fs.cat(f"{root}/zarr.json")
    fs.get(root, str(tmp_path / "all"), recursive=True)
    copied = zarr.open_group(str(tmp_path / "all"), mode="r")
    np.testing.assert_array_equal(copied["0"][:], layer.arrays[0])


def test_mapper(root, layer):
    """A mapper has the keys that find names; an absent key is a KeyError, no volume is not."""
    mapper = fsspec.get_mapper(f"precomputed://{root}", zarr_format=2)
    assert json.loads(mapper["0/.zarray"])["shape"] == [20, 18, 25]
    assert mapper["0/0/0/0"] == chunk(layer)
    assert mapper["0/1/1/1"] == bytes(5120)
    assert "0/0/0/0" in mapper
    assert "0/9/9/9" not in mapper
    assert len(mapper) == len(list(mapper)) == 7 + 27 + 8
    with pytest.raises(KeyError):
        mapper["nothing"]
    own = fsspec.filesystem("precomputed").get_mapper(root)
    assert "zarr.json" in own
    assert set(own.getitems(["zarr.json", "nothing"], on_error="omit")) == {"zarr.json"}
    assert isinstance(own.getitems(["nothing"], on_error="return")["nothing"], KeyError)
    nowhere = fsspec.filesystem("precomputed").get_mapper("/no/such/place")
    for ask in (lambda: nowhere["zarr.json"], lambda: "a" in nowhere):
        with pytest.raises(RuntimeError, match="no precomputed volume here"):
            ask()
    with pytest.raises(TransportError, match="no precomputed volume here"):
        nowhere.getitems(["0/c/0", "0/c/1"], on_error="omit")


@pytest.mark.parametrize(
    "write",
    [
        lambda fs, name: fs.pipe_file(name, b"x"),
        lambda fs, name: fs.pipe(name, b"x"),
        lambda fs, name: fs.rm(name),
        lambda fs, name: fs.rm(name, recursive=True),
        lambda fs, name: fs.rm_file(name),
        lambda fs, name: fs.put(__file__, name),
        lambda fs, name: fs.cp(name, name + "x"),
        lambda fs, name: fs.mkdir(name),
        lambda fs, name: fs.makedirs(name),
        lambda fs, name: fs.touch(name),
    ],
)
def test_writing_is_refused(fs, root, write):
    """Every way of writing raises Unsupported and says why."""
    with pytest.raises(Unsupported, match="read only"):
        write(fs, f"{root}/zarr.json")


def test_no_volume(fs, tmp_path):
    """Reading where there is no volume says so, not as a FileNotFoundError, which zarr takes for an empty place."""
    with pytest.raises(TransportError, match="no precomputed volume here") as caught:
        fs.cat(f"{tmp_path}/zarr.json")
    assert not isinstance(caught.value, FileNotFoundError)
    with pytest.raises(FileNotFoundError, match="no precomputed volume here"):
        fs.info(str(tmp_path))


def test_names_that_mean_nothing(fs, root):
    """A name below a known volume that is no key of it is absent, as readers expect that look for `labels`."""
    assert fs.exists(root)
    for name in ("labels/zarr.json", "labels/.zattrs", "OME/METADATA.ome.xml"):
        assert not fs.exists(f"{root}/{name}")
        with pytest.raises(FileNotFoundError):
            fs.cat(f"{root}/{name}")


async def test_one_description(layer, root):
    """However many ask at once, a volume is described once."""
    import asyncio

    fs = fsspec.filesystem("precomputed", asynchronous=True)
    opened = []
    open_source = fs.open_source
    fs.open_source = lambda *args: opened.append(args[0]) or open_source(*args)
    await asyncio.gather(*(fs._cat_file(f"{root}/zarr.json") for _ in range(8)))
    assert sorted(opened) == [root.removesuffix("/0"), root]


def test_broken_volume(fs, tmp_path):
    """A broken info is named, also where a key below it is asked for."""
    (tmp_path / "info").write_text('{"scales": 3}')
    for name in ("zarr.json", "0/zarr.json", "0/c/0/0/0"):
        with pytest.raises(StorefsError, match="info: data_type"):
            fs.cat(f"{tmp_path}/{name}")


def test_a_volume_written_anew(tmp_path):
    """A volume that has changed is seen when it is opened anew in the same process."""
    for seed in (3, 4):
        data = np.full((4, 5, seed), seed, np.uint8)
        url = volume(data.shape, (4, 4, 4), "uint8", absent=(), data=data).write(tmp_path).url
        assert json.loads(fsspec.open(f"{url}/0/zarr.json").open().read())["shape"] == [4, 5, seed]


def test_options(root):
    """Options are checked when the filesystem is made, and an unknown one brings a suggestion."""
    with pytest.raises(UrlError, match="did you mean 'zarr_format'"):
        fsspec.filesystem("precomputed", zar_format=2)
    with pytest.raises(UrlError, match="expected one of 2, 3"):
        fsspec.open(f"precomputed://{root}?zarr_format=4").open()
    assert fsspec.filesystem("precomputed", zarr_format="2").exists(f"{root}/.zgroup")


def test_identity(root):
    """Filesystems of equal options are equal, hash alike and have one dask token; others differ."""
    one, same, other = (fsspec.filesystem("precomputed", axes=axes) for axes in ("xyz", "xyz", "zyx"))
    assert one == same
    assert hash(one) == hash(same)
    assert one.__dask_tokenize__() == same.__dask_tokenize__()
    assert one != other
    assert one != root


def test_async(root, layer):
    """The coroutine face works on whatever loop it is awaited."""
    fs = fsspec.filesystem("precomputed", asynchronous=True)

    async def read() -> bytes:
        return await fs._cat_file(f"{root}/0/c/0/0/0")

    import asyncio

    assert asyncio.run(read()) == asyncio.run(read()) == sync(read()) == chunk(layer)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # blockcache leaves its file open
@pytest.mark.parametrize("cache", ["simplecache", "filecache", "blockcache"])
def test_caches_in_front(cache, root, layer, tmp_path):
    """Fsspec's caches work in front."""
    path = f"{cache}::precomputed::file://{root}/0/c/0/0/0"
    with fsspec.open(path, **{cache: {"cache_storage": str(tmp_path)}}) as file:
        assert file.read() == chunk(layer)
    assert any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "numeric"),
    [("layer", False), ("layer.ng", False), ("2024", True), ("0", True), ("c", False), ("0/c/1", True)],
)
def test_names_of_folders(fs, name, numeric, tmp_path):
    """A layer is found whatever its folder is called, also where the name looks like part of a key."""
    small = volume((4, 4, 4), (4, 4, 4), "uint8", absent=()).write(tmp_path / name)
    assert fs.cat(f"{small.folder}/0/c/0/0/0") == small.arrays[0].tobytes()
    assert fs.ls(str(small.folder), detail=False)[-1] == f"{small.folder}/zarr.json"
    assert len(fs.find(str(small.folder))) == 5
    v2 = fsspec.filesystem("precomputed", zarr_format=2)
    assert v2.cat(f"{small.folder}/1/0/0/0") == fs.cat(f"{small.folder}/1/c/0/0/0")
