"""The sharded format: specifications, keys and places."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs.backends.precomputed.sharding import compressed_morton, murmurhash3_low64, parse_sharding
from tests.backends.precomputed.golden import VECTORS
from tests.backends.precomputed.shardings import GRID, sharding


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    """Values that two independent implementations computed."""
    if not VECTORS.exists():
        pytest.skip("../shared/golden/codecs/vectors.json not found")
    found: dict[str, Any] = json.loads(VECTORS.read_text())
    return found


# keys


def test_morton_by_hand():
    """Bits of x, y, z are interleaved from the lowest, x first; an axis gives only the bits that its grid needs."""
    assert compressed_morton((0, 0, 0), (4, 4, 4)) == 0
    assert compressed_morton((1, 0, 0), (4, 4, 4)) == 0b001
    assert compressed_morton((0, 1, 0), (4, 4, 4)) == 0b010
    assert compressed_morton((0, 0, 1), (4, 4, 4)) == 0b100
    assert compressed_morton((2, 0, 0), (4, 4, 4)) == 0b001000
    assert compressed_morton((3, 3, 3), (4, 4, 4)) == 0b111111
    # two cells along y need one bit, one cell along z needs none
    assert compressed_morton((3, 1, 0), (4, 2, 1)) == 0b111
    assert compressed_morton((2, 1, 0), (4, 2, 1)) == 0b110
    # the fifth cell needs a third bit although no cell 5, 6, 7 exists
    assert compressed_morton((4, 0, 0), (5, 1, 1)) == 0b100
    assert compressed_morton((0, 0, 0), (1, 1, 1)) == 0


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(1, 6)] * 3))
def test_morton_is_one_to_one(grid):
    """Cells of a grid have different keys, within the bits that the grid needs."""
    cells = [(x, y, z) for x in range(grid[0]) for y in range(grid[1]) for z in range(grid[2])]
    keys = {compressed_morton(cell, grid) for cell in cells}
    assert len(keys) == len(cells)
    assert max(keys) < 1 << sum((n - 1).bit_length() for n in grid)


def test_morton_of_a_big_grid():
    """Keys take up to 64 bits."""
    grid = (1 << 22, 1 << 21, 1 << 21)
    assert compressed_morton(tuple(n - 1 for n in grid), grid) == (1 << 64) - 1


def test_morton_vectors(vectors):
    """Keys are those of two other implementations."""
    for row in vectors["compressed_morton"]:
        assert compressed_morton(tuple(row["cell"]), tuple(row["grid"])) == int(row["code"])
    assert len(vectors["compressed_morton"]) > 50


def test_murmur_by_hand():
    """Hashes are those of the published function."""
    assert murmurhash3_low64(0) == 0x4772B084E028AE41
    assert murmurhash3_low64(1) == 0xE8BD67D616D4CE9A
    assert murmurhash3_low64(4294967297) == 0x8D12AAB8ACE7BEE5


def test_murmur_vectors(vectors):
    """Hashes are those of two other implementations, over all 64 bits."""
    for row in vectors["murmurhash3_x86_128"]["vectors"]:
        assert murmurhash3_low64(int(row["key"])) == int(row["hash"], 16)


@pytest.mark.parametrize(
    ("changes", "key", "place"),
    [
        ({}, 0, ("0", 0)),
        ({}, 3, ("1", 1)),
        ({"preshift_bits": 1}, 3, ("0", 1)),
        ({"preshift_bits": 64}, (1 << 64) - 1, ("0", 0)),
        ({"shard_bits": 0, "minishard_bits": 0}, 77, ("0", 0)),
        ({"shard_bits": 4}, 0b11110, ("f", 0)),
        ({"shard_bits": 5}, 0b11110, ("0f", 0)),
        ({"shard_bits": 12, "minishard_bits": 0}, 0xABC, ("abc", 0)),
        ({"shard_bits": 64, "minishard_bits": 0}, 0xAB, ("00000000000000ab", 0)),
        ({"hash": "murmurhash3_x86_128", "minishard_bits": 8, "shard_bits": 8}, 0, ("ae", 0x41)),
        ({"hash": "murmurhash3_x86_128", "minishard_bits": 8, "shard_bits": 8, "preshift_bits": 5}, 31, ("ae", 0x41)),
    ],
    ids=str,
)
def test_place_by_hand(changes, key, place):
    """The low bits of the hash name the minishard, the next ones the file, in hexadecimal of a fixed length."""
    name, minishard = sharding(**changes).locate(key)
    assert (name, minishard) == place


def test_place_vectors(vectors):
    """Files and minishards are those of two other implementations, for every mixture of bits."""
    for row in vectors["shard_location"]["rows"]:
        hash_name, preshift, minishard_bits, shard_bits, key, minishard, file = row
        found = sharding(
            hash=hash_name, preshift_bits=preshift, minishard_bits=minishard_bits, shard_bits=shard_bits
        ).locate(int(key))
        assert (f"{found[0]}.shard", found[1]) == (file, minishard)
    assert len(vectors["shard_location"]["rows"]) > 400


def test_specification():
    """A specification says everything; encodings it leaves out are raw."""
    given_spec = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": 3,
        "minishard_bits": 2,
        "shard_bits": 1,
    }
    assert parse_sharding(given_spec, GRID) == sharding(preshift_bits=3, minishard_bits=2)
    both = given_spec | {"minishard_index_encoding": "gzip", "data_encoding": "gzip"}
    assert parse_sharding(both, GRID).data_encoding == "gzip"
    assert parse_sharding(both, GRID).minishard_index_encoding == "gzip"
