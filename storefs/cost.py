"""What a read would take, before it takes it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.filesize import decimal

from storefs.api import open_array
from storefs.backend import Place, SupportsBatch
from storefs.engine import Reader, open_reader
from storefs.errors import NotCached, StorefsError
from storefs.fetching import Fetching
from storefs.kept import boxed_chunks, bytes_received, holds
from storefs.model import ArrayNode, ChunkId
from storefs.opened import Opened
from storefs.plans import At, Call, Get, Once, Race, Reply, Request, VolumeBox, drive
from storefs.source import Source
from storefs.spans import span_length, spans
from storefs.touched import Touched
from storefs.upkeep import Opened as OpenedArray
from storefs.upkeep import chunks_touched, source_of
from storefs.window import basic_window
from storefs_codecs.errors import DecodeError

# a sample stands for the rest of a bigger read
_MOST_LOOKED_AT = 20_000
_MOST_DRIVEN = 64
# chunks after which what they took is a better guess than what others take
_ENOUGH = 8
# a shard's index, the minishards' indexes, and the chunks in one piece
_REQUESTS_PER_SHARD = 3
# of electron microscopy of fly brain and its segmentation, in chunks of 64 voxels a side
_TYPICAL_SHARE = {
    "jpeg": 0.25,
    "png": 0.7,
    "jxl": 0.3,
    "compressed_segmentation": 0.015,
    "compresso": 0.014,
    "crackle": 0.004,
    "fpzip": 0.5,
    "kempressed": 0.5,
}
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, repr=False)
class ReadCost:
    """What reading a selection in bulk takes.

    `chunks` are touched, of which `cached_chunks` are already in memory or on disk; the other figures count those
    too. `requests` are sent and bring `bytes_fetched`, which become `bytes_decoded` (whole chunks, though of some only
    the wanted part is read or decoded), of which `bytes_selected` were asked for. `exact` says that requests and bytes
    are no guess, save for chunks that turn out to be absent.
    """

    chunks: int
    cached_chunks: int
    requests: int
    bytes_fetched: int
    bytes_decoded: int
    bytes_selected: int
    exact: bool

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        cached = f" ({self.cached_chunks} of them cached)" if self.cached_chunks else ""
        return (
            f"{_plural(self.chunks, 'chunk')}{cached}, {about}{_plural(self.requests, 'request')},"
            f" {about}{decimal(self.bytes_fetched)} to fetch, {decimal(self.bytes_decoded)} to decode for"
            f" {decimal(self.bytes_selected)}"
        )

    def __repr__(self) -> str:
        return f"<ReadCost: {self}>"


def plan(
    volume: OpenedArray | str,
    selection: Any = ...,  # noqa: ANN401  # as numpy takes them
    *,
    exact: bool = False,
    scale: int = 0,
    **options: Any,  # noqa: ANN401  # checked one by one
) -> ReadCost:
    """What reading `selection` of an array in bulk takes: chunks, requests, bytes; nothing of it is read.

    `volume` is an array that storefs has opened, or an address, with `scale` and options as for `open_array`;
    `selection` is what would stand in brackets (integers, slices, an ellipsis, arrays), by default everything. By
    default requests and bytes are a guess made without I/O: bytes after what was read before, or what is typical of
    the encoding. With `exact` the indexes of a sharded array are read (and remembered), which tells; it changes
    nothing where there are none, as only the server knows how long the chunks are. Raises IndexError, TypeError, and
    what `open_array` raises.
    """
    array = open_array(volume, scale, **options) if isinstance(volume, str) else volume
    source, path = source_of(array)
    try:
        reader = open_reader(source, path)
    except KeyError:
        raise TypeError(f"expected an array, got the group {path!r} of {source.url}") from None
    opened, node = reader.volume, reader.node
    found = chunks_touched(source, node, selection)
    itemsize = np.dtype(node.dtype).itemsize
    decoded = found.chunk_voxels * itemsize
    sample = found if exact else found.sample(_MOST_LOOKED_AT)
    chunks = [ChunkId(node.path, index) for index in sample]
    scaled = found.count / max(1, len(chunks))
    fetched = _guessed_bytes(source, node, found.count, decoded)
    requests: float = 0
    known = False
    if chunks:
        batches = _batches(opened, chunks)
        boxes = _boxes(reader, selection)
        if boxes:
            requests = boxes
        elif batches is None:
            requests = _driven(source, opened, chunks, found)
            fetched = fetched if requests else 0  # slices that are filled, not asked for
        elif exact:
            share = 0 if reader.local else span_length(found.voxels * itemsize // reader.width)
            requests, fetched = _looked_up(source, opened, batches, share)
            known = True
        else:
            requests = min(_REQUESTS_PER_SHARD * len(batches), 2 * len(batches) + len(chunks)) * scaled
    return ReadCost(
        chunks=found.count,
        cached_chunks=round(_cached(source, opened, chunks) * scaled),
        requests=math.ceil(requests),
        bytes_fetched=fetched,
        bytes_decoded=decoded,
        bytes_selected=found.voxels * itemsize,
        exact=known or not chunks,
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count:_} {noun}s"


def _batches(volume: Opened, chunks: Sequence[ChunkId]) -> list[list[ChunkId]] | None:
    """The chunks that share objects; None where each has its own."""
    backend = volume.backend
    found = backend.batches(chunks) if isinstance(backend, SupportsBatch) else None
    return None if found is None else [[chunks[position] for position in batch] for batch in found]


def _boxes(reader: Reader, selection: Any) -> int:  # noqa: ANN401  # as numpy takes them
    """How many boxes across chunks are asked for; 0 where chunks are."""
    window = basic_window(selection, reader.shape)
    if window is not None and reader.flipped:
        window = window.flipped()
    boxes = None if window is None else reader.boxes(window)
    return 0 if window is None or boxes is None or window.box is None else boxes.count(*window.box)


def _guessed_bytes(source: Source, node: ArrayNode, count: int, decoded: int) -> int:
    received, chunks = bytes_received(source), source.tally["chunks_decoded"]
    if chunks >= _ENOUGH and received:
        return round(count * received / chunks)
    return round(decoded * _TYPICAL_SHARE.get(node.encoding.name, 1.0))


def _looked_up(source: Source, volume: Opened, batches: list[list[ChunkId]], share: int) -> tuple[int, int]:
    """Requests for data, and the bytes that they bring, after the indexes have been read. Raises as reading does."""
    backend = volume.backend
    if not isinstance(backend, SupportsBatch):
        raise AssertionError("batches come from it")  # noqa: TRY004  # not the caller's mistake
    requests = fetched = 0
    for batch in batches:
        before = source.tally["requests"]
        places = source.run(volume, backend.locate(batch), batch[0])
        stored: list[tuple[Place, ChunkId]] = [(p, c) for p, c in zip(places, batch, strict=True) if p is not None]
        for span in spans(stored, share):
            requests += 1
            fetched += span.stop - span.start
        requests += source.tally["requests"] - before
    return requests, fetched


def _driven(source: Source, volume: Opened, chunks: Sequence[ChunkId], found: Touched) -> float:
    """Requests for chunks that have objects of their own: those that a few of them ask for stand for all."""
    few = chunks[:: max(1, len(chunks) // _MOST_DRIVEN)]
    return sum(len(list(_requests(source, volume, chunk))) for chunk in few) / len(few) * found.count


def _requests(source: Source, volume: Opened, chunk: ChunkId) -> Iterator[Request]:
    """What is asked for to read `chunk` if nothing is there; nobody is asked."""
    asked: list[Request] = []

    def answer(request: Request) -> Any:  # noqa: ANN401  # answers differ by request
        match request:
            case Once():
                raise NotCached("not known without asking", url=source.url)
            case VolumeBox():
                other, theirs = boxed_chunks(source, request)
                for one in theirs:
                    asked.extend(_requests(other, other.open(), one))
            case Get() | At():
                asked.append(request)
            case Race(requests):
                asked.extend(requests)
                return tuple((None, 0.0) for _ in requests)
            case Call():
                asked.append(request)
                return Reply(_NOT_FOUND, b"")
        return None

    try:
        drive(volume.backend.read(chunk), answer)
    except (StorefsError, DecodeError):
        if not asked:
            asked.append(Get(volume.backend.name(chunk)))
    return iter(asked)


def _cached(source: Source, volume: Opened, chunks: Sequence[ChunkId]) -> int:
    """How many of `chunks` are in memory or on disk."""
    transport = volume.transport
    on_disk = isinstance(transport, Fetching) and transport.disk is not None
    if source.decoded is None and not on_disk:
        return 0
    count = 0
    for chunk in chunks:
        in_memory = source.decoded is not None and chunk in source.decoded
        count += in_memory or (on_disk and holds(source, chunk))
    return count
