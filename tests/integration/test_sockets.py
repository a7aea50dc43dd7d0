"""Connections and tasks: none is left open, none is lost when somebody cancels."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import storefs
from tests.http_server import Faults

URL = "precomputed://{}"
TABLE = Path("/proc/self/net/tcp")


def open_connections(port: int) -> int:
    """Connections of this process to `port` that are established, the server's own ends not counted."""
    wanted = f"{port:04X}"
    rows = [line.split() for line in TABLE.read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{wanted}") and row[3] == "01" for row in rows)


@pytest.mark.skipif(not TABLE.exists(), reason="no table of connections here")
def test_dropping_an_array_closes_its_connections(server, layer, road):
    """Once nobody holds the volume, its connections close, without a warning."""
    array = storefs.open_array(URL.format(server.url))
    assert np.array_equal(array[...], layer.volume)
    assert open_connections(server.port) > 0
    del array
    deadline = time.monotonic() + 10
    while open_connections(server.port) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)
    assert open_connections(server.port) == 0


SCRIPT = """
    import sys
    import storefs, zarr
    from storefs.transport import objects

    if sys.argv[2] == "aiohttp":
        objects._IMPORTED_IN = -1
    array = storefs.open_array(sys.argv[1])
    group = zarr.open(sys.argv[1], mode="r")
    print(array[...].shape, group["0"][...].shape)
"""


def test_the_interpreter_ends_in_silence(server, road):
    """A script that reads and ends says nothing of unclosed sessions, sockets or tasks, even in development mode."""
    # the loops of zarr and fsspec end with the interpreter, unclosed
    command = [sys.executable, "-X", "dev", "-W", "ignore:unclosed event loop:ResourceWarning", "-c"]
    done = subprocess.run(
        [*command, textwrap.dedent(SCRIPT), URL.format(server.url), road],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("(20, 24, 40) (20, 24, 40)", 0), done.stderr
    assert not re.search("nclosed|never|destroyed", done.stderr), done.stderr


def test_cancelling_a_read(server, layer, road):
    """A cancelled read ends at once, and the store reads on as if nothing had happened."""
    server.faults = Faults(lambda path: "16-32" in path, delay=2.0)
    store = storefs.open_store(URL.format(server.url), timeout=10)

    async def cancel() -> float:
        await store.get("zarr.json")
        reads = [asyncio.ensure_future(store.get(f"0/c/0/0/{x}")) for x in range(3)]
        await asyncio.sleep(0.2)
        started = time.monotonic()
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        return time.monotonic() - started

    assert asyncio.run(cancel()) < 1
    server.faults = Faults()
    chunk = asyncio.run(store.get("0/c/0/0/1"))
    assert chunk.to_bytes() == layer.volume[:16, :16, 16:32].tobytes()


def test_cancelling_the_first_reader_of_an_index(server, layer, road, tmp_path):
    """Whoever waits for an index that another task was fetching gets it, though that task was cancelled."""
    from tests.layers import Sharded, write_layer

    write_layer(tmp_path / "sharded", layer.volume, (8, 8, 8), sharded=Sharded())
    server.root = tmp_path / "sharded"
    store = storefs.open_store(URL.format(server.url))

    async def cancel_first() -> bytes:
        await store.get("zarr.json")
        server.latency = 0.3
        first = asyncio.ensure_future(store.get("0/c/0/0/0"))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(store.get("0/c/0/0/0"))
        await asyncio.sleep(0.05)
        first.cancel()
        return (await second).to_bytes()

    assert asyncio.run(cancel_first()) == layer.volume[:8, :8, :8].tobytes()


def test_a_time_limit_of_the_caller(server, road):
    """asyncio.timeout around a read of a hanging server ends it in time."""
    server.faults = Faults(lambda path: path == "/info", delay=3.0)
    store = storefs.open_store(URL.format(server.url))

    async def limited() -> float:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await store.get("zarr.json")
        return time.monotonic() - started

    assert asyncio.run(limited()) < 1


def test_ctrl_c_ends_a_read(server, road):
    """Ctrl-C during a read of a hanging server raises KeyboardInterrupt soon; then the process ends."""
    server.faults = Faults(lambda path: "1_1_1" in path, delay=20.0)
    script = """
        import os, signal, sys, threading, time
        import storefs
        from storefs.transport import objects

        if sys.argv[2] == "aiohttp":
            objects._IMPORTED_IN = -1
        array = storefs.open_array(sys.argv[1])
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        try:
            array[...]
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - started < 5)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), URL.format(server.url), road],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.stdout.strip() == "interrupted True", done.stderr
    server.faults = Faults()


def test_event_loops_that_come_and_go(server, layer, road):
    """One store serves event loops that follow one another and loops in several threads."""
    store = storefs.open_store(URL.format(server.url))
    expected = layer.volume[:16, :16, :16].tobytes()
    for _ in range(3):
        assert asyncio.run(store.get("0/c/0/0/0")).to_bytes() == expected
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(asyncio.run(store.get("0/c/0/0/0")).to_bytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
