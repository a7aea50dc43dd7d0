"""The sample volume: always the same, a valid precomputed layer, and hard enough to show mistakes."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storefs
from storefs.sample import write_sample
from storefs.sample.picture import colours, draw
from storefs.sample.pyramid import Level, build_pyramid, mean, mode
from storefs.sample.tissue import grow

SHAPE = (20, 72, 90)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample"), SHAPE)


def test_the_same_shape_gives_the_same_tissue():
    """The tissue is a function of its shape and seed."""
    first, second, other = grow((6, 40, 48)), grow((6, 40, 48)), grow((6, 40, 48), seed=1)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.labels, second.labels)
    assert not np.array_equal(first.image, other.image)


def test_tissue_looks_like_tissue(sample):
    """Boundaries between neurites are darker than their insides, and ids need 64 bits."""
    tissue = grow(SHAPE)
    edge = tissue.labels[:, :, 1:] != tissue.labels[:, :, :-1]
    dark, light = tissue.image[:, :, 1:][edge].mean(), tissue.image[:, :, 1:][~edge].mean()
    assert dark + 40 < light
    assert 5 < len(np.unique(tissue.labels)) < 200
    assert tissue.labels.min() > 2**53
    assert len(np.unique(tissue.labels.astype(np.float64))) < len(np.unique(tissue.labels)) or tissue.labels.max() % 2


def test_storefs_reads_what_was_written(sample):
    """Labels are equal in every scale; jpeg stays near."""
    labels, image = storefs.open(sample.labels.url), storefs.open(sample.image.url)
    for i, level in enumerate(sample.labels.levels):
        assert np.array_equal(labels[str(i)][...], level.voxels)
        assert labels[str(i)].attrs["storefs"]["voxel_offset_xyz"] == list(level.offset_xyz)
    for i, level in enumerate(sample.image.levels):
        assert np.abs(image[str(i)][...].astype(int) - level.voxels).mean() < 6


def test_tensorstore_reads_what_was_written(sample):
    """The layers are valid precomputed to an independent reader."""
    tensorstore = pytest.importorskip("tensorstore", reason="tensorstore is not installed (extra peers)")
    for i, level in enumerate(sample.labels.levels):
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": f"{sample.labels.folder}/"},
            "scale_index": i,
        }
        store = tensorstore.open(spec, read=True).result()
        assert store.domain.inclusive_min[:3] == level.offset_xyz
        assert np.array_equal(store.read().result()[..., 0].T, level.voxels)


@given(
    offset=st.tuples(*[st.integers(-20, 20)] * 3),
    factor=st.tuples(*[st.integers(1, 3)] * 3),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
)
@settings(max_examples=40, deadline=None)
def test_a_reduced_level_covers_the_one_below_and_is_aligned_to_it(offset, factor, shape):
    """Offsets are floored and ends ceiled in the volume's own coordinates; a constant stays constant."""
    level = Level(np.full(shape, 2**60, np.uint64), offset, (8, 8, 40))
    _, reduced = build_pyramid(level, [factor], mode)
    for axis in range(3):
        first, size = offset[axis], shape[::-1][axis]
        assert reduced.offset_xyz[axis] == first // factor[axis]
        assert reduced.offset_xyz[axis] + reduced.voxels.shape[::-1][axis] == -(-(first + size) // factor[axis])
    assert np.all(reduced.voxels == 2**60)


def test_reductions():
    """Images take the rounded mean, labels the commonest value."""
    blocks = np.array([[1], [4], [4], [2]], np.uint8)
    assert mean(blocks).tolist() == [3]
    assert mode(blocks).tolist() == [4]
    assert mode(blocks[:2]).tolist() == [1]


def test_picture_shows_section_and_labels(sample):
    """The PNG has grey on the left, the same in colour on the right, and a scale bar."""
    image, labels = (layer.levels[0].voxels for layer in (sample.image, sample.labels))
    picture = imagecodecs.png_decode(draw(image, labels, (40.0, 8.0, 8.0)))
    height, width, _ = picture.shape
    assert (height, width) == (2 * SHAPE[1] + 8 + 10 * SHAPE[0], 4 * SHAPE[2] + 8)
    left, right = picture[: 2 * SHAPE[1], : 2 * SHAPE[2]], picture[: 2 * SHAPE[1], 2 * SHAPE[2] + 8 :]
    assert np.all(left[..., 0] == left[..., 1])
    assert np.any(right[..., 0] != right[..., 1])
    assert np.any(left == 255)


def test_a_label_has_one_colour_wherever_it_occurs():
    """Colours depend on the label alone."""
    a, b = 720575940603710298, 720575940634169632
    first = colours(np.array([[a, b]], np.uint64))
    second = colours(np.array([[b], [a]], np.uint64))
    assert np.array_equal(first[0, 0], second[1, 0])
    assert not np.array_equal(first[0, 0], first[0, 1])
