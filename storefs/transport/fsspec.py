"""Any other fsspec filesystem, through its blocking interface in worker threads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import fsspec

from storefs.errors import Refused, ServerFault, TimedOut, TooLong, TransportError, UrlError
from storefs.plan import Body, Get, Head, Names

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions


class FsspecTransport:
    """Reads through the fsspec filesystem that the location's scheme names."""

    blocking = True

    def __init__(self, location: Location, options: TransportOptions) -> None:
        self.location = location
        self.options = options

    @property
    def url(self) -> str:
        """Address of the folder."""
        return self.location.url

    def _filesystem(self) -> Any:  # noqa: ANN401  # fsspec is untyped
        try:
            # asked for anew each time: fsspec caches instances, and not across fork
            return fsspec.filesystem(self.location.scheme, **self.options.target_options)
        except (ImportError, ValueError, TypeError) as error:
            raise UrlError(f"fsspec cannot open {self.location.scheme}://: {error}", url=self.url) from error

    async def fetch_async(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer, fetched in a worker thread."""
        return await asyncio.to_thread(self.fetch, request)

    def fetch(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer; None where there is no such object. Raises Refused, TimedOut, ServerFault, TransportError."""
        if isinstance(request, Names):
            return None
        filesystem = self._filesystem()
        root = f"{self.location.root}/" if self.location.root else ""
        path = root + self.location.below(request.path)
        url = f"{self.location.scheme}://{path}"
        try:
            if isinstance(request, Head):
                return Body(b"") if filesystem.isfile(path) else None
            return Body(self._cat(filesystem, path, request))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except PermissionError as error:
            if self.options.forbidden == "missing":
                return None
            raise Refused(f"the filesystem refused this: {error}", url=url) from error
        except TimeoutError as error:
            raise TimedOut(f"no answer in time: {error}", url=url) from error
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, TransportError):
                raise
            raise ServerFault(f"the filesystem failed: {type(error).__name__}: {error}", url=url) from error

    def _cat(self, filesystem: Any, path: str, request: Get) -> bytes:  # noqa: ANN401  # fsspec is untyped
        if request.start is not None:
            return bytes(filesystem.cat_file(path, start=request.start, end=request.stop))
        data = bytes(filesystem.cat_file(path))
        if request.limit is not None and len(data) > request.limit:
            raise TooLong(f"{len(data)} bytes, more than the {request.limit} that this can take", url=self.url)
        return data
