"""Listing a volume: documents, and chunks by arithmetic. Nothing is listed that was not asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from storefs.errors import Unsupported
from storefs.grid import Grid
from storefs.keys import chunk_folder, chunk_key
from storefs.model import ChunkId
from storefs.opened import Opened

MAX_LISTED_CHUNKS = 10_000_000


def documents_under(volume: Opened, prefix: str) -> Iterator[str]:
    """Keys of documents that begin with `prefix`."""
    return (key for key in volume.documents if key.startswith(prefix))


def chunk_keys_under(volume: Opened, prefix: str) -> Iterator[str]:
    """Keys of all chunks of the grids that begin with `prefix`, stored or not. Raises Unsupported for too many."""
    shown = volume.presentation
    for node in volume.backend.hierarchy.arrays_by_path.values():
        folder = chunk_folder(node.path, shown)
        if not (folder.startswith(prefix) or prefix.startswith(folder)) or node.unsupported:
            continue
        grid = Grid(node.shape, node.chunk_shape)
        if grid.size > MAX_LISTED_CHUNKS:
            raise Unsupported(f"array {node.path} has {grid.size} chunks, too many to list", url=volume.url)
        keys = (chunk_key(ChunkId(node.path, index), shown) for index in grid)
        yield from (key for key in keys if key.startswith(prefix))


def names_below(volume: Opened, folder: str) -> list[str]:
    """Names directly below `folder`: of documents and groups, and of chunks by their place in the grid."""
    folder = folder.strip("/")
    prefix = folder + "/" if folder else ""
    names = {key[len(prefix) :].split("/")[0] for key in documents_under(volume, prefix)}
    for node in volume.backend.hierarchy.arrays_by_path.values():
        cells = volume.presentation.flip(Grid(node.shape, node.chunk_shape).cells)
        names |= _chunk_names(prefix, chunk_folder(node.path, volume.presentation), cells)
    return sorted(names)


def batches(keys: Iterator[str], size: int) -> Iterator[list[str]]:
    """`keys` in lists of up to `size`."""
    while batch := list(itertools.islice(keys, size)):
        yield batch


def _chunk_names(prefix: str, folder: str, cells: tuple[int, ...]) -> set[str]:
    """Names below `prefix` among the chunk keys `<folder>i/j/k` of a grid of `cells`."""
    if folder.startswith(prefix):
        rest = folder[len(prefix) :]
        return {rest.split("/")[0]} if rest else _numbers(cells[0])
    if not prefix.startswith(folder):
        return set()
    parts = prefix[len(folder) :].rstrip("/").split("/")
    inside = len(parts) < len(cells) and all(
        part.isdecimal() and int(part) < n for part, n in zip(parts, cells, strict=False)
    )
    return _numbers(cells[len(parts)]) if inside else set()


def _numbers(count: int) -> set[str]:
    if count > MAX_LISTED_CHUNKS:
        raise Unsupported(f"{count} chunks along one axis are too many to list")
    return {str(i) for i in range(count)}
