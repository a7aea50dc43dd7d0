"""Forked processes: they read what the parent opened and what it did not, and leave the parent's connections alone."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

import storefs
from tests.http_server import FolderServer, Reply
from tests.layers import Sharded, voxels, write_layer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    # Python >= 3.12 warns of what is tested here
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
PATIENCE = 30


def in_child(work: Callable[[], object]) -> object:
    """What `work` gives in a forked child; fails where the child hangs or breaks."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def run() -> None:
        try:
            there.send((True, work()))
        except Exception:  # noqa: BLE001  # told to the parent
            there.send((False, traceback.format_exc()))

    child = context.Process(target=run)
    child.start()
    there.close()
    try:
        assert here.poll(PATIENCE), "the child hangs"
        worked, found = here.recv()
    finally:
        child.kill() if child.is_alive() and not here.poll(1) else None
        child.join(PATIENCE)
        if child.is_alive():
            child.kill()
            child.join()
        here.close()
        child.close()
    assert worked, found
    return found


@pytest.fixture(params=["http", "file", "sharded http"])
def address(request: pytest.FixtureRequest, server: FolderServer, layer, tmp_path: Path):
    if request.param == "file":
        return f"precomputed://{layer.root}"
    if request.param == "http":
        return f"precomputed://{server.url}"
    write_layer(tmp_path / "sharded", layer.volume, (8, 8, 8), sharded=Sharded())
    server.root = tmp_path / "sharded"
    return f"precomputed://{server.url}"


def test_a_child_reads_the_parents_array_and_a_new_one(address, layer):
    """An array that the parent has read from, and one opened in the child, both give the voxels; so does the parent."""
    array = storefs.open_array(address)
    assert np.array_equal(array[...], layer.volume)

    def work() -> bool:
        again = np.array_equal(array[...], layer.volume)
        return again and np.array_equal(storefs.open_array(address)[...], layer.volume)

    assert in_child(work) is True
    assert np.array_equal(array[...], layer.volume)
    assert np.array_equal(storefs.open_array(address)[...], layer.volume)


def test_a_child_reads_through_fsspec(address, layer):
    """A filesystem of the parent works in the child."""
    filesystem = fsspec.filesystem("precomputed")
    path = f"{address.removeprefix('precomputed://')}/0/c/0/0/0"
    expected = filesystem.cat_file(path)
    assert in_child(lambda: filesystem.cat_file(path)) == expected


def test_a_child_of_a_child(server, layer, road):
    """Forking again works as well."""
    array = storefs.open_array(f"precomputed://{server.url}")
    array[...]

    def work() -> object:
        first = array[0, 0, 0]
        return bool(first) and in_child(lambda: np.array_equal(array[...], layer.volume))

    assert in_child(work) is True


def test_the_parents_connections_stay_usable(server, layer, road):
    """A child that drops what it inherited, and ends, does not close or deafen the parent's kept connections."""
    array = storefs.open_array(f"precomputed://{server.url}", timeout=5, retries=0)
    array[...]

    def work() -> bool:
        import gc

        nonlocal array
        array = storefs.open_array(f"precomputed://{server.url}")
        gc.collect()
        return np.array_equal(array[...], layer.volume)

    for _ in range(2):
        assert in_child(work) is True
        assert np.array_equal(array[...], layer.volume)


def test_forking_while_the_parent_reads(server, layer, road):
    """Locks that another thread of the parent holds at that moment are no trap for the child."""
    server.latency = 0.005
    array = storefs.open_array(f"precomputed://{server.url}")
    stop = threading.Event()
    right: list[bool] = []

    def keep_reading() -> None:
        while not stop.is_set():
            right.append(np.array_equal(array[...], layer.volume))

    reader = threading.Thread(target=keep_reading)
    reader.start()
    try:
        for _ in range(3):
            assert in_child(lambda: np.array_equal(array[...], layer.volume)) is True
    finally:
        stop.set()
        reader.join()
    assert right
    assert all(right)


@pytest.mark.parametrize("signed", [False, True])
def test_a_bucket_in_a_child(tmp_path, monkeypatch, signed):
    """S3 is read in a child, anonymously and with credentials, opened before or after the fork."""
    volume = voxels((16, 16, 8))
    write_layer(tmp_path / "lab" / "layer", volume, (8, 16, 8))
    if signed:
        pytest.importorskip("boto3")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with FolderServer(tmp_path) as running:
        if signed:
            running.reply = lambda asked: (
                None if "authorization" in asked.headers or "Signature" in asked.query else Reply(403)
            )
        options = {"endpoint_url": running.url, "timeout": 5}
        array = storefs.open_array("precomputed://s3://lab/layer", **options)
        assert np.array_equal(array[...], volume)

        def work() -> bool:
            again = np.array_equal(array[...], volume)
            return again and np.array_equal(storefs.open_array("precomputed://s3://lab/layer", **options)[...], volume)

        assert in_child(work) is True
        assert np.array_equal(array[...], volume)


SCRIPT = """
    import os, sys
    import numpy as np
    import storefs
    from storefs.transport import objects

    if sys.argv[2] == "aiohttp":
        objects._IMPORTED_IN = -1
    array = storefs.open_array(sys.argv[1])
    total = int(array[...].sum(dtype=np.uint64))
    if os.fork() == 0:
        assert int(array[...].sum(dtype=np.uint64)) == total
        print(total, flush=True)
        sys.exit()
    _, status = os.wait()
    assert status == 0
    assert int(array[...].sum(dtype=np.uint64)) == total
    print(total)
"""


def test_a_child_that_ends_by_itself_ends_in_silence(server, layer, road):
    """os.fork and sys.exit: no complaint on standard error from child or parent, no hang."""
    command = [sys.executable, "-W", "ignore:This process", "-c", textwrap.dedent(SCRIPT)]
    done = subprocess.run(
        [*command, f"precomputed://{server.url}", road], capture_output=True, text=True, timeout=60, check=False
    )
    total = str(int(layer.volume.sum(dtype=np.uint64)))
    assert (done.stdout.split(), done.stderr, done.returncode) == ([total, total], "", 0)
