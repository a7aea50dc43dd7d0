"""Regions of interest: sets of blocks, kept as spans (z, y, first x, last x) in blocks, the last inclusive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from storefs.backends.dvid import calls
from storefs.backends.dvid.boxes import Axes, BoxLike, read_box
from storefs.backends.dvid.part import Part, asked
from storefs.backends.dvid.sinks import MemorySink
from storefs.errors import MetadataError
from storefs.plans import Call

if TYPE_CHECKING:
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

DEFAULT_BLOCK = (32, 32, 32)
_LARGEST = 1 << 31
_SLACK = 1 << 16


class Rois(Part):
    """roi instances."""

    @asked
    def spans(self, uuid: str, name: str) -> Plan[Array]:
        """The spans, int32 rows (z, y, first x, last x) in blocks, sorted."""
        path = calls.node(uuid, name, "roi")
        return parse_spans((yield from self._ask_json(Call(path))), self._connection.url)

    @asked
    def set_spans(self, uuid: str, name: str, spans: Sequence[Sequence[int]] | Array) -> Plan[None]:
        """Replace the region. Raises ValueError for rows that are no spans, TransportError for a locked version."""
        try:
            checked = parse_spans(np.asarray(spans).tolist(), self._connection.url)
        except MetadataError as error:
            raise ValueError(error.message) from error
        yield from self._check_open(uuid, name)
        yield from self._post_json(calls.node(uuid, name, "roi"), checked.tolist())

    @asked
    def delete(self, uuid: str, name: str) -> Plan[None]:
        """Empty the region."""
        yield from self._ask(Call(calls.node(uuid, name, "roi"), method="DELETE"))

    @asked
    def block_size(self, uuid: str, name: str) -> Plan[tuple[int, int, int]]:
        """Size of a block, x, y, z."""
        return parse_block((yield from self._ask_json(Call(calls.node(uuid, name, "info")))), self._connection.url)

    @asked
    def mask(self, uuid: str, name: str, box: BoxLike, *, axes: Axes = "zyx") -> Plan[Array]:
        """The voxels of `box`: uint8, zyx, 1 inside the region and 0 outside."""
        place = read_box(box, axes)
        mask = np.empty(place.shape, np.uint8)
        sink = MemorySink(mask.reshape(-1).data)
        path = calls.node(uuid, name, "mask", "0_1_2", calls.text(place.size), calls.text(place.offset))
        yield from self._ask(Call(path, into=sink, limit=mask.nbytes + _SLACK))
        sink.check("/".join(path), self._connection.url)
        return mask if axes == "zyx" else mask.T

    @asked
    def contains(self, uuid: str, name: str, points_xyz: Sequence[Sequence[int]] | Array) -> Plan[Array]:
        """Whether each voxel lies inside, bool."""
        points = np.asarray(points_xyz, np.int64).reshape(-1, 3).tolist()
        answer = yield from self._post_json(calls.node(uuid, name, "ptquery"), points)
        if not isinstance(answer, list) or len(answer) != len(points):
            raise MetadataError(f"ptquery: expected {len(points)} answers, got {answer!r}", url=self._connection.url)
        return np.array(answer, bool)

    @asked
    def partition(self, uuid: str, name: str, batch_size: int, *, optimized: bool = False) -> Plan[dict[str, Any]]:
        """Boxes of `batch_size` blocks a side that cover the region, as the server says: `Subvolumes` and counts."""
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least one block, got {batch_size}")
        query = (("batchsize", str(batch_size)), *((("optimized", "true"),) if optimized else ()))
        return (yield from self._ask_json(Call(calls.node(uuid, name, "partition"), query)))  # type: ignore[no-any-return]  # JSON


def parse_spans(document: object, url: str) -> Array:
    """Spans as a server or a caller gives them, int32 rows sorted by z, y, x. Raises MetadataError."""
    if document is None:
        document = []
    if not isinstance(document, list) or not all(_is_span(item) for item in document):
        raise MetadataError("roi: expected spans [z, y, first x, last x], the last not before the first", url=url)
    spans = np.array(document, np.int32).reshape(-1, 4)
    return spans[np.lexsort((spans[:, 2], spans[:, 1], spans[:, 0]))]


def parse_block(document: object, url: str) -> tuple[int, int, int]:
    """Block size x, y, z in a roi's info. Raises MetadataError."""
    extended = document.get("Extended") if isinstance(document, dict) else None
    block = (extended or {}).get("BlockSize") or list(DEFAULT_BLOCK) if isinstance(extended, dict) else None
    if not isinstance(block, list) or len(block) != 3 or not all(_is_integer(n) and n > 0 for n in block):  # noqa: PLR2004  # x, y and z
        raise MetadataError(f"info: Extended.BlockSize: expected three whole numbers, got {block!r}", url=url)
    x, y, z = block
    return x, y, z


def spans_of(blocks: Array, first_zyx: Sequence[int] = (0, 0, 0)) -> Array:
    """The spans of a mask with one cell a block (zyx), whose first cell is block `first_zyx`."""
    edges = np.diff(np.pad((blocks != 0).astype(np.int8), ((0, 0), (0, 0), (1, 1))), axis=2)
    z, y, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[2] - 1
    z0, y0, x0 = first_zyx
    return np.stack([z + z0, y + y0, first + x0, last + x0], axis=1).astype(np.int32)


def _is_span(item: object) -> bool:
    if not isinstance(item, list) or len(item) != 4 or not all(map(_is_integer, item)):  # noqa: PLR2004  # z, y, x, x
        return False
    return all(-_LARGEST <= n < _LARGEST for n in item) and item[2] <= item[3]


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
