"""Chunks as stored and as re-encoded: every reader gets the same voxels from both."""

from __future__ import annotations

from typing import Any

import numcodecs
import numpy as np
import pytest

from storefs.face import show, show_absent
from storefs.metadata import codec_id, native_configuration, v2_compressor
from storefs.model import ArrayNode, Encoding, Presentation
from storefs_codecs.errors import DecodeError
from tests.storefs.examples import coloured, node

FULL = (32, 64, 64)
CLIPPED = (6, 26, 36)
NATIVE = Presentation()
FACES = [Presentation(face="portable", codec=codec) for codec in ("raw", "zstd", "gzip", "blosc")]


def voxels(extent: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """Blocky labels without a zero, so that zeros are padding."""
    cell = sum((np.arange(n) // 5).reshape([-1] + [1] * (len(extent) - a - 1)) for a, n in enumerate(extent))
    return (cell % 7 + 1).astype(dtype)


def stored(array: ArrayNode, chunk: np.ndarray[Any, Any]) -> bytes:
    codec = numcodecs.get_codec({"id": codec_id(array), **native_configuration(array)})
    payload: bytes = codec.encode_chunk(chunk)
    return payload


def read(payload: Any, array: ArrayNode, shown: Presentation) -> np.ndarray[Any, Any]:
    """The chunk as a zarr reader decodes it, by what the metadata says."""
    if shown.face == "native":
        config = {"id": codec_id(array), **native_configuration(array)}
    else:
        config = v2_compressor(array, shown)
    data = payload if config is None else numcodecs.get_codec(config).decode(payload)
    return np.frombuffer(np.ascontiguousarray(np.asarray(data)).tobytes(), array.dtype).reshape(array.chunk_shape)


ENCODED = [
    node(),
    node(dtype="uint16"),
    node(encoding=Encoding("png")),
    node(dtype="uint64", encoding=Encoding("compressed_segmentation", {"block_size": [8, 8, 4]})),
    node(dtype="uint32", encoding=Encoding("compresso")),
    coloured(),
    coloured(encoding=Encoding("png")),
    coloured(dtype="uint32", encoding=Encoding("compressed_segmentation", {"block_size": [5, 3, 2]})),
]


@pytest.mark.parametrize("shown", [NATIVE, *FACES], ids=lambda shown: f"{shown.face}-{shown.codec}")
@pytest.mark.parametrize("array", ENCODED, ids=lambda array: f"{array.encoding.name}-{array.dtype}-{len(array.shape)}d")
@pytest.mark.parametrize("spatial", [FULL, CLIPPED])
def test_shown_chunk(array, shown, spatial):
    """A chunk shown either way decodes to its voxels, padded with zeros to the chunk shape where it is clipped."""
    extent = (*array.chunk_shape[:-3], *spatial)
    chunk = voxels(extent, array.dtype)
    found = read(show(stored(array, chunk), array, extent, shown), array, shown)
    wanted = np.zeros(array.chunk_shape, array.dtype)
    wanted[tuple(slice(n) for n in extent)] = chunk
    np.testing.assert_array_equal(found, wanted)


def test_whole_native_chunk_is_untouched():
    """A whole chunk in its own encoding goes out as the very bytes that are stored, undecoded, valid or not."""
    array = node(encoding=Encoding("jpeg"))
    payload = b"not even a JPEG"
    assert show(payload, array, FULL, NATIVE) is payload
    raw = bytes(32 * 64 * 64)
    assert show(raw, node(), FULL, NATIVE) is raw


def test_chunk_that_looks_like_a_frame():
    """Stored bytes that would be mistaken for our own frame are refused, whole or clipped."""
    array = node(encoding=Encoding("compressed_segmentation", {"block_size": [8, 8, 8]}), dtype="uint32")
    for extent in (FULL, CLIPPED):
        with pytest.raises(DecodeError, match="frame"):
            show(b"storefs\0 and more", array, extent, NATIVE)


@pytest.mark.parametrize("shown", FACES, ids=lambda shown: shown.codec)
def test_broken_chunk_is_not_re_encoded(shown):
    """What does not decode raises before anything portable is made of it; so does a raw chunk of a wrong length."""
    for array, payload in ((node(encoding=Encoding("png")), b"\x89PNG"), (node(), b"short")):
        for extent in (FULL, CLIPPED):
            with pytest.raises(DecodeError):
                show(payload, array, extent, shown)


@pytest.mark.parametrize("extent", [FULL, CLIPPED])
@pytest.mark.parametrize("change", [-1, 1])
def test_raw_chunk_of_a_wrong_length(extent, change):
    """A native raw chunk that is a byte too short or too long raises, here or in the reader's codec."""
    array = node()
    payload = bytes(int(np.prod(extent)) + change)
    with pytest.raises(DecodeError, match=r"expected .* bytes, found"):
        read(show(payload, array, extent, NATIVE), array, NATIVE)


@pytest.mark.parametrize("face", [Presentation(), *FACES], ids=lambda shown: f"{shown.face}-{shown.codec}")
def test_absent_in_v3(face):
    """In zarr v3 an absent chunk is simply not there: the metadata says what to fill in."""
    assert show_absent(node(), face) is None


@pytest.mark.parametrize("array", ENCODED, ids=lambda array: f"{array.encoding.name}-{array.dtype}-{len(array.shape)}d")
@pytest.mark.parametrize("face", ["native", "portable"])
def test_absent_in_v2(array, face):
    """In zarr v2, whose documents name no fill value, an absent chunk is served as one of zeros."""
    shown = Presentation(zarr_format=2, face=face)
    payload = show_absent(array, shown)
    assert payload is not None
    found = read(payload, array, shown)
    assert found.shape == array.chunk_shape
    assert not found.any()
