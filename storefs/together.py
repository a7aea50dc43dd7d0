"""Chunks that share objects, such as shards: found, and asked for, many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

from storefs.backend import Place, Stored, SupportsBatch
from storefs.model import ArrayNode, ChunkId
from storefs.opened import Opened
from storefs.plans import Body, Get, Plan
from storefs.source import Source
from storefs.spans import Span, spans
from storefs_codecs.errors import DecodeError


class Wanted(Protocol):
    """Something that is wanted of a chunk."""

    @property
    def chunk(self) -> ChunkId:
        """Which chunk."""


W = TypeVar("W", bound=Wanted)


class Together:
    """Reads chunks of an array that share objects. What it raises names a chunk and the URL."""

    def __init__(self, source: Source, volume: Opened, backend: SupportsBatch) -> None:
        self._source = source
        self._volume = volume
        self._backend = backend

    def groups(self, wanted: Sequence[W]) -> list[list[W]]:
        """Those of `wanted` that share an object, by object."""
        groups = self._backend.batches([one.chunk for one in wanted])
        return [[wanted[position] for position in group] for group in groups or ()]

    def find(self, group: Sequence[W], longest: int) -> tuple[list[W], list[Span[W]]]:
        """Those of a group that are absent, and the others by spans, no longer than `longest`, to be asked for.

        Raises DecodeError, Unsupported, TransportError, which may be about any chunk of the group.
        """
        chunks = [one.chunk for one in group]
        places = self._source.run(self._volume, self._backend.locate(chunks), chunks[0])
        absent: list[W] = []
        found: list[tuple[Place, W]] = []
        for one, place in zip(group, places, strict=True):
            if place is None:
                absent.append(one)
            else:
                found.append((place, one))
        return absent, list(spans(found, longest))

    def fetch(self, span: Span[W]) -> Iterator[tuple[W, Stored]]:
        """Ask for a span: what is wanted in it, with the chunks as stored. Raises DecodeError, TransportError."""
        body = self._source.run(self._volume, _get(span), span.members[0][1].chunk)
        for place, one in span.members:
            part = None if body is None else span.part(place, body)
            try:
                stored = self._backend.unpack(one.chunk, place, part)
            except DecodeError as error:
                raise self._volume.located(error, one.chunk) from error
            yield one, stored


def together(source: Source, volume: Opened, node: ArrayNode) -> Together | None:
    """How to read chunks of the array together; None where each has an object of its own."""
    backend = None if node.unsupported else volume.backend
    first = ChunkId(node.path, (0,) * len(node.shape))
    if not isinstance(backend, SupportsBatch) or backend.batches([first]) is None:
        return None
    return Together(source, volume, backend)


def _get(span: Span[Any]) -> Plan[Body | None]:
    parts = tuple((place.start, place.stop) for place, _ in span.members)
    body: Body | None = yield Get(span.path, span.start, span.stop, parts=parts)
    return body
