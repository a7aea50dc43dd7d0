"""Connectomics volumes as zarr, in place: Neuroglancer precomputed."""

from __future__ import annotations

from storefs.api import open, open_array, open_store  # noqa: A004  # the name users expect
from storefs.errors import (
    MetadataError,
    MissingChunk,
    NoSuchVolume,
    Refused,
    ServerFault,
    StorefsError,
    TimedOut,
    TransportError,
    Unsupported,
    UrlError,
)
from storefs.store import VirtualStore

__version__ = "0.1.0"

__all__ = [
    "MetadataError",
    "MissingChunk",
    "NoSuchVolume",
    "Refused",
    "ServerFault",
    "StorefsError",
    "TimedOut",
    "TransportError",
    "Unsupported",
    "UrlError",
    "VirtualStore",
    "open",
    "open_array",
    "open_store",
]
