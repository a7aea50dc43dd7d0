"""Web servers of tiles, each on a port of its own, good and bad. Share no code with the product."""

from __future__ import annotations

import base64
import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, urlencode

from tests.backends.dvid.answers import Asked, Reply
from tests.backends.dvid.faults import Fault, Record, Seen
from tests.backends.dvid.loopback import Loopback

CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "tif": "image/tiff",
}
PAGE = b"<!DOCTYPE html><html><head><title>Log in</title></head><body><form></form></body></html>"


def basic(user: str, password: str) -> str:
    """The Authorization header of a user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def canonical(target: str) -> str:
    """Path and query with the query's names sorted, as their order means nothing."""
    path, _, query = target.lstrip("/").partition("?")
    return f"{path}?{urlencode(sorted(parse_qsl(query, keep_blank_values=True)))}" if query else path


@dataclass
class TileHost:
    """Serves `files` (bytes by path and query, no slash in front) on the loopback interface; a context manager.

    What is not there is answered with 404, or with `black` and 200 where that is set. `latency` seconds pass before
    each answer. `login` (user, password) is asked for with 401 where it does not come. `content_type` overrides what
    the name says; None sends none. `gzipped` wraps every body in Content-Encoding gzip. `page` answers every request
    with a web page and 200. `redirect_to` sends every request to another host. `dies_after` so many answers it hangs
    up on everybody. The first of `faults` that accepts a request counts. All may be changed at any time.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    latency: float = 0.0
    black: bytes | None = None
    login: tuple[str, str] | None = None
    content_type: Callable[[str], str | None] | None = None
    gzipped: bool = False
    page: bool = False
    redirect_to: str | None = None
    dies_after: int | None = None
    faults: list[Fault] = field(default_factory=list)
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._server = Loopback(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return self._server.url

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Serve more files; queries stand behind `folder` without a slash."""
        self.files |= {
            canonical(f"{folder}{'' if at.startswith('?') else '/'}{at}"): data for at, data in files.items()
        }

    @property
    def seen(self) -> list[Seen]:
        """Requests so far."""
        return self.record.requests

    @property
    def asked(self) -> list[str]:
        """Paths and queries of the requests so far, as `files` has them."""
        return [canonical(f"{seen.path}?{seen.query}" if seen.query else seen.path) for seen in self.seen]

    def forget(self) -> None:
        """Count from nought."""
        self.record.forget()

    def _answer(self, asked: Asked) -> Reply:
        self.record.enter()
        reply = Reply(None)
        try:
            reply = self._reply(asked)
        finally:
            self.record.leave(asked, reply)
        return reply

    def _reply(self, asked: Asked) -> Reply:
        time.sleep(self.latency)
        with self._lock:
            if self.dies_after is not None:
                self.dies_after -= 1
                if self.dies_after < 0:
                    return Reply(None, reset=True)
            fault = next((fault for fault in self.faults if fault.times != 0 and fault.where(asked)), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
        if fault is not None:
            time.sleep(fault.delay)
            instead = fault.instead()
            if instead is not None:
                return instead
        reply = self._served(asked)
        if fault is not None:
            fault.spoil(reply)
        return reply

    def _served(self, asked: Asked) -> Reply:
        if self.login is not None and asked.headers.get("authorization") != basic(*self.login):
            challenge = {"WWW-Authenticate": 'Basic realm="tiles"', "Content-Type": "text/html"}
            return Reply(401, b"<html>401 Authorization Required</html>", challenge)
        if self.redirect_to is not None:
            return Reply(302, b"", {"Location": self.redirect_to + asked.target})
        if self.page:
            return Reply(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})
        at = canonical(asked.path + (f"?{asked.query}" if asked.query else ""))
        body = self.files.get(at)
        if body is None and self.black is None:
            return Reply(404, b"<html>404 Not Found</html>", {"Content-Type": "text/html"})
        extension = at.partition("?")[0].rpartition(".")[2] if body is not None else "jpg"
        told = CONTENT_TYPES.get(extension, "application/octet-stream")
        content_type = told if self.content_type is None else self.content_type(at)
        headers = {} if content_type is None else {"Content-Type": content_type}
        body = body if body is not None else self.black or b""
        if self.gzipped:
            body, headers["Content-Encoding"] = gzip.compress(body, mtime=0), "gzip"
        return Reply(200, body, headers)


@contextlib.contextmanager
def dead_host() -> Iterator[str]:
    """The address of a port where nothing listens, and nothing else can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
