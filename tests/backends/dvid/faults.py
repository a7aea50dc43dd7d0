"""Faults to switch on in an emulated server, and the record of what it was asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.backends.dvid.answers import Asked, Reply


def everywhere(asked: Asked) -> bool:
    """All requests."""
    return True


@dataclass
class Fault:
    """What goes wrong with requests that `where` accepts; `times` of None means always.

    Before the answer: `delay` in seconds, `status` with `text` instead of it (503 as of a throttled server by
    default), `reset` closes the connection, with a reset. To the answer: `cut` closes the connection half way
    through the body, `shorten` leaves bytes off its end but is framed well, `append` puts an error text behind a body
    whose status stays 200.
    """

    where: Callable[[Asked], bool] = everywhere
    times: int | None = None
    delay: float = 0.0
    status: int | None = None
    text: str = "Server already running 1 throttled operations (max = 1)\n\n"
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    cut: bool = False
    shorten: int = 0
    append: str = ""

    def instead(self) -> Reply | None:
        """An answer in place of the server's."""
        if self.reset:
            return Reply(None, reset=True)
        if self.status is None:
            return None
        headers = {"Content-Type": "text/plain; charset=utf-8", **self.headers}
        return Reply(self.status, self.text.encode(), headers)

    def spoil(self, reply: Reply) -> None:
        """Change an answer."""
        reply.body = reply.body[: len(reply.body) - self.shorten] + self.append.encode()
        if self.cut:
            reply.cut = len(reply.body) // 2


@dataclass(frozen=True)
class Seen:
    """One request and its answer; `status` of None: no answer."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    bytes_in: int
    status: int | None
    bytes_out: int


class Record:
    """What a server was asked, safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._now, self._most = 0, 0

    def enter(self) -> None:
        """A request begins."""
        with self._lock:
            self._now += 1
            self._most = max(self._most, self._now)

    def leave(self, asked: Asked, reply: Reply) -> None:
        """Its answer is ready."""
        seen = Seen(
            asked.method, asked.path, asked.query, asked.headers, len(asked.body), reply.status, len(reply.body)
        )
        with self._lock:
            self._now -= 1
            self._seen.append(seen)

    @property
    def requests(self) -> list[Seen]:
        """All requests so far, in order of their answers."""
        with self._lock:
            return list(self._seen)

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """Requests by method and path."""
        return Counter((seen.method, seen.path) for seen in self.requests)

    @property
    def bytes_in(self) -> int:
        """Bytes of request bodies."""
        return sum(seen.bytes_in for seen in self.requests)

    @property
    def bytes_out(self) -> int:
        """Bytes of reply bodies."""
        return sum(seen.bytes_out for seen in self.requests)

    @property
    def most_at_once(self) -> int:
        """The largest number of requests under way at the same time."""
        return self._most

    def forget(self) -> None:
        """Count from nought."""
        with self._lock:
            self._seen.clear()
            self._most = self._now
