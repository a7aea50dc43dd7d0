"""Bulk reads: many chunks of one array, fetched and decoded by worker threads straight into the caller's memory.

No event loop takes part. Where fetching is quick (files) the calling thread works along, and a single chunk is read
in it alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numcodecs
import numpy as np

from storefs.backend import Place, Stored, SupportsBatch, SupportsPlain, SupportsRegion
from storefs.errors import NoSuchVolume, StorefsError, TransportError
from storefs.face import refuse_frame, shows_absent
from storefs.grid import Grid
from storefs.interrupts import stoppable
from storefs.metadata import codec_id, native_configuration
from storefs.model import ArrayNode, ChunkId
from storefs.opened import Opened
from storefs.plans import Body, Get, Plan
from storefs.source import Source
from storefs.spans import Span, span_length, spans
from storefs.window import Piece, Scattered, Window, lie
from storefs.workers import Job, Task, cores, pool
from storefs_codecs.chunk_codec import Array
from storefs_codecs.errors import DecodeError

CONCURRENCY = 32
NEAR_SECONDS = 0.002
NEAR_THREADS_PER_CORE = 4
# as much again may be taken by what is being decoded, and unpacked before
USUAL_COMPRESSION = 4
BYTES_DECODED_ASIDE = 160 << 20
BYTES_IN_FLIGHT = 64 << 20


class Reader:
    """Reads one array of a volume. Safe across threads and fork."""

    def __init__(self, source: Source, volume: Opened, node: ArrayNode) -> None:
        self.source = source
        self.volume = volume
        self.node = node
        self.grid = Grid(node.shape, node.chunk_shape)
        self.dtype = np.dtype(node.dtype)
        self.local: bool = getattr(volume.transport, "local", False)
        self.chunk_bytes = math.prod(node.chunk_shape) * self.dtype.itemsize
        backend = None if node.unsupported else volume.backend
        self.plain = self._plain_backend()
        self.batch = backend if isinstance(backend, SupportsBatch) else None
        # which voxels of a box are absent cannot be told
        self.region = backend if isinstance(backend, SupportsRegion) and source.missing != "error" else None

    def _plain_backend(self) -> SupportsPlain | None:
        """The backend, where chunks of the array may be files of mere voxels in this machine's byte order."""
        backend = self.volume.backend
        able = self.local and hasattr(self.volume.transport, "fill") and sys.byteorder == "little"
        if not able or not isinstance(backend, SupportsPlain):
            return None
        first = ChunkId(self.node.path, (0,) * len(self.node.shape))
        return None if backend.plain_object(first) is None else backend

    @property
    def width(self) -> int:
        """How many chunks to fetch at a time."""
        # what is encoded is short on its way, and only parts of chunks are decoded elsewhere than in the result
        sent = self.chunk_bytes if self.node.encoding.name == "raw" else self.chunk_bytes // USUAL_COMPRESSION
        most = min(BYTES_IN_FLIGHT // max(1, sent), BYTES_DECODED_ASIDE // self.chunk_bytes)
        return max(1, min(_concurrency(self.volume), most))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array as it is shown."""
        shape: tuple[int, ...] = self.volume.presentation.flip(self.node.shape)
        return shape

    def read(self, window: Window, out: Array) -> None:
        """The voxels in `window` into `out`, both as the array is shown; `out` has an axis for every one of it.

        Raises DecodeError, Unsupported, MissingChunk or a TransportError, each naming chunk and URL.
        """
        if self.volume.presentation.axes == "xyz":
            window, out = window.flipped(), out.T
        pieces = list(window.pieces(self.grid))
        if pieces:
            _Read(self, pieces, out).run()

    def read_scattered(self, pieces: Sequence[Scattered], out: Array) -> list[bool]:
        """The voxels of `pieces` into `out`, as the array is shown; of which chunks there is anything to read.

        Raises as `read` does.
        """
        read = _Read(self, pieces, out)
        if pieces:
            read.run()
        if shows_absent(self.volume.presentation):
            return [True] * len(pieces)
        return [number not in read.absent for number in range(len(pieces))]

    # one chunk

    @cached_property
    def codec(self) -> Any:  # noqa: ANN401  # numcodecs is untyped
        """The codec of the chunks as stored."""
        return numcodecs.get_codec({"id": codec_id(self.node), **native_configuration(self.node)})

    def fill(self, chunk: ChunkId, memory: memoryview, start: int, size: int) -> bool:
        """Whether `memory` holds the bytes from `start` on of `chunk`, whose file is `size` bytes of mere voxels."""
        path = None if self.plain is None else self.plain.plain_object(chunk)
        return path is not None and self.volume.transport.fill(path, memory, start, size)  # type: ignore[attr-defined]  # seen to be there

    def decode(self, chunk: ChunkId, stored: Stored, out: Array | None = None) -> Array:
        """The voxels of `chunk`, of its true extent in stored order; in `out` where given. Raises DecodeError."""
        codec = self.codec
        extent = self.grid.extent(chunk.index)
        target = out
        if out is not None and not (codec.strided or out.flags.c_contiguous):
            scratch = pool().scratch(out.nbytes)
            target = None if scratch is None else np.frombuffer(scratch, out.dtype).reshape(extent)
        if target is not None and target.dtype != codec.dtype:
            target = None
        try:
            payload = stored() if callable(stored) else stored
            refuse_frame(payload, self.node)
            voxels: Array = codec.decode_chunk(payload, extent=extent, out=target)
        except DecodeError as error:
            raise self.volume.located(error, chunk) from error
        if out is None or target is out:
            return voxels
        out[...] = voxels
        return out

    def box(self, chunk: ChunkId, piece: Piece | Scattered) -> Plan[Array] | None:
        """How to read just the voxels of `piece`, None where that is no solid box or no cheaper."""
        region = self.region
        if region is None or piece.whole or isinstance(piece, Scattered) or any(s.step != 1 for s in piece.inside):
            return None
        return region.read_box(chunk, tuple(s.start for s in piece.inside), tuple(s.stop for s in piece.inside))

    def whole(self, voxels: Array) -> Array:
        """A chunk's `voxels` as zarr shows them: padded where clipped, axes in the order shown."""
        if voxels.shape != self.node.chunk_shape:
            padded = np.full(self.node.chunk_shape, self.node.fill_value, voxels.dtype)
            padded[tuple(slice(n) for n in voxels.shape)] = voxels
            voxels = padded
        return voxels if self.volume.presentation.axes == "zyx" else voxels.T


class _Wanted(NamedTuple):
    number: int
    piece: Piece | Scattered
    chunk: ChunkId


class _Read:
    """One bulk read: `pieces` into `out`. `absent` are the numbers of those whose chunks are not there."""

    def __init__(self, reader: Reader, pieces: Sequence[Piece | Scattered], out: Array) -> None:
        self.reader = reader
        self.source = reader.source
        self.volume = reader.volume
        self.out = out
        self.absent: set[int] = set()
        self.progress = self.source.progress
        self.decoded = self.source.decoded
        path = reader.node.path
        self.wanted = [_Wanted(number, piece, ChunkId(path, piece.cell)) for number, piece in enumerate(pieces)]
        self.job: Job | None = None
        self.share = 0

    def run(self) -> None:
        """Read everything. Raises the first failure."""
        progress = self.progress
        if progress is not None:
            progress.start(len(self.wanted), self.out.nbytes)
        try:
            if len(self.wanted) == 1 and self.reader.local:
                self._read(self.wanted[0])
            elif self.wanted:
                self._run_job()
        finally:
            if progress is not None:
                progress.finish()

    def _run_job(self) -> None:
        width = self.reader.width
        tasks = self._tasks(width)
        if self.share:
            width = max(1, min(width, BYTES_IN_FLIGHT // self.share))
        self.job = Job(width, take_part=self.reader.local)
        with stoppable(self.job):
            self.job.run(tasks)

    def _tasks(self, width: int) -> list[Task]:
        backend = self.reader.batch
        batches = None if backend is None else backend.batches([wanted.chunk for wanted in self.wanted])
        if backend is not None and batches is not None:
            # files are read as quickly in small pieces
            self.share = 0 if self.reader.local else span_length(self.out.nbytes // width)
            return [partial(self._read_batch, backend, [self.wanted[i] for i in batch]) for batch in batches]
        return [partial(self._read, wanted) for wanted in self.wanted]

    def _read(self, wanted: _Wanted) -> None:
        _, piece, chunk = wanted
        kept = self.decoded is not None
        if kept and self._read_cached(wanted):
            return
        plan = self.reader.box(chunk, piece)
        if plan is not None:
            voxels = self.source.run(self.volume, plan, chunk)
            self._write(wanted, partial(self._copy, wanted, voxels))
            return
        if kept or self.reader.plain is None or not self._read_plain(wanted):
            self._finish(wanted, self.source.stored_in_thread(self.volume, chunk))

    def _read_plain(self, wanted: _Wanted) -> bool:
        """Read a file of mere voxels, of which just the part that is needed; False where it is something else."""
        _, piece, chunk = wanted
        reader = self.reader
        if isinstance(piece, Scattered):
            return False
        extent, itemsize = reader.grid.extent(chunk.index), reader.dtype.itemsize
        size = math.prod(extent) * itemsize
        if piece.whole and self.job is None:  # straight into the caller's memory
            target = self.out[piece.target]
            if target.flags.c_contiguous and target.dtype == reader.dtype:
                filled = reader.fill(chunk, target.reshape(-1).view(np.uint8).data, 0, size)
                if filled:
                    self.source.tally.add(chunks_decoded=1)
                    self._advance(wanted)
                return filled
        lies = lie(piece.inside, extent, itemsize)
        memory = pool().scratch(lies.nbytes)
        if memory is None or not reader.fill(chunk, memory, lies.start, size):
            return False
        voxels: Array = np.ndarray(lies.shape, reader.dtype, memory, 0, lies.strides)
        self._write(wanted, partial(self._copy, wanted, voxels))
        self.source.tally.add(chunks_decoded=1)
        return True

    def _read_cached(self, wanted: _Wanted) -> bool:
        voxels = None if self.decoded is None else self.decoded.get(wanted.chunk)
        if voxels is None:
            return False
        self._write(wanted, partial(self._put, wanted, voxels))
        return True

    # chunks that lie together

    def _read_batch(self, backend: SupportsBatch, batch: Sequence[_Wanted]) -> None:
        if self.job is None:
            raise AssertionError("batches are tasks of a job")
        batch = [wanted for wanted in batch if not self._read_cached(wanted)]
        if not batch:
            return
        chunks = [wanted.chunk for wanted in batch]
        try:
            places = self.source.run(self.volume, backend.locate(chunks), chunks[0])
        except (StorefsError, DecodeError):  # one by one it shows which chunk it is about
            self.job.add([partial(self._read, wanted) for wanted in batch])
            return
        found: list[tuple[Place, _Wanted]] = []
        for wanted, place in zip(batch, places, strict=True):
            if place is None:
                self._finish(wanted, None)
            else:
                found.append((place, wanted))
        self.job.add([partial(self._read_span, backend, span) for span in spans(found, self.share)])

    def _read_span(self, backend: SupportsBatch, span: Span[_Wanted]) -> None:
        body = self.source.run(self.volume, _get(span), span.members[0][1].chunk)
        for place, wanted in span.members:
            part = None if body is None else span.part(place, body)
            try:
                stored = backend.unpack(wanted.chunk, place, part)
            except DecodeError as error:
                raise self.volume.located(error, wanted.chunk) from error
            self._finish(wanted, stored)

    # into the caller's memory

    def _finish(self, wanted: _Wanted, stored: Stored | None) -> None:
        if stored is not None:
            self._write(wanted, partial(self._decode, wanted, stored))
            return
        self.source.check_absence(self.volume, wanted.chunk)
        self.absent.add(wanted.number)
        self._write(wanted, partial(self._copy, wanted, self.reader.node.fill_value))

    def _write(self, wanted: _Wanted, write: Task) -> None:
        job = self.job
        if job is None:
            write()
        elif job.begin_writing():
            try:
                write()
            finally:
                job.end_writing()
        self._advance(wanted)

    def _advance(self, wanted: _Wanted) -> None:
        if self.progress is not None:
            done, total = wanted.number, len(self.wanted)
            share = self.out.nbytes * (done + 1) // total - self.out.nbytes * done // total
            self.progress.advance(1, share)

    def _decode(self, wanted: _Wanted, stored: Stored) -> None:
        _, piece, chunk = wanted
        if piece.whole:
            voxels = self.reader.decode(chunk, stored, self.out[piece.target])
        else:
            voxels = self.reader.decode(chunk, stored)
            self._put(wanted, voxels)
        self.source.tally.add(chunks_decoded=1)
        if self.decoded is not None:  # what is kept becomes read only
            self.decoded.put(chunk, voxels.copy() if piece.whole else voxels)

    def _put(self, wanted: _Wanted, voxels: Array) -> None:
        piece = wanted.piece
        if isinstance(piece, Piece):
            self.out[piece.target] = voxels[piece.inside]
            return
        selected = self.reader.whole(voxels)[piece.inside]
        self.out[piece.target] = np.squeeze(selected, piece.dropped) if piece.dropped else selected

    def _copy(self, wanted: _Wanted, voxels: Any) -> None:  # noqa: ANN401  # an array or a number
        self.out[wanted.piece.target] = voxels


def open_reader(source: Source, path: str) -> Reader:
    """Reads the array at `path` of `source`. Opens the volume if need be.

    Raises MetadataError, TransportError; KeyError where there is no such array.
    """
    try:
        volume = source.open()
    except NoSuchVolume as error:  # zarr takes a FileNotFoundError for "nothing here"
        raise TransportError(error.message, url=error.url) from error
    return Reader(source, volume, volume.backend.hierarchy.arrays_by_path[path])


def _concurrency(volume: Opened) -> int:
    most = int(getattr(volume.transport, "concurrency", CONCURRENCY))
    # where nothing is waited for, more threads than cores keep busy only get into each other's way
    is_near = getattr(volume.transport, "quickest", math.inf) < NEAR_SECONDS
    return min(most, NEAR_THREADS_PER_CORE * cores()) if is_near else most


def _get(span: Span[Any]) -> Plan[Body | None]:
    parts = tuple((place.start, place.stop) for place, _ in span.members)
    body: Body | None = yield Get(span.path, span.start, span.stop, parts=parts)
    return body
