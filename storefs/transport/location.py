"""Where the objects of a volume live: the address below the format's own scheme."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from storefs.errors import UrlError

_ALIASES = {"gcs": "gs", "s3a": "s3", "local": "file"}
_HTTP = ("http", "https")
_BUCKETS = ("s3", "gs")
# their paths begin with no bucket
_ARCHIVES = ("zip", "tar", "libarchive")


@dataclass(frozen=True, slots=True)
class Location:
    """A folder of objects: `scheme`, `root` (host or bucket) and `path`, unescaped.

    In a chained address, such as `simplecache::zip://path::s3://…`, `head` and `tail` are what stands around it.
    """

    scheme: str
    root: str
    path: str
    head: str = ""
    tail: str = ""

    @property
    def url(self) -> str:
        """The address."""
        if self.head or self.tail:
            return f"{self.head}{replace(self, head='', tail='').url}{self.tail}"
        if self.scheme == "file":
            return f"file://{self.path}"
        if self.scheme in _ARCHIVES:
            return f"{self.scheme}://{self.path}"
        path = quote(self.path, safe="/:@!$&'()*+,;=~") if self.scheme in _HTTP else self.path
        return f"{self.scheme}://{self.root}/{path}" if path else f"{self.scheme}://{self.root}"

    @property
    def is_remote(self) -> bool:
        """Whether this is no plain local folder."""
        return self.scheme != "file" or bool(self.head or self.tail)

    def below(self, relative: str) -> str:
        """The full path of `relative`, which may climb with ".." as far as the folder above."""
        return (
            posixpath.normpath(posixpath.join(self.path, relative))
            if ".." in relative
            else (f"{self.path}/{relative}" if self.path else relative)
        )

    def join(self, address: str) -> Location:
        """Another volume's location: `address` absolute, or relative to this one. Raises UrlError."""
        address = address.removeprefix("precomputed://")
        if "://" in address:
            return parse_location(address)
        if address.startswith("/"):
            return replace(self, path=posixpath.normpath(address) if self.scheme == "file" else address.strip("/"))
        path = posixpath.normpath(posixpath.join("/", self.path, address))
        return replace(self, path=path if self.scheme == "file" else path.strip("/"))


def parse_location(address: str) -> Location:
    """The location that `address` names: a URL, or a path in the local file system. Raises UrlError."""
    if "::" in address:
        return _chained(address)
    scheme, found, rest = address.partition("://")
    if not found:
        return _local(address)
    scheme = _ALIASES.get(scheme.lower(), scheme.lower())
    if scheme == "file":
        if not rest.startswith("/"):
            raise UrlError(f"file:// wants an absolute path, as in file:///{rest}", url=address)
        return _local(rest)
    if scheme in _HTTP:
        parts = urlsplit(address)
        if not parts.hostname:
            raise UrlError("the address names no host", url=address)
        if "@" in parts.netloc:
            raise UrlError('an address holds no password: pass headers={"Authorization": …}', url=parts.hostname)
        return Location(scheme, parts.netloc, unquote(parts.path).strip("/"))
    if scheme in _ARCHIVES:
        return Location(scheme, "", rest.strip("/"))
    root, _, path = rest.partition("/")
    if not root and scheme in _BUCKETS:
        raise UrlError("the address names no bucket", url=address)
    return Location(scheme, root, path.strip("/"))


def _chained(address: str) -> Location:
    links = address.split("::")
    at = next((i for i, link in enumerate(links) if "://" in link), len(links) - 1)
    inner = parse_location(links[at])
    return replace(
        inner, head="".join(f"{link}::" for link in links[:at]), tail="".join(f"::{link}" for link in links[at + 1 :])
    )


def _local(path: str) -> Location:
    if "\0" in path:
        raise UrlError("the address has a null character in it")
    if not path:
        raise UrlError("the address is empty; it should look like precomputed://gs://bucket/path")
    return Location("file", "", posixpath.normpath(os.path.abspath(os.path.expanduser(path))))  # noqa: PTH100, PTH111  # text in, text out
