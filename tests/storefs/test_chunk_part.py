"""Which selections of a chunk are decoded without the rest, and that they mean what numpy means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storefs.chunk_part import chunk_part
from storefs_codecs.compressed_segmentation import CompressedSegmentation

SHAPE, EXTENT = (8, 8, 10), (6, 7, 9)
CHUNK = np.random.default_rng(1).integers(1, 2**32 - 1, EXTENT, "uint32")
CODEC = CompressedSegmentation(SHAPE, "uint32", (4, 4, 4))
PAYLOAD = CODEC.encode_chunk(CHUNK)
FEW = (np.array([1, 5]), np.array([0, 6]), np.array([2, 4]))


def items(length):
    """What may stand for an axis: an integer, or a slice that is not empty."""
    at = st.integers(0, length - 1)
    starts = st.one_of(st.none(), st.just(0))
    return st.one_of(at, at.map(np.int64), st.builds(slice, starts, st.integers(1, length), st.integers(1, 12)))


@given(data=st.data(), flipped=st.booleans())
def test_boxes_are_as_shown(data, flipped):
    """Integers drop their axes and slices keep them, in the order in which the axes are shown."""
    shown = CHUNK.T if flipped else CHUNK
    selection = tuple(data.draw(items(n)) for n in shown.shape)
    part = chunk_part(selection, SHAPE, EXTENT, flipped=flipped)
    if part is None:
        assert shown[selection].shape == shown.shape
        return
    found = part.decode(CODEC, PAYLOAD, EXTENT)
    assert np.shape(found) == shown[selection].shape
    assert np.array_equal(found, shown[selection])


@pytest.mark.parametrize("flipped", [False, True])
def test_points_are_as_shown(flipped):
    """Coordinates, and the crossings of a few lines, follow the axes as they are shown."""
    shown = CHUNK.T if flipped else CHUNK
    points = FEW[::-1] if flipped else FEW
    for selection in (points, np.ix_(*points)):
        part = chunk_part(selection, SHAPE, EXTENT, flipped=flipped)
        assert np.array_equal(part.decode(CODEC, PAYLOAD, EXTENT), shown[selection])


@pytest.mark.parametrize(
    "selection",
    [
        ...,
        (slice(None),) * 3,
        (slice(None), 1, slice(0, 9)),
        (slice(0, 6), slice(0, 7), slice(0, 9)),
        (slice(0, 8), slice(0, 1), slice(0, 1)),
        (slice(3, 3), slice(0, 1), slice(0, 1)),
        (slice(None, None, -1), 1, 1),
        (7, 0, 0),
        (-1, 0, 0),
        (slice(0, 2), slice(0, 2)),
        (FEW[0], slice(0, 2), FEW[2]),
        (slice(0, 2), FEW[1], FEW[2]),
        (np.ones(6, bool), np.ones(7, bool), np.ones(9, bool)),
        np.ix_(range(6), range(7), range(9)),
    ],
    ids=str,
)
def test_others_take_the_whole(selection):
    """What is all of the chunk, reaches beyond it, is empty, many scattered voxels or of other kinds is no part."""
    assert chunk_part(selection, SHAPE, EXTENT, flipped=False) is None


def test_points_beyond_a_clipped_chunk():
    """Of points in the padding the part says that it cannot."""
    part = chunk_part((np.array([7]), np.array([0]), np.array([0])), SHAPE, EXTENT, flipped=False)
    assert part.decode(CODEC, PAYLOAD, EXTENT) is None
