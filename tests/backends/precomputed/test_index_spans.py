"""Spans of minishard indexes: which are read together, whatever a shard index says."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from storefs.backends.precomputed.shards import MAX_SPAN_BYTES, MAX_SPAN_GAP, _spans

positions = st.one_of(st.integers(0, 1 << 22), st.integers(0, (1 << 64) - 1))
rows = st.lists(st.tuples(positions, positions), max_size=64)


@given(rows)
def test_every_index_lies_in_its_span(found):
    """Any shard index: a minishard index is in the span that holds it or is read alone; no span is big."""
    bounds = np.array(found, np.uint64).reshape(-1, 2)
    span_of, spans = _spans(bounds)
    assert len(span_of) == len(bounds)
    for (start, stop), number in zip(found, span_of, strict=True):
        if number >= 0:
            first, last = spans[number]
            assert first <= start < stop <= last
        else:
            assert start >= stop or stop - start > MAX_SPAN_BYTES or stop >= 1 << 62
    assert all(0 < last - first <= 2 * MAX_SPAN_BYTES for first, last in spans)


@given(st.lists(st.tuples(st.integers(0, 2 * MAX_SPAN_GAP), st.integers(1, 1000)), min_size=1, max_size=40))
def test_spans_end_at_wide_gaps_and_nowhere_else(steps):
    """Indexes one behind the other share a span unless more than 64 KiB, or 1 MiB from its start, lie between."""
    ends = np.cumsum(np.array(steps).reshape(-1))
    bounds = np.stack([ends[0::2], ends[1::2]], axis=1).astype(np.uint64)
    span_of, spans = _spans(bounds)
    starts = bounds[:, 0].astype(np.int64)
    for i in range(1, len(bounds)):
        gap = int(starts[i]) - int(bounds[i - 1, 1])
        together = span_of[i] == span_of[i - 1]
        assert not (together and gap > MAX_SPAN_GAP)
        if not together and gap <= MAX_SPAN_GAP:
            run = next(j for j in range(i, -1, -1) if j == 0 or starts[j] - int(bounds[j - 1, 1]) > MAX_SPAN_GAP)
            assert (starts[i] - starts[run]) // MAX_SPAN_BYTES != (starts[i - 1] - starts[run]) // MAX_SPAN_BYTES
    assert len(spans) == span_of.max() + 1
