"""The three ways in: a group, an array, a store; and the way to make a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from zarr.core.sync import sync

from storefs.bulk_array import Group
from storefs.model import NewVolume
from storefs.registry import create_volume, open_source, parse_url
from storefs.store import VirtualStore

if TYPE_CHECKING:
    import numpy.typing as npt


def open_store(url: str, **options: Any) -> VirtualStore:  # noqa: ANN401  # checked one by one
    """The volume at `url` as a read-only zarr store; no I/O until it is asked for something.

    `url` is `precomputed://` and an address (gs, s3, http, https, file, memory or a path), Neuroglancer's
    `address|neuroglancer-precomputed:`, `dvid://host/uuid/instance` or `catmaid://https://host/project/stack`, where
    parts may be left out from the right.

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
    user, app, token, admin_token, supervoxels, roi, throttle, chunk_shape, retry_timeout, warning_interval
        Of DVID; see the README. `chunk_shape` is x, y, z.
    token, mirror, channels, broken and more
        Of CATMAID; see the README.
    anonymous, profile, region, endpoint_url, headers, timeout, retries, forbidden, target_options
        How to reach the source; see `storefs.transport.options.TransportOptions`.
    memory_cache
        How much of decoded chunks is kept in memory, such as "500 MB"; nothing by default.
    cache, cache_size, cache_absent, offline
        A folder (True: the system's) where the source's answers are kept, encoded; its size ("10 GB"); how long it is
        believed that a chunk is absent ("1 d"); True to ask nobody else, so that what is not there raises NotCached.
    progress
        True: a bar on stderr while long bulk reads last; or a function that is told (done_bytes, total_bytes).

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
    zarr_format = store.source.presentation.zarr_format
    group = zarr.open_group(store, mode="r" if mode == "r" else "r+", zarr_format=zarr_format)
    return Group(group._async_group)  # noqa: SLF001  # zarr offers no other way


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


def create(
    url: str,
    shape: Sequence[int],
    dtype: npt.DTypeLike | None = None,
    *,
    type: str | None = None,  # noqa: A002  # the name users expect
    voxel_size: Sequence[float] | None = None,
    units: str = "nanometers",
    offset: Sequence[int] = (0, 0, 0),
    block_size: Sequence[int] | None = None,
    background: int | None = None,
    scales: int = 1,
    compression: str | None = None,
    **options: Any,  # noqa: ANN401  # checked one by one
) -> zarr.Group:
    """Make the volume at `url`, where the format allows (DVID), and open it for writing; other options as for `open`.

    Options
    -------
    shape
        Of array "0", along the axes as they are shown: zyx, or czyx with four channels (uint8).
    dtype
        uint8, uint16, uint32, uint64 or float32; may be left out where `type` tells.
    type
        DVID's name of the data type, such as "labelmap"; without it, that for images of `dtype`.
    voxel_size, units
        x, y, z, of "nanometers" (default), "micrometers" or "millimeters"; 8 nm where not given.
    offset
        Voxel (x, y, z) at which the volume begins. Array "0" begins with the block that holds it.
    block_size
        x, y, z; 32 each, for labels 64, where not given.
    background
        Kept by the server, for its own use: absent voxels are read as 0.
    scales
        Of labels, how many; the server makes the lower ones.
    compression
        How the server stores: "lz4" (its default for images), "gzip:6", "jpeg", "snappy", "none".

    A labelmap comes with `supervoxels=True`, as these are what can be written. Raises Unsupported (with a
    suggestion) for what cannot be made, UrlError for what makes no sense, NoSuchVolume for an unknown version,
    TransportError for a locked one or a name that is taken.

    """
    volume = NewVolume(
        shape=tuple(int(n) for n in shape),
        dtype=None if dtype is None else np.dtype(dtype).name,
        type=type,
        voxel_size=voxel_size,
        units=units,
        offset=offset,
        block_size=block_size,
        background=background,
        scales=scales,
        compression=compression,
    )
    needed = create_volume(url, volume, options)
    return open(url, "r+", **{**needed, **options})
