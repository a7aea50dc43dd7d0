"""Stores, filesystems and arrays travel to other processes, threads and event loops."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
import zarr.api.asynchronous

import storefs
from tests.http_server import FolderServer
from tests.small_volume import Volume, volume

SECRET = "s3cr3t"
HEADERS = {"Authorization": f"Bearer {SECRET}"}

forking = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")


@pytest.fixture(scope="module")
def layer(tmp_path_factory) -> Volume:
    """png, of which every clipped chunk is framed."""
    return volume((17, 19, 23), (10, 8, 8), "uint8", encoding="png").write(tmp_path_factory.mktemp("layer"))


@pytest.fixture
def server(layer):
    """The layer on a web server."""
    running = FolderServer(layer.folder)
    yield running
    running.close()


@pytest.fixture(params=["store", "url", "v2", "portable"])
def array(request, layer) -> zarr.Array[Any]:
    """The finest scale, through our store and through fsspec."""
    if request.param == "url":
        return zarr.open_array(f"{layer.url}/0", mode="r")
    options = {"v2": {"zarr_format": 2}, "portable": {"face": "portable"}}.get(request.param, {})
    return storefs.open_array(layer.url, **options)


def read(array: zarr.Array[Any]) -> Any:
    return array[...]


def cat(fs: Any, name: str) -> bytes:
    return fs.cat(name)


# pickles


@pytest.mark.parametrize("headers", [{}, HEADERS], ids=["open", "secret"])
@pytest.mark.parametrize(
    "options", [{}, {"zarr_format": 2, "axes": "xyz", "face": "portable", "codec": "gzip"}], ids=["", "options"]
)
def test_pickles_are_small_and_hold_no_secrets(layer, headers, options):
    """A pickle is under 1 KB, holds no secret, and gives an equal object that reads."""
    given = {**options, **({"headers": headers} if headers else {})}
    store = storefs.open_store(f"{layer.url}?missing=fill", **given)
    fs = fsspec.filesystem("precomputed", **given)
    for thing in (store, fs):
        pickled = pickle.dumps(thing)
        assert len(pickled) < 1024
        assert SECRET.encode() not in pickled
        assert pickle.loads(pickled) == thing
        assert SECRET not in repr(thing)
    opened = zarr.open(layer.url, storage_options=given, mode="r")
    for group in (storefs.open(layer.url, **given), opened):
        shown = layer.arrays[0].T if options else layer.arrays[0]
        pickled = pickle.dumps(group["0"])
        assert SECRET.encode() not in pickled
        assert SECRET.encode() not in pickle.dumps(group)
        np.testing.assert_array_equal(pickle.loads(pickled)[...], shown)
        assert SECRET not in repr(group) + repr(group.store) + str(group.info)
    assert pickle.loads(pickle.dumps(opened.store)) == opened.store


def test_a_secret_in_the_address_stays_here(server):
    """What a query tells the web server is not pickled, shown, or put into attributes."""
    url = f"precomputed://{server.url}?token={SECRET}"
    for group in (storefs.open(url), zarr.open(url, mode="r")):
        assert SECRET.encode() not in pickle.dumps(group)
        assert SECRET not in repr(group) + str(group.attrs.asdict())
        assert SECRET not in repr(group.store)
    with pytest.raises(IndexError) as caught:
        storefs.open_array(url, 7)
    assert SECRET not in str(caught.value)


def test_secrets_by_name_travel(server, monkeypatch):
    """An option that names an environment variable is pickled, and looked up where it is used."""
    monkeypatch.setenv("STOREFS_TEST_TOKEN", SECRET)
    group = storefs.open(f"precomputed://{server.url}", headers={"Authorization": "Bearer $STOREFS_TEST_TOKEN"})
    copy = pickle.loads(pickle.dumps(group))
    server.headers.clear()
    copy["0"][0, 0, 0]
    sent = [{k.lower(): v for k, v in headers.items()}.get("authorization") for headers in server.headers]
    assert set(sent) == {f"Bearer {SECRET}"}
    assert SECRET.encode() not in pickle.dumps(group)


def test_spawned_process(layer):
    """Objects of every kind read the same after a trip to a spawned process."""
    arrays = [
        storefs.open_array(layer.url),
        zarr.open_array(f"{layer.url}/0"),
        storefs.open_array(layer.url, zarr_format=2),
    ]
    name = f"{layer.folder}/0/c/0/0/0"
    fs = fsspec.filesystem("precomputed")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(read, arrays):
            np.testing.assert_array_equal(found, layer.arrays[0])
        assert pool.submit(cat, fs, name).result() == fs.cat(name)


def test_errors_travel(layer):
    """Errors keep their kind and what they name through a pickle."""
    array = storefs.open_array(layer.url, missing="error")
    with pytest.raises(storefs.MissingChunk) as caught:
        read(array)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is storefs.MissingChunk
    assert (str(copy), copy.chunk, copy.url) == (str(caught.value), caught.value.chunk, caught.value.url)


# fork


def in_fork(task: Callable[[], Any]) -> Any:
    """What `task` gives in a forked child, which inherits everything; its error if it fails."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def work() -> None:
        try:
            answers.put(task())
        except BaseException as error:  # noqa: BLE001  # told to the parent
            answers.put(error)

    child = context.Process(target=work, daemon=True)
    child.start()
    try:
        answer = answers.get(timeout=30)
    except queue.Empty:
        answer = TimeoutError("the child hangs")
    child.join(1)
    child.kill()
    if isinstance(answer, BaseException):
        raise answer
    return answer


@needs_fork
@forking
def test_forked_child(array, layer):
    """An array that was read before is read in a forked child, and afterwards in the parent."""
    np.testing.assert_array_equal(read(array), layer.arrays[0])
    np.testing.assert_array_equal(in_fork(functools.partial(read, array)), layer.arrays[0])
    np.testing.assert_array_equal(read(array), layer.arrays[0])


@needs_fork
@forking
def test_forked_child_of_a_web_volume(server, layer):
    """Volumes on the web are read in a forked child too."""
    for array in (storefs.open_array(f"precomputed://{server.url}"), zarr.open_array(f"precomputed://{server.url}/0")):
        np.testing.assert_array_equal(read(array), layer.arrays[0])
        np.testing.assert_array_equal(in_fork(functools.partial(read, array)), layer.arrays[0])


@needs_fork
@forking
def test_forked_filesystem(layer):
    """A filesystem and its mapper work in a forked child."""
    fs = fsspec.filesystem("precomputed")
    name = f"{layer.folder}/0/c/0/0/0"
    expected = fs.cat(name)
    assert in_fork(lambda: fs.cat(name)) == expected
    mapper = fs.get_mapper(str(layer.folder))
    assert in_fork(lambda: mapper["0/c/0/0/0"]) == expected


@needs_fork
@forking
@pytest.mark.parametrize("opener", ["storefs", "zarr"])
def test_loader_workers(layer, opener):
    """Forked workers that each take crops of one inherited array, as data loaders do, get the right voxels."""
    array = storefs.open_array(layer.url) if opener == "storefs" else zarr.open_array(f"{layer.url}/0", mode="r")
    array[0, 0, 0]
    rng = np.random.default_rng(5)
    corners = [tuple(int(rng.integers(0, n - 6)) for n in array.shape) for _ in range(40)]
    context = multiprocessing.get_context("fork")
    tasks, crops = context.Queue(), context.Queue()

    def work() -> None:
        for number, (z, y, x) in iter(tasks.get, None):
            crops.put((number, array[z : z + 6, y : y + 6, x : x + 6]))

    workers = [context.Process(target=work, daemon=True) for _ in range(3)]
    for worker in workers:
        worker.start()
    for task in [*enumerate(corners), *[None] * len(workers)]:
        tasks.put(task)
    found = dict(crops.get(timeout=30) for _ in corners)
    for worker in workers:
        worker.join(10)
        assert worker.exitcode == 0
    for number, (z, y, x) in enumerate(corners):
        np.testing.assert_array_equal(found[number], layer.arrays[0][z : z + 6, y : y + 6, x : x + 6])


# threads and event loops


def test_threads(array, layer):
    """16 threads read one array at once and all get all of it."""
    start = threading.Barrier(16)

    def task(seed: int) -> bool:
        start.wait(20)
        z, y = np.random.default_rng(seed).integers(0, 8, 2)
        return bool((array[z:, y:] == layer.arrays[0][z:, y:]).all())

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(task, range(16)))


def test_threads_open_together(server, layer):
    """Threads that open and read one store at once describe the volume once."""
    store = storefs.open_store(f"precomputed://{server.url}")

    def task(_: int) -> Any:
        return zarr.open_group(store, mode="r")["0"][...]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(task, range(8)):
            np.testing.assert_array_equal(found, layer.arrays[0])
    assert server.requests["/info"] == 1


def test_several_event_loops(layer, server):
    """Zarr's asynchronous interface works on one loop after another, mixed with the synchronous one."""
    for url in (layer.url, f"precomputed://{server.url}"):
        store = storefs.open_store(url)

        async def whole(place: Any = store, path: str = "0") -> Any:
            opened = await zarr.api.asynchronous.open_array(store=place, path=path, mode="r")
            return await opened.getitem(...)

        async def by_address(url: str = url) -> Any:
            return await (await zarr.api.asynchronous.open_array(store=f"{url}/0", mode="r")).getitem(...)

        for _ in range(2):
            np.testing.assert_array_equal(asyncio.run(whole()), layer.arrays[0])
            np.testing.assert_array_equal(zarr.open_array(store, path="0")[...], layer.arrays[0])
            np.testing.assert_array_equal(asyncio.run(by_address()), layer.arrays[0])


async def test_inside_a_running_loop(layer, server):
    """The synchronous interface works in a notebook cell, where a loop is running already."""
    for url in (layer.url, f"precomputed://{server.url}"):
        np.testing.assert_array_equal(storefs.open(url)["0"][...], layer.arrays[0])
        np.testing.assert_array_equal(storefs.open_array(url, 1)[...], layer.arrays[1])
        np.testing.assert_array_equal(zarr.open(url)["0"][...], layer.arrays[0])
        assert fsspec.get_mapper(url)["zarr.json"]
        opened = await zarr.api.asynchronous.open_group(storefs.open_store(url), mode="r")
        found = await opened.getitem("1")
        np.testing.assert_array_equal(await found.getitem(...), layer.arrays[1])


def test_loops_in_threads(server, layer):
    """One store is read from event loops that run in different threads at the same time."""
    store = storefs.open_store(f"precomputed://{server.url}")

    async def whole() -> Any:
        opened = await zarr.api.asynchronous.open_array(store=store, path="0", mode="r")
        return await opened.getitem(...)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: asyncio.run(whole()), range(8)):
            np.testing.assert_array_equal(found, layer.arrays[0])


# identity

TOKENS = """
import sys, dask.base, fsspec, storefs, zarr
url = sys.argv[1]
options = {"axes": "xyz", "zarr_format": 3}
things = (
    storefs.open_store(url, **options), storefs.open_array(url), zarr.open_array(url + "/0", mode="r"),
    zarr.open_array(url + "/0", storage_options=options), fsspec.filesystem("precomputed", **options),
)
print(*map(dask.base.tokenize, things))
"""


def test_tokens_are_the_same_everywhere(layer):
    """Dask's names for a store, an array and a filesystem do not change from process to process."""
    pytest.importorskip("dask")
    found = [
        subprocess.run(
            [sys.executable, "-c", TOKENS, layer.url], check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert len(set(found[0])) == 5
    assert found[0] == found[1]
