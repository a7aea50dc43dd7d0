"""The sharded format: its specification in an info file, and which shard and minishard hold a chunk.

Follows https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SHARDED_TYPE = "neuroglancer_uint64_sharded_v1"
MAX_MINISHARD_BITS = 32
KEY_BITS = 64
_MASK32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Sharding:
    """A sharding specification; `grid_xyz` is the chunk grid whose cells have the keys."""

    hash: str
    preshift_bits: int
    minishard_bits: int
    shard_bits: int
    minishard_index_encoding: str
    data_encoding: str
    grid_xyz: tuple[int, int, int]

    def locate(self, key: int) -> tuple[str, int]:
        """Name of the shard file (without suffix) and number of the minishard that hold `key`."""
        shifted = key >> self.preshift_bits
        hashed = shifted if self.hash == "identity" else murmurhash3_low64(shifted)
        shard = (hashed >> self.minishard_bits) & ((1 << self.shard_bits) - 1)
        return f"{shard:0{-(-self.shard_bits // 4)}x}", hashed & ((1 << self.minishard_bits) - 1)


def parse_sharding(value: object, grid_xyz: tuple[int, int, int]) -> Sharding:
    """The specification in an info file. Raises ValueError naming the member at fault."""
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {value!r}")  # noqa: TRY004  # a fault of the file
    if value.get("@type") != SHARDED_TYPE:
        raise ValueError(f"@type: expected {SHARDED_TYPE}, got {value.get('@type')!r}")
    hash_name = value.get("hash")
    if hash_name not in ("identity", "murmurhash3_x86_128"):
        raise ValueError(f"hash: expected identity or murmurhash3_x86_128, got {hash_name!r}")
    preshift = _bits(value, "preshift_bits", KEY_BITS)
    minishard = _bits(value, "minishard_bits", MAX_MINISHARD_BITS)
    shard = _bits(value, "shard_bits", KEY_BITS - minishard)
    needed = sum((n - 1).bit_length() for n in grid_xyz if n > 0)
    if needed > KEY_BITS:
        raise ValueError(f"a grid of {grid_xyz} chunks needs keys of {needed} bits, more than {KEY_BITS}")
    return Sharding(
        str(hash_name),
        preshift,
        minishard,
        shard,
        _piece_encoding(value, "minishard_index_encoding"),
        _piece_encoding(value, "data_encoding"),
        grid_xyz,
    )


def _bits(value: dict[str, Any], name: str, most: int) -> int:
    bits = value.get(name)
    if isinstance(bits, bool) or not isinstance(bits, int) or not 0 <= bits <= most:
        raise ValueError(f"{name}: expected a whole number from 0 to {most}, got {bits!r}")
    return bits


def _piece_encoding(value: dict[str, Any], name: str) -> str:
    encoding = value.get(name, "raw")
    if encoding not in ("raw", "gzip"):
        raise ValueError(f"{name}: expected raw or gzip, got {encoding!r}")
    return str(encoding)


def compressed_morton(cell_xyz: tuple[int, ...], grid_xyz: tuple[int, ...]) -> int:
    """The key of a grid cell: bits of x, y, z interleaved, leaving out those an axis never needs."""
    code = 0
    place = 0
    for bit in range(max(n - 1 for n in grid_xyz).bit_length()):
        for position, n in zip(cell_xyz, grid_xyz, strict=True):
            if (1 << bit) < n:
                code |= (position >> bit & 1) << place
                place += 1
    return code


def compressed_mortons(cells_xyz: npt.NDArray[np.uint64], grid_xyz: tuple[int, ...]) -> npt.NDArray[np.uint64]:
    """The keys of many cells, one a row."""
    codes = np.zeros(len(cells_xyz), np.uint64)
    place = 0
    for bit in range(max(n - 1 for n in grid_xyz).bit_length()):
        for axis, n in enumerate(grid_xyz):
            if (1 << bit) < n:
                codes |= (cells_xyz[:, axis] >> np.uint64(bit) & np.uint64(1)) << np.uint64(place)
                place += 1
    return codes


def murmurhash3_low64(key: int) -> int:
    """Low 64 bits of murmurhash3_x86_128 of the 8 little-endian bytes of `key`, seed 0."""
    low, high = key & _MASK32, key >> 32
    h2 = _rotate(high * 0xAB0E9789, 16) * 0x38B34AE5 & _MASK32
    h1 = _rotate(low * 0x239B961B, 15) * 0xAB0E9789 & _MASK32
    h = [h1 ^ 8, h2 ^ 8, 8, 8]
    h = _stir(h)
    for i in range(4):
        x = h[i]
        x = (x ^ x >> 16) * 0x85EBCA6B & _MASK32
        x = (x ^ x >> 13) * 0xC2B2AE35 & _MASK32
        h[i] = x ^ x >> 16
    h = _stir(h)
    return h[0] | h[1] << 32


def _rotate(x: int, bits: int) -> int:
    x &= _MASK32
    return (x << bits | x >> (32 - bits)) & _MASK32


def _stir(h: list[int]) -> list[int]:
    first = sum(h) & _MASK32
    return [first, *((first + x) & _MASK32 for x in h[1:])]
