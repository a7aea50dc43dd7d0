"""Files of the local file system.

Plain reads of whole files: in a thread they are as fast as any library's, work after fork, and take every file name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from typing import TYPE_CHECKING

from storefs.errors import Refused, TooLong, TransportError
from storefs.plans import Body, Get, Head, Names
from storefs.workers import cores

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


class FileTransport:
    """Reads the files of one folder."""

    blocking = True
    local = True
    concurrency = cores() + 2  # some wait for the disk

    def __init__(self, location: Location, options: TransportOptions) -> None:
        self.location = location
        self.path_of = location.below
        self.options = options
        self._names: dict[str, tuple[int, frozenset[str]]] = {}

    @property
    def url(self) -> str:
        """Address of the folder."""
        return self.location.url

    async def fetch_async(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer, fetched in a worker thread."""
        return await asyncio.to_thread(self.fetch, request)

    def fetch(self, request: Get | Head | Names) -> Body | frozenset[str] | None:
        """The answer; None where there is no such file or folder. Raises Refused, TooLong, TransportError."""
        path = self.location.below(request.path)
        try:
            if isinstance(request, Names):
                return self._list(path)
            if isinstance(request, Head):
                return Body(b"") if stat.S_ISREG(os.stat(path).st_mode) else None  # noqa: PTH116  # pathlib is slow
            return _read(path, request)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except TransportError:
            raise
        except PermissionError as error:
            raise Refused(f"not allowed to read this file: {error.strerror}", url=f"file://{path}") from error
        except (OSError, ValueError) as error:
            raise TransportError(f"cannot read this file: {error}", url=f"file://{path}") from error

    def fill(self, path: str, memory: memoryview, start: int, size: int) -> bool:
        """Whether the file at `path` has `size` bytes, and those from `start` on now fill `memory`.

        Whatever is the matter if not, `fetch` tells.
        """
        if not hasattr(os, "preadv"):
            return False
        try:
            file = os.open(self.location.below(path), _FLAGS)
        except OSError:
            return False
        try:
            return os.preadv(file, [memory], start) == len(memory) and os.fstat(file).st_size == size
        except OSError:
            return False
        finally:
            os.close(file)

    def _list(self, path: str) -> frozenset[str]:
        changed = os.stat(path).st_mtime_ns  # noqa: PTH116  # pathlib is slow
        known = self._names.get(path)
        if known is None or known[0] != changed:
            known = changed, frozenset(os.listdir(path))  # noqa: PTH208  # names, not paths
            self._names[path] = known
        return known[1]


def _read(path: str, request: Get) -> Body | None:
    file = os.open(path, _FLAGS)
    try:
        if request.start is not None and request.stop is not None:
            return _read_range(file, request.start, request.stop)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return None
        if request.limit is not None and status.st_size > request.limit:
            raise TooLong(
                f"the file has {status.st_size} bytes, more than the {request.limit} that this can take",
                url=f"file://{path}",
            )
        return Body(_read_span(file, status.st_size))
    finally:
        os.close(file)


def _read_range(file: int, start: int, stop: int) -> Body | None:
    if hasattr(os, "pread"):
        with contextlib.suppress(OSError):  # of what is no file
            data = os.pread(file, max(0, stop - start), start)
            if len(data) == stop - start:
                return Body(data)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        return None
    length = min(stop, status.st_size) - start
    if length <= 0:
        return Body(b"")
    os.lseek(file, start, os.SEEK_SET)
    return Body(_read_span(file, length))


def _read_span(file: int, length: int) -> bytes:
    data = os.read(file, length)
    while len(data) < length:  # one read gives at most 2 GiB
        more = os.read(file, length - len(data))
        if not more:
            break
        data += more
    return data
