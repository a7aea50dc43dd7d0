"""A real DVID server in the emulator's place: every request is passed on, recorded, and spoiled where a test says so.

What the emulator does by itself and a server only by command, or by being another release, is skipped.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlsplit

import pytest

from tests.backends.dvid.answers import Asked, Reply
from tests.backends.dvid.emulator import ADMIN_TOKEN
from tests.backends.dvid.faults import Fault, Record
from tests.backends.dvid.loopback import Loopback

SERVER_VARIABLE, TOKEN_VARIABLE = "DVID_TEST_SERVER", "DVID_ADMIN_TOKEN"
SERVER, TOKEN = os.environ.get(SERVER_VARIABLE, ""), os.environ.get(TOKEN_VARIABLE, "")
LIVE_NOT: Mapping[str, str] = MappingProxyType({"test_server": "types and note are those of a fresh emulator"})
PATIENCE = 120
SETTLING = 0.1  # sizes of labels follow some 20 ms behind the answer to a write
COUNTING = re.compile(r"mutate=true|/(raw|blocks|merge|cleave)(/|$)")
NOT_PASSED_ON = ("host", "connection", "content-length", "transfer-encoding", "expect")
NOT_PASSED_BACK = ("connection", "content-length", "transfer-encoding", "date")


class LiveServer:
    """Stands between a test and the server that DVID_TEST_SERVER names; a context manager like DvidEmulator.

    The example admin token becomes the one of DVID_ADMIN_TOKEN, which new repositories get in any case. Only the
    repositories made here are shown, so that tests do not see each other. `dead` says whether the server hung up.
    """

    def __init__(self, *, admin_needed: bool = True, latency: float = 0.0) -> None:
        self.faults: list[Fault] = []
        self.record = Record()
        self.dead = False
        self._server = urlsplit(SERVER)
        self._own: set[str] = set()
        self._loopback = Loopback(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loopback.close()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port` of this side."""
        return self._loopback.url

    @property
    def port(self) -> int:
        """Where this side listens."""
        return self._loopback.port

    @property
    def honours_ranges(self) -> bool:
        """That of today's server."""
        return True

    @honours_ranges.setter
    def honours_ranges(self, wanted: bool) -> None:
        if not wanted:
            pytest.skip("a server of today honours ranges")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        pytest.skip(f"{name}: only an emulator can do that")

    def _answer(self, asked: Asked) -> Reply:
        self.record.enter()
        reply = Reply(None)
        try:
            fault = next((f for f in self.faults if f.times != 0 and f.where(asked)), Fault())
            if fault.times is not None:
                fault.times -= 1
            reply = fault.instead() or self._pass_on(asked)
            fault.spoil(reply)
        finally:
            self.record.leave(asked, reply)
        return reply

    def _pass_on(self, asked: Asked) -> Reply:
        target = asked.target.replace(f"admintoken={ADMIN_TOKEN}", f"admintoken={quote(TOKEN)}")
        makes_repo = asked.method == "POST" and asked.sent_path == "/api/repos"
        if makes_repo and "admintoken" not in target:
            target += f"{'&' if asked.query else '?'}admintoken={quote(TOKEN)}"
        headers = {name: value for name, value in asked.headers.items() if name not in NOT_PASSED_ON}
        kind = http.client.HTTPSConnection if self._server.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._server.netloc, timeout=PATIENCE)
        try:
            body = asked.body or (b"" if asked.method in ("POST", "PUT") else None)
            connection.request(asked.method, target, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.dead = True
            return Reply(None)
        finally:
            connection.close()
        if answer.status == http.client.OK and COUNTING.search(asked.query + asked.path) and asked.method == "POST":
            time.sleep(SETTLING)
        if makes_repo and answer.status == http.client.OK:
            self._own.add(json.loads(content)["root"])
        if asked.path == "/api/repos/info":
            content = self._own_only(content)
        return _reply(asked, answer, content)

    def _own_only(self, content: bytes) -> bytes:
        repos: dict[str, Any] = json.loads(content)
        return json.dumps({root: repo for root, repo in repos.items() if root in self._own}).encode()


def _reply(asked: Asked, answer: http.client.HTTPResponse, content: bytes) -> Reply:
    kept = {name: value for name, value in answer.getheaders() if name.lower() not in NOT_PASSED_BACK}
    length = answer.getheader("Content-Length")
    if asked.method == "HEAD" and length is not None:
        kept["Content-Length"] = length
    return Reply(answer.status, content, kept, chunked=answer.getheader("Transfer-Encoding") == "chunked")
