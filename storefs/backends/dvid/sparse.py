"""Shapes of single labels: sparse volumes as runs along x, or as coordinates.

Runs are int32 rows (z, y, x, length). The server's own runs of a label in a block with negative y or z end its
process, so runs are made here from the binary blocks, which are also shorter; its run formats are asked for by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from storefs.backends.dvid import calls
from storefs.backends.dvid.boxes import Axes, Box, BoxLike, read_box
from storefs.backends.dvid.info import parse_json
from storefs.backends.dvid.labels import as_label, check_indexed
from storefs.backends.dvid.part import Part, asked, field_of
from storefs.backends.dvid.runs import clipped, coordinates, joined, plain_runs, runs_of_blocks, runs_with_header
from storefs.errors import MetadataError
from storefs.plans import Call

if TYPE_CHECKING:
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

SparseFormat = Literal["blocks", "rles", "srles"]

_ABSENT = 404
_EMPTY = 204


@dataclass(frozen=True, slots=True)
class SparseSize:
    """Voxels and blocks of a label, and the box of its blocks: first and last voxel, x, y, z."""

    voxels: int
    blocks: int
    min_voxel_xyz: tuple[int, int, int]
    max_voxel_xyz: tuple[int, int, int]


class SparseVolumes(Part):
    """Shapes of labels of a labelmap that keeps an index."""

    @asked
    def exists(self, uuid: str, name: str, label: int, *, supervoxels: bool = False) -> Plan[bool]:
        """Whether the version has such a label."""
        path = calls.node(uuid, name, "sparsevol", str(as_label(label)))
        reply = yield from self._ask(Call(path, _flags(supervoxels), "HEAD"), {calls.OK, _EMPTY, _ABSENT})
        return reply.status == calls.OK

    @asked
    def size(self, uuid: str, name: str, label: int, *, supervoxels: bool = False) -> Plan[SparseSize | None]:
        """Voxels, blocks and box of a label; None where there is no such label."""
        return (yield from self._size(uuid, name, label, supervoxels=supervoxels))

    @asked
    def runs(
        self,
        uuid: str,
        name: str,
        label: int,
        *,
        box: BoxLike | None = None,
        axes: Axes = "zyx",
        scale: int = 0,
        supervoxels: bool = False,
        sparse_format: SparseFormat = "blocks",
    ) -> Plan[Array]:
        """Runs of a label (z, y, x, length), in `box` or everywhere, sorted; none where there is no such label.

        "rles" and "srles" ask for the server's own runs, and yield to "blocks" where those would end the server.
        Raises Unsupported where there is no index, DecodeError.
        """
        return (
            yield from self._runs(
                uuid, name, label, box=box, axes=axes, scale=scale, supervoxels=supervoxels, sparse_format=sparse_format
            )
        )

    @asked
    def coordinates(
        self,
        uuid: str,
        name: str,
        label: int,
        *,
        box: BoxLike | None = None,
        axes: Axes = "zyx",
        scale: int = 0,
        supervoxels: bool = False,
        sparse_format: SparseFormat = "blocks",
    ) -> Plan[Array]:
        """Voxels of a label, int32 rows (z, y, x), sorted; as `runs`."""
        return coordinates(
            (
                yield from self._runs(
                    uuid,
                    name,
                    label,
                    box=box,
                    axes=axes,
                    scale=scale,
                    supervoxels=supervoxels,
                    sparse_format=sparse_format,
                )
            )
        )

    @asked
    def coarse(self, uuid: str, name: str, label: int, *, supervoxels: bool = False) -> Plan[Array]:
        """Runs (z, y, x, length) of the blocks that hold a label, in blocks, sorted."""
        path = calls.node(uuid, name, "sparsevol-coarse", str(as_label(label)))
        data = yield from self._get(uuid, name, path, _flags(supervoxels))
        return np.zeros((0, 4), np.int32) if data is None else joined(runs_with_header(data))

    # plans

    def _runs(
        self,
        uuid: str,
        name: str,
        label: int,
        *,
        box: BoxLike | None = None,
        axes: Axes = "zyx",
        scale: int = 0,
        supervoxels: bool = False,
        sparse_format: SparseFormat = "blocks",
    ) -> Plan[Array]:
        place = None if box is None else read_box(box, axes)
        query = [*_flags(supervoxels), *([("scale", str(scale))] if scale else []), *_bounds(place)]
        if sparse_format not in ("blocks", "rles", "srles"):
            raise ValueError(f"sparse_format: expected blocks, rles or srles, got {sparse_format!r}")
        if sparse_format != "blocks":
            whole = yield from self._size(uuid, name, label, supervoxels=supervoxels)
            if whole is not None and min(whole.min_voxel_xyz[1:]) < 0:
                sparse_format = "blocks"
        path = calls.node(uuid, name, "sparsevol", str(as_label(label)))
        data = yield from self._get(uuid, name, path, (*query, ("format", sparse_format)))
        if data is None:
            return np.zeros((0, 4), np.int32)
        if sparse_format == "blocks":
            block = (yield from self._voxels(uuid, name)).block_size
            return joined(clipped(runs_of_blocks(data, block), place))
        return joined(clipped(runs_with_header(data) if sparse_format == "rles" else plain_runs(data), place))

    def _get(
        self, uuid: str, name: str, path: tuple[str, ...], query: tuple[tuple[str, str], ...]
    ) -> Plan[bytes | None]:
        reply = yield from self._ask(Call(path, query), {calls.OK, _EMPTY, _ABSENT})
        if reply.status == calls.OK:
            return reply.data
        check_indexed((yield from self._voxels(uuid, name)), self._connection.url)
        return None

    def _size(self, uuid: str, name: str, label: int, *, supervoxels: bool) -> Plan[SparseSize | None]:
        path = calls.node(uuid, name, "sparsevol-size", str(as_label(label)))
        data = yield from self._get(uuid, name, path, _flags(supervoxels))
        if data is None:
            return None
        found = parse_json(data, "/".join(path), self._connection.url)
        url = self._connection.url
        low, high = (_xyz(field_of(found, key, list, url), url) for key in ("minvoxel", "maxvoxel"))
        return SparseSize(field_of(found, "voxels", int, url), field_of(found, "numblocks", int, url), low, high)


def _flags(supervoxels: bool) -> tuple[tuple[str, str], ...]:  # noqa: FBT001  # one option, passed on
    return (("supervoxels", "true"),) if supervoxels else ()


def _bounds(place: Box | None) -> tuple[tuple[str, str], ...]:
    if place is None:
        return ()
    low = [(f"min{axis}", str(n)) for axis, n in zip("xyz", place.offset, strict=True)]
    return (*low, *((f"max{axis}", str(n - 1)) for axis, n in zip("xyz", place.stop, strict=True)))


def _xyz(values: list[Any], url: str) -> tuple[int, int, int]:
    if len(values) != 3 or not all(isinstance(n, int) for n in values):  # noqa: PLR2004  # x, y and z
        raise MetadataError(f"expected x, y, z, got {values!r}", url=url)
    x, y, z = values
    return x, y, z
