"""Questions about labels, and changes of which supervoxels make a body.

A labelmap stores supervoxels; a body is the label that its supervoxels are mapped to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from storefs.backends.dvid import calls
from storefs.backends.dvid.info import parse_json
from storefs.backends.dvid.part import Part, asked, field_of
from storefs.errors import MetadataError, Unsupported
from storefs.plans import Call

if TYPE_CHECKING:
    from storefs.backends.dvid.info import Instance
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

POINTS_PER_REQUEST = 10_000
_ABSENT = 404
_LARGEST = (1 << 64) - 1
_PAIRS = re.compile(rb"(?:\d{1,20} \d{1,20}\n)*")


class Labels(Part):
    """Labels of a labelmap (`at` and `label_at` also of labelarray and labelblk). Label 0 is the background."""

    @asked
    def label_at(
        self, uuid: str, name: str, point_xyz: Sequence[int], *, scale: int = 0, supervoxels: bool = False
    ) -> Plan[int]:
        """The label at one voxel; as `at`."""
        found = yield from self._at(uuid, name, [point_xyz], scale=scale, supervoxels=supervoxels)
        return int(found[0])

    @asked
    def at(
        self,
        uuid: str,
        name: str,
        points_xyz: Sequence[Sequence[int]] | Array,
        *,
        scale: int = 0,
        supervoxels: bool = False,
    ) -> Plan[Array]:
        """Labels (uint64) at voxels `points_xyz`. Raises Unsupported for negative coordinates.

        There the server answers for another voxel: read the box with `voxels.read`.
        """
        return (yield from self._at(uuid, name, points_xyz, scale=scale, supervoxels=supervoxels))

    @asked
    def mapping(self, uuid: str, name: str, supervoxels: Sequence[int]) -> Plan[Array]:
        """The body of each supervoxel, 0 for those that do not exist."""
        return (yield from self._numbers(uuid, name, "mapping", [as_label(sv) for sv in supervoxels], ()))

    @asked
    def mappings(self, uuid: str, name: str) -> Plan[dict[int, int]]:
        """Body by supervoxel, of all supervoxels that are part of another body."""
        path = calls.node(uuid, name, "mappings")
        reply = yield from self._ask(Call(path))
        if not _PAIRS.fullmatch(reply.data):
            raise MetadataError(f"{'/'.join(path)}: expected pairs of labels, got {calls.words(reply)}")
        numbers = [int(word) for word in reply.data.split()]
        return dict(zip(numbers[::2], numbers[1::2], strict=True))

    @asked
    def supervoxels(self, uuid: str, name: str, label: int) -> Plan[list[int]]:
        """The supervoxels of a body, empty where there is no such body."""
        found = yield from self._indexed(uuid, name, "supervoxels", label, ())
        if not isinstance(found or [], list) or not all(map(_is_label, found or [])):
            raise MetadataError(f"supervoxels: expected labels, got {str(found)[:200]}", url=self._connection.url)
        return list(found or [])

    @asked
    def size(self, uuid: str, name: str, label: int, *, supervoxels: bool = False) -> Plan[int]:
        """Voxels of a body, or of a supervoxel; 0 where there is none."""
        query = (("supervoxels", "true"),) if supervoxels else ()
        found = yield from self._indexed(uuid, name, "size", label, query)
        return field_of(found, "voxels", int, self._connection.url) if found else 0

    @asked
    def sizes(self, uuid: str, name: str, labels: Sequence[int], *, supervoxels: bool = False) -> Plan[Array]:
        """Voxels (uint64) of each body, or supervoxel; 0 where there is none."""
        query = (("supervoxels", "true"),) if supervoxels else ()
        return (yield from self._numbers(uuid, name, "sizes", [as_label(label) for label in labels], query))

    @asked
    def max_label(self, uuid: str, name: str) -> Plan[int]:
        """The highest label of the version. Raises TransportError where there is none."""
        answer = yield from self._ask_json(Call(calls.node(uuid, name, "maxlabel")))
        return field_of(answer, "maxlabel", int, self._connection.url)

    @asked
    def set_max_label(self, uuid: str, name: str, label: int) -> Plan[None]:
        """Raise the highest label; needs the admin token on servers since June 2026."""
        yield from self._ask(Call(calls.node(uuid, name, "maxlabel", str(as_label(label))), method="POST"))

    @asked
    def next_label(self, uuid: str, name: str) -> Plan[int]:
        """The label that would be reserved next."""
        answer = yield from self._ask_json(Call(calls.node(uuid, name, "nextlabel")))
        return field_of(answer, "nextlabel", int, self._connection.url)

    @asked
    def reserve(self, uuid: str, name: str, count: int) -> Plan[range]:
        """`count` new labels, which nobody else gets. Not asked twice: a lost answer raises."""
        if count < 1:
            raise ValueError(f"count: expected at least one label, got {count}")
        call = Call(calls.node(uuid, name, "nextlabel", str(count)), method="POST", repeatable=False)
        found = yield from self._ask_json(call)
        start, end = (field_of(found, key, int, self._connection.url) for key in ("start", "end"))
        return range(start, end + 1)

    @asked
    def merge(self, uuid: str, name: str, target: int, others: Sequence[int]) -> Plan[int]:
        """Make the bodies `others` part of `target`; gives the number of the mutation. Not asked twice."""
        if not others:
            raise ValueError("merge: no labels to merge")
        labels = [as_label(label) for label in (target, *others)]
        answer = yield from self._post_json(calls.node(uuid, name, "merge"), labels, repeatable=False)
        return field_of(answer, "MutationID", int, self._connection.url)

    @asked
    def cleave(self, uuid: str, name: str, label: int, supervoxels: Sequence[int]) -> Plan[int]:
        """Make `supervoxels` of body `label` a body of their own; gives its label. Not asked twice."""
        if not supervoxels:
            raise ValueError("cleave: no supervoxels to cleave off")
        path = calls.node(uuid, name, "cleave", str(as_label(label)))
        answer = yield from self._post_json(path, [as_label(sv) for sv in supervoxels], repeatable=False)
        return field_of(answer, "CleavedLabel", int, self._connection.url)

    # plans

    def _at(
        self,
        uuid: str,
        name: str,
        points_xyz: Sequence[Sequence[int]] | Array,
        *,
        scale: int = 0,
        supervoxels: bool = False,
    ) -> Plan[Array]:
        points = np.asarray(points_xyz, np.int64).reshape(-1, 3)
        if (points < 0).any():
            raise Unsupported(
                f"{name}: the server answers wrongly for negative coordinates; use voxels.read",
                url=self._connection.url,
            )
        query = (("scale", str(scale)),) * bool(scale) + (("supervoxels", "true"),) * supervoxels
        return (yield from self._numbers(uuid, name, "labels", points.tolist(), query))

    def _numbers(
        self, uuid: str, name: str, keyword: str, items: list[Any], query: tuple[tuple[str, str], ...]
    ) -> Plan[Array]:
        """A number for each of `items`, sent as the body of a GET. Raises MetadataError."""
        path = calls.node(uuid, name, keyword)
        found: list[int] = []
        for batch in _batches(items):
            answer = yield from self._ask_json(Call(path, query, body=calls.to_json(batch)))
            if not isinstance(answer, list) or len(answer) != len(batch) or not all(map(_is_label, answer)):
                raise MetadataError(f"{'/'.join(path)}: expected {len(batch)} labels", url=self._connection.url)
            found += answer
        return np.array(found, np.uint64)

    def _indexed(self, uuid: str, name: str, keyword: str, label: int, query: tuple[tuple[str, str], ...]) -> Plan[Any]:
        """What the index says of a label, None where it knows none. Raises Unsupported where there is no index."""
        path = calls.node(uuid, name, keyword, str(as_label(label)))
        reply = yield from self._ask(Call(path, query), {calls.OK, _ABSENT})
        if reply.status == calls.OK:
            return parse_json(reply.data, "/".join(path), self._connection.url)
        check_indexed((yield from self._voxels(uuid, name)), self._connection.url)
        return None


def check_indexed(instance: Instance, url: str) -> None:
    """Raise Unsupported where the instance knows no sizes and shapes of labels."""
    extended = instance.document.get("Extended") or {}
    if instance.typename != "labelmap" or extended.get("IndexedLabels") is False:
        raise Unsupported(f"{instance.name} ({instance.typename}) keeps no index of its labels", url=url)


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), POINTS_PER_REQUEST):
        yield items[start : start + POINTS_PER_REQUEST]


def as_label(label: int) -> int:
    """`label` as a plain number. Raises ValueError for what is no label."""
    number = int(label)
    if number != label or not 0 <= number <= _LARGEST:
        raise ValueError(f"expected a label, a number of 64 bits, got {label!r}")
    return number


def _is_label(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
