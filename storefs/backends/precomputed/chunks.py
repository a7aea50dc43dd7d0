"""Chunks stored one object each: their names, and what their bytes may be wrapped in."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from storefs.backend import Stored
from storefs.errors import TooLong
from storefs.plans import Body, Get, Head, Names
from storefs_codecs.content_encoding import MAGIC, inflate, sniff
from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from storefs.backends.precomputed.info import Scale
    from storefs.plans import Plan

Payload = bytes | memoryview

SUFFIXES = {".gz": "gzip", ".br": "br", ".zstd": "zstd", ".zst": "zstd", ".xz": "xz", ".bz2": "bz2"}
_SLACK = 1 << 20
_ZLIB = 0x78
_STARTS = frozenset(magic[0] for magic in MAGIC.values())


def chunk_name(scale: Scale, cell_xyz: tuple[int, int, int]) -> str:
    """Name of a chunk object, such as "0-64_0-64_-10-6"."""
    (x, y, z), (dx, dy, dz), (nx, ny, nz) = cell_xyz, scale.chunk_size_xyz, scale.size_xyz
    ox, oy, oz = scale.voxel_offset_xyz
    x, y, z = x * dx, y * dy, z * dz  # spelled out, as every chunk of a bulk read comes by here
    return f"{ox + x}-{ox + min(x + dx, nx)}_{oy + y}-{oy + min(y + dy, ny)}_{oz + z}-{oz + min(z + dz, nz)}"


def read_object(scale: Scale, name: str, extent: tuple[int, ...], dtype: str) -> Plan[Stored | None]:
    """Payload of the object `name` of the scale; in a local folder also under a suffix, or in nested folders.

    An empty object is an absent chunk. Raises DecodeError.
    """
    found = yield from _get(object_request(scale, name, extent, dtype))
    if found is not None:
        return unwrap(found, scale, extent, dtype) if len(found.data) else None
    stored = yield from _stored_otherwise(scale, name)
    if stored is None:
        return None
    path, encoding = stored
    found = yield from _get(replace(object_request(scale, name, extent, dtype), path=path))
    if found is None or not len(found.data):
        return None
    if encoding:
        return partial(inflate, found.data, encoding, limit=payload_limit(scale, extent, dtype))
    return unwrap(found, scale, extent, dtype)


def object_request(scale: Scale, name: str, extent: tuple[int, ...], dtype: str) -> Get:
    """How to ask for the object `name` of the scale."""
    limit = payload_limit(scale, extent, dtype)
    return Get(join(scale.key, name), limit=limit + limit // 64 + 4096)  # compressing noise makes it longer


def _get(request: Get) -> Plan[Body | None]:
    try:
        body: Body | None = yield request
    except TooLong as error:
        raise DecodeError("object", error.message, f"at most {request.limit} bytes", "more") from error
    return body


def object_exists(scale: Scale, name: str) -> Plan[bool]:
    """Whether there is an object `name`, under a suffix or in nested folders too."""
    found: Body | None = yield Head(join(scale.key, name))
    if found is not None:
        return True
    return (yield from _stored_otherwise(scale, name)) is not None


def join(folder: str, name: str) -> str:
    """Path of `name` in `folder`, which may be the volume itself ("")."""
    return f"{folder}/{name}" if folder else name


def _stored_otherwise(scale: Scale, name: str) -> Plan[tuple[str, str | None] | None]:
    names: frozenset[str] | None = yield Names(scale.key)
    if names is None:
        return None
    for suffix, encoding in SUFFIXES.items():
        if name + suffix in names:
            return join(scale.key, name + suffix), encoding
    x, y, z = name.split("_")
    if x not in names:
        return None
    names = yield Names(join(scale.key, f"{x}/{y}"))
    for suffix in ("", *SUFFIXES):
        if names and z + suffix in names:
            return join(scale.key, f"{x}/{y}/{z}{suffix}"), SUFFIXES.get(suffix)
    return None


def payload_limit(scale: Scale, extent: tuple[int, ...], dtype: str) -> int:
    """Most bytes that the payload of a chunk of `extent` can have, once unwrapped."""
    encoding = scale.encoding
    block = encoding.configuration["block_size"] if encoding.name == "compressed_segmentation" else ()
    return _limit(encoding.name, tuple(block), extent, dtype)


@lru_cache(1024)  # a volume has few extents
def _limit(encoding: str, block: tuple[int, ...], extent: tuple[int, ...], dtype: str) -> int:
    raw: int = math.prod(extent) * np.dtype(dtype).itemsize
    if encoding == "raw":
        return raw
    if encoding != "compressed_segmentation":
        return 2 * raw + _SLACK
    channels = math.prod(extent[:-3])
    blocks = math.prod(-(-n // b) for n, b in zip(extent[-3:], block[::-1], strict=True))
    words_per_block = 2 + math.prod(block) + 2 * min(math.prod(block), math.prod(extent[-3:]))
    return 4 * channels * (1 + blocks * words_per_block) + 4096


def unwrap(body: Body, scale: Scale, extent: tuple[int, ...], dtype: str) -> Stored:
    """The payload out of an object: without the content-encoding it was stored with, declared or not.

    Unwrapping raises DecodeError, also where the payload would grow beyond what such a chunk can need.
    """
    data = body.data
    limit = payload_limit(scale, extent, dtype)
    if _is_plain(data, scale, extent, limit):
        return data
    found = sniff(data) if may_be_wrapped(data) else None
    declared = body.content_encoding
    if declared and (found or not _checkable(declared) or _is_zlib(data)):
        return partial(inflate, data, declared, limit=limit)
    # a proxy may have unwrapped what the header still declares; and what is not declared may be wrapped
    return partial(inflate, data, found, limit=limit) if found else data


def may_be_wrapped(data: Payload) -> bool:
    """Whether `data` begins like what something is wrapped in; a first look, as every chunk of a bulk read comes by."""
    return bool(data) and data[0] in _STARTS


def _checkable(encoding: str) -> bool:
    """Whether the first bytes show that data is in `encoding`."""
    return all(part.strip() in ("gzip", "zstd", "xz", "bz2", "bzip2", "identity") for part in encoding.split(","))


def _is_zlib(data: Payload) -> bool:
    """Whether `data` begins like a zlib stream, which some writers call gzip."""
    return len(data) > 1 and data[0] == _ZLIB and (data[0] << 8 | data[1]) % 31 == 0


def _is_plain(data: Payload, scale: Scale, extent: tuple[int, ...], limit: int) -> bool:
    """Whether `data` can only be the payload itself, whatever its first bytes resemble."""
    if scale.encoding.name == "raw":
        return len(data) == limit
    if scale.encoding.name == "compressed_segmentation":
        return bytes(data[:4]) == math.prod(extent[:-3]).to_bytes(4, "little")
    return False
