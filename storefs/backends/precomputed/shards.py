"""Where in its shard a chunk lies: shard index -> minishard index -> data, the two indexes remembered.

Minishard indexes that lie near each other are read together, so that a shard whose indexes are written in one place
costs two index reads however many of its chunks are read; those that lie apart are asked for at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from storefs.backends.precomputed.chunks import join
from storefs.plans import Body, Get, Gets, Once
from storefs_codecs.content_encoding import inflate
from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storefs.backends.precomputed.sharding import Sharding
    from storefs.plans import Plan

WHOLE_INDEX_MINISHARD_BITS = 16
MAX_MINISHARD_INDEX_BYTES = 256 << 20
MAX_SPAN_BYTES = 1 << 20
MAX_SPAN_GAP = 64 << 10
SPANS_AT_ONCE = 32
MAX_BYTES_AHEAD = 4 << 20
_ENTRY_BYTES = 16
_ROW_BYTES = 24
_FURTHEST = 1 << 63
_FORMAT = "sharded"


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """Where the minishard indexes of one shard lie: `bounds[i]` is start and stop in `path`; None where absent.

    Offsets in the shard count from `base`, in the file that `data_path` names. Minishard `i` is read with all others
    of `spans[span_of[i]]`; -1 stands for those read alone.
    """

    data_path: str
    base: int
    bounds: npt.NDArray[np.uint64] | None
    span_of: npt.NDArray[np.int64]
    spans: npt.NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        return 256 + (0 if self.bounds is None else self.bounds.nbytes) + self.span_of.nbytes + self.spans.nbytes


@dataclass(frozen=True, slots=True)
class IndexSpan:
    """Bytes of a shard that hold several minishard indexes, from `start` on; fewer where the file ends before."""

    start: int
    data: bytes | memoryview

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        return 256 + len(self.data)


@dataclass(slots=True)
class _Ahead:
    """The `numbers` of the spans of a shard that will be needed, in order, and those `read` before their turn."""

    numbers: list[int]
    read: dict[int, IndexSpan] = field(default_factory=dict)


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

    def find_many(self, keys: Sequence[int]) -> list[tuple[int, int] | None]:
        """The same for many chunks."""
        if not len(self.ids):
            return [None] * len(keys)
        wanted = np.array(keys, np.uint64)
        rows = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        columns = (self.ids[rows] == wanted).tolist(), self.starts[rows].tolist(), self.sizes[rows].tolist()
        return [(start, size) if there and size else None for there, start, size in zip(*columns, strict=True)]


def find_chunk(sharding: Sharding, folder: str, key: int) -> Plan[tuple[str, int, int] | None]:
    """File, start and stop of the chunk `key` of the scale in `folder`; None where absent. Raises DecodeError."""
    shard, minishard = sharding.locate(key)
    path, index = yield from _minishard_index(sharding, folder, shard, minishard, _Ahead([]))
    found = None if index is None else index.find(key)
    return None if found is None else (path, found[0], found[0] + found[1])


def find_chunks(sharding: Sharding, folder: str, keys: Sequence[int]) -> Plan[list[tuple[str, int, int] | None]]:
    """The same for the many `keys` of one shard, in order; each index is looked into once."""
    found: list[tuple[str, int, int] | None] = [None] * len(keys)
    shard = sharding.locate(keys[0])[0]
    minishards: dict[int, list[int]] = {}
    for position, key in enumerate(keys):
        minishards.setdefault(sharding.locate(key)[1], []).append(position)
    ahead = yield from _ahead(sharding, folder, shard, list(minishards))
    for minishard, positions in minishards.items():
        path, index = yield from _minishard_index(sharding, folder, shard, minishard, ahead)
        if index is None:
            continue
        for position, lies in zip(positions, index.find_many([keys[p] for p in positions]), strict=True):
            found[position] = lies and (path, lies[0], lies[0] + lies[1])
    return found


def _ahead(sharding: Sharding, folder: str, shard: str, minishards: list[int]) -> Plan[_Ahead]:
    """What will be read for the indexes of `minishards`, unless it is remembered."""
    if len(minishards) == 1 or not _is_whole(sharding):
        return _Ahead([])
    index = yield from _shard_index(sharding, folder, shard, minishards[0])
    numbers = index.span_of[minishards].tolist() if len(index.span_of) else []
    return _Ahead([number for number in dict.fromkeys(numbers) if number >= 0])


def _minishard_index(
    sharding: Sharding, folder: str, shard: str, minishard: int, ahead: _Ahead
) -> Plan[tuple[str, MinishardIndex | None]]:
    """The file that holds the chunks of a minishard, and where they lie; None where there are none."""
    index = yield from _shard_index(sharding, folder, shard, minishard)
    path = index.data_path
    if index.bounds is None:
        return path, None
    row = minishard if len(index.bounds) > 1 else 0
    start, stop = (int(position) for position in index.bounds[row])
    if start == stop:
        return path, None
    what = f"{path}: index of minishard {minishard}"
    if stop < start:
        raise DecodeError(_FORMAT, f"{path}: minishard {minishard} ends before it starts", found=(start, stop))
    if stop - start > MAX_MINISHARD_INDEX_BYTES or index.base + stop >= _FURTHEST:
        raise DecodeError(
            _FORMAT, f"{what} is impossibly big or far", f"at most {MAX_MINISHARD_INDEX_BYTES}", (start, stop)
        )

    def read() -> Plan[MinishardIndex]:
        span = yield from _span_around(index, (folder, shard), row, (start, stop), ahead)
        data = span.data[start - span.start : stop - span.start]
        if len(data) != stop - start:
            raise DecodeError(_FORMAT, f"{what} is cut short", f"{stop - start} bytes", len(data))
        return _parse_minishard_index(_unwrapped(data, sharding, what), index.base, what)

    found: MinishardIndex = yield Once((folder, shard, minishard), read)
    return path, found


def _span_around(
    index: ShardIndex, shard: tuple[str, str], row: int, bounds: tuple[int, int], ahead: _Ahead
) -> Plan[IndexSpan]:
    number = int(index.span_of[row])
    if number < 0:
        (alone,) = yield from _read_spans(index, [bounds])
        return alone
    span: IndexSpan = yield Once((*shard, "span", number), lambda: _read_ahead(index, number, ahead))
    return span


def _read_ahead(index: ShardIndex, number: int, ahead: _Ahead) -> Plan[IndexSpan]:
    """The span `number`, and as many of those that are needed after it as may wait in memory."""
    if number not in ahead.read:
        following = ahead.numbers[ahead.numbers.index(number) :] if number in ahead.numbers else [number]
        lengths = index.spans[following, 1] - index.spans[following, 0]
        fit = int(np.searchsorted(np.cumsum(lengths), MAX_BYTES_AHEAD, "right"))
        numbers = following[: max(1, min(fit, SPANS_AT_ONCE))]
        found = yield from _read_spans(index, index.spans[numbers].tolist())
        ahead.read.update(zip(numbers, found, strict=True))
    return ahead.read.pop(number)


def _read_spans(index: ShardIndex, bounds: list[tuple[int, int]]) -> Plan[list[IndexSpan]]:
    requests = tuple(Get(index.data_path, index.base + start, index.base + stop) for start, stop in bounds)
    bodies: tuple[Body | None, ...] = (yield Gets(requests)) if len(requests) > 1 else ((yield requests[0]),)
    starts = [start for start, _ in bounds]
    return [IndexSpan(start, b"" if body is None else body.data) for start, body in zip(starts, bodies, strict=True)]


def _is_whole(sharding: Sharding) -> bool:
    """Whether the shard index is read as a whole; a huge one is read entry by entry."""
    return sharding.minishard_bits <= WHOLE_INDEX_MINISHARD_BITS


def _shard_index(sharding: Sharding, folder: str, shard: str, minishard: int) -> Plan[ShardIndex]:
    whole = _is_whole(sharding)
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
        bounds = np.frombuffer(bytes(body.data), "<u8").reshape(-1, 2)
        return ShardIndex(join(folder, shard + data_suffix), data_base, bounds, *_spans(bounds))
    return ShardIndex("", 0, None, *_spans(np.empty((0, 2), np.uint64)))


def _spans(bounds: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The span of each row of `bounds`, and where the spans lie; rows that are no small index are read alone."""
    starts, stops = bounds[:, 0], bounds[:, 1]
    fit = np.flatnonzero((starts < stops) & (stops < _FURTHEST >> 1) & (stops - starts <= MAX_SPAN_BYTES))
    span_of = np.full(len(bounds), -1, np.int64)
    if not len(fit):
        return span_of, np.empty((0, 2), np.int64)
    order = fit[np.argsort(starts[fit], kind="stable")]
    starts, stops = starts[order].astype(np.int64), stops[order].astype(np.int64)
    begins = np.ones(len(order), bool)
    begins[1:] = starts[1:] - np.maximum.accumulate(stops)[:-1] > MAX_SPAN_GAP
    run_start = starts[begins][np.cumsum(begins) - 1]
    part = (starts - run_start) // MAX_SPAN_BYTES
    begins[1:] |= part[1:] != part[:-1]
    span_of[order] = np.cumsum(begins) - 1
    return span_of, np.stack([starts[begins], np.maximum.reduceat(stops, np.flatnonzero(begins))], axis=1)


def _unwrapped(data: bytes | memoryview, sharding: Sharding, what: str) -> bytes:
    if sharding.minishard_index_encoding != "gzip":
        return bytes(data)
    try:
        return bytes(inflate(data, "gzip", limit=_minishard_limit(sharding)))
    except DecodeError as error:
        raise DecodeError(_FORMAT, f"{what}: {error.problem}", error.expected, error.found) from error


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
