"""Stored chunks that lie close together in one object, to be asked for together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from storefs.backend import Place
from storefs.plans import Body

T = TypeVar("T")

MAX_GAP = 64 << 10
SHORTEST, LONGEST = 1 << 20, 8 << 20


@dataclass(frozen=True, slots=True)
class Span(Generic[T]):
    """Bytes `start` to `stop` of the object at `path`, in which lie the places of `members`."""

    path: str
    start: int
    stop: int
    members: Sequence[tuple[Place, T]]

    def part(self, place: Place, body: Body) -> Body:
        """The bytes of `place` in those of the span; fewer where the object ends before."""
        if place.start == self.start and place.stop == self.stop:
            return body
        data = memoryview(body.data)[place.start - self.start : place.stop - self.start]
        return Body(data, body.content_encoding)


def span_length(share: int) -> int:
    """How long spans are to be where each of many threads is to get `share` bytes: neither very short nor very long."""
    return min(LONGEST, max(SHORTEST, share))


def spans(found: Sequence[tuple[Place, T]], longest: int) -> Iterator[Span[T]]:
    """`found` as spans without long gaps and no longer than `longest`, except where a single place is."""
    members: list[tuple[Place, T]] = []
    start = stop = 0
    for place, item in sorted(found, key=lambda member: (member[0].path, member[0].start)):
        apart = not members or place.path != members[0][0].path or place.start - stop > MAX_GAP
        if apart or max(stop, place.stop) - start > longest:
            if members:
                yield Span(members[0][0].path, start, stop, members)
            members, start, stop = [], place.start, place.stop
        members.append((place, item))
        stop = max(stop, place.stop)
    if members:
        yield Span(members[0][0].path, start, stop, members)
