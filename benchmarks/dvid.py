"""`python -m benchmarks.dvid`: volumes through storefs against one `raw` request per 64^3 block, one after another.

The server is the tests' emulator in a process of its own, with a few milliseconds of latency such as a lab's network
has, or the one that DVID_TEST_SERVER names.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np

import storefs
import storefs.dvid
from benchmarks.layers import volumes
from storefs.transport.service import ServiceTransport

BLOCK = 64
MIB = 1 << 20


@contextmanager
def server(latency: float) -> Iterator[str]:
    """The address of a DVID server for as long as the block runs."""
    if named := os.environ.get("DVID_TEST_SERVER"):
        yield named
        return
    command = [sys.executable, "-m", "tests.backends.dvid.emulator", str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the emulator has no pipes")
        yield process.stdout.readline().strip()
        process.stdin.close()


def serial_raw(url: str, uuid: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The volume by one plain `raw` request per block, on one connection that is kept."""
    dtype = np.dtype(np.uint64 if name == "labels" else np.uint8)
    out = np.empty(shape, dtype)
    connection = http.client.HTTPConnection(url.split("://")[1])
    query = "?supervoxels=true" if name == "labels" else ""
    for z, y, x in np.ndindex(*(n // BLOCK for n in shape)):
        place = f"{x * BLOCK}_{y * BLOCK}_{z * BLOCK}"
        connection.request("GET", f"/api/node/{uuid}/{name}/raw/0_1_2/{BLOCK}_{BLOCK}_{BLOCK}/{place}{query}")
        block = np.frombuffer(connection.getresponse().read(), dtype).reshape((BLOCK,) * 3)
        out[tuple(slice(i * BLOCK, (i + 1) * BLOCK) for i in (z, y, x))] = block
    connection.close()
    return out


def median(call: Callable[[], np.ndarray], expected: np.ndarray, repeats: int) -> float:
    """Median seconds of `call`, whose result must be `expected`."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - start)
        if not np.array_equal(found, expected):
            sys.exit("read other voxels than were written")
    return statistics.median(times[1:])


def main() -> None:
    """Write the volumes, time both ways of reading them, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dvid", description=__doc__)
    parser.add_argument("--latency", type=float, default=0.005, help="seconds the emulator adds to every answer")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    image, labels, origin = volumes()
    with server(options.latency) as url:
        client = storefs.dvid.Client(url)
        uuid = client.repos.create("benchmark")
        print(f"data: {origin}; server {url}, {options.latency * 1e3:g} ms of latency")
        for name, typename, voxels in (("gray", "uint8blk", image), ("labels", "labelmap", labels[:256, :256, :256])):
            client.instances.create(uuid, typename, name, block_size=(BLOCK,) * 3)
            stop = [n - 1 for n in voxels.shape[::-1]]
            client.instances.set_extents(uuid, name, (0, 0, 0), stop)
            address = f"dvid://{url}/{uuid}/{name}"
            storefs.open_array(address, mode="r+", supervoxels=True)[...] = voxels
            array = storefs.open_array(address, supervoxels=True)
            with mock.patch.object(
                ServiceTransport, "fetch", autospec=True, side_effect=ServiceTransport.fetch
            ) as asked:
                array[...]
            ours = median(lambda array=array: array[...], voxels, options.repeats)
            serial = median(
                lambda name=name, shape=voxels.shape: serial_raw(url, uuid, name, shape), voxels, options.repeats
            )
            shape = "x".join(map(str, voxels.shape))
            print(f"{name} {shape} {voxels.dtype}, {voxels.nbytes // MIB} MiB in {asked.call_count} requests")
            print(f"    storefs {ours:.3f} s, serial raw {serial:.3f} s, {serial / ours:.1f} times as fast", flush=True)


if __name__ == "__main__":
    main()
