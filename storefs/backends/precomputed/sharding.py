"""The sharded format: which file holds a chunk, and where in it.

Follows https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/sharded.md. A chunk is found in
three steps: shard index -> minishard index -> data, the two indexes remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storefs.backends.precomputed.chunks import join
from storefs.plan import Body, Get, Once
from storefs_codecs.content_encoding import inflate
from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from storefs.plan import Plan

SHARDED_TYPE = "neuroglancer_uint64_sharded_v1"
WHOLE_INDEX_MINISHARD_BITS = 16
MAX_MINISHARD_BITS = 32
MAX_MINISHARD_INDEX_BYTES = 256 << 20
KEY_BITS = 64
_ENTRY_BYTES = 16
_ROW_BYTES = 24
_MASK32 = 0xFFFFFFFF
_MASK64 = (1 << KEY_BITS) - 1
_FORMAT = "sharded"


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


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """Where the minishard indexes of one shard lie: `bounds[i]` is start and stop in `path`; None where absent.

    Offsets in the shard count from `base`, in the file that `data_path` names.
    """

    data_path: str
    base: int
    bounds: npt.NDArray[np.uint64] | None

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        return 256 + (0 if self.bounds is None else self.bounds.nbytes)


@dataclass(frozen=True, slots=True)
class MinishardIndex:
    """Where the chunks of one minishard lie: `ids` ascending, with `starts` and `sizes` in the same order."""

    ids: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        return 256 + 3 * self.ids.nbytes

    def find(self, key: int) -> tuple[int, int] | None:
        """Start and size of the chunk `key`, None where it is absent or empty."""
        at = int(np.searchsorted(self.ids, np.uint64(key)))
        if at == len(self.ids) or int(self.ids[at]) != key or not self.sizes[at]:
            return None
        return int(self.starts[at]), int(self.sizes[at])


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


def find_chunk(sharding: Sharding, folder: str, key: int) -> Plan[tuple[str, int, int] | None]:
    """File, start and stop of the chunk `key` of the scale in `folder`; None where absent. Raises DecodeError."""
    shard, minishard = sharding.locate(key)
    index = yield from _shard_index(sharding, folder, shard, minishard)
    if index.bounds is None:
        return None
    row = index.bounds[minishard if len(index.bounds) > 1 else 0]
    start, stop = int(row[0]), int(row[1])
    if start == stop:
        return None
    path = index.data_path
    if stop < start:
        raise DecodeError(_FORMAT, f"{path}: minishard {minishard} ends before it starts", found=(start, stop))

    def read() -> Plan[MinishardIndex]:
        return _read_minishard_index(sharding, path, index.base, minishard, index.base + start, index.base + stop)

    minishard_index: MinishardIndex = yield Once((folder, shard, minishard), read)
    found = minishard_index.find(key)
    if found is None:
        return None
    return path, found[0], found[0] + found[1]


def _shard_index(sharding: Sharding, folder: str, shard: str, minishard: int) -> Plan[ShardIndex]:
    whole = sharding.minishard_bits <= WHOLE_INDEX_MINISHARD_BITS
    key = (folder, shard) if whole else (folder, shard, minishard, "entry")
    index: ShardIndex = yield Once(
        key, lambda: _read_shard_index(sharding, folder, shard, None if whole else minishard)
    )
    return index


def _read_shard_index(sharding: Sharding, folder: str, shard: str, minishard: int | None) -> Plan[ShardIndex]:
    base = _ENTRY_BYTES << sharding.minishard_bits
    first, last = (0, base) if minishard is None else (minishard * _ENTRY_BYTES, (minishard + 1) * _ENTRY_BYTES)
    # the obsolete variant has index and data in two files, with offsets from the start of the data
    for suffix, data_suffix, data_base in ((".shard", ".shard", base), (".index", ".data", 0)):
        path = join(folder, shard + suffix)
        body: Body | None = yield Get(path, first, last)
        if body is None:
            continue
        if len(body.data) != last - first:
            raise DecodeError(_FORMAT, f"{path}: the shard index is cut short", f"{last - first} bytes", len(body.data))
        bounds = np.frombuffer(body.data, "<u8").reshape(-1, 2)
        return ShardIndex(join(folder, shard + data_suffix), data_base, bounds)
    return ShardIndex("", 0, None)


def _read_minishard_index(
    sharding: Sharding, path: str, base: int, minishard: int, start: int, stop: int
) -> Plan[MinishardIndex]:
    what = f"{path}: index of minishard {minishard}"
    if stop - start > MAX_MINISHARD_INDEX_BYTES or stop > _MASK64 >> 1:
        raise DecodeError(
            _FORMAT, f"{what} is impossibly big or far", f"at most {MAX_MINISHARD_INDEX_BYTES}", (start, stop)
        )
    body: Body | None = yield Get(path, start, stop)
    if body is None or len(body.data) != stop - start:
        found = 0 if body is None else len(body.data)
        raise DecodeError(_FORMAT, f"{what} is cut short", f"{stop - start} bytes", found)
    data = body.data
    if sharding.minishard_index_encoding == "gzip":
        try:
            data = inflate(data, "gzip", limit=_minishard_limit(sharding))
        except DecodeError as error:
            raise DecodeError(_FORMAT, f"{what}: {error.problem}", error.expected, error.found) from error
    return _parse_minishard_index(bytes(data), base, what)


def _minishard_limit(sharding: Sharding) -> int:
    """Most bytes a minishard index can have: a row for every chunk there is, with room for padding keys."""
    x, y, z = sharding.grid_xyz
    return min(MAX_MINISHARD_INDEX_BYTES, _ROW_BYTES * (x * y * z + 1024))


def _parse_minishard_index(data: bytes, base: int, what: str) -> MinishardIndex:
    if len(data) % _ROW_BYTES:
        raise DecodeError(_FORMAT, f"{what} has a broken length", f"a multiple of {_ROW_BYTES}", len(data))
    deltas, gaps, sizes = np.frombuffer(data, "<u8").reshape(3, -1)
    ids = np.cumsum(deltas, dtype=np.uint64)  # ids need not ascend: the sum wraps
    starts, ends = _positions(gaps, sizes, base, what)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    if len(ids) > 1 and np.any(ids[1:] == ids[:-1]):
        raise DecodeError(_FORMAT, f"{what} lists a chunk twice")
    return MinishardIndex(ids, starts[order], (ends - starts)[order])


def _positions(
    gaps: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64], base: int, what: str
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    steps = np.stack([gaps, sizes], axis=1).reshape(-1)
    # each step below 2^62 and sums that never fall cannot have wrapped past 2^64 unseen
    ends = np.cumsum(steps, dtype=np.uint64) + np.uint64(base)
    if len(steps) and (int(steps.max()) >> 62 or int(ends.max()) >> 63 or np.any(ends[1:] < ends[:-1])):
        raise DecodeError(_FORMAT, f"{what} points beyond 2^63 bytes")
    return ends[0::2], ends[1::2]
