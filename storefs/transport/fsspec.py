"""Any other fsspec filesystem, through its blocking interface in worker threads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.cached import CachingFileSystem

from storefs.errors import Refused, ServerFault, StorefsError, TimedOut, TooLong, UrlError
from storefs.plans import Body, Get, Head, Names
from storefs.transport.faults import ABSENT_STATUS

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions

_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class FsspecTransport:
    """Reads through the fsspec filesystem, or the chain of them, that the location names."""

    blocking = True
    local = False
    concurrency = 16

    def __init__(self, location: Location, options: TransportOptions) -> None:
        self.location = location
        self.options = options

    @property
    def url(self) -> str:
        """Address of the folder."""
        return self.location.url

    async def fetch_async(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer, fetched in a worker thread."""
        return await asyncio.to_thread(self.fetch, request)

    def fetch(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer; None where there is no such object. Raises UrlError, Refused, TimedOut, ServerFault."""
        if isinstance(request, Names):
            return None
        url = replace(self.location, path=self.location.below(request.path)).url
        try:
            filesystem, path = self._filesystem(url)
            try:
                return _ask(filesystem, path, request, url)
            except _ABSENT:
                if not isinstance(filesystem, CachingFileSystem):
                    raise
                # a cache calls whatever goes wrong an absent file
                return _ask(filesystem.fs, path, request, url)
        except StorefsError:
            raise
        except Exception as error:  # noqa: BLE001  # filesystems raise anything at all
            self._judge(error, url)
            return None

    def _judge(self, error: Exception, url: str) -> None:
        """What a filesystem's failure means: nothing, where it says that there is no such file."""
        if isinstance(error, _ABSENT):
            hidden = _hidden_failure(error)
            if hidden is None:
                return
            raise ServerFault(f"the filesystem failed: {type(hidden).__name__}: {hidden}", url=url) from error
        if isinstance(error, PermissionError):
            if self.options.forbidden == "missing":
                return
            raise Refused(f"the filesystem refused this: {error}", url=url) from error
        if isinstance(error, TimeoutError):
            raise TimedOut(f"no answer in time: {error}", url=url) from error
        raise ServerFault(f"the filesystem failed: {type(error).__name__}: {error}", url=url) from error

    def _filesystem(self, url: str) -> tuple[Any, str]:
        given = self.options.target_options
        try:
            # asked for anew each time: fsspec caches instances, and not across fork
            if "target_protocol" not in given:
                return url_to_fs(url, **given)  # type: ignore[no-any-return]  # fsspec is untyped
            # fsspec has taken the chain apart already
            head, _, inner = url.rpartition("::")
            filesystem = fsspec.filesystem(head or self.location.scheme, **given)
            return filesystem, filesystem._strip_protocol(inner)  # noqa: SLF001  # as fsspec's own url_to_fs
        except (ImportError, ValueError, TypeError) as error:
            raise UrlError(f"fsspec cannot open this: {error}", url=self.url) from error


def _ask(filesystem: Any, path: str, request: Get | Head, url: str) -> Body | None:  # noqa: ANN401  # fsspec is untyped
    if isinstance(request, Head):
        return Body(b"") if filesystem.info(path)["type"] == "file" else None
    return Body(_cat(filesystem, path, request, url))


def _hidden_failure(error: BaseException) -> BaseException | None:
    """What a FileNotFoundError hides: fsspec's http filesystem raises it for whatever goes wrong."""
    cause = error.__cause__ or error.__context__
    if cause is None:
        return None
    if isinstance(cause, aiohttp.ClientResponseError) and cause.status in ABSENT_STATUS:
        return None
    failed = isinstance(cause, aiohttp.ClientError | TimeoutError | ConnectionError | PermissionError)
    return cause if failed else _hidden_failure(cause)


def _cat(filesystem: Any, path: str, request: Get, url: str) -> bytes:  # noqa: ANN401  # fsspec is untyped
    if request.start is not None and request.stop is not None:
        data = bytes(filesystem.cat_file(path, start=request.start, end=request.stop))
        if len(data) > request.stop - request.start:
            raise ServerFault("the filesystem gave more bytes than were asked for", url=url)
        return data
    data = bytes(filesystem.cat_file(path))
    if request.limit is not None and len(data) > request.limit:
        raise TooLong(f"the object has {len(data)} bytes, more than the {request.limit} that this can take", url=url)
    return data
