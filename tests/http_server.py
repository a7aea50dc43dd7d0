"""A web server over a folder that can misbehave in every way a real one does. Shares no code with the product."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

HTML = b"<!DOCTYPE html><html><body>please log in</body></html>"


def _nowhere(path: str) -> bool:
    return False


@dataclass
class Faults:
    """What goes wrong, for paths that `where` accepts; `times` of None means always.

    `status` with `retry_after` (seconds, or a date that many seconds ahead with `retry_as_date`), `delay` before the
    answer, `stall` in the middle of the body, `cut_body` closes half way, `reset` closes before the answer, `html`
    answers with a page and 200, `lie_length` is added to Content-Length, `redirect_to` is put before the path.
    """

    where: Callable[[str], bool] = _nowhere
    status: int | None = None
    times: int | None = None
    retry_after: float | None = None
    retry_as_date: bool = False
    delay: float = 0.0
    stall: float = 0.0
    cut_body: bool = False
    reset: bool = False
    html: bool = False
    ignore_range: bool = False
    lie_length: int = 0
    redirect_to: str | None = None


@dataclass(frozen=True)
class Asked:
    """One request: when it came, what for, with which headers (names in lower case)."""

    at: float
    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")


@dataclass(frozen=True)
class Reply:
    """An answer made up by a test."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    """Threads that end with the server, and no word about clients that hang up."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]  # a socket it is
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]  # a socket it is
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError | ValueError):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        """Close the connections that clients keep alive."""
        with self._lock:
            open_now = list(self._connections)
        for connection in open_now:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@dataclass
class FolderServer:
    """Serves `root`; `faults` may be changed at any time. Remembers what it was asked.

    `encoding(path)` is the Content-Encoding that the stored bytes are declared to have; `gzip_stored(path)` stores
    them compressed as well. `chunked` answers without Content-Length. `transcode` unpacks stored gzip for clients that
    do not accept it, as Google's servers do: without Content-Length and deaf to ranges. `reply` may answer first.
    """

    root: Path
    faults: Faults = field(default_factory=Faults)
    encoding: Callable[[str], str | None] = lambda path: None
    gzip_stored: Callable[[str], bool] = _nowhere
    chunked: bool = False
    transcode: bool = False
    latency: float = 0.0
    reply: Callable[[Asked], Reply | None] = lambda asked: None
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        owner = self
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = 60

            def do_GET(self) -> None:
                owner._answer(self)

            def do_HEAD(self) -> None:
                owner._answer(self)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                owner._answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._httpd = _Server(Handler)
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._httpd.server_address[1])

    @property
    def url(self) -> str:
        """Address of the folder."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop serving."""
        self._httpd.shutdown()
        self._httpd.hang_up()
        self._httpd.server_close()
        self._thread.join()

    # what was asked

    @property
    def requests(self) -> Counter[str]:
        """Number of requests by path."""
        return Counter(asked.path for asked in self.asked)

    @property
    def ranges(self) -> list[tuple[str, str | None]]:
        """Path and Range header of each request."""
        return [(asked.path, asked.range) for asked in self.asked]

    @property
    def headers(self) -> list[Mapping[str, str]]:
        """Headers of each request, names in lower case."""
        return [asked.headers for asked in self.asked]

    def forget(self) -> None:
        """Count from nought."""
        self.asked.clear()

    # answering

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(time.monotonic(), handler.command, unquote(parts.path), parts.query, headers)
        with self._lock:
            self.asked.append(asked)
            faults = self.faults
            if not faults.where(asked.path) or faults.times == 0:
                faults = Faults()
            elif faults.times is not None:
                faults.times -= 1
        time.sleep(self.latency + faults.delay)
        made_up = self.reply(asked)
        if made_up is not None:
            _send(handler, made_up.status, made_up.body, dict(made_up.headers))
        elif not _misbehave(handler, faults, asked):
            self._serve(handler, faults, asked)

    def _serve(self, handler: BaseHTTPRequestHandler, faults: Faults, asked: Asked) -> None:
        file = self.root / asked.path.lstrip("/")
        if not file.is_file():
            _send(handler, 404, b"not here", {})
            return
        data = file.read_bytes()
        extra = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", "ETag": f'"{len(data)}"'}
        encoding = self.encoding(asked.path)
        if self.gzip_stored(asked.path):
            data, encoding = gzip.compress(data, mtime=0), "gzip"
        chunked, byte_range = self.chunked, asked.range
        if self.transcode and encoding == "gzip" and "gzip" not in asked.headers.get("accept-encoding", ""):
            data, encoding, chunked, byte_range = gzip.decompress(data), None, True, None
        if encoding:
            extra["Content-Encoding"] = encoding
        status = 200
        if byte_range and not faults.ignore_range:
            first, _, last = byte_range.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data) - 1), len(data) - 1)
            if start >= len(data):
                _send(handler, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            extra["Content-Range"] = f"bytes {start}-{stop}/{len(data)}"
            data, status = data[start : stop + 1], 206
        _send(handler, status, data, extra, faults=faults, chunked=chunked)


def _misbehave(handler: BaseHTTPRequestHandler, faults: Faults, asked: Asked) -> bool:
    if faults.reset:
        handler.close_connection = True
    elif faults.redirect_to:
        _send(handler, 302, b"", {"Location": faults.redirect_to + asked.path})
    elif faults.status:
        extra = {}
        if faults.retry_after is not None:
            ahead = formatdate(time.time() + faults.retry_after, usegmt=True)
            extra["Retry-After"] = ahead if faults.retry_as_date else f"{faults.retry_after:g}"
        _send(handler, faults.status, b"out of order", extra)
    elif faults.html:
        _send(
            handler, 200, HTML, {"Content-Type": "text/html", "ETag": '"h"', "Last-Modified": formatdate(usegmt=True)}
        )
    else:
        return False
    return True


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    data: bytes,
    extra: Mapping[str, str],
    *,
    faults: Faults | None = None,
    chunked: bool = False,
) -> None:
    faults = faults or Faults()
    lines = [f"HTTP/1.1 {status} {handler.responses[status][0] if status in handler.responses else 'Odd'}"]
    lines += [f"{name}: {value}" for name, value in extra.items()]
    lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data) + faults.lie_length}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    if handler.command == "HEAD":
        data = b""
    elif chunked:
        data = (f"{len(data):x}\r\n".encode() + data + b"\r\n" if data else b"") + b"0\r\n\r\n"
    if faults.cut_body or faults.stall or faults.lie_length:
        middle = len(data) // 2
        handler.wfile.write(head + data[:middle])
        time.sleep(faults.stall)
        handler.wfile.write(b"" if faults.cut_body else data[middle:])
        handler.close_connection = True
        return
    handler.wfile.write(head + data)
