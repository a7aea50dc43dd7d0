"""Writing chunks: any part of a chunk, without losing what another writer of this process puts beside it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Hashable, Iterator
from typing import Any

import numcodecs
import numpy as np

from storefs.backend import Box, Payload, SupportsWrite
from storefs.errors import Unsupported
from storefs.metadata import codec_id, native_configuration, v2_compressor
from storefs.model import ArrayNode, ChunkId, Presentation
from storefs.opened import Opened
from storefs.selection import plain_box
from storefs.source import Source
from storefs_codecs.chunk_codec import Array


class Writers:
    """Who writes what in this process, and how far each thing has been written."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._held: set[Hashable] = set()
        self._written: dict[Hashable, Box] = {}

    @contextlib.contextmanager
    def hold(self, parts: frozenset[Hashable]) -> Iterator[None]:
        """Wait until nobody writes any of `parts`, and hold them while the block runs."""
        with self._free:
            self._free.wait_for(lambda: not self._held & parts)
            self._held |= parts
        try:
            yield
        finally:
            with self._free:
                self._held -= parts
                self._free.notify_all()

    def reach(self, thing: Hashable, box: Box) -> Box:
        """`box` and all boxes told of `thing` before, as one."""
        with self._free:
            start, stop = self._written.get(thing, box)
            low = tuple(min(a, b) for a, b in zip(start, box[0], strict=True))
            high = tuple(max(a, b) for a, b in zip(stop, box[1], strict=True))
            self._written[thing] = low, high
            return low, high


@functools.cache
def writers(_pid: int) -> Writers:
    """The writers of the process `_pid`; a fork starts with none."""
    return Writers()


async def write_through(source: Source, key: str, selection: Any, values: Array) -> None:  # noqa: ANN401  # zarr's selectors are untyped
    """Put `values` at `selection` of the chunk under `key`, as zarr shows it.

    Raises Unsupported where the volume cannot be written, TransportError and its kinds.
    """
    volume = await source.opened()
    chunk = _writable_chunk(volume, key)
    await asyncio.to_thread(_write_selected, source, volume, chunk, selection, values)


async def write_chunk(source: Source, key: str, payload: Payload | None) -> None:
    """Write the whole chunk under `key` from its bytes as zarr encodes them; None writes the fill value.

    Raises Unsupported for keys that are no chunks and volumes that cannot be written, TransportError and its kinds.
    """
    volume = await source.opened()
    chunk = _writable_chunk(volume, key)
    await asyncio.to_thread(_write_whole, source, volume, chunk, payload)


def _writable_chunk(volume: Opened, key: str) -> ChunkId:
    if not isinstance(volume.backend, SupportsWrite):
        raise Unsupported("volumes of this format are read only here", url=volume.url)
    chunk = volume.chunk(key)
    if chunk is None:
        raise Unsupported(f"only voxels can be written, not {key!r}", url=volume.url)
    return chunk


def _write_selected(source: Source, volume: Opened, chunk: ChunkId, selection: Any, values: Array) -> None:  # noqa: ANN401  # zarr's selectors are untyped
    node, shown = volume.node(chunk), volume.presentation
    box = plain_box(selection, shown.flip(node.chunk_shape))
    if box is None:  # scattered voxels: change them in the whole chunk
        _write_scattered(source, volume, chunk, selection, values)
        return
    shape = tuple(s.stop - s.start for s in box)
    voxels = np.broadcast_to(_with_dropped_axes(values, selection, shape), shape)
    start = tuple(s.start for s in box)
    if shown.axes == "xyz":
        voxels, start = voxels.T, start[::-1]
    with writers(os.getpid()).hold(volume.backend.parts(chunk)):  # type: ignore[attr-defined]  # checked to be writable
        _write(source, volume, chunk, start, voxels)


def _write_scattered(source: Source, volume: Opened, chunk: ChunkId, selection: Any, values: Array) -> None:  # noqa: ANN401  # zarr's selectors are untyped
    node, shown = volume.node(chunk), volume.presentation
    extent = volume.extent(chunk)
    with writers(os.getpid()).hold(volume.backend.parts(chunk)):  # type: ignore[attr-defined]  # checked to be writable
        stored = source.run(volume, volume.backend.read(chunk), chunk)
        whole = np.full(node.chunk_shape, node.fill_value, node.dtype)
        inside = tuple(slice(n) for n in extent)
        if stored is not None:
            payload = stored() if callable(stored) else stored
            whole[inside] = np.frombuffer(payload, node.dtype).reshape(extent)
        view = whole.T if shown.axes == "xyz" else whole
        view[selection] = values
        _write(source, volume, chunk, (0,) * len(extent), whole[inside])


def _write_whole(source: Source, volume: Opened, chunk: ChunkId, payload: Payload | None) -> None:
    node = volume.node(chunk)
    if payload is None:
        voxels: Array = np.full(node.chunk_shape, node.fill_value, node.dtype)
    else:
        voxels = _decode(payload, node, volume.presentation)
    inside = tuple(slice(n) for n in volume.extent(chunk))
    with writers(os.getpid()).hold(volume.backend.parts(chunk)):  # type: ignore[attr-defined]  # checked to be writable
        _write(source, volume, chunk, (0,) * len(inside), voxels[inside])


def _write(source: Source, volume: Opened, chunk: ChunkId, start: tuple[int, ...], voxels: Array) -> None:
    backend = volume.backend
    if not isinstance(backend, SupportsWrite):
        raise Unsupported("volumes of this format are read only here", url=volume.url)
    source.run(volume, backend.check_writable(chunk), chunk)
    source.written(chunk)
    source.run(volume, backend.write(chunk, start, voxels, writers(os.getpid()).reach), chunk)


def _decode(payload: Payload, node: ArrayNode, shown: Presentation) -> Array:
    """The voxels of a whole chunk (stored order) from its bytes as `shown` has zarr encode them."""
    settings = v2_compressor(node, shown)
    if shown.face == "native" or settings is None:
        codec = numcodecs.get_codec({"id": codec_id(node), **native_configuration(node)})
        voxels: Array = codec.decode_padded(payload)
        return voxels
    data = numcodecs.get_codec(settings).decode(payload)
    return np.frombuffer(data, node.dtype).reshape(node.chunk_shape)


def _with_dropped_axes(values: Array, selection: Any, shape: tuple[int, ...]) -> Array:  # noqa: ANN401  # zarr's selectors are untyped
    """`values` with an axis of one where an integer in `selection` dropped it."""
    items = selection if isinstance(selection, tuple) else (selection,)
    array = np.asarray(values)
    if array.ndim == 0 or array.ndim == len(shape):
        return array
    dropped = [i for i, item in enumerate(items) if not isinstance(item, slice)]
    return np.expand_dims(array, dropped)
