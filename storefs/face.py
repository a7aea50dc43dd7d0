"""The two faces of a chunk: as stored, or re-encoded with a codec that every zarr reader has.

A native chunk that is clipped goes out with a frame that tells the codec its extent; raw chunks are padded instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numcodecs
import numpy as np

from storefs.metadata import codec_id, native_configuration, v2_compressor
from storefs_codecs.chunk_codec import Array
from storefs_codecs.errors import DecodeError
from storefs_codecs.frame import ABSENT, MAGIC, frame

if TYPE_CHECKING:
    from storefs.model import ArrayNode, Presentation

Payload = bytes | memoryview


def show(payload: Payload, node: ArrayNode, extent: tuple[int, ...], presentation: Presentation) -> Payload:
    """The stored `payload` of a chunk of `extent` as the reader's codec expects it.

    Raises DecodeError where the payload has to be decoded and cannot.
    """
    native = presentation.face == "native"
    if native and node.encoding.name != "raw":
        refuse_frame(payload, node)
        return payload if extent == node.chunk_shape else frame(extent) + payload
    codec = numcodecs.get_codec({"id": codec_id(node), **native_configuration(node)})
    voxels = codec.decode_chunk(payload, extent=extent)
    if native and extent == node.chunk_shape:
        return payload
    return _encode(pad(voxels, node), node, presentation)


def refuse_frame(payload: Payload, node: ArrayNode) -> None:
    """Raise DecodeError where the stored `payload` would be taken for a framed one."""
    if node.encoding.name != "raw" and payload[: len(MAGIC)] == MAGIC:
        raise DecodeError(codec_id(node), "the stored chunk begins like a storefs frame")


def shows_absent(presentation: Presentation) -> bool:
    """Whether something stands for an absent chunk; see `show_absent`."""
    return presentation.zarr_format == 2  # noqa: PLR2004  # format number


def show_absent(node: ArrayNode, presentation: Presentation) -> Payload | None:
    """What stands for an absent chunk: nothing, where the zarr metadata says how to fill it.

    A v2 document names no fill value (see metadata.py), and zarr 2 leaves the memory of such a chunk as it was, so
    there an absent chunk is served as a chunk of the fill value.
    """
    if not shows_absent(presentation):
        return None
    if presentation.face == "native" and node.encoding.name != "raw":
        return ABSENT
    return _encode(np.full(node.chunk_shape, node.fill_value, node.dtype), node, presentation)


def _encode(voxels: Array, node: ArrayNode, presentation: Presentation) -> Payload:
    settings = v2_compressor(node, presentation)
    # the numcodecs formats of zstd, gzip and blosc are the ones that zarr v3 names
    return voxels.tobytes() if settings is None else bytes(numcodecs.get_codec(settings).encode(voxels))


def pad(voxels: Array, node: ArrayNode) -> Array:
    """The whole chunk (stored order, C-contiguous) around the `voxels` of a clipped one."""
    if voxels.shape == node.chunk_shape:
        return np.ascontiguousarray(voxels)
    padded = np.full(node.chunk_shape, node.fill_value, np.dtype(node.dtype).newbyteorder("<"))
    padded[tuple(slice(n) for n in voxels.shape)] = voxels
    return padded
