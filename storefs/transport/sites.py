"""A volume spread over several hosts: a web service that describes it, and the sites that hold its images.

The service's credentials stay with the service. A site sees those given for it, or none. Images are kept as they came,
bounded in bytes, and so many are fetched at a time as `concurrency` says.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from storefs.errors import StorefsError, TransportError, UrlError
from storefs.once import OnceCache
from storefs.plans import At, Call, Get, Head, Race, Reply, Request
from storefs.transport.faults import timed_out
from storefs.transport.files import FileTransport
from storefs.transport.location import Location
from storefs.transport.options import TransportOptions
from storefs.transport.service import ServiceTransport
from storefs.transport.site import Bucket, Files, Found, Site, WebSite, awaited

DEFAULT_CONCURRENCY = 32
DEFAULT_CACHE_BYTES = 64 << 20

_KEPT_OVERHEAD = 512


class Sites:
    """Asks the service by Call, and any site by At, or by Get and Head of a whole address.

    `accounts` are the headers to send where a request names one. `files` says that files of this machine may be read:
    never where addresses come from the network. `local` says that there is nothing else to read. Thread-safe;
    connections are kept per site and process.
    """

    def __init__(
        self,
        service: ServiceTransport | None,
        url: str,
        options: TransportOptions,
        accounts: Mapping[str, Mapping[str, str]] | None = None,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        files: bool = False,
        local: bool = False,
    ) -> None:
        self.url = url
        self.blocking = self.local = local
        self.concurrency = FileTransport.concurrency if local else concurrency
        self._service = service
        self._impatient = None if service is None else _impatient(service)
        # headers and query are meant for the service
        self._options = replace(options, headers={}, query="")
        self._accounts = accounts or {}
        self._files = files
        self._cache = OnceCache(cache_bytes) if cache_bytes else None
        self._sites: dict[tuple[str, str], Site] = {}
        self._thread_gate = os.getpid(), threading.Semaphore(self.concurrency)
        self._gates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    def connect(self, url: str) -> Sites:
        """Services do not redirect volumes. Raises UrlError."""
        raise UrlError(f"cannot go on to {url}", url=self.url)

    def clear(self) -> None:
        """Forget the images that are kept."""
        if self._cache is not None:
            self._cache.clear()

    def fetch(self, request: Request) -> Any:  # noqa: ANN401  # answers differ by request
        """The answer, fetched in this thread. Raises Refused, TimedOut, ServerFault, TransportError."""
        match request:
            case At():
                return self._image_in_thread(request)
            case Get() | Head():
                return self._image_in_thread(At(request))
        return awaited(self.fetch_async(request))

    async def fetch_async(self, request: Request) -> Any:  # noqa: ANN401  # answers differ by request
        """The answer: a Body or None, a Reply, or pairs for a Race. Raises as `fetch` does."""
        match request:
            case At():
                return await self._image(request)
            case Get() | Head():
                return await self._image(At(request))
            case Call():
                return await self._call(request, self._service)
            case Race():
                return tuple(await asyncio.gather(*(self._timed(one, request.timeout) for one in request.requests)))
        return None  # nothing can be listed

    def _image_in_thread(self, at: At) -> Found:
        site, request = self._site(at), at.request
        if not _is_image(site, request):
            return site.fetch(request)

        def ask() -> _Kept:
            with self._gate_of_threads():
                return _Kept(site.fetch(request))

        if self._cache is None:
            return ask().body
        kept: _Kept = self._cache.get((at.account, request.path), ask)
        return kept.body

    async def _image(self, at: At) -> Found:
        site, request = self._site(at), at.request
        if not _is_image(site, request):
            return await site.fetch_async(request)

        async def ask() -> _Kept:
            async with self._gate():
                return _Kept(await site.fetch_async(request))

        if self._cache is None:
            return (await ask()).body
        kept: _Kept = await self._cache.get_async((at.account, request.path), ask)
        return kept.body

    def _gate(self) -> asyncio.Semaphore:
        # a semaphore belongs to one event loop
        return self._gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.concurrency))

    def _gate_of_threads(self) -> threading.Semaphore:
        pid, gate = self._thread_gate
        if pid != os.getpid():
            # the parent's threads hold theirs for ever
            gate = threading.Semaphore(self.concurrency)
            self._thread_gate = os.getpid(), gate
        return gate

    async def _call(self, call: Call, service: ServiceTransport | None) -> Reply:
        if service is None:
            message = f"there is no server to ask for /{'/'.join(call.path)}: the stack was opened from its info alone"
            raise TransportError(message, url=self.url)
        return await service.fetch_async(call)

    async def _timed(self, request: Request, patience: float | None) -> tuple[Any, float]:
        started = time.monotonic()
        answer: Any
        try:
            if patience is None:
                answer = await self.fetch_async(request)
            else:
                answer = await asyncio.wait_for(self._try(request), patience)
        except TimeoutError as error:
            own = isinstance(error, StorefsError)
            answer = error if own else timed_out(_shown(request) or self.url, patience or self._options.timeout)
        except StorefsError as error:
            answer = error
        return answer, time.monotonic() - started

    async def _try(self, request: Request) -> Any:  # noqa: ANN401  # answers differ by request
        match request:
            case At():
                return await self._site(request).try_async(request.request)
            case Get() | Head():
                return await self._site(At(request)).try_async(request)
            case Call():
                return await self._call(request, self._impatient)
        return await self.fetch_async(request)

    def _site(self, at: At) -> Site:
        scheme, found, rest = at.request.path.partition("://")
        root = rest.partition("/")[0]
        key = f"{scheme}://{root}", at.account
        site = self._sites.get(key)
        if site is not None:
            return site
        if not found:
            raise UrlError(f"expected a whole address, got {at.request.path!r}", url=self.url)
        # of two that are opened at once, one is let go
        return self._sites.setdefault(key, self._open(scheme.lower(), root, at.account))

    def _open(self, scheme: str, root: str, account: str) -> Site:
        if scheme in ("http", "https"):
            return WebSite(scheme, root, self._options, self._accounts.get(account, {}))
        if scheme in ("gs", "s3"):
            return Bucket(Location(scheme, root, ""), self._options)
        if scheme == "file" and self._files:
            return Files(self._options)
        offered = "https, http, gs, s3" + ", file" * self._files
        why = "a server may not name files of this machine" if scheme == "file" else f"offered: {offered}"
        raise UrlError(f"cannot read from {scheme}://{root.rpartition('@')[2]}: {why}", url=self.url)


@dataclass(frozen=True, slots=True)
class _Kept:
    """An image as it came, None where there is none."""

    body: Found

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return _KEPT_OVERHEAD + (0 if self.body is None else len(self.body.data))


def _is_image(site: Site, request: Get | Head) -> bool:
    """Whether a request is for what is worth keeping: a whole object from the network."""
    return isinstance(request, Get) and request.start is None and not isinstance(site, Files)


def _impatient(service: ServiceTransport) -> ServiceTransport:
    return ServiceTransport(service.server, service.url, replace(service.options, retries=0, retry_timeout=0.0))


def _shown(request: Request) -> str:
    """The address of a request, without what may be secret."""
    at = request.request if isinstance(request, At) else request
    if not isinstance(at, Get | Head):
        return ""
    scheme, found, rest = at.path.partition("?")[0].partition("://")
    root, slash, path = rest.partition("/")
    return f"{scheme}{found}{root.rpartition('@')[2]}{slash}{path}"
