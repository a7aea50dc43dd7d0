"""The info file: what is accepted, what is refused and in which words."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from storefs.backends.precomputed.document import parse_json
from storefs.backends.precomputed.info import Info, parse_info
from storefs.errors import MetadataError, Unsupported
from tests.backends.precomputed.infos import SHARDING, URL, info


def parse(**changes: Any) -> Info:
    return parse_info(info(**changes), URL)


def test_plain_info():
    """A plain info parses to what it says."""
    parsed = parse()
    (scale,) = parsed.scales
    assert (parsed.kind, parsed.dtype, parsed.channels) == ("image", "uint8", 1)
    assert parsed.document == info()
    assert scale.key == "8_8_40"
    assert scale.size_xyz == (100, 90, 70)
    assert scale.voxel_offset_xyz == (-10, 5, 0)
    assert scale.resolution_xyz == (8.0, 8.0, 40.0)
    assert scale.chunk_sizes == ((64, 64, 32),)
    assert scale.chunk_size_xyz == (64, 64, 32)
    assert (scale.encoding.name, scale.sharding, scale.unsupported) == ("raw", None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"at_type": ...},
        {"type": "IMAGE"},
        {"type": ...},
        {"data_type": "UINT8"},
        {"encoding": "RAW"},
        {"sharding": ...},
        {"num_channels": 1.0},
        {"num_channels": "1"},
        {"size": [100.0, 90.0, 70.0]},
        {"size": ["100", "90", "70"]},
        {"size": ["100.0", "90.0", "7e1"]},
        {"voxel_offset": ["-10", "+5", "0"]},
        {"resolution": ["8", "8.0", "4e1"]},
        {"chunk_sizes": [[64.0, "64", 32]]},
        {"key": "./8_8_40/"},
        {"key": "other/../8_8_40"},
        {"compressed_segmentation_block_size": "anything"},
    ],
    ids=str,
)
def test_oddities(changes):
    """Spellings that other software writes mean the same as the plain one."""
    (odd,), (plain,) = parse(**changes).scales, parse().scales
    assert odd == plain
    assert (parse(**changes).dtype, parse(**changes).channels) == ("uint8", 1)


@pytest.mark.parametrize("offset", [..., None])
def test_no_offset(offset):
    """Without voxel_offset a scale begins at the origin."""
    assert parse(voxel_offset=offset).scales[0].voxel_offset_xyz == (0, 0, 0)


def test_exact_integers():
    """Whole numbers beyond a float's precision stay exact, as numbers and as text."""
    huge = (1 << 60) + 1
    assert parse(voxel_offset=[huge, str(huge), str(-huge)]).scales[0].voxel_offset_xyz == (huge, huge, -huge)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("8_8_40", "8_8_40"),
        ("a/b c/d.e", "a/b c/d.e"),
        ("100%25#x?y=1&z+é", "100%25#x?y=1&z+é"),
        ("../other/8_8_8", "../other/8_8_8"),
        ("a/../b", "b"),
        ("a/../../b", "../b"),
        ("", ""),
        ("...", "..."),
    ],
)
def test_keys(key, path):
    """A key is a path below the folder that holds the volume, taken literally."""
    assert parse(key=key).scales[0].key == path


@pytest.mark.parametrize(
    "key",
    [
        "/etc",
        "//etc",
        "..",
        "../",
        "../..",
        "../../x",
        "a/../../../x",
        "../../../etc",
        "http://host/x",
        "a\\..\\b",
        "a\0b",
        "\ud800",
    ],
)
def test_escaping_keys(key):
    """A key that leaves that folder, or is no path, is refused."""
    with pytest.raises(MetadataError, match=r"info: scales\[0\]\.key"):
        parse(key=key)


def each(at: str, key: str, *values: Any, **others: Any) -> list[tuple[str, dict[str, Any]]]:
    """Refusals that name `at`, one for each value of `key`."""
    return [(at, others | {key: value}) for value in values]


def sharded(**changes: Any) -> dict[str, Any]:
    return {"sharding": SHARDING | changes}


BLOCK = "compressed_segmentation_block_size"
LABELS = {"encoding": "compressed_segmentation", "data_type": "uint64"}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    *each("@type", "at_type", "neuroglancer_skeletons", 3, None),
    *each("type", "type", 3, [], None),
    *each("data_type", "data_type", ..., None, 8, [], "complex64", "uint128", ""),
    *each("num_channels", "num_channels", ..., None, 0, -1, 1.5, "two", [], {}),
    ("num_channels", {"num_channels": True}),
    *each("scales", "scales", ..., None, [], {}, "many", 0),
    *each("scales[0]", "scales", [None], [[]], ["scale"], [0]),
    *each("scales[1]", "scales", [info()["scales"][0], None]),
    *each("scales[0].key", "key", ..., None, 10, []),
    *each("scales[0].size", "size", ..., None, [], [1, 2], [1, 2, 3, 4], "100", [[1], 2, 3], [True, 2, 3]),
    *each("scales[0].size", "size", [1, 2, None], [1, 2, -3], [1, 2, 0.5], [1, 2, 1 << 51], [1, 2, 10**400]),
    *each("scales[0].voxel_offset", "voxel_offset", [], [0, 0], 7, [0.5, 0, 0], [0, 0, "x"], {"x": 1}),
    *each("scales[0].voxel_offset", "voxel_offset", [0, 0, 1 << 70], [0, 0, "1e400"], [0, 0, "nan"]),
    *each("scales[0].resolution", "resolution", ..., None, [8, 8], [0, 8, 8], [-1, 8, 8], [None, 8, 8]),
    *each("scales[0].resolution", "resolution", ["inf", 8, 8], ["nan", 8, 8], [1e101, 8, 8], [10**400, 8, 8]),
    *each("scales[0].chunk_sizes", "chunk_sizes", ..., None, [], [64, 64, 32], [[64, 64]], [[64, 64, 32], None]),
    *each("scales[0].chunk_sizes", "chunk_sizes", [[0, 64, 64]], [[64, 64, -1]], [[64, 64, 0.5]]),
    *each("scales[0].chunk_sizes", "chunk_sizes", [[64, 64, 32], [32, 32, 32]], sharding=SHARDING),
    *each("scales[0]", "chunk_sizes", [[1 << 20, 1 << 20, 1]]),
    *each("scales[0]", "num_channels", 1 << 40),
    *each("scales[0].encoding", "encoding", ..., None, 3, ["raw"]),
    *each("scales[0].encoding", "encoding", "compressed_segmentation", "kempressed", data_type="uint8"),
    *each("scales[0].encoding", "encoding", "jpeg", "png", "jxl", "compressed_segmentation", data_type="int64"),
    *each("scales[0].encoding", "encoding", "jpeg", "compresso", "jxl", num_channels=2),
    *each("scales[0].encoding", "num_channels", 5, encoding="png"),
    *each(f"scales[0].{BLOCK}", BLOCK, ..., None, [8, 8], [8, 8, 0], [8, 8, -8], [8, 8, 1.5], **LABELS),
    *each(f"scales[0].{BLOCK}", BLOCK, [1 << 20, 1 << 20, 1], **LABELS),
    *each("scales[0].sharding", "sharding", "yes", [], 3, {}),
    *each("scales[0].sharding", "sharding", *(SHARDING | {"hash": value} for value in ("md5", None))),
    *each("scales[0].sharding", "sharding", *(SHARDING | {"preshift_bits": value} for value in (None, -1, 65, True))),
    *each("scales[0].sharding", "sharding", *(SHARDING | {"minishard_bits": value} for value in (33, 1.5))),
    *each("scales[0].sharding", "sharding", *(SHARDING | {"shard_bits": value} for value in (62, "4"))),
    ("scales[0].sharding", sharded(data_encoding="zstd")),
    ("scales[0].sharding", sharded(minishard_index_encoding=3)),
    ("scales[0].sharding", sharded() | {"size": [1 << 40] * 3, "chunk_sizes": [[1, 1, 1]]}),
]


@pytest.mark.parametrize(("key", "changes"), REFUSED, ids=lambda value: str(value)[:60])
def test_refusals_name_the_key(key, changes):
    """What makes no sense is a MetadataError that begins with the key at fault and gives the address."""
    with pytest.raises(MetadataError) as caught:
        parse(**changes)
    message = str(caught.value)
    assert message.startswith(f"info: {key}: ")
    assert message.endswith(f"[{URL}]")
    assert not isinstance(caught.value, Unsupported)


@pytest.mark.parametrize(
    "name",
    ["@type", "hash", "preshift_bits", "minishard_bits", "shard_bits", "data_encoding", "minishard_index_encoding"],
)
def test_refused_sharding_names_its_member(name):
    """Within a sharding specification the member is named too."""
    with pytest.raises(MetadataError, match=rf"info: scales\[0\]\.sharding: {name}: "):
        parse(sharding=SHARDING | {name: "nonsense"})


def test_messages_are_short():
    """However long the nonsense, the message stays one readable paragraph."""
    for changes in (
        {"key": "/" + "x" * 100_000},
        {"data_type": "y" * 100_000},
        {"sharding": "z" * 100_000},
        {"size": ["9" * 100_000] * 3},
        {"at_type": [["deep"] * 1000] * 100},
    ):
        with pytest.raises(MetadataError) as caught:
            parse(**changes)
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)


def test_unknown_encoding_waits():
    """An unknown encoding stops neither its own scale nor others from being looked at."""
    document = info()
    document["scales"].append(copy.deepcopy(document["scales"][0]) | {"key": "16", "encoding": "futurecodec"})
    plain, strange = parse_info(document, URL).scales
    assert plain.unsupported is None
    assert strange.unsupported is not None
    assert '"futurecodec" is not offered' in strange.unsupported
    assert "compressed_segmentation" in strange.unsupported


def test_chosen_chunk_size():
    """The wanted chunk size is taken where it is offered; coarser scales that lack it take their first."""
    document = info(chunk_sizes=[[64, 64, 64], [100, 90, 1]])
    document["scales"].append(info(key="coarse")["scales"][0])
    fine, coarse = parse_info(document, URL, (100, 90, 1)).scales
    assert fine.chunk_size_xyz == (100, 90, 1)
    assert coarse.chunk_size_xyz == (64, 64, 32)
    assert parse_info(document, URL).scales[0].chunk_size_xyz == (64, 64, 64)
    with pytest.raises(Unsupported, match=r"\[1, 2, 3\] is not offered.*\[64, 64, 64\], \[100, 90, 1\]"):
        parse_info(document, URL, (1, 2, 3))


def test_settings_of_encodings():
    """Block size and quality reach the codec that needs them."""
    labels = parse(encoding="compressed_segmentation", data_type="uint64").scales[0].encoding
    assert (labels.name, dict(labels.configuration)) == ("compressed_segmentation", {"block_size": [8, 8, 4]})
    assert dict(parse(encoding="jpeg").scales[0].encoding.configuration) == {"quality": 80}
    assert dict(parse(encoding="jpeg", jpeg_quality="high").scales[0].encoding.configuration) == {}
    assert dict(parse().scales[0].encoding.configuration) == {}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "info is empty"),
        (b" \n", "info is empty"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        (b"{", "not JSON"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": Infinity}', "Infinity is not a number"),
        (b'{"a": -1e999}', "too big a number"),
        (b"[1]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested"),
        (b"9" * 5000, "not JSON"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_json_object(data, problem):
    """Bytes that are no JSON object are refused by what they are."""
    with pytest.raises(MetadataError, match=problem) as caught:
        parse_json(data, URL)
    assert str(caught.value).startswith("info")
    assert str(caught.value).endswith(f"[{URL}]")


def test_byte_order_mark():
    """A byte order mark in front is no part of the text."""
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(info()).encode(), URL) == info()
