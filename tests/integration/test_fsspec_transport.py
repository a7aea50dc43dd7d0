"""Any other fsspec filesystem as a place for volumes: memory, zip, caches, asynchronous ones, broken ones."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry, known_implementations

import storefs
from storefs_codecs.errors import DecodeError
from tests.http_server import Faults
from tests.layers import Sharded, write_layer


@pytest.fixture(params=[None, Sharded()], ids=["unsharded", "sharded"])
def files(request: pytest.FixtureRequest, layer, tmp_path: Path) -> dict[str, bytes]:
    """The layer's files by path, unsharded and sharded."""
    root = tmp_path / "files"
    write_layer(root, layer.volume, (16, 16, 16), sharded=request.param)
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.fixture
def memory(files: dict[str, bytes]) -> Iterator[str]:
    """A place in fsspec's memory filesystem that holds the layer."""
    filesystem = fsspec.filesystem("memory")
    for name, data in files.items():
        filesystem.pipe_file(f"/deep/er/{name}", data)
    yield "memory://deep/er"
    filesystem.rm("/deep", recursive=True)


@pytest.fixture
def archive(files: dict[str, bytes], tmp_path: Path) -> Path:
    """A zip archive that holds the layer in folder "layer"."""
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in files.items():
            packed.writestr(f"layer/{name}", data)
    return path


def test_memory(memory, layer, read):
    """memory:// by storefs and by zarr, plain and chained, with two and with three slashes."""
    assert np.array_equal(read(memory), layer.volume)
    assert np.array_equal(read(memory.replace("://", ":///")), layer.volume)
    for url in (f"precomputed://{memory}", f"precomputed::{memory}"):
        assert np.array_equal(zarr.open(url, mode="r")["0"][...], layer.volume)
        assert np.array_equal(storefs.open(url)["0"][...], layer.volume)


def test_absent_chunks_and_volumes_in_memory(memory, layer, read):
    """What is not there is the fill value for a chunk, NoSuchVolume for an info."""
    filesystem = fsspec.filesystem("memory")
    with pytest.raises(storefs.NoSuchVolume, match="memory://nowhere"):
        read("memory://nowhere")
    for name in filesystem.ls("/deep/er/1_1_1", detail=False):
        filesystem.rm(name)
    assert not read(memory).any()


def test_a_zip_archive(archive, layer):
    """A layer in a zip archive, in the chained form and with options."""
    url = f"precomputed::zip://layer::file://{archive}"
    assert np.array_equal(zarr.open(url, mode="r")["0"][...], layer.volume)
    assert np.array_equal(storefs.open_array(url)[...], layer.volume)
    filesystem = fsspec.filesystem("precomputed", target_protocol="zip", target_options={"fo": str(archive)})
    assert filesystem.cat_file("layer/0/zarr.json")


def test_a_zip_archive_on_a_web_server(archive, layer, server):
    """Links chain on: zip over http."""
    server.root = archive.parent
    url = f"precomputed::zip://layer::{server.url}/archive.zip"
    assert np.array_equal(storefs.open_array(url)[...], layer.volume)
    assert np.array_equal(zarr.open(url, mode="r")["0"][...], layer.volume)


@pytest.mark.parametrize("cache", ["simplecache", "filecache"])
def test_a_cache_in_between(layer, server, tmp_path, cache):
    """precomputed::simplecache::http…: objects are kept on disk; the second reading asks for nothing."""
    url = f"precomputed::{cache}::{server.url}"
    options = {cache: {"cache_storage": str(tmp_path / "cache")}}
    for _ in range(2):
        fsspec.get_filesystem_class("precomputed").clear_instance_cache()
        group = zarr.open(url, mode="r", storage_options=options)
        assert np.array_equal(group["0"][...], layer.volume)
    server.forget()
    assert np.array_equal(zarr.open(url, mode="r", storage_options=options)["0"][...], layer.volume)
    if cache == "simplecache":  # threads that fill a filecache at once lose some of its entries
        assert not server.asked


def test_a_cache_in_between_by_storefs(layer, server):
    """storefs.open understands the chained form as well."""
    assert np.array_equal(storefs.open_array(f"precomputed::simplecache::{server.url}")[...], layer.volume)


def test_redirects_within_a_chain(archive, layer):
    """A relative redirect in an info stays within the archive."""
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr("moved/info", '{"redirect": "../layer"}')
    url = f"precomputed::zip://moved::file://{archive}"
    assert np.array_equal(storefs.open_array(url)[...], layer.volume)


# filesystems of one's own


class Slow(AsyncFileSystem):
    """An asynchronous filesystem over a dictionary, which can be told to fail."""

    protocol = "slowfs"
    cachable = False
    content: dict[str, bytes] = {}  # noqa: RUF012  # set by the test
    failure: Callable[[str], Exception | None] = staticmethod(lambda path: None)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        import asyncio

        await asyncio.sleep(0.001)
        name = self._strip_protocol(path)
        failure = type(self).failure(name)
        if failure is not None:
            raise failure
        if name not in self.content:
            raise FileNotFoundError(name)
        return self.content[name][start:end]

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        failure = type(self).failure(name)
        if failure is not None:
            raise failure
        if name not in self.content:
            raise FileNotFoundError(name)
        return {"name": name, "size": len(self.content[name]), "type": "file"}


@pytest.fixture
def slow(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Slow]]:
    fsspec.register_implementation("slowfs", Slow, clobber=True)
    monkeypatch.setattr(Slow, "content", {f"here/{name}": data for name, data in files.items()})
    monkeypatch.setattr(Slow, "failure", staticmethod(lambda path: None))
    yield Slow
    _registry.pop("slowfs")


def test_an_asynchronous_filesystem(slow, layer, read):
    """A filesystem that only knows coroutines is read, also from within fsspec's own loop (through zarr)."""
    assert np.array_equal(read("slowfs://here"), layer.volume)
    assert np.array_equal(zarr.open("precomputed://slowfs://here", mode="r")["0"][...], layer.volume)
    assert np.array_equal(zarr.open("precomputed::slowfs://here", mode="r")["0"][...], layer.volume)


class OddError(Exception):
    """Unknown to everybody."""


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (PermissionError("not you"), storefs.Refused),
        (TimeoutError("late"), storefs.TimedOut),
        (ConnectionResetError("reset"), storefs.ServerFault),
        (OSError(5, "input/output error"), storefs.ServerFault),
        (ValueError("odd"), storefs.ServerFault),
        (KeyError("odd"), storefs.ServerFault),
        (OddError("odd"), storefs.ServerFault),
        (RuntimeError("odd"), storefs.ServerFault),
    ],
)
def test_failures_of_a_filesystem_are_no_zeros(slow, read, raised, expected):
    """Whatever a filesystem raises, save that a file is not there, is a TransportError, for info, chunk and exists."""
    array = storefs.open_array("precomputed://slowfs://here")
    slow.failure = staticmethod(lambda path: raised if "1_1_1" in path else None)
    with pytest.raises(expected, match="1_1_1") as caught:
        array[...]
    assert not isinstance(caught.value, FileNotFoundError)
    slow.failure = staticmethod(lambda path: raised)
    with pytest.raises(expected):
        read("slowfs://here")


def test_forbidden_files_may_mean_missing(slow, read):
    """forbidden="missing" reads PermissionError as absent."""
    slow.failure = staticmethod(lambda path: PermissionError("no") if "1_1_1" in path else None)
    assert not read("slowfs://here", forbidden="missing").any()


@pytest.mark.parametrize("files", [None], indirect=True, ids=["unsharded"])
def test_an_oversize_file_is_refused(slow, read, files):
    """A file far longer than its chunk can be raises."""
    for name in list(slow.content):
        if "1_1_1" in name:
            slow.content[name] = bytes(1 << 20)
    with pytest.raises((DecodeError, storefs.ServerFault)):
        read("slowfs://here")


def test_options_reach_the_filesystem(memory, layer):
    """target_options go to the filesystem; what it does not know is its own business to refuse."""
    seen = {}

    class Curious(MemoryFileSystem):
        protocol = "curious"
        cachable = False

        def __init__(self, flavour: str | None = None, **options: Any) -> None:
            seen["flavour"] = flavour
            super().__init__(**options)

        @classmethod
        def _strip_protocol(cls, path: str) -> Any:
            return super()._strip_protocol(path.removeprefix("curious://"))

    fsspec.register_implementation("curious", Curious, clobber=True)
    url = memory.replace("memory", "curious")
    try:
        array = storefs.open_array(f"precomputed://{url}", target_options={"flavour": "vanilla"})
        assert np.array_equal(array[...], layer.volume)
        assert seen == {"flavour": "vanilla"}
        zarr.open(f"precomputed::{url}", mode="r", storage_options={"curious": {"flavour": "mint"}})
        assert seen == {"flavour": "mint"}
    finally:
        _registry.pop("curious")


# other places in other words


@pytest.mark.parametrize("spelling", ["headers", "client_kwargs"])
def test_headers_in_fsspecs_words(layer, server, spelling):
    """storage_options={"http": {"headers": …}} or {"client_kwargs": {"headers": …}} go with every request."""
    given = {"X-Token": "t0ken"}
    options = {"http": {"headers": given} if spelling == "headers" else {"client_kwargs": {"headers": given}}}
    group = zarr.open(f"precomputed::{server.url}", mode="r", storage_options=options)
    assert np.array_equal(group["0"][...], layer.volume)
    assert all(headers["x-token"] == "t0ken" for headers in server.headers)


def test_words_that_mean_nothing_here(server):
    """An option that fsspec's http has and storefs has not raises UrlError, which names those understood."""
    with pytest.raises(storefs.UrlError, match=r"'get_client'.*understood are headers, client_kwargs"):
        zarr.open(f"precomputed::{server.url}", mode="r", storage_options={"http": {"get_client": len}})
    with pytest.raises(storefs.UrlError, match="'nonsense'"):
        zarr.open(f"precomputed::file://{Path.cwd()}", mode="r", storage_options={"file": {"nonsense": 1}})


def test_tuning_of_other_filesystems_is_passed_over(layer, server):
    """Options that only tune s3fs, gcsfs or http are no obstacle."""
    options = {"http": {"block_size": 1 << 20, "cache_type": "none", "use_listings_cache": False}}
    group = zarr.open(f"precomputed::{server.url}", mode="r", storage_options=options)
    assert np.array_equal(group["0"][...], layer.volume)


@pytest.mark.parametrize(
    ("address", "advice"),
    [("memry://a/b", "memory://"), ("htps://a/b", "https://"), ("ss3://a/b", "s3://"), ("gcss://a/b", "gcs://|gs://")],
)
def test_unknown_schemes_get_a_suggestion(address, advice):
    """A scheme with a typing error raises UrlError with the nearest one there is."""
    with pytest.raises(storefs.UrlError, match=f"did you mean ({advice})"):
        storefs.open_store(f"precomputed://{address}")


def test_a_filesystem_that_is_not_installed_is_named(monkeypatch):
    """A known filesystem whose package is missing raises UrlError, saying what to install."""
    entry = {"class": "no_such_package.Nothing", "err": "Install no-such-package"}
    monkeypatch.setitem(known_implementations, "nothingfs", entry)
    with pytest.raises(storefs.UrlError, match="Install no-such-package"):
        storefs.open_array("precomputed://nothingfs://a/b")


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 403}, {"reset": True}])
def test_a_fault_behind_a_cache_is_no_zero(layer, server, tmp_path, fault):
    """Fsspec's http filesystem calls every failure FileNotFoundError where a cache asks; it is told from an absence."""
    server.faults = Faults(lambda path: "16-32" in path, **fault)
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    group = zarr.open(f"precomputed::simplecache::{server.url}", mode="r", storage_options=options)
    with pytest.raises((storefs.ServerFault, storefs.Refused)):
        group["0"][...]


def test_an_absent_chunk_behind_a_cache(layer, server, tmp_path):
    """404 behind fsspec's cache is the fill value."""
    server.faults = Faults(lambda path: "16-32_0-16_0-16" in path, status=404)
    expected = layer.volume.copy()
    expected[:16, :16, 16:32] = 0
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    group = zarr.open(f"precomputed::simplecache::{server.url}", mode="r", storage_options=options)
    assert np.array_equal(group["0"][...], expected)
