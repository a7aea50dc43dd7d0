"""`python -m benchmarks.ceiling`: what the local web server gives at most, to a client that only throws bytes away."""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.server import nginx, serving

CHUNK = 256 << 10  # a raw chunk of 64^3
SHARD = 16 << 20
PROCESSES = 2
CONNECTIONS = 4  # a process
SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Answers of 1 byte a second; GB/s in answers of a chunk's and of a shard's size."""

    requests: float
    chunks_gb: float
    shards_gb: float

    def __str__(self) -> str:
        return (
            f"{self.requests:,.0f} requests/s, {self.chunks_gb:.1f} GB/s in answers of 256 KiB, "
            f"{self.shards_gb:.1f} GB/s in answers of 16 MiB"
        )


def measure(*, with_nginx: bool = False) -> Ceiling:
    """Measure the server on this machine, by clients that share its cores."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = (1, CHUNK, SHARD)
        for size in sizes:
            (Path(folder) / str(size)).write_bytes(bytes(size))
        server: AbstractContextManager[str] = nginx(Path(folder)) if with_nginx else serving(Path(folder))
        with server as url, multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
            port = int(url.rpartition(":")[2])
            one, chunk, shard = (sum(pool.starmap(_client, [(port, size)] * PROCESSES)) for size in sizes)
    return Ceiling(one, chunk * CHUNK / 1e9, shard * SHARD / 1e9)


def _client(port: int, size: int) -> float:
    """Answers of `size` bytes a second that one process gets over its connections."""
    stop = time.perf_counter() + SECONDS
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return sum(threads.map(lambda _: _ask(port, size, stop), range(CONNECTIONS))) / SECONDS


def _ask(port: int, size: int, stop: float) -> int:
    count, into = 0, bytearray(1 << 20)
    request = f"GET /{size} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while time.perf_counter() < stop:
            connection.sendall(request)
            got = connection.recv_into(into)
            left = into.find(b"\r\n\r\n") + 4 + size - got
            while left > 0:
                left -= connection.recv_into(into)
            count += 1
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ceiling", description=__doc__)
    parser.add_argument("--nginx", action="store_true", help="of nginx instead")
    print(measure(with_nginx=parser.parse_args().nginx))
