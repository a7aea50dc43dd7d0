"""Payloads of the chunks of one array into voxels: all of a chunk or just a part, straight to where they go."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np

from storefs.chunk_part import chunk_part
from storefs.face import refuse_frame
from storefs.grid import Grid
from storefs.metadata import codec_id, native_configuration
from storefs.workers import pool
from storefs_codecs.errors import DecodeError
from storefs_codecs.kernels.voxel_copy import copy_voxels
from storefs_codecs.part_codec import PartCodec
from storefs_codecs.recycled import recycled

if TYPE_CHECKING:
    from storefs.backend import Stored
    from storefs.face import Payload
    from storefs.model import ArrayNode, ChunkId
    from storefs.opened import Opened
    from storefs.window import Slices
    from storefs_codecs.chunk_codec import Array


class Decoding:
    """Decodes chunks of one array of a volume. Safe across threads and fork.

    `keeps`: whole chunks are wanted, and their memory for good. Raises DecodeError, which names chunk and URL.
    """

    def __init__(self, volume: Opened, node: ArrayNode, *, keeps: bool) -> None:
        self._volume = volume
        self._node = node
        self._grid = Grid(node.shape, node.chunk_shape)
        self._keeps = keeps
        self._flipped = volume.presentation.axes == "xyz"

    @cached_property
    def _codec(self) -> Any:  # noqa: ANN401  # numcodecs is untyped
        """The codec of the chunks as stored."""
        return numcodecs.get_codec({"id": codec_id(self._node), **native_configuration(self._node)})

    @cached_property
    def _part_codec(self) -> PartCodec | None:
        """The codec, where it decodes parts without the rest, which then is not kept."""
        return self._codec if not self._keeps and isinstance(self._codec, PartCodec) else None

    @cached_property
    def _recycles(self) -> bool:
        """Whether to decode into memory that is lent: not what is kept, nor what is a view of the payload anyway."""
        return not self._keeps and self._node.encoding.name != "raw" and self._codec.strided

    def chunk(self, chunk: ChunkId, stored: Stored, out: Array | None = None) -> Array:
        """The voxels of `chunk`, of its true extent in stored order; in `out` where given."""
        codec = self._codec
        extent = self._grid.extent(chunk.index)
        target = out
        if out is None and self._recycles:
            target = out = recycled().empty(extent, codec.dtype)
        elif out is not None and not (codec.strided or out.flags.c_contiguous):
            scratch = pool().scratch(out.nbytes)
            target = None if scratch is None else np.frombuffer(scratch, out.dtype).reshape(extent)
        if target is not None and target.dtype != codec.dtype:
            target = None
        try:
            voxels: Array = codec.decode_chunk(self._payload(stored), extent=extent, out=target)
        except DecodeError as error:
            raise self._volume.located(error, chunk) from error
        if out is None or target is out:
            return voxels
        copy_voxels(voxels, out)
        return out

    def box(self, chunk: ChunkId, stored: Stored, inside: Slices, out: Array) -> bool:
        """Whether just the voxels `inside`, stored order, could be decoded, and now are in `out`."""
        codec = self._part_codec
        if codec is None or out.dtype != codec.dtype:
            return False
        try:
            codec.decode_box(self._payload(stored), inside, extent=self._grid.extent(chunk.index), out=out)
        except DecodeError as error:
            raise self._volume.located(error, chunk) from error
        return True

    def part(self, chunk: ChunkId, stored: Stored, selection: Any) -> Array | None:  # noqa: ANN401  # as numpy takes them
        """The voxels at `selection` of `chunk` as it is shown, without the rest; None where that is not done."""
        codec = self._part_codec
        if codec is None:
            return None
        extent = self._grid.extent(chunk.index)
        part = chunk_part(selection, self._node.chunk_shape, extent, flipped=self._flipped)
        try:
            return None if part is None else part.decode(codec, self._payload(stored), extent)
        except DecodeError as error:
            raise self._volume.located(error, chunk) from error

    def _payload(self, stored: Stored) -> Payload:
        payload = stored() if callable(stored) else stored
        refuse_frame(payload, self._node)
        return payload
