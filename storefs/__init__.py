"""Connectomics volumes as zarr, in place: Neuroglancer precomputed, DVID and CATMAID."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from storefs.errors import (
    MetadataError,
    MissingChunk,
    NoSuchVolume,
    NotCached,
    Refused,
    ServerFault,
    StorefsError,
    TimedOut,
    TransportError,
    Unsupported,
    UrlError,
)

if TYPE_CHECKING:
    from storefs.api import create, open, open_array, open_store  # noqa: A004  # the name users expect
    from storefs.cost import ReadCost, plan
    from storefs.store import VirtualStore
    from storefs.upkeep import clear_cache, statistics

__version__ = "0.1.0"

__all__ = [
    "MetadataError",
    "MissingChunk",
    "NoSuchVolume",
    "NotCached",
    "ReadCost",
    "Refused",
    "ServerFault",
    "StorefsError",
    "TimedOut",
    "TransportError",
    "Unsupported",
    "UrlError",
    "VirtualStore",
    "clear_cache",
    "create",
    "open",
    "open_array",
    "open_store",
    "plan",
    "statistics",
]

# these import zarr 3; the filesystem, which does not, also serves zarr 2
_LAZY = {
    "ReadCost": "storefs.cost",
    "VirtualStore": "storefs.store",
    "clear_cache": "storefs.upkeep",
    "create": "storefs.api",
    "open": "storefs.api",
    "open_array": "storefs.api",
    "open_store": "storefs.api",
    "plan": "storefs.cost",
    "statistics": "storefs.upkeep",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
