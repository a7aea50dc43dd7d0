"""Recorded exchanges of a real DVID server, served again byte for byte.

Reads and errors are looked up by what was asked. Groups whose order matters can be queued with `play`: each request
must then be the next one recorded. What was not recorded is answered with 501 and kept in `missed`.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.backends.dvid.answers import Asked, Reply
from tests.backends.dvid.loopback import Loopback

SEND_ANEW = ("transfer-encoding", "content-length")
Key = tuple[str, str, str, bytes, str]


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its answer."""

    folder: Path
    data: dict[str, Any]

    def __str__(self) -> str:
        return str(self.data["id"])

    def _body(self, side: str) -> bytes:
        name = self.data[f"{side}_body_file"]
        if name is None:
            return b""
        content = (self.folder / name).read_bytes()
        return gzip.decompress(content) if name.endswith(".gz") else content

    @cached_property
    def request_body(self) -> bytes:
        """As sent, chunks undone."""
        return self._body("request")

    @cached_property
    def body(self) -> bytes:
        """As answered, chunks undone."""
        return self._body("response")

    @property
    def status(self) -> int | None:
        """None where the server closed the connection."""
        status: int | None = self.data["status"]
        return status

    @property
    def target(self) -> str:
        """Path and query as sent."""
        query = self.data["query"]
        return str(self.data["path"]) + (f"?{query}" if query else "")

    @cached_property
    def key(self) -> Key:
        """What tells requests apart."""
        sent = {name.lower(): value for name, value in self.data["request_headers"].items()}
        return self.data["method"], self.data["path"], self.data["query"], self.request_body, sent.get("range", "")

    @property
    def reply(self) -> Reply:
        """The answer to send."""
        given = self.data["response_headers"] or {}
        whole = {name: value for name, value in given.items() if name.lower() not in SEND_ANEW}
        if self.data["method"] == "HEAD" and "Content-Length" in given:
            whole["Content-Length"] = given["Content-Length"]
        return Reply(self.status, self.body, whole)


def load(folder: Path, *groups: str) -> list[Exchange]:
    """Exchanges of the groups named, all without names, in the order they were made."""
    lines = (folder / "exchanges.jsonl").read_text().splitlines()
    found = [Exchange(folder, json.loads(line)) for line in lines]
    return [exchange for exchange in found if not groups or exchange.data["group"] in groups]


class ReplayServer:
    """Serves recorded exchanges on the loopback interface; a context manager."""

    def __init__(self, folder: Path, *groups: str) -> None:
        self._folder = folder
        self._known: dict[Key, Exchange] = {}
        for exchange in load(folder, *(groups or ("read", "error"))):
            self._known.setdefault(exchange.key, exchange)
        self._queue: deque[Exchange] = deque()
        self._lock = threading.Lock()
        self.served: list[Exchange] = []
        self.missed: list[Asked] = []
        self._server = Loopback(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return self._server.url

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def play(self, *groups: str) -> None:
        """Expect the exchanges of these groups next, in order."""
        with self._lock:
            self._queue.extend(load(self._folder, *groups))

    def expect(self, exchange: Exchange) -> None:
        """Expect one exchange next."""
        with self._lock:
            self._queue.append(exchange)

    @property
    def waiting(self) -> list[Exchange]:
        """Exchanges expected and not yet asked for."""
        with self._lock:
            return list(self._queue)

    def _answer(self, asked: Asked) -> Reply:
        key = (asked.method, asked.sent_path, asked.query, asked.body, asked.headers.get("range", ""))
        with self._lock:
            found = self._known.get(key)
            if self._queue:
                found = self._queue.popleft() if self._queue[0].key == key else None
            if found is None:
                self.missed.append(asked)
                return Reply(501, f"not recorded: {asked.method} {asked.target}\n".encode())
            self.served.append(found)
        return found.reply
