"""Zarr's key text and chunks, back and forth."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs.grid import Grid
from storefs.keys import chunk_folder, chunk_key, parse_chunk_key
from storefs.model import ChunkId, Presentation
from tests.storefs.examples import coloured, pyramid

V3 = Presentation()
V2 = Presentation(zarr_format=2)
V3_XYZ = Presentation(axes="xyz")
V2_XYZ = Presentation(zarr_format=2, axes="xyz")


@pytest.mark.parametrize(
    ("shown", "key"), [(V3, "1/c/0/2/1"), (V2, "1/0/2/1"), (V3_XYZ, "1/c/1/2/0"), (V2_XYZ, "1/1/2/0")]
)
def test_key_of_a_chunk(shown, key):
    """A key spells format and axis order."""
    assert chunk_key(ChunkId("1", (0, 2, 1)), shown) == key


@pytest.mark.parametrize("shown", [V3, V2, V3_XYZ, V2_XYZ], ids=str)
@pytest.mark.parametrize("hierarchy", [pyramid(), pyramid(coloured())], ids=["zyx", "czyx"])
def test_every_chunk_there_and_back(shown, hierarchy):
    """Every chunk's key names that chunk, and no two chunks share a key."""
    keys = set()
    for node in hierarchy.arrays:
        for index in Grid(node.shape, node.chunk_shape):
            chunk = ChunkId(node.path, index)
            key = chunk_key(chunk, shown)
            assert key.startswith(chunk_folder(node.path, shown))
            assert parse_chunk_key(key, hierarchy, shown) == chunk
            keys.add(key)
    assert len(keys) == sum(Grid(node.shape, node.chunk_shape).size for node in hierarchy.arrays)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "0",
        "0/",
        "0/c",
        "0/c/",
        "0/c/0/0",
        "0/c/0/0/0/0",
        "0/c/3/0/0",
        "0/c/0/2/0",
        "0/c/-1/0/0",
        "0/c/+1/0/0",
        "0/c/00/0/0",
        "0/c/0/0/01",
        "0/c/0/0/ 0",
        "0/c/0/0/0/",
        "/0/c/0/0/0",
        "0/c//0/0",
        "0/c/0.0.0",
        "0/c/0/0/1e0",
        "0/c/0/0/\u0661",
        "0/c/0/0/" + "9" * 19,
        "0/c/0/0/" + "9" * 5000,
        "0/0/0/0",
        "2/c/0/0/0",
        "00/c/0/0/0",
        "zarr.json",
        "0/zarr.json",
    ],
)
def test_what_is_no_chunk(key):
    """Keys that zarr would not write for a chunk of these arrays name none."""
    assert parse_chunk_key(key, pyramid(), V3) is None


def test_axis_order_decides_what_lies_inside():
    """An index is judged in the order shown: grids of 3 x 2 x 2 and 2 x 2 x 3 have different last chunks."""
    assert parse_chunk_key("0/c/2/0/0", pyramid(), V3) == ChunkId("0", (2, 0, 0))
    assert parse_chunk_key("0/c/2/0/0", pyramid(), V3_XYZ) is None
    assert parse_chunk_key("0/c/0/0/2", pyramid(), V3_XYZ) == ChunkId("0", (2, 0, 0))


def test_formats_do_not_mix():
    """A v2 volume has no c folder, a v3 volume nothing but."""
    assert parse_chunk_key("0/c/0/0/0", pyramid(), V2) is None
    assert parse_chunk_key("0/0/0/0", pyramid(), V2) == ChunkId("0", (0, 0, 0))


@settings(deadline=None)
@given(st.text(alphabet="01c/.-2٣z", max_size=14))
def test_any_text(key):
    """Whatever text is parsed as a chunk is exactly that chunk's key."""
    for shown in (V3, V2, V3_XYZ):
        chunk = parse_chunk_key(key, pyramid(), shown)
        assert chunk is None or chunk_key(chunk, shown) == key
