"""The kinds of site that hold images: web servers, buckets, folders of this machine. Requests carry whole addresses."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote

from fsspec.asyn import get_loop

from storefs.errors import Refused
from storefs.plans import Body, Get, Head
from storefs.transport.credentials import Access
from storefs.transport.faults import Denied, Signal
from storefs.transport.files import FileTransport
from storefs.transport.http import HttpClient
from storefs.transport.location import Location
from storefs.transport.objects import ObjectTransport
from storefs.transport.options import TransportOptions

Found = Body | None
T = TypeVar("T")

_FORBIDDEN = 403
# what obstore escapes as we do, so that the server sees the address as it was written
_PLAIN_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9_.\-~]+)+")
# what browsers leave alone; they escape spaces and letters beyond ASCII
_AS_WRITTEN = "!#$%&'()*+,/:;=?@[]|{}~"
_CREDENTIALS_HINT = (
    "for images behind a password pass mirror_auth=(user, password), for a token of their own "
    "mirror_headers={'Authorization': …}; the token of the CATMAID server is not sent to other hosts"
)


class Site(Protocol):
    """One host or bucket. Requests carry whole addresses."""

    def fetch(self, request: Get | Head) -> Found:
        """The answer, fetched in this thread; None where absent."""

    async def fetch_async(self, request: Get | Head) -> Found:
        """The answer, None where absent."""

    async def try_async(self, request: Get | Head) -> Found:
        """The same without a second try."""


class WebSite:
    """A web server: through obstore where addresses are plain and nothing secret goes along, else through aiohttp."""

    def __init__(self, scheme: str, root: str, options: TransportOptions, headers: Mapping[str, str]) -> None:
        user, at, host = root.rpartition("@")
        headers = dict(headers)
        if at and "Authorization" not in headers:
            name, _, password = user.partition(":")
            headers["Authorization"] = basic(unquote(name), unquote(password))
        self._origin = f"{scheme}://{host}"
        self._prefix = f"{scheme}://{root}"
        self._options = options
        self._headers = headers
        self._plain = None if headers else ObjectTransport(Location(scheme, host, ""), options)
        self._client = HttpClient(Access(self._origin, _no_store, _as_written), options, headers)
        self._proven = False

    def fetch(self, request: Get | Head) -> Found:
        """As of every site."""
        path = request.path.removeprefix(self._prefix)
        if self._plain is None or not _PLAIN_PATH.fullmatch(path):
            return awaited(self._ask(request, path, None))
        try:
            return self._let_in(self._plain.fetch(replace(request, path=path[1:])))
        except Refused as error:
            self._check_hidden(error)
        return None

    async def fetch_async(self, request: Get | Head) -> Found:
        """As of every site."""
        path = request.path.removeprefix(self._prefix)
        if self._plain is None or not _PLAIN_PATH.fullmatch(path):
            return await self._ask(request, path, None)
        try:
            return self._let_in(await self._plain.fetch_async(replace(request, path=path[1:])))
        except Refused as error:
            self._check_hidden(error)
        return None

    def _let_in(self, found: object) -> Found:
        self._proven = True
        return found if isinstance(found, Body) else None

    def _check_hidden(self, error: Refused) -> None:
        """Raise a refusal that does not stand for "no such object"."""
        if not self._hides(error.message):
            raise Refused(f"{error.message}; {_CREDENTIALS_HINT}", url=error.url) from error

    async def try_async(self, request: Get | Head) -> Found:
        """As of every site."""
        return await self._ask(request, request.path.removeprefix(self._prefix), 0)

    async def _ask(self, request: Get | Head, path: str, retries: int | None) -> Found:
        try:
            found = await self._client.fetch_async(request, f"{self._origin}{quote(path, safe=_AS_WRITTEN)}", retries)
        except Denied as denied:
            if self._hides(f"({denied.status})"):
                return None
            tried = f"the headers given ({', '.join(self._headers)})" if self._headers else "no credentials"
            message = f"the server refused this ({denied.status}); tried: {tried}; {_CREDENTIALS_HINT}"
            raise Refused(message, url=denied.fault.url) from None
        except Signal as signal:
            raise signal.fault from None
        return self._let_in(found)

    def _hides(self, said: str) -> bool:
        """Whether a refusal only hides that there is no such object, as the site let us in before."""
        return self._options.forbidden == "missing" and self._proven and f"({_FORBIDDEN})" in said


class Bucket:
    """A bucket, with the credentials of the environment where it wants some."""

    def __init__(self, location: Location, options: TransportOptions) -> None:
        self._prefix = f"{location.url}/"
        self._transport = ObjectTransport(location, options)
        self._impatient = ObjectTransport(location, replace(options, retries=0))

    def fetch(self, request: Get | Head) -> Found:
        """As of every site."""
        found = self._transport.fetch(self._below(request))
        return found if isinstance(found, Body) else None

    async def fetch_async(self, request: Get | Head) -> Found:
        """As of every site."""
        found = await self._transport.fetch_async(self._below(request))
        return found if isinstance(found, Body) else None

    async def try_async(self, request: Get | Head) -> Found:
        """As of every site."""
        found = await self._impatient.fetch_async(self._below(request))
        return found if isinstance(found, Body) else None

    def _below(self, request: Get | Head) -> Get | Head:
        return replace(request, path=request.path.removeprefix(self._prefix))


class Files:
    """Files of this machine."""

    def __init__(self, options: TransportOptions) -> None:
        self._transport = FileTransport(Location("file", "", ""), options)

    def fetch(self, request: Get | Head) -> Found:
        """As of every site."""
        found = self._transport.fetch(replace(request, path=request.path.removeprefix("file://")))
        return found if isinstance(found, Body) else None

    async def fetch_async(self, request: Get | Head) -> Found:
        """As of every site."""
        return await asyncio.to_thread(self.fetch, request)

    async def try_async(self, request: Get | Head) -> Found:
        """As of every site."""
        return await self.fetch_async(request)


def basic(user: str, password: str) -> str:
    """The value of an Authorization header for HTTP basic."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def awaited(work: Coroutine[Any, Any, T]) -> T:
    """What `work` comes to on the background loop, awaited in this thread."""
    future = asyncio.run_coroutine_threadsafe(work, get_loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _as_written(_method: str, url: str) -> tuple[str, dict[str, str]]:
    return url, {}


def _no_store() -> Any:  # noqa: ANN401  # there is none
    raise AssertionError("asked by aiohttp only")
