"""A precomputed volume as plans: describe it, read a chunk, ask whether a chunk exists."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from storefs.backend import Place, Redirect, Stored
from storefs.backends.precomputed.chunks import (
    chunk_name,
    join,
    may_be_wrapped,
    object_exists,
    object_request,
    payload_limit,
    read_object,
    unwrap,
)
from storefs.backends.precomputed.document import parse_json
from storefs.backends.precomputed.info import MAX_INFO_BYTES, parse_info
from storefs.backends.precomputed.sharding import compressed_morton, compressed_mortons
from storefs.backends.precomputed.shards import find_chunk, find_chunks
from storefs.errors import MetadataError, NoSuchVolume, TooLong, Unsupported
from storefs.grid import Grid
from storefs.model import ArrayNode, ChunkId, Hierarchy
from storefs.plans import Body, Get, Names
from storefs_codecs.content_encoding import inflate
from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storefs.backends.precomputed.info import Info, Scale, Triple
    from storefs.backends.precomputed.sharding import Sharding
    from storefs.plans import Plan

Payload = bytes | memoryview


def describe(url: str, chunk_size_xyz: Triple | None = None) -> Plan[PrecomputedBackend | Redirect]:
    """The volume at `url`, or where its info redirects. One request.

    Raises NoSuchVolume, MetadataError.
    """
    try:
        body: Body | None = yield Get("info", limit=MAX_INFO_BYTES)
    except TooLong as error:
        raise MetadataError(f"info is no info file: {error.message}", url=url) from error
    if body is None:
        raise NoSuchVolume(
            "no precomputed volume here: there is no info file (the address is that of the folder holding `info`)",
            url=url,
        )
    data = body.data
    if bytes(data[:2]) == b"\x1f\x8b":
        try:
            data = inflate(data, "gzip", limit=MAX_INFO_BYTES)
        except DecodeError as error:
            raise MetadataError(f"info cannot be unpacked: {error}", url=url) from error
    document = parse_json(data, url)
    redirect = document.get("redirect")
    if redirect is not None:
        if not isinstance(redirect, str) or not redirect:
            raise MetadataError(f"info: redirect: expected an address, got {redirect!r}", url=url)
        return Redirect(redirect)
    return PrecomputedBackend(url, parse_info(document, url, chunk_size_xyz))


class PrecomputedBackend:
    """A described precomputed volume. Scale `i` is the array of path `str(i)`."""

    def __init__(self, url: str, info: Info) -> None:
        self.url = url
        self.info = info
        self.hierarchy = _hierarchy(url, info)
        self._scales = {str(i): scale for i, scale in enumerate(info.scales)}
        self._grids = {node.path: Grid(node.shape, node.chunk_shape) for node in self.hierarchy.arrays}

    def name(self, chunk: ChunkId) -> str:
        """Path of the chunk's object in the volume; of a sharded chunk the path it would have, and its shard."""
        scale = self._scales[chunk.array]
        name = join(scale.key, chunk_name(scale, _cell(chunk)))
        return name if scale.sharding is None else f"{name} in {self._shard(scale, chunk)}.shard"

    def read(self, chunk: ChunkId) -> Plan[Stored | None]:
        """The payload of the chunk, unwrapped; None where absent. Raises DecodeError."""
        scale = self._scales[chunk.array]
        if scale.sharding is None:
            name = chunk_name(scale, _cell(chunk))
            return (yield from read_object(scale, name, self._extent(chunk), self.info.dtype))
        return (yield from self._read_sharded(scale, chunk))

    def object_of(self, chunk: ChunkId) -> Get | None:
        """The object of an unsharded chunk, which in a local folder may have another name; None of others."""
        scale = self._scales[chunk.array]
        if scale.sharding is not None:
            return None
        return object_request(scale, chunk_name(scale, _cell(chunk)), self._extent(chunk), self.info.dtype)

    def payload_of(self, chunk: ChunkId, body: Body) -> Stored:
        """The payload out of an object. Raises DecodeError, maybe only when it is made."""
        if body.content_encoding is None and not may_be_wrapped(body.data):
            return body.data
        return unwrap(body, self._scales[chunk.array], self._extent(chunk), self.info.dtype)

    def _extent(self, chunk: ChunkId) -> tuple[int, ...]:
        return self._grids[chunk.array].extent(chunk.index)

    def batches(self, chunks: Sequence[ChunkId]) -> Sequence[Sequence[int]] | None:
        """The positions in `chunks` (of one array) of those in the same shard; None where there are no shards."""
        scale = self._scales[chunks[0].array]
        if scale.sharding is None:
            return None
        shards: dict[str, list[int]] = {}
        for position, key in enumerate(_keys(scale.sharding, chunks)):
            shards.setdefault(scale.sharding.locate(key)[0], []).append(position)
        return list(shards.values())

    def locate(self, chunks: Sequence[ChunkId]) -> Plan[Sequence[Place | None]]:
        """Where the chunks of one shard lie. Raises DecodeError, Unsupported."""
        scale = self._scales[chunks[0].array]
        if scale.sharding is None:
            raise AssertionError("unsharded chunks share no object")
        found = yield from find_chunks(scale.sharding, scale.key, _keys(scale.sharding, chunks))
        if not any(found):
            yield from self._refuse_wrapped_shard(scale, chunks[0])
        places = [place and Place(*place) for place in found]
        for chunk, place in zip(chunks, places, strict=True):
            if place is not None:
                self._check_size(chunk, place)
        return places

    def unpack(self, chunk: ChunkId, place: Place, body: Body | None) -> Stored:
        """The payload of `chunk` out of the bytes of its `place` in the shard. Raises DecodeError."""
        limit = self._check_size(chunk, place)
        if body is None or len(body.data) != place.stop - place.start:
            length = 0 if body is None else len(body.data)
            raise DecodeError(
                "sharded", f"{place.path}: the chunk is cut short", f"{place.stop - place.start} bytes", length
            )
        sharding = self._scales[chunk.array].sharding
        if sharding is not None and sharding.data_encoding == "gzip":
            return partial(inflate, body.data, "gzip", limit=limit)
        return body.data

    def exists(self, chunk: ChunkId) -> Plan[bool]:
        """Whether the chunk is stored."""
        scale = self._scales[chunk.array]
        if scale.sharding is None:
            return (yield from object_exists(scale, chunk_name(scale, _cell(chunk))))
        return (yield from self._find(scale, chunk)) is not None

    def _find(self, scale: Scale, chunk: ChunkId) -> Plan[tuple[str, int, int] | None]:
        sharding = scale.sharding
        if sharding is None:
            raise AssertionError("an unsharded chunk has no key")
        found = yield from find_chunk(sharding, scale.key, compressed_morton(_cell(chunk), sharding.grid_xyz))
        if found is None:
            yield from self._refuse_wrapped_shard(scale, chunk)
        return found

    def _refuse_wrapped_shard(self, scale: Scale, chunk: ChunkId) -> Plan[None]:
        """A shard compressed as a whole is no absent shard; only a local folder can tell."""
        names: frozenset[str] | None = yield Names(scale.key)
        if names is None or scale.sharding is None:
            return
        shard = self._shard(scale, chunk)
        for suffix in (".gz", ".br", ".zstd"):
            if f"{shard}.shard{suffix}" in names and f"{shard}.shard" not in names:
                raise Unsupported(
                    f"{join(scale.key, shard)}.shard{suffix} is a shard compressed as a whole, which cannot be read in "
                    "parts: decompress the file",
                    url=self.url,
                )

    def _shard(self, scale: Scale, chunk: ChunkId) -> str:
        if scale.sharding is None:
            raise AssertionError("an unsharded chunk lies in no shard")
        return scale.sharding.locate(compressed_morton(_cell(chunk), scale.sharding.grid_xyz))[0]

    def _read_sharded(self, scale: Scale, chunk: ChunkId) -> Plan[Stored | None]:
        found = yield from self._find(scale, chunk)
        if found is None:
            return None
        place = Place(*found)
        self._check_size(chunk, place)
        body: Body | None = yield Get(place.path, place.start, place.stop)
        return self.unpack(chunk, place, body)

    def _check_size(self, chunk: ChunkId, place: Place) -> int:
        """Most bytes that the payload of `chunk` can have. Raises DecodeError where `place` is longer than that."""
        limit = payload_limit(self._scales[chunk.array], self._extent(chunk), self.info.dtype)
        stored_limit = limit + limit // 64 + 4096  # compressing noise makes it longer
        if place.stop - place.start > stored_limit:
            raise DecodeError(
                "sharded",
                f"{place.path}: the chunk is impossibly long",
                f"at most {stored_limit}",
                place.stop - place.start,
            )
        return limit


def _keys(sharding: Sharding, chunks: Sequence[ChunkId]) -> list[int]:
    cells = np.array([chunk.index[-3:] for chunk in chunks], np.uint64)[:, ::-1]
    keys: list[int] = compressed_mortons(cells, sharding.grid_xyz).tolist()
    return keys


def _cell(chunk: ChunkId) -> Triple:
    z, y, x = chunk.index[-3:]
    return x, y, z


def _hierarchy(url: str, info: Info) -> Hierarchy:
    arrays = tuple(_array(str(i), scale, info) for i, scale in enumerate(info.scales))
    name = url.rstrip("/").rsplit("/", 1)[-1]
    return Hierarchy(name, arrays, {"source": url, "format": "precomputed", "info": info.document})


def _array(path: str, scale: Scale, info: Info) -> ArrayNode:
    spatial = scale.size_xyz[::-1]
    chunk = scale.chunk_size_xyz[::-1]
    channels = (info.channels,) if info.channels > 1 else ()
    resolution = scale.resolution_xyz[::-1]
    # stored positions are voxel corners, OME-Zarr means centres
    centres = tuple((o + 0.5) * r for o, r in zip(scale.voxel_offset_xyz[::-1], resolution, strict=True))
    details: dict[str, Any] = {"key": scale.key, "chunk_sizes": [list(size) for size in scale.chunk_sizes]}
    if scale.sharding is not None:
        details["sharded"] = True
    return ArrayNode(
        path=path,
        shape=channels + spatial,
        chunk_shape=channels + chunk,
        dtype=np.dtype(info.dtype).name,
        encoding=scale.encoding,
        dimension_names=("c", "z", "y", "x")[-len(channels + spatial) :],
        scale_nm=(1.0,) * len(channels) + resolution,
        translation_nm=(0.0,) * len(channels) + centres,
        voxel_offset_xyz=scale.voxel_offset_xyz,
        resolution_xyz=scale.resolution_xyz,
        attributes=details,
        unsupported=scale.unsupported,
    )
