"""A threaded HTTP/1.1 server on the loopback interface: keep-alive, whole answers in one send, any URL up to 1 MiB."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from types import TracebackType
from typing import Self

from tests.backends.dvid.answers import Asked, Reply

LONGEST_LINE = 1 << 20


class Loopback:
    """Serves what `answer` says until closed."""

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        class Handler(_Handler):
            reply = staticmethod(answer)

        self._httpd = _Server(Handler)
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._httpd.server_address[1])

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop serving and hang up."""
        self._httpd.shutdown()
        self._httpd.hang_up()
        self._httpd.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]  # a socket it is
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]  # a socket it is
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError | ValueError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # only printed

    def hang_up(self) -> None:
        """Close the connections that clients keep alive."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    reply: Callable[[Asked], Reply]

    def handle_one_request(self) -> None:
        """Read one request of any method, answer it, and say whether to go on."""
        try:
            self.raw_requestline = self.rfile.readline(LONGEST_LINE + 1)
            if len(self.raw_requestline) > LONGEST_LINE:
                self.requestline, self.request_version, self.command = "", "", ""
                self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                self.close_connection = True
            elif not self.raw_requestline:
                self.close_connection = True
            elif self.parse_request():
                self._respond()
        except TimeoutError:
            self.close_connection = True

    def _respond(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        target = self.raw_requestline.split()[1].decode("latin-1")
        reply = type(self).reply(Asked(self.command, target, headers, _body(self.rfile, headers)))
        try:
            self._send(reply)
        finally:
            reply.done()

    def _send(self, reply: Reply) -> None:
        if reply.status is None:
            if reply.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())
            self.close_connection = True
            return
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        body = b"" if self.command == "HEAD" else reply.body[: reply.cut]
        before, after = b"", b""
        if reply.chunked and self.command != "HEAD":
            lines.append("Transfer-Encoding: chunked")
            before = b"%x\r\n" % len(reply.body)
            after = b"\r\n0\r\n\r\n" if reply.cut is None else b""
        elif self.command != "HEAD" and reply.status != HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {len(reply.body)}")
        if reply.headers.get("Connection") == "close" or reply.cut is not None:
            self.close_connection = True
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        _send_parts(self.connection, [head + before, body, after])

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def _send_parts(connection: socket.socket, parts: list[bytes]) -> None:
    """Send all in one call where the system takes it, without joining large bodies."""
    left = [memoryview(part) for part in parts if part]
    while left:
        sent = connection.sendmsg(left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if left:
            left[0] = left[0][sent:]


def _body(stream: BufferedIOBase, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return stream.read(int(headers.get("content-length", 0)))
    pieces: list[bytes] = []
    while count := int(stream.readline().partition(b";")[0], 16):
        pieces.append(stream.read(count))
        stream.readline()
    while stream.readline().strip():
        continue
    return b"".join(pieces)
