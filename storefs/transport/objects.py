"""Buckets and web servers through obstore.

Adds to obstore: credentials tried in order, one retry policy that hears Retry-After, ranges of neighbouring chunks
merged into one request, and aiohttp where obstore cannot read the answer or must not run.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import (
    BaseError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)

from storefs.errors import Refused, ServerFault, TimedOut, TooLong, TransportError
from storefs.plan import Body, Get, Head, Names
from storefs.transport.credentials import Access, accesses, expanded
from storefs.transport.http import HIDDEN_STATUS, RANGE_STATUS, HttpClient, refusal
from storefs.transport.ranges import RangeMerger
from storefs.transport.retry import RETRIED_STATUS, delays

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions

# obstore's runtime does not survive fork, so in a forked process aiohttp does all the work
_IMPORTED_IN = os.getpid()
_STATUS = re.compile(r"status code: (\d{3})")
_REFUSAL = re.compile(r"\b(40[137])\b")
_SLOW_DOWN = frozenset({429, 503})


class ObjectTransport:
    """Reads the objects of one folder in a bucket or on a web server."""

    blocking = False

    def __init__(self, location: Location, options: TransportOptions) -> None:
        self.location = location
        self.options = options
        self._ways = _Ways(location, options)
        self._merger = RangeMerger(self._get_range)

    @property
    def url(self) -> str:
        """Address of the folder, without secrets."""
        return self.location.url

    def fetch(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer, awaited in this thread."""
        return asyncio.run(self.fetch_async(request))

    async def fetch_async(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer; None where there is no such object. Raises Refused, TimedOut, ServerFault, TransportError."""
        if isinstance(request, Names):
            return None
        path = self.location.below(request.path)
        if isinstance(request, Get) and request.start is not None and request.stop is not None:
            return await self._merger.fetch(path, request.start, request.stop)
        return await self._ask(request, path)

    async def _get_range(self, path: str, start: int, stop: int) -> Body | None:
        return await self._ask(Get(path, start, stop), path)

    async def _ask(self, request: Get | Head, path: str) -> Body | None:
        """Ask along the ways in until one is not refused."""
        refused: Refused | None = None
        for way in self._ways.from_current():
            try:
                body = await self._ask_along(way, request, path)
            except Refused as error:
                refused = error
            else:
                self._ways.keep(way)
                return body
        if self.options.forbidden == "missing" and refused is not None and str(HIDDEN_STATUS) in refused.message:
            return None
        raise Refused(refusal(*self._ways.refused(refused)), url=self._url(path)) from refused

    async def _ask_along(self, way: _Way, request: Get | Head, path: str) -> Body | None:
        if os.getpid() != _IMPORTED_IN or way.plain_http or self.options.query:
            return await way.http.fetch_async(request, path)
        waits = delays(self.options.retries)
        while True:
            try:
                return await _ask_obstore(way.access.store, request, path, self._url(path))
            except _NeedsHttp:
                way.plain_http = True
                return await way.http.fetch_async(request, path)
            except _Again as again:
                wait = next(waits, None)
                if wait is None:
                    raise again.fault from again.__cause__
                await asyncio.sleep(wait)
                if again.slow_down:  # only a plain HTTP client sees for how long
                    return await way.http.fetch_async(request, path)

    def _url(self, path: str) -> str:
        return f"{self.location.scheme}://{self.location.root}/{path}"


class _Way:
    """One way in, and what has been learnt about it."""

    def __init__(self, access: Access, options: TransportOptions) -> None:
        self.access = access
        self.plain_http = False
        self.http = HttpClient(access.address, options, access.label, expanded(options.headers))


class _Ways:
    """The ways in, looked for only as far as needed; the first that is not refused is kept."""

    def __init__(self, location: Location, options: TransportOptions) -> None:
        self._options = options
        self._untried: Iterator[Access | str] = accesses(location, options)
        self._lock = threading.Lock()
        self._found: list[_Way] = []
        self._notes: list[str] = []
        self._current = 0

    def from_current(self) -> Iterator[_Way]:
        """The way kept, then those behind it."""
        at = self._current
        while True:
            way = self._at(at)
            if way is None:
                return
            yield way
            at += 1

    def _at(self, position: int) -> _Way | None:
        with self._lock:
            while len(self._found) <= position:
                item = next(self._untried, None)
                if item is None:
                    return None
                if isinstance(item, str):
                    self._notes.append(item)
                else:
                    self._found.append(_Way(item, self._options))
            return self._found[position]

    def keep(self, way: _Way) -> None:
        """Start with `way` from now on."""
        self._current = self._found.index(way)

    def refused(self, last: Refused | None) -> tuple[str, str]:
        """Status and what was tried, for the message."""
        status = _REFUSAL.search(last.message) if last else None
        tried = [way.access.label for way in self._found] + self._notes
        return (status.group(1) if status else "no access"), "; ".join(tried)


class _NeedsHttp(Exception):  # noqa: N818  # a signal, not a failure
    """obstore cannot read this server's answers."""


class _Again(Exception):  # noqa: N818  # a signal, not a failure
    """Worth another try; `fault` is what to raise if there is none."""

    def __init__(self, fault: TransportError, *, slow_down: bool = False) -> None:
        super().__init__(fault)
        self.fault = fault
        self.slow_down = slow_down


async def _ask_obstore(store: Any, request: Get | Head, path: str, url: str) -> Body | None:  # noqa: ANN401  # three kinds of store
    try:
        if isinstance(request, Head):
            await obstore.head_async(store, path)
            return Body(b"")
        if request.start is not None and request.stop is not None:
            data = await obstore.get_range_async(store, path, start=request.start, end=request.stop)
            return Body(memoryview(data))
        answer = await obstore.get_async(store, path)
        size = answer.meta["size"]
        if request.limit is not None and size > request.limit:
            raise TooLong(f"the object has {size} bytes, more than the {request.limit} that this can take", url=url)
        data = await answer.bytes_async()
        return Body(memoryview(data), answer.attributes.get("Content-Encoding"))
    except (NotFoundError, FileNotFoundError):
        return None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise Refused(_first_line(error), url=url) from error
    except NotSupportedError as error:
        raise _NeedsHttp from error
    except BaseError as error:
        return _judge(error, url)


def _judge(error: BaseError, url: str) -> Body:
    """What an unclassified failure of obstore means; it says so in words only. One table."""
    text = str(error)
    found = _STATUS.search(text)
    status = int(found.group(1)) if found else None
    if status == RANGE_STATUS:
        return Body(b"")
    if status in RETRIED_STATUS:
        fault = ServerFault(f"the server answered {_first_line(error)}", url=url)
        raise _Again(fault, slow_down=status in _SLOW_DOWN) from error
    if status is not None:
        raise ServerFault(f"the server answered {_first_line(error)}", url=url) from error
    if "header missing" in text.lower() or "Missing" in text:
        raise _NeedsHttp from error
    if "without LOCATION" in text:
        message = "the bucket lives in another region: pass region=…, such as region='eu-west-1'"
        raise TransportError(message, url=url) from error
    if "kind: Timeout" in text or "TimedOut" in text:
        raise _Again(TimedOut("no answer in time", url=url)) from error
    raise _Again(ServerFault(f"the connection failed: {_first_line(error)}", url=url)) from error


def _first_line(error: Exception) -> str:
    """The telling part of an obstore message: no debug dump, no address."""
    line = str(error).partition("\n")[0]
    _, found, rest = line.rpartition("status code: ")
    return f"status code: {rest}" if found else line.rpartition(" - ")[2]
