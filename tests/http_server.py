"""A web server over a folder that can misbehave. Shares no code with the product."""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Faults:
    """What goes wrong, for paths that `where` accepts; `times` of None means always."""

    where: Callable[[str], bool] = lambda path: False
    status: int | None = None
    times: int | None = None
    retry_after: str | None = None
    delay: float = 0.0
    cut_body: bool = False
    reset: bool = False
    html: bool = False
    ignore_range: bool = False
    lie_length: int = 0
    redirect_to: str | None = None


@dataclass
class FolderServer:
    """Serves `root`; `faults` may be changed at any time. Counts requests by path."""

    root: Path
    faults: Faults = field(default_factory=Faults)
    gzip_stored: Callable[[str], bool] = lambda path: False
    chunked: bool = False
    requests: Counter[str] = field(default_factory=Counter)
    ranges: list[tuple[str, str | None]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.answer(self, body=True)

            def do_HEAD(self) -> None:
                owner.answer(self, body=False)

            def log_message(self, *args: object) -> None:
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Address of the folder."""
        return f"http://127.0.0.1:{self._httpd.server_address[1]}"

    def close(self) -> None:
        """Stop serving."""
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        byte_range = handler.headers.get("Range")
        self.requests[path] += 1
        self.ranges.append((path, byte_range))
        self.headers.append(dict(handler.headers))
        faults = self.faults
        if faults.where(path) and (faults.times is None or faults.times > 0):
            if faults.times is not None:
                faults.times -= 1
            if self._misbehave(handler, faults, path):
                return
        else:
            faults = Faults()
        self._serve(handler, path, byte_range, faults, body=body)

    def _misbehave(self, handler: BaseHTTPRequestHandler, faults: Faults, path: str) -> bool:
        time.sleep(faults.delay)
        if faults.reset:
            handler.connection.close()
            handler.close_connection = True
        elif faults.redirect_to:
            _send(handler, 302, b"", {"Location": faults.redirect_to + path})
        elif faults.status:
            extra = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            _send(handler, faults.status, b"out of order", extra)
        elif faults.html:
            _send(handler, 200, b"<!DOCTYPE html><html><body>please log in</body></html>", {"Content-Type": "text/html"})
        else:
            return False
        return True

    def _serve(
        self, handler: BaseHTTPRequestHandler, path: str, byte_range: str | None, faults: Faults, *, body: bool
    ) -> None:
        file = self.root / path.lstrip("/")
        if not file.is_file():
            _send(handler, 404, b"not here", {})
            return
        data = file.read_bytes()
        extra = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", "ETag": f'"{len(data)}"'}
        if self.gzip_stored(path):
            data = gzip.compress(data, mtime=0)
            extra["Content-Encoding"] = "gzip"
        status = 200
        if byte_range and not faults.ignore_range:
            first, _, last = byte_range.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data) - 1), len(data) - 1)
            if start >= len(data):
                _send(handler, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            extra["Content-Range"] = f"bytes {start}-{stop}/{len(data)}"
            data, status = data[start : stop + 1], 206
        if faults.cut_body:
            handler.send_response(status)
            for name, value in extra.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[: len(data) // 2])
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.close()
            return
        if self.chunked:
            handler.send_response(status)
            for name, value in extra.items():
                handler.send_header(name, value)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            if body and data:
                handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            handler.wfile.write(b"0\r\n\r\n")
            return
        _send(handler, status, data, extra, body=body)


def _send(handler: BaseHTTPRequestHandler, status: int, data: bytes, extra: dict[str, str], *, body: bool = True) -> None:
    handler.send_response(status)
    for name, value in extra.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    if body:
        handler.wfile.write(data)
