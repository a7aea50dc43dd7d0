"""CATMAID image stacks: `open_source` and the fsspec `FileSystem`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from storefs.backends.catmaid.backend import describe
from storefs.backends.catmaid.reading import Reading
from storefs.backends.catmaid.url import (
    OPTIONS,
    PIPELINE,
    SCHEME,
    TILES,
    TOKEN_VARIABLE,
    mirror_accounts,
    parse_address,
    service_headers,
    split_address,
)
from storefs.errors import UrlError
from storefs.filesystem import VirtualFileSystem
from storefs.neighbours import Neighbours
from storefs.options import Options, Reader, read_options
from storefs.source import Source
from storefs.transport.credentials import expanded
from storefs.transport.service import ServiceOptions, ServiceTransport
from storefs.transport.sites import DEFAULT_CACHE_BYTES, DEFAULT_CONCURRENCY, Sites
from storefs.volumes import Volumes

__all__ = ["OPTIONS", "PIPELINE", "SCHEME", "TOKEN_VARIABLE", "FileSystem", "open_source"]

# a project that does not exist is a 500, which asking again does not mend
_FLAKY = frozenset({502, 504})
# no credentials: these are for the volume's own server
_SHARED = ("anonymous", "timeout", "retries", "forbidden", "cache", "cache_size", "cache_absent", "offline")


def open_source(address: str, options: Mapping[str, Any]) -> Source:
    """The Source of what the CATMAID `address` names (without "catmaid://"). Raises UrlError; no I/O."""
    read = read_options(options, OPTIONS)
    place = parse_address(address)
    given = read.own.get("stack_info")
    if given is None and not place.server:
        raise UrlError("catmaid://tiles wants stack_info=…, the stack's info as a dictionary or JSON text", url=address)
    accounts = mirror_accounts(read.own)
    service = ServiceTransport(place.server, place.url, _service_options(read)) if place.server else None
    sites = Sites(
        service,
        place.url,
        read.transport,
        accounts,
        concurrency=read.own.get("concurrency", DEFAULT_CONCURRENCY),
        cache_bytes=read.own.get("cache_bytes", DEFAULT_CACHE_BYTES),
        files=given is not None,
        local=given is not None and _is_local(given),
    )
    shared = {name: options[name] for name in _SHARED if name in options}
    transport = Neighbours(sites, shared, local_volumes=given is not None)
    reading = _reading(read, accounts)
    return Source(
        transport, lambda _url: describe(place, reading), read.presentation, missing=read.missing, keeping=read.keeping
    )


def _reading(read: Options, accounts: Mapping[str, Mapping[str, str]]) -> Reading:
    names = ("mirror", "channels", "broken", "fill_value", "dtype", "fallback", "flix_query", "stack_info")
    return Reading(
        **{name: read.own[name] for name in names if name in read.own},
        accounts=frozenset(accounts),
        with_token="X-Authorization" in service_headers(read.own),
        local="stack_info" in read.own,
        timeout=read.transport.timeout,
        forbidden_is_missing=read.transport.forbidden == "missing",
    )


def _service_options(read: Options) -> ServiceOptions:
    """How to reach the CATMAID server, credentials included."""
    return ServiceOptions(
        headers=service_headers(read.own) | expanded(read.transport.headers),
        query=_query(read.transport.query),
        timeout=read.transport.timeout,
        retries=read.transport.retries,
        flaky=_FLAKY,
    )


def _query(text: str) -> dict[str, str]:
    pairs = (item.partition("=") for item in text.split("&") if item)
    return {name: value for name, _, value in pairs}


def _is_local(info: Mapping[str, Any]) -> bool:
    """Whether every tile of a stack lies on this machine, so that there is no network to wait for."""
    mirrors = info.get("mirrors", [info])
    told = [mirror for mirror in mirrors if isinstance(mirror, Mapping)] if isinstance(mirrors, list) else []
    bases = [mirror.get("image_base") for mirror in told]
    return bool(bases) and all(isinstance(base, str) and base.startswith("file://") for base in bases)


class FileSystem(VirtualFileSystem):
    """fsspec filesystem "catmaid"."""

    protocol = SCHEME
    own_options: ClassVar[Mapping[str, Reader]] = OPTIONS

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  # checked by the base
        super().__init__(*args, **options)
        # ids look like keys, so that the address itself has to say where it ends
        self._volumes = Volumes(lambda address: self.open_source(address, self.options), _split)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # noqa: ANN401  # text or a list of texts
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        text = str(path)
        if text.startswith(f"{SCHEME}://"):
            text = text.removeprefix(f"{SCHEME}://").partition("?")[0].partition("|")[0]
        whole = not text or "://" in text or text.partition("/")[0] == TILES
        return (text if whole else f"https://{text}").rstrip("/")

    def open_source(self, address: str, options: Mapping[str, Any]) -> Source:
        """The Source of what `address` names."""
        return open_source(address, options)


def _split(path: str) -> list[tuple[str, str]]:
    address, key = split_address(path)
    return [(address.url, key)]
