"""The DVID client: everything a server offers, typed; and keyvalue instances as mapping and as zarr store.

    >>> import storefs.dvid
    >>> client = storefs.dvid.Client("http://localhost:8000")
    >>> client.voxels.read(uuid, "grayscale", ((0, 0, 0), (64, 64, 64)))

`dvid://` addresses are opened by `storefs.open`, `zarr.open` and fsspec; this is what they do not say.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from storefs.backends.dvid.client import Client
from storefs.backends.dvid.keys import escape, unescape
from storefs.backends.dvid.keyvalue_map import KeyValue
from storefs.backends.dvid.roi import spans_of
from storefs.backends.dvid.runs import coordinates
from storefs.backends.dvid.sparse import SparseSize
from storefs.backends.dvid.voxels_metadata import VoxelsMetadata

if TYPE_CHECKING:
    from storefs.backends.dvid.keyvalue_store import KeyValueStore

__all__ = [
    "Client",
    "KeyValue",
    "KeyValueStore",
    "SparseSize",
    "VoxelsMetadata",
    "coordinates",
    "escape",
    "spans_of",
    "unescape",
]


def __getattr__(name: str) -> object:
    if name == "KeyValueStore":  # needs zarr 3, which nothing else here does
        return import_module("storefs.backends.dvid.keyvalue_store").KeyValueStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
