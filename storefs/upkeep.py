"""Looking after open volumes: what reading has taken, and what is kept of them."""

from __future__ import annotations

from typing import Any

import zarr
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from storefs import kept
from storefs.filesystem import VirtualFileSystem
from storefs.grid import Grid
from storefs.model import ArrayNode, ChunkId
from storefs.source import Source
from storefs.store import VirtualStore
from storefs.tally import Statistics
from storefs.touched import Touched, touched

Opened = zarr.Array[Any] | zarr.Group | VirtualStore


def statistics(volume: Opened) -> Statistics:
    """What reading the `volume` that an array, group or store belongs to has taken, in this process so far.

    Requests, bytes, chunks, and how the caches have served. Raises TypeError for what storefs has not opened.
    """
    return kept.statistics(source_of(volume)[0])


def clear_cache(volume: Opened, selection: Any = None) -> None:  # noqa: ANN401  # as numpy takes them
    """Forget what is kept of an array, or of all arrays of a group or store: in memory and on disk.

    With `selection`, as for indexing, only the chunks of an array that it touches; indexes that they share with
    others stay. Raises TypeError, IndexError.
    """
    source, path = source_of(volume)
    if selection is None:
        kept.clear(source, path)
        return
    node = source.open().backend.hierarchy.array(path)
    if node is None:
        raise TypeError("a selection is of an array; this is a group")
    for index in chunks_touched(source, node, selection):
        kept.forget(source, ChunkId(path, index))


def chunks_touched(source: Source, node: ArrayNode, selection: Any) -> Touched:  # noqa: ANN401  # as numpy takes them
    """The chunks (stored order) that `selection` of the array as it is shown touches. Raises IndexError."""
    flip = source.presentation.flip
    found = touched(selection, Grid(flip(node.shape), flip(node.chunk_shape)))
    if source.presentation.axes == "zyx":
        return found
    points = None if found.points is None else found.points[:, ::-1]
    return Touched(Grid(node.shape, node.chunk_shape), found.cells[::-1], found.voxels, points)


def source_of(volume: Opened) -> tuple[Source, str]:
    """The Source behind an array, group or store, and the path in it. Raises TypeError."""
    if isinstance(volume, VirtualStore):
        return volume.source, ""
    store = getattr(volume, "store", None)
    path = str(getattr(volume, "path", ""))
    if isinstance(store, VirtualStore):
        return store.source, path
    if isinstance(store, FsspecStore) and isinstance(store.fs, VirtualFileSystem):
        full = f"{store.path}/{path}" if path else store.path
        source, key = sync(store.fs.volume_of(full))
        return source, key
    raise TypeError(f"expected an array, group or store that storefs has opened, got {type(volume).__name__}")
