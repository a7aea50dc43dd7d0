"""A quick local web server over a folder, in processes of its own; may wait a while before every answer.

Plain Python would be the bottleneck of what is measured, so each process does the least: one epoll loop, a cache of
open files, and sendfile from the page cache to the socket. `python -m benchmarks.ceiling` says what it can do. Linux.
"""

from __future__ import annotations

import contextlib
import heapq
import mimetypes
import multiprocessing
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

LONGEST_HEAD = 65536
SOCKET_BUFFER = 4 << 20
AT_ONCE = 8 << 20
BACKLOG = 1024
IDLE = 1.0
ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
BEYOND = b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */%d\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serving(folder: Path, latency: float = 0.0, *, processes: int = 2, cores: set[int] | None = None) -> Iterator[str]:
    """The URL under which `folder` is served as long as the block runs; `latency` is seconds before each answer."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.settimeout(0)
    context = multiprocessing.get_context("spawn")
    arguments = (listener, str(folder), latency, cores)
    workers = [context.Process(target=_serve, args=arguments, daemon=True) for _ in range(processes)]
    for worker in workers:
        worker.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        listener.close()


def spare_cores(taken: int) -> set[int] | None:
    """The cores that readers of the first `taken` ones leave; None where they leave none or cannot be bound."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return set(sorted(os.sched_getaffinity(0))[taken:]) or None


@contextmanager
def nginx(folder: Path, *, processes: int = 2) -> Iterator[str]:
    """The same by nginx, without latency. Raises FileNotFoundError where it is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise FileNotFoundError("nginx is not installed; leave out --nginx")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as run:
        settings = Path(run) / "nginx.conf"
        user = "user root;" if hasattr(os, "getuid") and os.getuid() == 0 else ""  # folders may be private
        settings.write_text(
            f"{user} worker_processes {processes}; pid {run}/pid; daemon off; error_log {run}/errors;"
            " events { worker_connections 4096; } http { access_log off; sendfile on; tcp_nodelay on;"
            f" keepalive_requests 10000000; types {{ image/jpeg jpg; }} open_file_cache max=100000;"
            f" client_body_temp_path {run}/body; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f;"
            f" uwsgi_temp_path {run}/u; scgi_temp_path {run}/s;"
            f" server {{ listen 127.0.0.1:{port} backlog={BACKLOG}; root {folder}; }} }}"
        )
        process = subprocess.Popen([program, "-c", str(settings)], stderr=subprocess.PIPE)
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"nginx does not start: {process.communicate()[1].decode(errors='replace')}")


@dataclass(slots=True)
class _Connection:
    """A client: what it asked and has not been answered yet, and the answer that is under way."""

    socket: socket.socket
    asked: bytearray = field(default_factory=bytearray)
    head: memoryview = field(default_factory=lambda: memoryview(b""))
    file: int = -1
    offset: int = 0
    left: int = 0
    waiting: bool = False
    last: bool = False
    closed: bool = False

    @property
    def busy(self) -> bool:
        return self.waiting or bool(len(self.head)) or self.left > 0


def _serve(listener: socket.socket, folder: str, latency: float, cores: set[int] | None) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    _Loop(listener, folder, latency).run()


class _Loop:
    """One process: accepts, reads heads, waits, sends. A new connection goes to whichever process is free."""

    def __init__(self, listener: socket.socket, folder: str, latency: float) -> None:
        self._listener, self._folder, self._latency = listener, folder, latency
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._connections: dict[int, _Connection] = {}
        self._later: list[tuple[float, int, _Connection]] = []
        self._files: dict[str, tuple[int, int, bytes]] = {}
        self._count = 0

    def run(self) -> None:
        """Serve until killed, or left alone."""
        parent = os.getppid()
        while os.getppid() == parent:  # nobody stops it where the parent was killed
            timeout = max(0.0, self._later[0][0] - time.monotonic()) if self._later else IDLE
            for number, event in self._poll.poll(timeout):
                if number == self._listener.fileno():
                    self._accept()
                elif connection := self._connections.get(number):
                    self._serve_one(connection, event)
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                connection = heapq.heappop(self._later)[2]
                connection.waiting = False
                if not connection.closed:
                    self._go_on(connection)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            client.settimeout(0)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            self._connections[client.fileno()] = _Connection(client)
            self._poll.register(client.fileno(), select.EPOLLIN)

    def _serve_one(self, connection: _Connection, event: int) -> None:
        if event & select.EPOLLIN:
            try:
                data = connection.socket.recv(LONGEST_HEAD)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            connection.asked += data
            if not data or len(connection.asked) > LONGEST_HEAD:
                self._close(connection)
                return
        elif event & (select.EPOLLHUP | select.EPOLLERR):
            self._close(connection)
            return
        self._go_on(connection)

    def _go_on(self, connection: _Connection) -> None:
        try:
            while not connection.waiting:
                if connection.busy and not _send(connection):
                    self._poll.modify(connection.socket.fileno(), select.EPOLLOUT)
                    return
                if connection.last or not self._next(connection):
                    break
        except OSError:
            connection.last = True
        if connection.last and not connection.busy:
            self._close(connection)
        else:
            self._poll.modify(connection.socket.fileno(), select.EPOLLIN)

    def _next(self, connection: _Connection) -> bool:
        """Prepare the answer to the next request, if all of it has come."""
        end = connection.asked.find(b"\r\n\r\n")
        if end < 0:
            return False
        self._answer(connection, connection.asked[:end].decode("latin-1"))
        del connection.asked[: end + 4]
        if self._latency:
            self._count += 1
            connection.waiting = True
            heapq.heappush(self._later, (time.monotonic() + self._latency, self._count, connection))
        return True

    def _answer(self, connection: _Connection, head: str) -> None:
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        connection.last = headers.get("connection", "").lower() == "close"
        found = self._file(unquote(target.partition("?")[0]))
        connection.left = 0
        if found is None or method not in ("GET", "HEAD"):
            connection.head = memoryview(ABSENT)
            return
        file, size, about = found
        start, stop, status = 0, size, b"200 OK"
        if asked := headers.get("range"):
            start, stop = _range(asked, size)
            if start >= stop:
                connection.head = memoryview(BEYOND % size)
                return
            status = f"206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{size}".encode()
        text = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s" % (status, stop - start, about)
        connection.head = memoryview(text)
        if method == "GET":
            connection.file, connection.offset, connection.left = file, start, stop - start

    def _file(self, path: str) -> tuple[int, int, bytes] | None:
        """Descriptor, size and headers of a file, which is kept open; None where there is none."""
        found = self._files.get(path)
        if found is None and (found := self._open(path)):
            self._files[path] = found
        return found

    def _open(self, path: str) -> tuple[int, int, bytes] | None:
        name = os.path.normpath(self._folder + "/" + path + ("index.json" if path.endswith("/") else ""))
        if not name.startswith(self._folder) or not Path(name).is_file():
            return None
        file = os.open(name, os.O_RDONLY)
        about = os.fstat(file)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = (
            f"Content-Type: {kind}\r\nAccept-Ranges: bytes\r\nDate: {formatdate(usegmt=True)}\r\n"
            f"Last-Modified: {formatdate(about.st_mtime, usegmt=True)}\r\n"
            f'ETag: "{about.st_mtime_ns:x}-{about.st_size:x}"\r\n\r\n'
        )
        return file, about.st_size, headers.encode()

    def _close(self, connection: _Connection) -> None:
        if not connection.closed:
            connection.closed = True
            del self._connections[connection.socket.fileno()]
            self._poll.unregister(connection.socket.fileno())
            connection.socket.close()


def _send(connection: _Connection) -> bool:
    """Send what goes without waiting; whether all of the answer has gone."""
    try:
        if len(connection.head):
            more = socket.MSG_MORE if connection.left else 0
            connection.head = connection.head[connection.socket.send(connection.head, more) :]
        while connection.left and not len(connection.head):
            count = min(connection.left, AT_ONCE)
            sent = os.sendfile(connection.socket.fileno(), connection.file, connection.offset, count)
            connection.offset += sent
            connection.left -= sent
    except BlockingIOError:
        return False
    return not connection.busy


def _range(asked: str, size: int) -> tuple[int, int]:
    first, _, last = asked.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
