"""Web servers through aiohttp, on one background event loop: slower than obstore, and able to read every answer.

Serves where obstore cannot: answers without Content-Length, servers that ignore ranges, servers that say when to
come back (Retry-After), headers that must not follow a redirect to another host, and processes made by fork.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import urllib.request
import weakref
from typing import TYPE_CHECKING, TypeVar

import aiohttp
from fsspec.asyn import get_loop
from yarl import URL

from storefs.errors import ServerFault, TooLong, TransportError
from storefs.plans import Body, Get, Head
from storefs.transport.faults import (
    BAD_REQUEST_STATUS,
    RANGE_STATUS,
    Again,
    WrongRegion,
    elsewhere,
    judge_aiohttp,
    judge_status,
)
from storefs.transport.retry import Patience, retry_after

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from storefs.transport.credentials import Access
    from storefs.transport.options import TransportOptions

T = TypeVar("T")

_WHOLE_STATUS = frozenset({200, 203})
_PART_STATUS = 206
_REDIRECT_STATUS = frozenset({301, 302, 303, 307, 308})
_REGION_HEADER = "x-amz-bucket-region"
_MAX_REDIRECTS = 10
_PIECE = 1 << 20
_MAX_BODY = 1 << 37


class HttpClient:
    """Fetches objects by URL, signed as `access` does.

    `headers` go with every request and, as they may hold secrets, to no other host.
    """

    def __init__(self, access: Access, options: TransportOptions, headers: Mapping[str, str] | None = None) -> None:
        self.access = access
        self.options = options
        self.headers = dict(headers or {})
        self._session: tuple[int, aiohttp.ClientSession] | None = None

    async def fetch_async(self, request: Get | Head, path: str, retries: int | None = None) -> Body | None:
        """The answer, None where absent, after `retries`, those of the options if None.

        Raises TransportError and its kinds, Denied, WrongRegion.
        """
        return await _on_background_loop(self._fetch(request, path, retries))

    async def bucket_region(self, url: str) -> str | None:
        """The region that the S3 server at `url`, the address of a bucket, says the bucket is in."""
        return await _on_background_loop(self._bucket_region(url))

    async def _bucket_region(self, url: str) -> str | None:
        async with self._open_session().request("HEAD", url, allow_redirects=False, proxy=_proxy(url)) as answer:
            return answer.headers.get(_REGION_HEADER)

    async def _fetch(self, request: Get | Head, path: str, retries: int | None) -> Body | None:
        patience = Patience(self.options.retries if retries is None else retries)
        while True:
            try:
                return await self._try(request, path)
            except Again as again:
                await asyncio.sleep(patience.wait(again))

    async def _try(self, request: Get | Head, path: str) -> Body | None:
        method = "HEAD" if isinstance(request, Head) else "GET"
        if self.access.signs_slowly:
            url, headers = await asyncio.to_thread(self.access.sign, method, path)
        else:
            url, headers = self.access.sign(method, path)
        headers = {"Accept-Encoding": "gzip", **self.headers, **headers}
        if isinstance(request, Get) and request.start is not None and request.stop is not None:
            # a range of a compressed answer would be a range of something else
            headers |= {"Range": f"bytes={request.start}-{request.stop - 1}", "Accept-Encoding": "identity"}
        shown = _without_query(url)
        try:
            return await self._follow(method, url, headers, request)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            # the cause may show a signed address
            raise judge_aiohttp(error, shown, self.options.timeout) from None

    async def _follow(self, method: str, url: str, headers: dict[str, str], request: Get | Head) -> Body | None:
        shown = _without_query(url)
        session = self._open_session()
        for _ in range(_MAX_REDIRECTS + 1):
            target = URL(url, encoded=True)
            async with session.request(
                method, target, headers=headers, allow_redirects=False, proxy=_proxy(url)
            ) as answer:
                location = answer.headers.get("Location")
                if answer.status not in _REDIRECT_STATUS or not location:
                    return await _read(answer, request, shown)
            onward = target.join(URL(location))
            if onward.scheme not in ("http", "https") or not onward.host:
                raise ServerFault(f"the server redirects to {onward.scheme}:, which is no web address", url=shown)
            if onward.origin() != target.origin():
                harmless = ("Range", "Accept-Encoding")
                headers = {name: headers[name] for name in harmless if name in headers}
            url = str(onward)
        raise ServerFault("the server redirects without end", url=shown)

    def _open_session(self) -> aiohttp.ClientSession:
        pid = os.getpid()
        if self._session is None or self._session[0] != pid:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=self.options.timeout, sock_read=self.options.timeout
            )
            session = aiohttp.ClientSession(auto_decompress=False, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
            weakref.finalize(self, close_session, session, asyncio.get_running_loop(), pid)
            self._session = pid, session
        return self._session[1]


async def _on_background_loop(work: Coroutine[object, object, T]) -> T:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, get_loop()))


async def _read(answer: aiohttp.ClientResponse, request: Get | Head, url: str) -> Body | None:
    status = answer.status
    ranged = isinstance(request, Get) and request.start is not None
    if isinstance(request, Head) and (status in _WHOLE_STATUS or status == _PART_STATUS):
        return Body(b"")
    if isinstance(request, Get) and (status in _WHOLE_STATUS or (status == _PART_STATUS and ranged)):
        return await _read_body(answer, request, url)
    if status == RANGE_STATUS and ranged:
        return Body(b"")
    region = answer.headers.get(_REGION_HEADER)
    if region and status in _REDIRECT_STATUS:
        raise WrongRegion(elsewhere(url), region)
    verdict = judge_status(status, answer.reason or "", url, wait=retry_after(answer.headers.get("Retry-After")))
    if region and status == BAD_REQUEST_STATUS and isinstance(verdict, TransportError):
        raise WrongRegion(verdict, region)
    if verdict is not None:
        raise verdict
    return None


async def _read_body(answer: aiohttp.ClientResponse, request: Get, url: str) -> Body:
    start, stop, limit = 0, _MAX_BODY, request.limit or _MAX_BODY
    if request.start is not None and request.stop is not None:
        limit = request.stop - request.start
        if answer.status != _PART_STATUS:  # the server ignores ranges: read past what was not asked for
            if answer.content_type == "text/html":
                raise ServerFault("the server answered with a web page instead of the bytes asked for", url=url)
            start, stop = request.start, request.stop
            limit = _MAX_BODY
        elif not (answer.headers.get("Content-Range") or "").startswith(f"bytes {request.start}-"):
            raise ServerFault("the server answered with other bytes than those asked for", url=url)
    if (answer.content_length or 0) > limit:
        raise TooLong(
            f"the object has {answer.content_length} bytes, more than the {limit} that this can take", url=url
        )
    pieces = bytearray()
    position = 0
    async for piece in answer.content.iter_chunked(_PIECE):
        skip = max(0, start - position)
        position += len(piece)
        pieces += piece[skip : max(skip, len(piece) - max(0, position - stop))]
        if position >= stop:
            break
        if position > limit:
            raise TooLong(f"the object is longer than the {limit} bytes that this can take", url=url)
    return Body(bytes(pieces), answer.headers.get("Content-Encoding"))


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for `url`."""
    parts = URL(url, encoded=True)
    if urllib.request.proxy_bypass(parts.host or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def close_session(session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop, pid: int) -> None:
    """Close a session of the background loop made in process `pid`, from whatever thread lets go of it."""
    if pid != os.getpid():
        # the parent's connections are not ours to close, nor to be closed by the garbage collector
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
    elif loop.is_running():
        asyncio.run_coroutine_threadsafe(session.close(), loop)
    elif session.connector is not None:
        session.connector.close()
