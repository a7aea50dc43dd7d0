"""Web servers through aiohttp, on one background event loop: slower than obstore, and able to read every answer.

Serves where obstore cannot: answers without Content-Length, servers that ignore ranges, servers that say when to
come back (Retry-After), and processes made by fork.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import TYPE_CHECKING

import aiohttp
from fsspec.asyn import get_loop
from yarl import URL

from storefs.errors import Refused, ServerFault, TimedOut, TooLong, TransportError
from storefs.plan import Body, Get, Head, Names
from storefs.transport.retry import RETRIED_STATUS, delays, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from storefs.transport.options import TransportOptions

    Address = Callable[[str, str], tuple[str, dict[str, str]]]

OK, PARTIAL = 200, 206
ABSENT_STATUS = frozenset({404, 410})
REFUSED_STATUS = frozenset({401, 403, 407})
RANGE_STATUS = 416
_PIECE = 1 << 20
MAX_BODY = 1 << 37


class HttpClient:
    """Fetches objects by URL. `address(method, path)` gives the URL and the headers, signed where need be."""

    def __init__(
        self,
        address: Address,
        options: TransportOptions,
        tried: str = "no credentials",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.address = address
        self.options = options
        self.tried = tried
        self.headers = dict(headers or {})
        self._session: tuple[int, aiohttp.ClientSession] | None = None

    def fetch(self, request: Get | Head | Names, path: str) -> Body | None:
        """The answer, awaited in this thread."""
        return asyncio.run_coroutine_threadsafe(self._fetch(request, path), get_loop()).result()

    async def fetch_async(self, request: Get | Head | Names, path: str) -> Body | None:
        """The answer, awaited on the running event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._fetch(request, path), get_loop()))

    async def _fetch(self, request: Get | Head | Names, path: str) -> Body | None:
        """The answer, after retries. None where absent. Raises TransportError and its kinds."""
        if isinstance(request, Names):
            return None
        waits = delays(self.options.retries)
        while True:
            try:
                return await self._try(request, path)
            except _Again as again:
                wait = next(waits, None)
                if wait is None:
                    raise again.fault from again.__cause__
                await asyncio.sleep(max(wait, again.wait))

    async def _try(self, request: Get | Head, path: str) -> Body | None:
        method = "HEAD" if isinstance(request, Head) else "GET"
        url, headers = self.address(method, path)
        shown = url.partition("?")[0]
        if isinstance(request, Get) and request.start is not None and request.stop is not None:
            # a range of a compressed answer would be a range of something else
            headers = headers | {"Range": f"bytes={request.start}-{request.stop - 1}", "Accept-Encoding": "identity"}
        try:
            session = self._open_session()
            async with session.request(method, URL(url, encoded=True), headers=headers) as answer:
                return await self._read(answer, request, shown)
        except TimeoutError as error:
            raise _Again(TimedOut(f"no answer within {self.options.timeout:g} s", url=shown)) from error
        except aiohttp.TooManyRedirects as error:
            raise ServerFault("the server redirects without end", url=shown) from error
        except aiohttp.InvalidURL as error:
            raise TransportError("the address cannot be requested", url=shown) from error
        except aiohttp.ClientError as error:
            fault = ServerFault(f"the connection failed: {type(error).__name__}: {error}", url=shown)
            raise _Again(fault) from error

    async def _read(self, answer: aiohttp.ClientResponse, request: Get | Head, url: str) -> Body | None:
        status = answer.status
        if status in (OK, PARTIAL) and isinstance(request, Head):
            return Body(b"")
        if status == PARTIAL and (not isinstance(request, Get) or request.start is None):
            raise ServerFault("the server answered with a part of the whole that was asked for", url=url)
        if status in (OK, PARTIAL) and isinstance(request, Get):
            return await _read_body(answer, request, url)
        if status in ABSENT_STATUS or (status == HIDDEN_STATUS and self.options.forbidden == "missing"):
            return None
        if status == RANGE_STATUS:
            return Body(b"")
        if status in REFUSED_STATUS:
            raise Refused(refusal(status, self.tried), url=url)
        fault = ServerFault(f"the server answered {status} {answer.reason or ''}".rstrip(), url=url)
        if status in RETRIED_STATUS:
            raise _Again(fault, retry_after(answer.headers.get("Retry-After")))
        raise fault

    def _open_session(self) -> aiohttp.ClientSession:
        pid = os.getpid()
        if self._session is None or self._session[0] != pid:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=self.options.timeout, sock_read=self.options.timeout
            )
            headers = {"Accept-Encoding": "gzip", **self.headers}
            session = aiohttp.ClientSession(auto_decompress=False, timeout=timeout, headers=headers)
            weakref.finalize(self, _close_session, session, asyncio.get_running_loop(), pid)
            self._session = pid, session
        return self._session[1]


HIDDEN_STATUS = 403


class _Again(Exception):  # noqa: N818  # a signal, not a failure
    """Worth another try, after at least `wait` seconds; `fault` is what to raise if there is none."""

    def __init__(self, fault: TransportError, wait: float = 0.0) -> None:
        super().__init__(fault)
        self.fault = fault
        self.wait = wait


def refusal(status: int | str, tried: str) -> str:
    """What to say of a 401 or 403."""
    return (
        f"the server refused this ({status}); tried: {tried}. Check the address and the credentials; if the server "
        'answers so for objects that do not exist, pass forbidden="missing"'
    )


async def _read_body(answer: aiohttp.ClientResponse, request: Get, url: str) -> Body:
    encoding = answer.headers.get("Content-Encoding")
    start, stop, limit = 0, MAX_BODY, request.limit or MAX_BODY
    if request.start is not None and request.stop is not None:
        limit = request.stop - request.start
        if answer.status == OK:  # the server ignores ranges: read past what was not asked for
            start, stop = request.start, request.stop
            limit = stop
    pieces = bytearray()
    position = 0
    async for piece in answer.content.iter_chunked(_PIECE):
        skip = max(0, start - position)
        position += len(piece)
        pieces += piece[skip : max(skip, len(piece) - max(0, position - stop))]
        if position >= stop:
            break
        if position > limit:
            raise TooLong(f"the answer is longer than the {limit} bytes that this can take", url=url)
    return Body(bytes(pieces), encoding)


def _close_session(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if pid != os.getpid():
        return  # the parent's connections are not ours to close
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(session.close(), loop)
    elif session.connector is not None:
        session.connector.close()
