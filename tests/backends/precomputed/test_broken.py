"""Damaged layers: each fault is an error that names it, soon and in little memory; nothing else is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

import storefs
from storefs.grid import Grid
from storefs_codecs.errors import DecodeError
from tests.backends.precomputed.cost import bounded
from tests.backends.precomputed.golden import BROKEN, case, case_names, cases, expected, need_library
from tests.layers import voxels, write_layer

# what a MetadataError has to name, where it is not the key that the case's name spells
KEY_AT_FAULT = {
    "info_binary": "UTF-8",
    "info_invalid_utf8": "UTF-8",
    "info_channels_negative": "num_channels",
    "info_channels_zero": "num_channels",
    "info_channels_astronomic": "channels",
    "info_cseg_block_zero": "compressed_segmentation_block_size",
    "info_cseg_without_block_size": "compressed_segmentation_block_size",
    "info_cseg_uint8": "encoding",
    "info_jpeg_uint16": "encoding",
    "info_dtype_number": "data_type",
    "info_dtype_unknown": "data_type",
    "info_empty_chunk_sizes": "chunk_sizes",
    "info_flat_chunk_sizes": "chunk_sizes",
    "info_negative_chunk": "chunk_sizes",
    "info_zero_chunk": "chunk_sizes",
    "info_sharding_two_chunk_sizes": "chunk_sizes",
    "info_empty_file": "empty",
    "info_foreign_type": "@type",
    "info_html": "HTML",
    "info_is_list": "JSON object",
    "info_is_null": "JSON object",
    "info_nested_100k": "nested",
    "info_not_json": "not JSON",
    "info_resolution_nan": "NaN",
    "info_scales_object": "scales",
    "info_negative_size": "size",
    "info_offset_fraction": "voxel_offset",
    "info_missing_type": "type",
}
# of the chunks in the broken shard: how many raise, how many its index has lost
SHARD_FAULTS = {
    "shard_data_gzip_bomb": (1, 31),
    "shard_data_short": (1, 0),
    "shard_index_gzip_bomb": (16, 16),
}
OTHERWISE = {"info_encoding_unknown", "info_dtype_float64", "no_info"}  # each has a test of its own
ACCEPTED = {"info_duplicate_scale_key", "info_key_empty", "info_missing_type", "info_zero_size"}


@pytest.fixture(autouse=True, scope="module")
def warm(tmp_path_factory):
    """What is loaded once belongs to no case."""
    if BROKEN.is_dir():
        array = storefs.open_array(f"precomputed://{BROKEN}/jpeg_truncated/layer")
        array[:1, :1, :1]


def url(name: str) -> str:
    return f"precomputed://{BROKEN / name / case(BROKEN, name)['path']}"


def chunk_names(array: zarr.Array) -> dict[str, tuple[slice, ...]]:
    """Every chunk of an array of one channel by the name that the format gives it."""
    grid = Grid(array.shape, array.chunks)
    offset = array.attrs["storefs"]["voxel_offset_xyz"]
    named = {}
    for index in grid:
        box = tuple(slice(o, o + n) for o, n in zip(grid.origin(index), grid.extent(index), strict=True))
        spans = zip(offset, box[::-1], strict=True)
        named["_".join(f"{o + part.start}-{o + part.stop}" for o, part in spans)] = box
    return named


def of_kind(*kinds: str) -> list[str]:
    return [name for name in case_names(BROKEN) if case(BROKEN, name)["raises"] in kinds]


IN_INFO = of_kind("metadata", "metadata or decode", "metadata or accept", "none or metadata")
IN_CHUNK = [name for name in of_kind("decode", "decode or first entry") if "bad_chunk" in case(BROKEN, name)]
IN_SHARD = [name for name in of_kind("decode", "decode or first entry") if "bad_object" in case(BROKEN, name)]


@cases(BROKEN)
def test_every_case_is_tested(name):
    """Every case belongs to one of the tests here."""
    assert (name in IN_INFO) + (name in IN_CHUNK) + (name in IN_SHARD) == 1


def key_at_fault(name: str) -> str:
    if name in KEY_AT_FAULT:
        return KEY_AT_FAULT[name]
    words = name.removeprefix("info_").removeprefix("missing_")
    for key in ("chunk_sizes", "data_type", "num_channels", "voxel_offset"):
        if words.startswith(key):
            return key
    return words.split("_")[0]


@cases(BROKEN, *(name for name in IN_INFO if name not in ACCEPTED | OTHERWISE))
def test_broken_info(name):
    """A broken info is a MetadataError naming file and key, at the latest when its scale is read."""
    with bounded(), pytest.raises(storefs.MetadataError) as caught:
        storefs.open(url(name))
    message = str(caught.value)
    assert message.startswith("info")
    assert key_at_fault(name) in message
    assert str(BROKEN / name) in message
    assert "\n" not in message
    assert len(message) < 600
    assert not isinstance(caught.value, NotImplementedError)


@cases(BROKEN, "no_info")
def test_no_info(name):
    """Without an info file there is no volume: the error says which file is missing and where."""
    with bounded(), pytest.raises(storefs.NoSuchVolume, match=f"no info file.*{name}"):
        storefs.open(url(name))
    with pytest.raises(storefs.TransportError, match=f"no info file.*{name}"):
        zarr.open(url(name), mode="r")


@cases(BROKEN, "info_encoding_unknown")
def test_unknown_encoding(name):
    """A volume in an unknown encoding can be looked at; reading is Unsupported, naming encoding and offer."""
    array = storefs.open_array(url(name))
    assert array.attrs["storefs"]["encoding"] == "zork"
    for box in chunk_names(array).values():
        with bounded(), pytest.raises(storefs.Unsupported, match='"zork" is not offered; offered are raw, jpeg'):
            array[box]


@cases(BROKEN, "info_dtype_float64")
def test_float64(name):
    """A data type float64 is an accepted extension: a chunk too short for it is an error, no chunk is misread."""
    array = storefs.open_array(url(name))
    assert array.dtype == np.float64
    with bounded(), pytest.raises(DecodeError, match="expected 32768 bytes, found 4096"):
        array[...]


@cases(BROKEN, *sorted(ACCEPTED))
def test_accepted_oddity(name):
    """What is odd but clear opens, and every scale reads as its own: chunks that are not stored are zeros."""
    with bounded():
        group = storefs.open(url(name))
        scales = group.attrs["storefs"]["info"]["scales"]
        assert [group[str(i)].shape[::-1] for i in range(len(scales))] == [tuple(scale["size"]) for scale in scales]
        stored = (BROKEN / name / "layer/10_10_10/0-16_0-16_0-16").read_bytes()
        for i, scale in enumerate(scales):
            array = np.asarray(group[str(i)][...])
            if scale["key"] == "10_10_10" and array.size:
                assert array[:16, :16, :16].tobytes() == stored
                array[:16, :16, :16] = 0
            assert not array.any()


def test_astronomic_size(tmp_path):
    """A volume of 2^150 voxels opens and reads small boxes; only listing it is refused."""
    volume = voxels((16, 16, 16))
    write_layer(tmp_path, volume, (16, 16, 16))
    info = json.loads((tmp_path / "info").read_text())
    (scale,) = info["scales"]
    scale["size"] = [1 << 50] * 3
    (tmp_path / "info").write_text(json.dumps(info))
    address = f"precomputed://{tmp_path}"
    with bounded():
        array = storefs.open_array(address)
        assert array.shape == (1 << 50,) * 3
        np.testing.assert_array_equal(array[:16, :16, :16], volume)
        assert not array[-5:, -5:, -5:].any()
        assert not array[1 << 49 : (1 << 49) + 3, 40:45, 17:18].any()
        by_name = zarr.open(address, mode="r")
        np.testing.assert_array_equal(by_name["0"][:16, :16, :16], volume)
        filesystem = fsspec.filesystem("precomputed")
        with pytest.raises(storefs.Unsupported, match="too many to list"):
            filesystem.find(address)
        with pytest.raises(storefs.Unsupported, match="too many to list"):
            filesystem.ls(f"{address}/0/c")


@cases(BROKEN, *IN_CHUNK)
def test_broken_chunk(name):
    """A broken chunk is a DecodeError naming it; the other chunks read as they should, whoever reads."""
    facts = case(BROKEN, name)
    folder, _, bad = facts["bad_chunk"].rpartition("/")
    need_library(name.split("_")[0])
    array = storefs.open_array(url(name))
    # of one case no array is kept: there the size of its other chunks must do
    intact = "expected" in facts
    wanted = expected(BROKEN, name)["s0"][0] if intact else np.zeros(array.shape, array.dtype)
    boxes = chunk_names(array)
    good = {chunk: box for chunk, box in boxes.items() if chunk != bad}
    assert len(good) == len(boxes) - 1
    for box in good.values():
        found = array[box]
        assert np.array_equal(found, wanted[box]) if intact else found.any()
    for box in (boxes[bad], ...):
        with bounded(), pytest.raises(DecodeError) as caught:
            array[box]
        message = str(caught.value)
        assert f"[chunk {folder}/{bad} of file://{BROKEN}/{name}/layer]" in message
        assert "\n" not in message
        assert len(message) < 600
    with bounded(), pytest.raises(DecodeError, match=re.escape(f"chunk {folder}/{bad} of")):
        storefs.open_array(url(name), face="portable")[boxes[bad]]
    with bounded(), pytest.raises(DecodeError, match=re.escape(f"chunk {folder}/{bad} of")):
        zarr.open(url(name), mode="r")["0"][boxes[bad]]


@cases(BROKEN, *(name for name in IN_CHUNK if re.search("truncated|short|long|padded|html|wrong|huge_declared", name)))
def test_broken_size(name):
    """Where the size is at fault, the message says which was found, and mostly which was expected."""
    box = chunk_names(array := storefs.open_array(url(name)))[case(BROKEN, name)["bad_chunk"].rpartition("/")[2]]
    need_library(name.split("_")[0])
    if name.startswith(("raw", "jpeg_huge", "jpeg_wrong", "png_huge", "compresso")):
        with pytest.raises(DecodeError, match=r"expected .*\d+.*, found .*\d+"):
            array[box]
        return
    with pytest.raises(
        DecodeError, match=r"cut short|ends before|Premature|NEED_MORE|outside the data|wrong length|crashed"
    ):
        array[box]


def outcome_of(read: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any] | Exception:
    """What reading gives, or how it fails."""
    try:
        return read()
    except (DecodeError, storefs.MissingChunk) as error:
        return error


@cases(BROKEN, *IN_SHARD)
def test_broken_shard(name):
    """A broken shard is a DecodeError naming shard and chunk; chunks in other shards read as they should."""
    facts = case(BROKEN, name)
    wanted = expected(BROKEN, name)["s0"][0]
    array = storefs.open_array(url(name))
    boxes = chunk_names(array)
    affected = set(facts["affected_chunks"])
    assert affected < set(boxes)
    for chunk in set(boxes) - affected:
        np.testing.assert_array_equal(array[boxes[chunk]], wanted[boxes[chunk]])
    shard = facts["bad_object"].rpartition("/")[2]
    strict = {chunk: box for chunk, box in boxes.items() if chunk in affected}
    failed, absent = 0, 0
    array = storefs.open_array(url(name), missing="error")
    for chunk, box in strict.items():
        with bounded():
            outcome = outcome_of(lambda box=box: array[box])
        if isinstance(outcome, DecodeError):
            failed += 1
            assert f"[chunk 10_10_10/{chunk} in {shard} of file://{BROKEN}/{name}/layer]" in str(outcome)
            assert "\n" not in str(outcome)
        elif isinstance(outcome, storefs.MissingChunk):
            absent += 1
        else:
            # raw bytes at a wrong place cannot be told from right ones
            assert name == "shard_data_short" or np.array_equal(outcome, wanted[box])
    assert (failed, absent) == SHARD_FAULTS.get(name, (len(affected), 0))
    with pytest.raises(DecodeError, match=shard):
        storefs.open_array(url(name))[...]
