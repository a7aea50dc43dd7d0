"""Key text of zarr v2 and v3 <-> chunk.

v3   <array>/c/<i>/<j>/<k>
v2   <array>/<i>/<j>/<k>        (dimension separator "/")
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from storefs.grid import Grid
from storefs.model import ChunkId

if TYPE_CHECKING:
    from storefs.model import Hierarchy, Presentation

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
CHUNK_FOLDER = "c/"
_MOST_AXES = 5


def chunk_key(chunk: ChunkId, presentation: Presentation) -> str:
    """The key under which zarr asks for `chunk`."""
    return chunk_folder(chunk.array, presentation) + "/".join(str(i) for i in presentation.flip(chunk.index))


def chunk_folder(array: str, presentation: Presentation) -> str:
    """What all chunk keys of `array` begin with, ending in a slash."""
    folder = f"{array}/" if array else ""
    return folder + (CHUNK_FOLDER if presentation.zarr_format == 3 else "")  # noqa: PLR2004  # format number


def parse_chunk_key(key: str, hierarchy: Hierarchy, presentation: Presentation) -> ChunkId | None:
    """The chunk that `key` names, None where it names no chunk inside an array of `hierarchy`."""
    for path, parts in _splits(key, presentation):
        node = hierarchy.array(path)
        if node is None or len(parts) != len(node.shape) or not all(_NUMBER.fullmatch(part) for part in parts):
            continue
        index = presentation.flip(tuple(int(part) for part in parts))
        if index in Grid(node.shape, node.chunk_shape):
            return ChunkId(node.path, index)
    return None


def _splits(key: str, presentation: Presentation) -> Iterator[tuple[str, list[str]]]:
    """Every way to read `key` as the path of an array followed by numbers."""
    if presentation.zarr_format == 3:  # noqa: PLR2004  # format number
        path, found, numbers = f"/{key}".rpartition(f"/{CHUNK_FOLDER}")
        if found:
            yield path[1:], numbers.split("/")
        return
    parts = key.split("/")
    for rank in range(1, min(len(parts), _MOST_AXES) + 1):
        yield "/".join(parts[:-rank]), parts[-rank:]
