"""A web service with an API of its own (DVID, CATMAID), through aiohttp on one background event loop.

Answers come back whatever their status; only what never reached an answer is raised here. A busy server (503) is
asked again until `retry_timeout`, with a warning on the way; lost answers only where asking twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp
from fsspec.asyn import get_loop
from yarl import URL

from storefs.errors import ServerFault, UrlError
from storefs.plans import Call, Reply
from storefs.transport.faults import Again, judge_aiohttp
from storefs.transport.http import close_session
from storefs.transport.retry import FIRST_DELAY, LONGEST_DELAY, Patience

_LOG = logging.getLogger("storefs")
_BUSY = 503
_FLAKY = frozenset({500, 502, 504})
_SUCCESS = frozenset({200, 206})
_PIECE = 1 << 20
_MAX_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How to reach a service. `headers` and `query` go with every request, to this server alone, and never show.

    `timeout` (seconds) bounds the wait for a connection and between two pieces of an answer. A busy server is asked
    again for `retry_timeout` seconds, with a warning every `warning_interval`; `retries` bounds the rest, which are
    lost answers and those of a status in `flaky`.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 120.0
    retries: int = 3
    retry_timeout: float = 60.0
    warning_interval: float = 30.0
    flaky: frozenset[int] = _FLAKY


class ServiceTransport:
    """Asks one server. Thread-safe; connections are kept per process."""

    blocking = True
    local = False
    concurrency = 16

    def __init__(self, server: str, url: str, options: ServiceOptions) -> None:
        self.server = server.rstrip("/")
        self.url = url
        self.options = options
        self._session: tuple[int, aiohttp.ClientSession] | None = None

    def connect(self, url: str) -> ServiceTransport:
        """Services do not redirect volumes. Raises UrlError."""
        raise UrlError(f"cannot go on to {url}", url=self.url)

    def fetch(self, request: Call) -> Reply:
        """The answer, awaited in this thread. Raises TimedOut, ServerFault, TransportError."""
        future = asyncio.run_coroutine_threadsafe(self._fetch(request), get_loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def fetch_async(self, request: Call) -> Reply:
        """The answer, awaited on the running event loop. Raises TimedOut, ServerFault, TransportError."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._fetch(request), get_loop()))

    async def _fetch(self, request: Call) -> Reply:
        patience, busy = Patience(self.options.retries), _Busy(self.server, self.options)
        once = isinstance(request.body, Iterator)
        repeatable = request.repeatable and not once
        while True:
            try:
                reply = await self._ask(request)
            except Again as again:
                if not repeatable:
                    raise again.fault from again.__cause__
                await asyncio.sleep(patience.wait(again))
                continue
            if reply.status == _BUSY and not once and busy.may_wait():
                await asyncio.sleep(busy.wait())
            elif reply.status in self.options.flaky and repeatable and patience.left:
                await asyncio.sleep(
                    patience.wait(Again(ServerFault(f"the server answered {reply.status}", url=self.url)))
                )
            else:
                return reply

    async def _ask(self, call: Call) -> Reply:
        path = "/".join(quote(segment, safe="") for segment in call.path)
        query = "&".join(
            f"{quote(k, safe='')}={quote(v, safe=',')}" for k, v in (*call.query, *self.options.query.items())
        )
        shown = f"{self.server}/{path}"
        url = URL(f"{shown}?{query}" if query else shown, encoded=True)
        mistakes: list[Exception] = []
        try:
            body, headers = _body(call, mistakes)
            async with self._open_session().request(
                call.method, url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                data = await _read(answer, call, shown)
                return Reply(answer.status, data, answer.content_type or "", answer.headers.get("Content-Range", ""))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if mistakes:
                raise mistakes[0] from None
            # the cause may show a token in the query
            raise judge_aiohttp(error, shown, self.options.timeout) from None

    def _open_session(self) -> aiohttp.ClientSession:
        pid = os.getpid()
        if self._session is None or self._session[0] != pid:
            wait = self.options.timeout
            session = aiohttp.ClientSession(
                headers=dict(self.options.headers),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=wait, sock_read=wait),
                connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS),
            )
            weakref.finalize(self, close_session, session, asyncio.get_running_loop(), pid)
            self._session = pid, session
        return self._session[1]


class _Busy:
    """Waits for a busy server, with a warning now and then."""

    def __init__(self, server: str, options: ServiceOptions) -> None:
        self._server = server
        self._options = options
        self._started = self._warned = time.monotonic()
        self._delay = FIRST_DELAY

    def may_wait(self) -> bool:
        """Whether there is time left to wait."""
        return time.monotonic() - self._started < self._options.retry_timeout

    def wait(self) -> float:
        """Seconds to wait before the next try: doubling, with jitter."""
        now = time.monotonic()
        if now - self._warned >= self._options.warning_interval:
            self._warned = now
            _LOG.warning("%s is busy, still trying after %.0f s", self._server, now - self._started)
        self._delay = min(LONGEST_DELAY, 2 * self._delay)
        return self._delay * random.SystemRandom().uniform(0.25, 0.5)


def _body(
    call: Call, mistakes: list[Exception]
) -> tuple[bytes | memoryview | AsyncIterator[bytes | memoryview] | None, dict[str, str]]:
    """What aiohttp is to send; long bodies in pieces, so that others on the event loop get their turn.

    What the maker of pieces raises goes to `mistakes`, as aiohttp does not tell it from a broken connection.
    """
    headers = dict(call.headers)
    if call.body is None:
        return None, headers
    if not isinstance(call.body, bytes | memoryview):
        return _in_thread(call.body, mistakes), headers
    view = memoryview(call.body).cast("B")
    if view.nbytes <= _PIECE:
        return call.body, headers
    return _pieces(view), headers | {"Content-Length": str(view.nbytes)}


async def _pieces(view: memoryview) -> AsyncIterator[memoryview]:
    for start in range(0, view.nbytes, _PIECE):
        yield view[start : start + _PIECE]


async def _in_thread(pieces: Iterable[bytes], mistakes: list[Exception]) -> AsyncIterator[bytes]:
    """`pieces`, each made in a worker thread, as making it may take long."""
    source = iter(pieces)
    while True:
        try:
            piece = await asyncio.to_thread(next, source, None)
        except Exception as mistake:
            mistakes.append(mistake)
            raise
        if piece is None:
            return
        yield piece


async def _read(answer: aiohttp.ClientResponse, call: Call, url: str) -> bytes:
    into = call.into if answer.status in _SUCCESS else None
    if call.limit is None and into is None:
        return await answer.read()
    pieces: list[bytes] = []
    length = 0
    if into is not None:
        into.restart()
    async for piece in answer.content.iter_any():
        length += len(piece)
        if call.limit is not None and length > call.limit:
            raise ServerFault(f"the answer is longer than the {call.limit} bytes that this can take", url=url)
        if into is None:
            pieces.append(piece)
        else:
            await asyncio.to_thread(into.write, piece)
    return b"".join(pieces)
