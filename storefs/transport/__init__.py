"""Where bytes come from: files, buckets and web servers, any other fsspec filesystem."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from fsspec import available_protocols
from fsspec.registry import registry

from storefs.errors import UrlError
from storefs.transport.files import FileTransport
from storefs.transport.foreign import understood
from storefs.transport.fsspec import FsspecTransport
from storefs.transport.location import Location, parse_location
from storefs.transport.objects import ObjectTransport
from storefs.transport.options import TransportOptions

if TYPE_CHECKING:
    from storefs.plans import Body, Get, Head, Names

__all__ = ["TransportOptions", "Transports", "connect"]

_OBJECT_SCHEMES = ("http", "https", "s3", "gs")


class Transports:
    """The transport of one volume's address, and the way to others with the same options."""

    def __init__(self, location: Location, options: TransportOptions) -> None:
        self.location = location
        if not location.head and not location.tail and location.scheme in ("file", *_OBJECT_SCHEMES):
            options = understood(location, options)
        self.options = options
        self._inner = _choose(location, options)
        self.fetch = self._inner.fetch  # in this thread
        # path in the file system of an object, where they are files
        self.path_of = self._inner.path_of if isinstance(self._inner, FileTransport) else None
        self.url = self._inner.url
        self.blocking = self._inner.blocking
        self.local = self._inner.local
        self.concurrency = self._inner.concurrency

    async def fetch_async(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer, fetched on the running event loop."""
        return await self._inner.fetch_async(request)

    def fill(self, path: str, memory: memoryview, start: int, size: int) -> bool:
        """Whether the object at `path` has `size` bytes, and those from `start` on now fill `memory`: files only."""
        return isinstance(self._inner, FileTransport) and self._inner.fill(path, memory, start, size)

    def connect(self, url: str) -> Transports:
        """The transport of another volume; `url` absolute or relative to this one's. Raises UrlError."""
        target = self.location.join(url)
        if self.location.is_remote and target.scheme not in ("file", self.location.scheme, *_OBJECT_SCHEMES):
            # among fsspec's filesystems are many that read local files
            raise UrlError(
                f"redirected from the network to {target.url}, which is no bucket or web server", url=self.url
            )
        options = self.options
        if (target.head or target.tail) and (target.head, target.tail) != (self.location.head, self.location.tail):
            raise UrlError(f"redirected to a chained address: {target.url}", url=self.url)
        if (target.scheme, target.root, target.tail) != (self.location.scheme, self.location.root, self.location.tail):
            # these may carry secrets meant for one host
            options = replace(options, headers={}, query="", target_options={})
        if target.scheme != self.location.scheme:
            options = replace(options, secrets={}, profile=None, region=None, endpoint_url=None)
        return Transports(target, options)


def connect(address: str, options: TransportOptions) -> Transports:
    """The transport of the volume at `address` (without the format's own scheme). Raises UrlError."""
    return Transports(parse_location(address), options)


def _choose(location: Location, options: TransportOptions) -> FileTransport | ObjectTransport | FsspecTransport:
    if location.head or location.tail:
        return FsspecTransport(location, options)
    if location.scheme == "file":
        return FileTransport(location, options)
    if location.scheme in _OBJECT_SCHEMES:
        return ObjectTransport(location, options)
    known = {*available_protocols(), *registry}
    if location.scheme not in known:
        near = difflib.get_close_matches(location.scheme, ["file", *_OBJECT_SCHEMES, *known], 1)
        hint = f"; did you mean {near[0]}://?" if near else ""
        raise UrlError(f"unknown scheme {location.scheme}://{hint}", url=location.url)
    return FsspecTransport(location, options)
