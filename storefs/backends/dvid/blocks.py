"""Blocks in every form in which a DVID server hands them out, into one array.

Everything a payload claims is checked against the block it stands for before memory is taken for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from storefs.backends.dvid.frames import Frame
from storefs_codecs.chunk_codec import Array
from storefs_codecs.content_encoding import inflate
from storefs_codecs.dvid_label_block import DvidLabelBlock
from storefs_codecs.errors import DecodeError
from storefs_codecs.jpeg import Jpeg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storefs.backends.dvid.info import Instance

_LZ4 = "dvid.lz4"
_GZIP_MAGIC = b"\x1f\x8b"
_LENGTH_BYTES = 4


def assemble(frames: Iterable[Frame], instance: Instance, first_xyz: tuple[int, int, int], out: Array) -> bool:
    """Decode `frames` into `out` (zyx, or czyx), whose first voxel is that of block `first_xyz`.

    Blocks may reach over the end of `out`. Whether there was any block. Raises DecodeError.
    """
    found = False
    for frame in frames:
        found = True
        start = [(b - f) * n for b, f, n in zip(frame.block_xyz, first_xyz, instance.block_size, strict=True)][::-1]
        box = tuple(
            slice(s, min(s + n, length))
            for s, n, length in zip(start, instance.block_size[::-1], out.shape[-3:], strict=True)
        )
        block = _decode_placed(frame, instance)
        within(out, box)[...] = within(block, tuple(slice(b.stop - b.start) for b in box))
    return found


def _decode_placed(frame: Frame, instance: Instance) -> Array:
    """A block, whole or, from a store of precomputed data, clipped where the volume ends. Raises DecodeError."""
    try:
        return decode_block(frame.payload, instance)
    except DecodeError:
        if not instance.grid_store or instance.stop_point is None:
            raise
    stops = zip(frame.block_xyz, instance.block_size, instance.stop_point, strict=True)
    clipped = tuple(min(n, stop - b * n) for b, n, stop in stops)[::-1]
    return Jpeg(clipped, "uint8").decode_chunk(frame.payload)


def decode_block(payload: memoryview, instance: Instance) -> Array:
    """One block as zyx (or czyx) voxels, from the form in which `block_form` has the server send it.

    Raises DecodeError.
    """
    shape = instance.block_size[::-1]
    if instance.typename in ("labelmap", "labelarray"):
        return _label_block(payload, shape)
    raw = math.prod(shape) * np.dtype(instance.dtype).itemsize * instance.channels
    form = block_form(instance)
    if form == "jpeg":
        return Jpeg(shape, "uint8").decode_chunk(payload)
    voxels: bytes | memoryview
    if form == "gzip":
        voxels = inflate(payload, "gzip", limit=raw)
    elif form == "lz4-length":
        voxels = _lz4_with_length(payload, raw)
    elif form == "lz4":
        voxels = unlz4(payload, raw)
    else:
        voxels = payload
    return as_voxels(voxels, instance, shape)


def block_form(instance: Instance) -> str:
    """How a block of the instance is asked for and comes: its stored form where that is safe to read, else plain."""
    if instance.typename == "labelblk":
        return "lz4" if instance.compression == "lz4" else "plain"
    if instance.compression == "jpeg":
        return "jpeg"
    if instance.checksum:
        return "plain"
    return {"lz4": "lz4-length", "gzip": "gzip"}.get(instance.compression, "plain")


def label_form(instance: Instance) -> str:
    """The `compression` with which blocks of a label type are asked for."""
    if instance.typename != "labelblk":
        return "blocks"
    return "lz4" if block_form(instance) == "lz4" else "uncompressed"


def as_voxels(data: bytes | memoryview, instance: Instance, shape: tuple[int, ...]) -> Array:
    """Plain voxels as the server orders them (x fastest, channels together) as zyx, or czyx. Raises DecodeError."""
    dtype = np.dtype(instance.dtype).newbyteorder("<")
    expected = math.prod(shape) * instance.channels * dtype.itemsize
    if len(data) != expected:
        raise DecodeError("dvid.raw", "wrong number of bytes", expected, len(data))
    voxels = np.frombuffer(data, dtype)
    if instance.channels == 1:
        return voxels.reshape(shape)
    return np.moveaxis(voxels.reshape(*shape, instance.channels), -1, 0)


def unlz4(payload: memoryview | bytes, length: int) -> memoryview:
    """An LZ4 block that must unpack to exactly `length` bytes. Raises DecodeError."""
    out = np.empty(length, np.uint8)
    try:
        found = imagecodecs.lz4_decode(payload, out=out.data)  # type: ignore[arg-type]  # any buffer is taken
    except imagecodecs.Lz4Error as error:
        raise DecodeError(_LZ4, f"the block is damaged: {error}", f"{length} bytes") from error
    if len(found) != length:
        raise DecodeError(_LZ4, "the block unpacks to another length", length, len(found))
    return out.data


def lz4(data: bytes | memoryview) -> bytes:
    """An LZ4 block, no length in front."""
    return bytes(imagecodecs.lz4_encode(bytes(data)))


def _lz4_with_length(payload: memoryview, length: int) -> memoryview:
    declared = int.from_bytes(payload[:_LENGTH_BYTES], "little")
    if declared != length:
        raise DecodeError(_LZ4, "the block declares another length", length, declared)
    return unlz4(payload[_LENGTH_BYTES:], length)


def _label_block(payload: memoryview, shape: tuple[int, ...]) -> Array:
    voxels = math.prod(shape)
    # a table entry and a code for every voxel is the most that a block can need
    limit = 16 + voxels * (8 + 4 + 2) + voxels // 256
    data: bytes | memoryview = payload
    if bytes(payload[:2]) == _GZIP_MAGIC:  # a store without compression sends the bare block
        data = inflate(payload, "gzip", limit=limit)
    return DvidLabelBlock(shape, "uint64").decode_chunk(data)


def within(voxels: Array, box_zyx: tuple[slice, ...]) -> Array:
    """A view of `box_zyx` in `voxels` (zyx, or czyx with all channels)."""
    z, y, x = box_zyx
    view: Array = voxels[..., z, y, x]
    return view
