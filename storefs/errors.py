"""The failures of storefs.

    StorefsError                    carries .url and, where there is one, .chunk
    ├── UrlError(ValueError)        the address or an option cannot be read
    ├── MetadataError(ValueError)   the source's description makes no sense
    │   └── Unsupported(NotImplementedError)   understood, not offered
    │       └── Changing                       cannot be kept with cache=, as it may change
    └── TransportError(OSError)
        ├── TimedOut(TimeoutError)
        ├── Refused(PermissionError)          401, 403: says which credentials were tried
        ├── NoSuchVolume(FileNotFoundError)   raised only while opening
        ├── MissingChunk                      asked for with missing="error"
        ├── NotCached                         asked for with offline=True
        └── ServerFault                       5xx, broken body, wrong length
            └── TooLong                       an object longer than what it should hold can be

Bytes that do not decode raise storefs_codecs.DecodeError. An absent chunk is no failure but `None`. After opening,
nothing here is a FileNotFoundError: zarr reads that as "fill value".
"""

from __future__ import annotations

from typing import Self, TypeVar

E = TypeVar("E", bound="StorefsError")


class StorefsError(Exception):
    """A failure of storefs; `url` says where, `chunk` which chunk, where there is one."""

    def __init__(self, message: str, *, url: str | None = None, chunk: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.url = url
        self.chunk = chunk

    def at_chunk(self, chunk: str) -> Self:
        """The same failure, naming `chunk` where it names none yet."""
        # always anew: raised `from` itself, an error would be its own cause
        return _rebuild(type(self), self.message, self.url, self.chunk or chunk)

    def __str__(self) -> str:
        where = [f"chunk {self.chunk}"] if self.chunk else []
        if self.url and self.url not in self.message:
            where.append(self.url)
        return f"{self.message} [{' of '.join(where)}]" if where else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.url, self.chunk)


def _rebuild(kind: type[E], message: str, url: str | None, chunk: str | None) -> E:
    return kind(message, url=url, chunk=chunk)


class UrlError(StorefsError, ValueError):
    """The address or an option cannot be read; the message suggests one that can."""


class MetadataError(StorefsError, ValueError):
    """The source's description makes no sense; names the file and the key at fault."""


class Unsupported(MetadataError, NotImplementedError):
    """Understood, not offered: names the thing and what is offered."""


class Changing(Unsupported):
    """The volume may change at any time, so that a cache on disk would show what was; says why."""


class TransportError(StorefsError, OSError):
    """The source could not be read."""


class TimedOut(TransportError, TimeoutError):
    """No answer in time, after all retries."""


class Refused(TransportError, PermissionError):
    """401 or 403: says which credentials were tried."""


class NoSuchVolume(TransportError, FileNotFoundError):
    """There is no volume at this address; raised only while opening."""


class MissingChunk(TransportError):
    """A chunk is not stored and `missing="error"` was asked for."""


class NotCached(TransportError):
    """Something is not in the cache, and `offline=True` was asked for."""


class ServerFault(TransportError):
    """A server error, a broken answer, or a body of the wrong length."""


class TooLong(ServerFault):
    """An object is longer than what it should hold can be."""
