"""Buckets and web servers through obstore.

Adds to obstore: credentials tried in order, one retry policy that hears Retry-After, ranges of neighbouring chunks
merged into one request, the bucket's region found, and aiohttp where obstore cannot read the answer or must not run.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import obstore
from fsspec.asyn import get_loop
from obstore.exceptions import BaseError

from storefs.errors import Refused, TooLong, TransportError
from storefs.plans import Body, Get, Head, Names
from storefs.transport.faults import (
    RANGE_STATUS,
    Again,
    Denied,
    NeedsHttp,
    Signal,
    WrongRegion,
    judge_obstore,
    status_of,
)
from storefs.transport.ranges import RangeMerger
from storefs.transport.retry import Patience
from storefs.transport.ways import Way, Ways

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions

# obstore's runtime does not survive fork, so in a forked process aiohttp does all the work
_IMPORTED_IN = os.getpid()
# obstore does not say when a busy web server wants to be asked again
_SLOW_DOWN_WAIT = 1.0
# an answer without length may be the odd one out (a compressed info)
_MISFITS_UNTIL_HTTP = 2
_FORBIDDEN = 403


class ObjectTransport:
    """Reads the objects of one folder in a bucket or on a web server."""

    blocking = False
    local = False
    concurrency = 64

    def __init__(self, location: Location, options: TransportOptions) -> None:
        self.location = location
        self.options = options
        self._ways = Ways(location, options)
        self._merger = RangeMerger(self._get_range)
        self._pid = os.getpid()
        # headers may be secrets, and obstore hands them on where it is redirected
        self._plain = not options.query and not options.headers

    @property
    def url(self) -> str:
        """Address of the folder, without secrets."""
        return self.location.url

    def fetch(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer, fetched in this thread, which may be running an event loop of its own.

        Raises as `fetch_async` does.
        """
        if isinstance(request, Names):
            return None
        path = self.location.below(request.path)
        # the store that has answered before, where it is for this process and these options
        store = self._ways.store if self._plain and self._pid == os.getpid() == _IMPORTED_IN else None
        failed: Signal | None = None
        if store is not None:
            try:
                return self._ask_in_thread(store, request, path)
            except Signal as signal:
                failed = signal
        answer = asyncio.run_coroutine_threadsafe(self._go_on(request, path, failed), get_loop())
        try:
            return answer.result()
        except BaseException:
            answer.cancel()
            raise

    async def _go_on(self, request: Get | Head, path: str, failed: Signal | None) -> Body | None:
        """The answer, where a first try, if any, came to `failed`."""
        if self._pid != os.getpid():
            self._start_anew()
        return await self._ask(request, path, failed)

    async def fetch_async(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer; None where there is no such object. Raises Refused, TimedOut, ServerFault, TransportError."""
        if isinstance(request, Names):
            return None
        if self._pid != os.getpid():
            self._start_anew()
        path = self.location.below(request.path)
        if isinstance(request, Get) and request.start is not None and request.stop is not None:
            return await self._merger.fetch(path, request.start, request.stop)
        return await self._ask(request, path)

    def _start_anew(self) -> None:
        # the parent's locks may be held for ever; its clients are kept, as dropping them could disturb the parent
        self._inherited = self._ways
        self._ways = Ways(self.location, self.options)
        self._merger = RangeMerger(self._get_range)
        self._pid = os.getpid()

    async def _get_range(self, path: str, start: int, stop: int) -> Body | None:
        return await self._ask(Get(path, start, stop), path)

    async def _ask(self, request: Get | Head, path: str, failed: Signal | None = None) -> Body | None:
        ways = self._ways
        try:
            return await self._ask_ways(ways, request, path, failed)
        except WrongRegion as wrong:
            region = wrong.region or await ways.bucket_region()
            if region is None or region == ways.region:
                raise wrong.fault from None
            if self._ways is ways:
                self.options = replace(self.options, region=region)
                self._ways = Ways(self.location, self.options)
        try:
            return await self._ask_ways(self._ways, request, path)
        except WrongRegion as wrong:
            raise wrong.fault from None

    async def _ask_ways(self, ways: Ways, request: Get | Head, path: str, failed: Signal | None = None) -> Body | None:
        """Ask along the ways in until one is not refused; `failed` is what came of a first try along the current."""
        at = ways.current
        denied: Denied | None = None
        while True:
            way = await ways.at(at)
            if way is None:
                break
            try:
                body = await self._ask_along(way, request, path, failed)
            except Denied as refusal:
                denied, failed = refusal, None
                way.note = refusal.note
                if self._hides(way, refusal):
                    return None
            else:
                ways.let_in(at)
                return body
            at += 1
        raise Refused(_refusal(denied, ways.tried()), url=self._url(path))

    def _hides(self, way: Way, refusal: Denied) -> bool:
        """Whether a refusal along a way that was let in before only hides that there is no such object."""
        return self.options.forbidden == "missing" and way.proven and refusal.status == _FORBIDDEN

    async def _ask_along(self, way: Way, request: Get | Head, path: str, failed: Signal | None) -> Body | None:
        if os.getpid() != _IMPORTED_IN or way.plain_http or not self._plain:
            return await way.http.fetch_async(request, path)
        store = way.store()
        if store is None:
            return await way.http.fetch_async(request, path)
        patience = Patience(self.options.retries)
        while True:
            try:
                if failed is not None:
                    raise failed
                return await self._ask_obstore(store, request, path)
            except NeedsHttp:
                way.misfits += 1
                if way.misfits >= _MISFITS_UNTIL_HTTP:
                    self._ways.give_up_store(way)
                return await way.http.fetch_async(request, path)
            except Again as again:
                failed = None
                hears_more = again.slow_down and self.location.scheme in ("http", "https")
                await asyncio.sleep(patience.wait(again, _SLOW_DOWN_WAIT if hears_more else 0.0))
                if hears_more:
                    self._ways.give_up_store(way)
                    return await way.http.fetch_async(request, path)

    async def _ask_obstore(self, store: Any, request: Get | Head, path: str) -> Body | None:  # noqa: ANN401  # three kinds of store
        try:
            if isinstance(request, Head):
                await obstore.head_async(store, path)
                return Body(b"")
            if request.start is not None and request.stop is not None:
                data = await obstore.get_range_async(store, path, start=request.start, end=request.stop)
                return Body(memoryview(data))
            answer = await obstore.get_async(store, path)
            if request.limit is not None and answer.range[1] > request.limit:
                self._refuse_length(answer, request, path)
            data = await answer.bytes_async()
            return Body(memoryview(data), answer.attributes.get("Content-Encoding"))
        except (BaseError, OSError, ValueError) as error:
            return self._judge(error, request, path)

    def _ask_in_thread(self, store: Any, request: Get | Head, path: str) -> Body | None:  # noqa: ANN401  # three kinds of store
        try:
            if isinstance(request, Head):
                obstore.head(store, path)
                return Body(b"")
            if request.start is not None and request.stop is not None:
                return Body(memoryview(obstore.get_range(store, path, start=request.start, end=request.stop)))
            answer = obstore.get(store, path)
            if request.limit is not None and answer.range[1] > request.limit:
                self._refuse_length(answer, request, path)
            return Body(memoryview(answer.bytes()), answer.attributes.get("Content-Encoding"))
        except (BaseError, OSError, ValueError) as error:
            return self._judge(error, request, path)

    def _refuse_length(self, answer: Any, request: Get, path: str) -> NoReturn:  # noqa: ANN401  # obstore's answer
        """Raise TooLong: the body, which has not been read, is longer than it may be."""
        size = answer.range[1]
        message = f"the object has {size} bytes, more than the {request.limit} that this can take"
        raise TooLong(message, url=self._url(path))

    def _judge(self, error: Exception, request: Get | Head, path: str) -> Body | None:
        """What obstore's `error` stands for. Raises a Signal or a TransportError."""
        if isinstance(error, TransportError):
            raise error
        if status_of(error) == RANGE_STATUS and isinstance(request, Get) and request.start is not None:
            return Body(b"")
        verdict = judge_obstore(error, self._url(path), self.options.timeout)
        if verdict is not None:
            raise verdict from None
        return None

    def _url(self, path: str) -> str:
        return replace(self.location, path=path).url


def _refusal(denied: Denied | None, tried: str) -> str:
    status = denied.status if denied else "no way in"
    return (
        f"the server refused this ({status}); tried: {tried}. Check the address and the credentials; if the server "
        'answers so for objects that do not exist, pass forbidden="missing"'
    )
