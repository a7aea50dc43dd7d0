"""Finding chunks in shards: plans by hand, indexes in every form, and indexes that lie."""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs.backends.precomputed.sharding import Sharding
from storefs.backends.precomputed.shards import MAX_SPAN_GAP, SPANS_AT_ONCE, find_chunk, find_chunks
from storefs.plans import Body, Get, Gets, Once, Request, drive
from storefs_codecs.errors import DecodeError
from tests.backends.precomputed.shardings import sharding

CHUNK = b"voxels!!"


def minishard_index(*rows: tuple[int, int, int]) -> bytes:
    """Key delta, gap before the data, size; one row a chunk, stored column by column."""
    return b"".join(struct.pack(f"<{len(rows)}Q", *column) for column in zip(*rows, strict=True))


def shard(*entries: tuple[int, int], body: bytes = b"") -> bytes:
    return b"".join(struct.pack("<2Q", *entry) for entry in entries) + body


class Objects:
    """Answers plans out of a dictionary; remembers what is to be remembered, and which ranges were asked for."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.known: dict[Any, Any] = {}
        self.asked: list[Get] = []
        self.at_once: list[int] = []

    def __call__(self, request: Request) -> Any:
        if isinstance(request, Once):
            if request.key not in self.known:
                self.known[request.key] = drive(request.plan(), self)
                assert self.known[request.key].nbytes > 0
            return self.known[request.key]
        if isinstance(request, Gets):
            self.at_once.append(len(request.requests))
            return [self(one) for one in request.requests]
        assert isinstance(request, Get)
        assert request.start is not None
        assert request.stop is not None
        assert 0 <= request.start <= request.stop < 1 << 63
        self.asked.append(request)
        data = self.objects.get(request.path)
        return None if data is None else Body(data[request.start : request.stop])


def find(spec: Sharding, key: int, objects: dict[str, bytes]) -> tuple[str, int, int] | None:
    """Where the chunk `key` lies among `objects`."""
    return drive(find_chunk(spec, "s0", key), Objects(objects))


def read(spec: Sharding, key: int, objects: dict[str, bytes]) -> bytes | None:
    found = find(spec, key, objects)
    return None if found is None else objects[found[0]][found[1] : found[2]]


def test_three_steps_by_hand():
    """A chunk is found by its shard's index, then its minishard's, both remembered: next and send, step by step."""
    # key 2 with one minishard bit and one shard bit: minishard 0 of file 1
    rows = minishard_index((2, 3, 8), (4, 5, 7))
    objects = Objects({"s0/1.shard": shard((8, 56), (0, 0), body=bytes(8) + rows)})
    plan = find_chunk(sharding(), "s0", 2)
    outer = next(plan)
    assert isinstance(outer, Once)
    inside = outer.plan()
    assert next(inside) == Get("s0/1.shard", 0, 32)
    with pytest.raises(StopIteration) as stop:
        inside.send(Body(objects.objects["s0/1.shard"][:32]))
    inner = plan.send(stop.value.value)
    assert isinstance(inner, Once)
    assert inner.key != outer.key
    minishard = objects(inner)
    assert objects.asked == [Get("s0/1.shard", 32 + 8, 32 + 56)]
    with pytest.raises(StopIteration) as stop:
        plan.send(minishard)
    assert stop.value.value == ("s0/1.shard", 32 + 3, 32 + 11)


def test_indexes_are_read_once():
    """Any number of chunks of a shard cost two index reads where its indexes lie together, and never the same twice."""
    tables = [minishard_index((key, 0, 8)) for key in (0, 1)]
    body = bytes(8) + b"".join(tables)
    objects = Objects({"s0/0.shard": shard((8, 32), (32, 56), body=body)})
    for _ in range(3):
        assert drive(find_chunk(sharding(), "s0", 0), objects) == ("s0/0.shard", 32, 40)
        assert drive(find_chunk(sharding(), "s0", 1), objects) == ("s0/0.shard", 32, 40)
        assert drive(find_chunk(sharding(), "s0", 4), objects) is None
    assert len(objects.asked) == len(set(objects.asked)) == 2
    assert objects.asked[0] == Get("s0/0.shard", 0, 32)


def far_apart(bits: int) -> Objects:
    """A shard of 2^bits minishards of one chunk each, whose key is that of the minishard, far from each other."""
    count, body, entries = 1 << bits, b"", []
    for key in range(count):
        data = bytes(MAX_SPAN_GAP + 1)
        index = minishard_index((key, len(body), 8))
        entries.append((len(body) + len(data), len(body) + len(data) + len(index)))
        body += data + index
    return Objects({"s0/0.shard": shard(*entries, body=body)})


@pytest.mark.parametrize("bits", [1, 3, 6])
def test_indexes_that_lie_apart_are_asked_for_at_once(bits):
    """However many minishards are wanted, few waits: the shard index, then minishard indexes side by side."""
    spec, objects, keys = sharding(minishard_bits=bits, shard_bits=0), far_apart(bits), list(range(1 << bits))
    found = drive(find_chunks(spec, "s0", keys), objects)
    assert found == [drive(find_chunk(spec, "s0", key), far_apart(bits)) for key in keys]
    assert None not in found
    assert objects.at_once == [min(SPANS_AT_ONCE, len(keys))] * -(-len(keys) // SPANS_AT_ONCE)
    assert len(objects.asked) == len(set(objects.asked)) == 1 + len(keys)
    assert drive(find_chunks(spec, "s0", keys), objects) == found
    assert len(objects.asked) == 1 + len(keys)


def test_only_so_much_is_read_ahead(monkeypatch):
    """Indexes that wait for their turn take bounded memory; one that is longer than that is read by itself."""
    spec, keys = sharding(minishard_bits=3, shard_bits=0), list(range(8))
    for limit, at_once in ((24 * 3, [3, 3, 2]), (24, []), (1, [])):
        objects = far_apart(3)
        monkeypatch.setattr("storefs.backends.precomputed.shards.MAX_BYTES_AHEAD", limit)
        assert None not in drive(find_chunks(spec, "s0", keys), objects)
        assert objects.at_once == at_once
        assert len(objects.asked) == 1 + 8


@given(st.lists(st.sets(st.integers(0, 7), min_size=1).map(list), min_size=1, max_size=4))
def test_indexes_are_found_in_any_order(wanted):
    """One call after another, for any minishards: each chunk where it lies, no index asked for alone and again."""
    spec, objects = sharding(minishard_bits=3, shard_bits=0), far_apart(3)
    for keys in wanted:
        found = drive(find_chunks(spec, "s0", keys), objects)
        assert found == [drive(find_chunk(spec, "s0", key), far_apart(3)) for key in keys]


ONE = {"minishard_bits": 0, "shard_bits": 0}


def one_shard(index: bytes, data: bytes = CHUNK) -> dict[str, bytes]:
    """A shard without minishard bits: data first, then the index."""
    return {"s0/0.shard": shard((len(data), len(data) + len(index)), body=data + index)}


def test_one_chunk():
    """The smallest shard: one entry, one chunk."""
    objects = one_shard(minishard_index((5, 0, 8)))
    assert read(sharding(**ONE), 5, objects) == CHUNK
    for key in (0, 4, 6, 1 << 63):
        assert find(sharding(**ONE), key, objects) is None


def test_empty_chunk_is_absent():
    """A chunk of no bytes is one that is not there."""
    assert find(sharding(**ONE), 5, one_shard(minishard_index((5, 0, 0)))) is None


def test_keys_in_any_order():
    """Keys need not ascend: their differences wrap around 2^64."""
    rows = minishard_index((9, 0, 3), ((2 - 9) % (1 << 64), 0, 3), (3, 0, 2))
    objects = one_shard(rows)
    assert [read(sharding(**ONE), key, objects) for key in (9, 2, 5, 3)] == [b"vox", b"els", b"!!", None]


def test_absent_shard_and_minishard():
    """No file, or an entry of no bytes, means absent chunks."""
    assert find(sharding(), 2, {}) is None
    assert find(sharding(), 2, {"s0/1.shard": shard((7, 7), (0, 0))}) is None


@pytest.mark.parametrize("wrap", [gzip.compress, zlib.compress], ids=["gzip", "zlib"])
def test_compressed_index(wrap):
    """Minishard indexes may be compressed, as gzip or as the zlib streams that some writers call gzip."""
    objects = one_shard(wrap(minishard_index((5, 0, 8))))
    assert read(sharding(**ONE, minishard_index_encoding="gzip"), 5, objects) == CHUNK


def test_two_files():
    """In the obsolete variant offsets count from the start of the data file."""
    index = minishard_index((5, 0, 8))
    objects = {"s0/0.index": shard((8, 8 + len(index))), "s0/0.data": CHUNK + index}
    assert read(sharding(**ONE), 5, objects) == CHUNK


def test_many_minishards_are_read_entry_by_entry():
    """An index of 2^20 minishards is not read as a whole."""
    spec = sharding(minishard_bits=20, shard_bits=0)
    base = 16 << 20
    data = bytearray(base + 100)
    struct.pack_into("<2Q", data, 77 * 16, 10, 34)
    data[base + 10 : base + 34] = minishard_index((77, 0, 8))
    objects = Objects({f"s0/{spec.locate(77)[0]}.shard": bytes(data)})
    assert drive(find_chunk(spec, "s0", 77), objects) is not None
    assert [(request.start, request.stop) for request in objects.asked] == [
        (77 * 16, 78 * 16),
        (base + 10, base + 34),
    ]


# indexes that lie


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        ({"s0/1.shard": b""}, "shard index is cut short"),
        ({"s0/1.shard": shard((0, 24))}, "shard index is cut short .expected 32 bytes, found 16"),
        ({"s0/1.shard": shard((24, 0), (0, 0))}, "minishard 0 ends before it starts"),
        ({"s0/1.shard": shard((0, 24), (0, 0))}, "index of minishard 0 is cut short .expected 24 bytes, found 0"),
        ({"s0/1.shard": shard((0, 25), (0, 0), body=bytes(25))}, "broken length .expected a multiple of 24, found 25"),
        ({"s0/1.shard": shard((0, 1 << 62), (0, 0))}, "impossibly big or far"),
        ({"s0/1.shard": shard((1 << 63, (1 << 63) + 24), (0, 0))}, "impossibly big or far"),
        ({"s0/1.shard": shard(((1 << 64) - 40, (1 << 64) - 16), (0, 0))}, "impossibly big or far"),
        ({"s0/1.shard": shard((0, 48), (0, 0), body=minishard_index((2, 0, 8), (0, 0, 8)))}, "lists a chunk twice"),
        ({"s0/1.shard": shard((0, 24), (0, 0), body=minishard_index((2, 1 << 63, 8)))}, "points beyond"),
        ({"s0/1.shard": shard((0, 24), (0, 0), body=minishard_index((2, 8, (1 << 64) - 1)))}, "points beyond"),
        (
            {"s0/1.shard": shard((0, 72), (0, 0), body=minishard_index(*[(2, 1 << 61, 1 << 61)] * 3))},
            "points beyond",
        ),
    ],
    ids=str,
)
def test_lying_index(objects, problem):
    """An index that points nowhere is a DecodeError naming the shard, before anything is asked for."""
    with pytest.raises(DecodeError, match=rf"s0/1\.shard.*{problem}"):
        find(sharding(), 2, objects)


@pytest.mark.parametrize("index", [b"", b"no gzip", gzip.compress(minishard_index((5, 0, 8)), mtime=0)[:-3]])
def test_broken_compressed_index(index):
    """An index that does not unpack is a DecodeError naming shard and minishard."""
    objects = one_shard(index) if index else one_shard(gzip.compress(b"x", mtime=0))
    with pytest.raises(DecodeError, match=r"s0/0\.shard: index of minishard 0"):
        find(sharding(**ONE, minishard_index_encoding="gzip"), 5, objects)


def test_index_that_unpacks_to_more_than_there_are_chunks():
    """A compressed index may hold a row for every chunk, not gigabytes of them."""
    bomb = gzip.compress(bytes(24 * 200_000), mtime=0)
    with pytest.raises(DecodeError, match="holds more than expected"):
        find(sharding(**ONE, minishard_index_encoding="gzip"), 5, one_shard(bomb))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 200), min_size=4, max_size=4),
    st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 60), max_size=12),
    st.binary(max_size=30),
    st.integers(0, 63),
)
def test_any_shard(entries, rows, tail, key):
    """Any bytes as a shard give a place inside it, nothing, or DecodeError; ranges asked for are always sane."""
    data = struct.pack("<4Q", *entries) + struct.pack(f"<{len(rows)}Q", *rows) + tail
    objects = {"s0/0.shard": data, "s0/1.shard": data}
    try:
        found = find(sharding(), key, objects)
    except DecodeError as error:
        found = None
        named = "s0/" in str(error)
    else:
        named = True
    assert named
    if found is not None:
        assert 32 <= found[1] < found[2] < 1 << 63
