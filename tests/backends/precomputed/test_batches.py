"""Chunks of a shard found together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storefs.backend import Place
from storefs.backends.precomputed.sharding import compressed_morton, compressed_mortons
from storefs.backends.precomputed.shards import MinishardIndex
from storefs.plans import Body
from storefs.spans import MAX_GAP, span_length, spans

KEYS = st.lists(st.integers(0, (1 << 64) - 1), unique=True, max_size=12)


@pytest.mark.parametrize("grid", [(1, 1, 1), (5, 1, 3), (8, 8, 8), (3, 1 << 20, 2)])
def test_keys_of_many_cells_are_those_of_each(grid):
    """The vectorised key is the key."""
    cells = [tuple(cell) for cell in itertools.islice(itertools.product(*(range(max(0, n - 6), n) for n in grid)), 100)]
    found = compressed_mortons(np.array(cells, np.uint64), grid).tolist()
    assert found == [compressed_morton(cell, grid) for cell in cells]


@given(KEYS, KEYS)
def test_many_chunks_of_a_minishard_are_found_as_each(there, asked):
    """Those that are there, those that are not, and those that are empty."""
    ids = np.array(sorted(there), np.uint64)
    sizes = np.arange(len(ids), dtype=np.uint64) % np.uint64(3)
    index = MinishardIndex(ids, np.arange(len(ids), dtype=np.uint64) * np.uint64(10), sizes)
    wanted = [*asked, *there]
    assert index.find_many(wanted) == [index.find(key) for key in wanted]


PLACES = st.lists(
    st.builds(
        lambda path, start, length: Place(path, start, start + length),
        st.sampled_from(["a", "b"]),
        st.integers(0, 1 << 22),
        st.integers(1, 1 << 18),
    ),
    max_size=20,
)


@given(PLACES, st.sampled_from([0, 1 << 18, 1 << 20]))
def test_spans_hold_every_place_once(places, longest):
    """Each place is in one span of its object, with short gaps, and no span of several is longer than allowed."""
    found = list(spans([(place, number) for number, place in enumerate(places)], longest))
    assert sorted(number for span in found for _, number in span.members) == list(range(len(places)))
    for span in found:
        ends = 0
        for place, _ in span.members:
            assert place.path == span.path
            assert span.start <= place.start
            assert place.stop <= span.stop
            assert not ends or place.start - ends <= MAX_GAP
            ends = max(ends, place.stop)
        assert ends == span.stop
        assert len(span.members) == 1 or span.stop - span.start <= longest


def test_a_span_gives_each_place_its_bytes():
    """Fewer where the object ended before."""
    data = bytes(range(100))
    (span,) = spans([(Place("a", 10, 20), 0), (Place("a", 30, 60), 1)], 1 << 20)
    body = Body(data[10:50])
    assert bytes(span.part(Place("a", 10, 20), body).data) == data[10:20]
    assert bytes(span.part(Place("a", 30, 60), body).data) == data[30:50]


def test_spans_are_neither_short_nor_long():
    """Whatever the share of a thread."""
    assert span_length(1) < span_length(3 << 20) < span_length(1 << 40)
    assert span_length(3 << 20) == 3 << 20
