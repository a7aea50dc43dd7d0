"""DVID servers: `open_source`, `create_volume` and the fsspec `FileSystem`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from storefs.backends.dvid.backend import Reading, describe
from storefs.backends.dvid.keyvalue_files import KeyValueFileSystem
from storefs.backends.dvid.new_volumes import make_volume
from storefs.backends.dvid.part import Connection
from storefs.backends.dvid.url import OPTIONS, PIPELINE, SCHEME, credentials, parse_address
from storefs.model import NewVolume
from storefs.options import Options, Reader, read_options
from storefs.source import Source
from storefs.transport.credentials import expanded
from storefs.transport.service import ServiceOptions, ServiceTransport

__all__ = ["OPTIONS", "PIPELINE", "SCHEME", "FileSystem", "create_volume", "open_source"]


def open_source(address: str, options: Mapping[str, Any]) -> Source:
    """The Source of what the DVID `address` names (without "dvid://"). Raises UrlError; no I/O."""
    read = read_options(options, OPTIONS)
    place = parse_address(address)
    reading = Reading(
        supervoxels=read.own.get("supervoxels", False),
        roi=read.own.get("roi"),
        throttle=read.own.get("throttle", False),
        chunk_shape=read.own.get("chunk_shape"),
    )
    transport = ServiceTransport(place.server, place.url, service_options(read))
    return Source(
        transport,
        lambda url: describe(url, place, reading),
        read.presentation,
        missing=read.missing,
        keeping=read.keeping,
    )


def create_volume(address: str, options: Mapping[str, Any], volume: NewVolume) -> dict[str, Any]:
    """Make the instance that `address` names; gives the options to open it with for writing.

    Raises UrlError, Unsupported, NoSuchVolume, TransportError.
    """
    read = read_options(options, OPTIONS)
    place = parse_address(address)
    transport = ServiceTransport(place.server, place.url, service_options(read))
    volume = replace(volume, shape=read.presentation.flip(volume.shape))
    return Connection(transport, place.url).run(make_volume(place, volume))


def service_options(read: Options) -> ServiceOptions:
    """How to reach the server, credentials included."""
    headers, query = credentials(read.own)
    given = {name: read.own[name] for name in ("retry_timeout", "warning_interval") if name in read.own}
    return ServiceOptions(
        headers=headers | expanded(read.transport.headers),
        query=query,
        timeout=read.transport.timeout,
        retries=read.transport.retries,
        **given,
    )


class FileSystem(KeyValueFileSystem):
    """fsspec filesystem "dvid"."""

    protocol = SCHEME
    own_options: ClassVar[Mapping[str, Reader]] = OPTIONS

    def open_source(self, address: str, options: Mapping[str, Any]) -> Source:
        """The Source of what `address` names."""
        return open_source(address, options)

    def connect(self, server: str) -> ServiceTransport:
        """The way to `server`."""
        return ServiceTransport(server, server, service_options(read_options(self.options, OPTIONS)))
