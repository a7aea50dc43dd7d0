"""Bulk reads: many chunks of one array, fetched and decoded by worker threads straight into the caller's memory.

No event loop takes part. Where fetching is quick (files) the calling thread works along, and a single chunk is read
in it alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from storefs.backend import Tiling
from storefs.chunk_reader import ChunkReader, Put
from storefs.errors import NoSuchVolume, StorefsError, TransportError
from storefs.face import shows_absent
from storefs.grid import Grid
from storefs.interrupts import stoppable
from storefs.many_files import ManyFiles
from storefs.model import ChunkId
from storefs.opened import Opened
from storefs.plans import Get
from storefs.points import Coordinates, pieces_of
from storefs.source import Source
from storefs.spans import Span, span_length
from storefs.together import Together
from storefs.window import Part, Scattered, Window
from storefs.workers import Job, Task, cores
from storefs_codecs.chunk_codec import Array
from storefs_codecs.errors import DecodeError

CONCURRENCY = 32
NEAR_SECONDS = 0.002
NEAR_THREADS_PER_CORE = 4
# as much again may be taken by what is being decoded, and unpacked before
USUAL_COMPRESSION = 4
BYTES_DECODED_ASIDE = 160 << 20
BYTES_IN_FLIGHT = 64 << 20


class Reader(ChunkReader):
    """Reads one array of a volume, many chunks at a time. Safe across threads and fork."""

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
        if self.flipped:
            window, out = window.flipped(), out.T
        boxes = self.boxes(window)
        if boxes is not None:
            _Read(self, window.boxes(boxes.origin, boxes.shape, self.grid), out, self._share(window)).run()
            return
        pieces = window.pieces(self.grid)
        if pieces:
            _Read(self, pieces, out).run()

    def boxes(self, window: Window) -> Tiling | None:
        """The boxes across chunks in which `window` (stored order) takes fewer requests, if it does."""
        box = None if self.across is None else window.box
        if self.across is None or box is None:
            return None
        boxes = self.across.boxes(self.node.path, *box, self._share(window))
        chunks = Tiling((0,) * len(self.node.shape), self.node.chunk_shape)
        return boxes if boxes.count(*box) < chunks.count(*box) else None

    def _share(self, window: Window) -> int:
        """How many bytes of `window` to ask for at a time."""
        return span_length(math.prod(window.lengths) * self.dtype.itemsize // self.width)

    def read_points(self, points: Coordinates) -> Array | None:
        """The voxels at `points` of the array as it is shown, one axis; None where that is not done here.

        Raises as `read` does.
        """
        pieces = pieces_of(points, Grid(self.shape, self.volume.presentation.flip(self.node.chunk_shape)))
        if pieces is None:
            return None
        out: Array = np.empty(points[0].size, self.dtype)
        flip = self.volume.presentation.flip
        self.read_scattered([piece._replace(cell=flip(piece.cell)) for piece in pieces], out)
        return out

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


class _Wanted(NamedTuple):
    number: int
    piece: Part
    chunk: ChunkId


class _Read:
    """One bulk read: `pieces` into `out`, `share` bytes at a time where that is known.

    `absent` are the numbers of those whose chunks are not there.
    """

    def __init__(self, reader: Reader, pieces: Sequence[Part], out: Array, share: int = 0) -> None:
        self.reader = reader
        self.source = reader.source
        self.volume = reader.volume
        self.out = out
        self.absent: set[int] = set()
        self.progress = self.source.progress
        path = reader.node.path
        self.wanted = [_Wanted(number, piece, ChunkId(path, piece.cell)) for number, piece in enumerate(pieces)]
        self.job: Job | None = None
        self.share = share

    def run(self) -> None:
        """Read everything. Raises the first failure."""
        progress = self.progress
        if progress is not None:
            progress.start(len(self.wanted), self.out.nbytes)
        try:
            if len(self.wanted) == 1 and self.reader.local:
                self._read_alone(self.wanted[0])
            elif self.wanted:
                self._run_job()
        finally:
            if progress is not None:
                progress.finish()

    def _read_alone(self, wanted: _Wanted) -> None:
        _, piece, chunk = wanted
        plain = self.reader.plain
        if plain is not None and piece.whole and plain.fill(chunk, self.out[piece.target]):
            self._advance(wanted)
        else:
            self._read(wanted)

    def _run_job(self) -> None:
        width, local, files = self.reader.width, self.reader.local, self.reader.files
        if files is not None and files.takes(self.out):
            few = files.at_once(len(self.wanted), width)
            batches = [self.wanted[at : at + few] for at in range(0, len(self.wanted), few)]
            tasks: list[Task] = [partial(self._read_files, files, batch) for batch in batches]
            self.job = Job(width, take_part=local)
        else:
            tasks = self._tasks(width)
            if self.share:
                width = max(1, min(width, BYTES_IN_FLIGHT // self.share))
            self.job = Job(width, take_part=local, alone=True)
        with stoppable(self.job):
            self.job.run(tasks)

    def _tasks(self, width: int) -> list[Task]:
        shared = self.reader.together
        if shared is None:
            # planned here, one after the other, as threads that plan get into each other's way
            requests = [self.reader.request(wanted.chunk) for wanted in self.wanted]
            return [partial(self._read, *task) for task in zip(self.wanted, requests, strict=True)]
        # files are read as quickly in small pieces
        self.share = 0 if self.reader.local else span_length(self.out.nbytes // width)
        return [partial(self._read_group, shared, group) for group in shared.groups(self.wanted)]

    def _read(self, wanted: _Wanted, request: Get | None = None) -> None:
        _, piece, chunk = wanted
        if request is None:
            self._write(wanted, self.reader.fetch(chunk, piece))
        else:
            self._write(wanted, self.reader.fetch_object(chunk, piece, request))

    def _read_kept(self, wanted: _Wanted) -> bool:
        put = self.reader.kept(wanted.chunk, wanted.piece)
        if put is not None:
            self._write(wanted, put)
        return put is not None

    # chunks that are plain files

    def _read_files(self, files: ManyFiles, batch: Sequence[_Wanted]) -> None:
        job = self.job
        if job is None or not job.begin_writing():
            return
        try:
            done = files.read([wanted.chunk for wanted in batch], [wanted.piece for wanted in batch], self.out)
        finally:
            job.end_writing()
        for wanted, is_done in zip(batch, done, strict=True):
            if is_done:
                self._advance(wanted)
            else:
                self._read(wanted)

    # chunks that lie together

    def _read_group(self, shared: Together, group: Sequence[_Wanted]) -> None:
        if self.job is None:
            raise AssertionError("groups are tasks of a job")
        group = [wanted for wanted in group if not self._read_kept(wanted)]
        if not group:
            return
        try:
            absent, found = shared.find(group, self.share)
        except (StorefsError, DecodeError):  # one by one it shows which chunk it is about
            self.job.add([partial(self._read, wanted) for wanted in group])
            return
        for wanted in absent:
            self._write(wanted, self.reader.unpack(wanted.chunk, wanted.piece, None))
        self.job.add([partial(self._read_span, shared, span) for span in found])

    def _read_span(self, shared: Together, span: Span[_Wanted]) -> None:
        for wanted, stored in shared.fetch(span):
            self._write(wanted, self.reader.unpack(wanted.chunk, wanted.piece, stored))

    # into the caller's memory

    def _write(self, wanted: _Wanted, put: Put | None) -> None:
        if put is None:
            self.absent.add(wanted.number)
            put = partial(_fill, wanted.piece, self.reader.node.fill_value)
        job = self.job
        if job is None:
            put(self.out)
        elif job.begin_writing():
            try:
                put(self.out)
            finally:
                job.end_writing()
        self._advance(wanted)

    def _advance(self, wanted: _Wanted) -> None:
        if self.job is not None:
            self.job.advance()
        if self.progress is not None:
            done, total = wanted.number, len(self.wanted)
            share = self.out.nbytes * (done + 1) // total - self.out.nbytes * done // total
            self.progress.advance(1, share)


def _fill(piece: Part, value: float, result: Array) -> None:
    result[piece.target] = value


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
