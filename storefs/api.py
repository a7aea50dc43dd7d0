"""The three ways in: a group, an array, a store."""

from __future__ import annotations

from typing import Any, Literal

import zarr
from zarr.core.sync import sync

from storefs.registry import open_source, parse_url
from storefs.store import VirtualStore


def open_store(url: str, **options: Any) -> VirtualStore:  # noqa: ANN401  # checked one by one
    """The volume at `url` as a read-only zarr store; no I/O until it is asked for something.

    `url` is `precomputed://` and an address (gs, s3, http, https, file, memory or a path), or Neuroglancer's
    `address|neuroglancer-precomputed:`.

    Options
    -------
    zarr_format
        3 (default) or 2.
    axes
        "zyx" (default) or "xyz".
    face
        "native" (default): chunks as stored, decoded by storefs' codecs; "portable": re-encoded with `codec`.
    codec
        Of the portable face: "zstd" (default), "gzip", "blosc" or "raw".
    chunk_size
        `(x, y, z)`, where an info offers several chunk sizes.
    missing
        "fill" (default) reads an absent chunk as zeros; "error" raises MissingChunk.
    anonymous, profile, region, endpoint_url, headers, timeout, retries, forbidden, target_options
        How to reach the source; see `storefs.transport.options.TransportOptions`.

    Raises UrlError for an address or option that cannot be read.

    """
    backend, address, in_query = parse_url(url)
    given = {**in_query, **options}
    # the source's own address is absolute and holds no secrets: it travels in pickles
    address = backend.open_source(address, given).url
    return VirtualStore(f"{backend.SCHEME}://{address}", open_source, given)


def open(url: str, mode: Literal["r", "r+", "a"] = "r", **options: Any) -> zarr.Group:  # noqa: A001, ANN401  # the name users expect, checked one by one
    """The volume at `url` as a zarr group: an OME-Zarr multiscale with arrays "0" (finest), "1" and so on.

    Arrays are C order, `zyx` or `czyx`, in nanometres; options as for `open_store`. With `mode` "r+" or "a" voxels
    can be written, where the format allows (DVID). Raises UrlError, NoSuchVolume,
    MetadataError, Refused, TimedOut, ServerFault.
    """
    store = open_store(url, **options).with_read_only(mode == "r")
    sync(store.source.open_async())
    return zarr.open_group(store, mode="r" if mode == "r" else "r+", zarr_format=store.source.presentation.zarr_format)


def open_array(url: str, scale: int = 0, mode: Literal["r", "r+", "a"] = "r", **options: Any) -> zarr.Array[Any]:  # noqa: ANN401  # checked one by one
    """One scale of the volume at `url` as a zarr array, 0 being the finest; options as for `open_store`.

    Raises what `open` raises, and IndexError where there is no such scale.
    """
    group = open(url, mode, **options)
    array = group.get(str(scale))
    if not isinstance(array, zarr.Array):
        names = ", ".join(sorted(group.array_keys(), key=int))
        raise IndexError(f"no scale {scale} in {url.partition('?')[0]}; it has {names}")
    return array
