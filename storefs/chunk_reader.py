"""Single chunks of one array, each had from where it costs least.

That is memory, a file of mere voxels of which just a part is read, a box that the server cuts out, or the chunk as it
is stored, decoded straight into the caller's memory where all of it is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from storefs.backend import Stored, SupportsBoxes, SupportsObjects, SupportsRegion, Transport
from storefs.decoding import Decoding
from storefs.errors import StorefsError, TooLong
from storefs.fetching import Fetching
from storefs.grid import Grid
from storefs.many_files import ManyFiles
from storefs.model import ArrayNode, ChunkId
from storefs.opened import Opened
from storefs.plain_files import plain_files
from storefs.plans import Body, Get, resumed
from storefs.selection import kept_axes, plain_box
from storefs.source import Source, about
from storefs.together import Together, together
from storefs.window import Boxed, Part, Piece, Scattered, Slices
from storefs.workers import pool
from storefs_codecs.chunk_codec import Array
from storefs_codecs.errors import DecodeError
from storefs_codecs.kernels.voxel_copy import copy_voxels

Put = Callable[[Array], object]
"""Puts the voxels of a piece, which have come, into a result."""


class ChunkReader:
    """Reads chunks of one array of a volume. Safe across threads and fork.

    What it raises names chunk and URL: DecodeError, Unsupported, MissingChunk or a TransportError.
    """

    def __init__(self, source: Source, volume: Opened, node: ArrayNode) -> None:
        self.source = source
        self.volume = volume
        self.node = node
        self.grid = Grid(node.shape, node.chunk_shape)
        self.dtype = np.dtype(node.dtype)
        self.local: bool = getattr(volume.transport, "local", False)
        self.chunk_bytes = math.prod(node.chunk_shape) * self.dtype.itemsize
        self.flipped = volume.presentation.axes == "xyz"
        self.decoded = source.decoded
        self.decoding = Decoding(volume, node, keeps=self.decoded is not None)
        backend = None if node.unsupported else volume.backend
        # which voxels of a box are absent cannot be told
        boxes = backend if source.missing != "error" else None
        self.region = boxes if isinstance(boxes, SupportsRegion) else None
        # what is kept is kept by chunks
        keeps = self.decoded is not None or source.keeping.cache is not None
        self.across = boxes if isinstance(boxes, SupportsBoxes) and not keeps else None
        transport = about(volume.transport, node.path)
        self._fetch = transport.fetch
        self.objects = self._own_objects(transport)
        plain = plain_files(node, self.objects, volume.transport, source.tally)
        self.plain = plain if self.decoded is None else None
        self.files = self._files(transport)

    def _own_objects(self, transport: Transport) -> SupportsObjects | None:
        """The backend, where chunks of the array are objects of their own that this transport fetches."""
        backend = self.volume.backend
        if self.node.unsupported or not isinstance(backend, SupportsObjects) or not isinstance(transport, Fetching):
            return None
        first = ChunkId(self.node.path, (0,) * len(self.node.shape))
        return None if backend.object_of(first) is None else backend

    def _files(self, transport: Transport) -> ManyFiles | None:
        """How to read many chunks that are plain files; None where they are none."""
        path_of = transport.path_of if isinstance(transport, Fetching) else None
        if self.plain is None or self.objects is None or path_of is None:
            return None
        return ManyFiles(self.node, self.objects, path_of, self.source.tally, flipped=self.flipped)

    @cached_property
    def _all(self) -> Slices:
        """The selection of all of a chunk as zarr writes it."""
        return tuple(slice(0, n, 1) for n in self.volume.presentation.flip(self.node.chunk_shape))

    def _is_all(self, chunk: ChunkId, selection: Any) -> bool:  # noqa: ANN401  # as numpy takes them
        """Whether `selection` is all of `chunk`, which is not clipped; a first look, which may miss it."""
        if not isinstance(selection, tuple) or False in [type(item) is slice for item in selection]:
            return False  # arrays are not to be compared
        return selection == self._all and self.grid.extent(chunk.index) == self.node.chunk_shape

    @cached_property
    def together(self) -> Together | None:
        """How to read many chunks together; None where each has an object of its own."""
        return together(self.source, self.volume, self.node)

    # a part of one chunk, for those who ask for chunks one by one

    def part(self, chunk: ChunkId, selection: Any) -> Array | None:  # noqa: ANN401  # as numpy takes them
        """The voxels at `selection` of `chunk` as zarr shows it, maybe read only; None where it is absent."""
        kept = None if self.decoded is None else self.decoded.get(chunk)
        if kept is not None:
            return self._selected(kept, selection)
        if self.plain is not None and self._is_all(chunk, selection):
            voxels = self.plain.whole(chunk)
            if voxels is not None:
                return self._as_shown(voxels)
        direct = self.region is not None or self.plain is not None
        box = self._box(selection, self.grid.extent(chunk.index)) if direct else None
        if box is not None:
            cut = self.cut_out(chunk, box)
            if cut is None and self.plain is not None:
                cut = self.plain.part(chunk, box)
            if cut is not None:
                return self._as_shown(cut)[kept_axes(selection)]
        return self.part_of(chunk, self._stored(chunk), selection)

    def part_of(self, chunk: ChunkId, stored: Stored | None, selection: Any) -> Array | None:  # noqa: ANN401  # as numpy takes them
        """The same of `chunk` as it is stored, None where it is absent."""
        part = None if stored is None else self.decoding.part(chunk, stored, selection)
        if part is not None:
            self.source.tally.add(chunks_decoded=1)
            return part
        voxels = self._voxels_of(chunk, stored)
        return None if voxels is None else self._selected(voxels, selection)

    def voxels(self, chunk: ChunkId) -> Array | None:
        """All of `chunk`, of its true extent in stored order, maybe read only; None where it is absent."""
        kept = None if self.decoded is None else self.decoded.get(chunk)
        return kept if kept is not None else self._voxels_of(chunk, self._stored(chunk))

    def _voxels_of(self, chunk: ChunkId, stored: Stored | None) -> Array | None:
        if stored is None:
            self.source.check_absence(self.volume, chunk)
            return None
        voxels = self.decoding.chunk(chunk, stored)
        self.source.tally.add(chunks_decoded=1)
        if self.decoded is not None:
            self.decoded.put(chunk, voxels)
        return voxels

    def _box(self, selection: Any, extent: tuple[int, ...]) -> Slices | None:  # noqa: ANN401  # as numpy takes them
        """`selection` as a solid box in stored order; None where it is none, or reaches beyond `extent`."""
        shown = plain_box(selection, self.volume.presentation.flip(self.node.chunk_shape))
        if shown is None:
            return None
        box: Slices = self.volume.presentation.flip(shown)
        return None if any(s.stop > n for s, n in zip(box, extent, strict=True)) else box

    def _selected(self, voxels: Array, selection: Any) -> Array:  # noqa: ANN401  # as numpy takes them
        # numpy clips what reaches beyond, zarr means the padding there
        inside = voxels.shape == self.node.chunk_shape or self._box(selection, voxels.shape) is not None
        selected: Array = (self._as_shown(voxels) if inside else self._whole(voxels))[selection]
        return selected

    # a piece of one chunk, for those who read many

    def request(self, chunk: ChunkId) -> Get | None:
        """What to ask for to have the chunk, for `fetch_object`; None where there may be other ways."""
        if self.objects is None or not self.region is self.plain is self.across is self.decoded is None:
            return None
        return self.objects.object_of(chunk)

    def fetch_object(self, chunk: ChunkId, piece: Part, request: Get) -> Put | None:
        """As `fetch`, where `request` is known."""
        return self.unpack(chunk, piece, self._stored(chunk, request))

    def fetch(self, chunk: ChunkId, piece: Part) -> Put | None:
        """What puts `piece` into a result, to be called in this thread before it fetches more; None where absent."""
        if isinstance(piece, Boxed):
            return self._fetch_across(chunk, piece)
        kept = self.kept(chunk, piece)
        if kept is not None:
            return kept
        if isinstance(piece, Piece):
            voxels = None if piece.whole else self.cut_out(chunk, piece.inside)
            if voxels is None and self.plain is not None:
                voxels = self.plain.part(chunk, piece.inside, pool().scratch)
            if voxels is not None:
                return partial(_put, piece, voxels)
        return self.unpack(chunk, piece, self._stored(chunk))

    def _fetch_across(self, chunk: ChunkId, piece: Boxed) -> Put:
        if self.across is None:
            raise AssertionError("boxes across chunks are of a backend that reads them")
        plan = self.across.read_across(self.node.path, piece.start, piece.stop)
        return partial(_put, piece, self.source.run(self.volume, plan, chunk))

    def kept(self, chunk: ChunkId, piece: Part) -> Put | None:
        """The same for a chunk that is in memory; None where it is not."""
        voxels = None if self.decoded is None or isinstance(piece, Boxed) else self.decoded.get(chunk)
        return None if voxels is None or isinstance(piece, Boxed) else partial(self._put_selected, piece, voxels)

    def unpack(self, chunk: ChunkId, piece: Part, stored: Stored | None) -> Put | None:
        """The same for a chunk as it is stored; None where it is absent."""
        if isinstance(piece, Boxed):
            raise AssertionError("boxes across chunks come decoded")  # noqa: TRY004  # not the caller's mistake
        if stored is None:
            self.source.check_absence(self.volume, chunk)
            return None
        return partial(self._decode_into, chunk, piece, stored)

    def _decode_into(self, chunk: ChunkId, piece: Piece | Scattered, stored: Stored, result: Array) -> None:
        if piece.whole:
            voxels = self.decoding.chunk(chunk, stored, result[piece.target])
        elif not self._put_part(chunk, piece, stored, result):
            voxels = self.decoding.chunk(chunk, stored)
            self._put_selected(piece, voxels, result)
        self.source.tally.add(chunks_decoded=1)
        if self.decoded is not None:  # what is kept becomes read only
            self.decoded.put(chunk, voxels.copy() if piece.whole else voxels)

    def _put_part(self, chunk: ChunkId, piece: Piece | Scattered, stored: Stored, result: Array) -> bool:
        """Whether `piece` could be decoded without the rest of the chunk."""
        if isinstance(piece, Piece):
            return self.decoding.box(chunk, stored, piece.inside, result[piece.target])
        part = self.decoding.part(chunk, stored, piece.inside)
        if part is not None:
            result[piece.target] = np.squeeze(part, piece.dropped) if piece.dropped else part
        return part is not None

    def _put_selected(self, piece: Piece | Scattered, voxels: Array, result: Array) -> None:
        if isinstance(piece, Piece):
            copy_voxels(voxels[piece.inside], result[piece.target])
            return
        selected = self._whole(voxels)[piece.inside]
        result[piece.target] = np.squeeze(selected, piece.dropped) if piece.dropped else selected

    # where voxels come from

    def _stored(self, chunk: ChunkId, request: Get | None = None) -> Stored | None:
        """The chunk as the source has it, None where absent."""
        if self.objects is None:
            return self.source.stored_in_thread(self.volume, chunk)
        try:
            body: Body | None = self._fetch(request or self.objects.object_of(chunk))
            if body is not None and body.data:
                return self.objects.payload_of(chunk, body)
        except TooLong as error:
            return self._stored_elsewhere(chunk, error)
        except (StorefsError, DecodeError) as error:
            raise self.volume.located(error, chunk) from error
        return self._stored_elsewhere(chunk, body)

    def _stored_elsewhere(self, chunk: ChunkId, answer: Body | TooLong | None) -> Stored | None:
        """The chunk where its first request found `answer`: the backend knows the detours."""
        return self.source.run(self.volume, resumed(self.volume.backend.read(chunk), answer), chunk)

    def cut_out(self, chunk: ChunkId, inside: Slices) -> Array | None:
        """Just the voxels `inside`, stored order, as the source cuts them out; None where the chunk is as cheap."""
        if self.region is None or any(s.step != 1 for s in inside):
            return None
        plan = self.region.read_box(chunk, tuple(s.start for s in inside), tuple(s.stop for s in inside))
        return None if plan is None else self.source.run(self.volume, plan, chunk)

    # how they are shown

    def _as_shown(self, voxels: Array) -> Array:
        return voxels.T if self.flipped else voxels

    def _whole(self, voxels: Array) -> Array:
        """A chunk's `voxels` as zarr shows them: padded where clipped, axes in the order shown."""
        if voxels.shape != self.node.chunk_shape:
            padded = np.full(self.node.chunk_shape, self.node.fill_value, voxels.dtype)
            padded[tuple(slice(n) for n in voxels.shape)] = voxels
            voxels = padded
        return self._as_shown(voxels)


def _put(piece: Piece | Boxed, voxels: Array, result: Array) -> None:
    copy_voxels(voxels, result[piece.target])
