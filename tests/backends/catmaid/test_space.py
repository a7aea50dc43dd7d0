"""Space: coordinates as CATMAID has them, and boxes with catpy's rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storefs.backends.catmaid.space import Space
from storefs.errors import MetadataError

# check values of CATMAID's own tests: stack point (4, 5, 6)
CHECKED = {0: (1.4, 4.5, 15.0), 1: (1.4, 14.0, 5.5), 2: (13.0, 4.5, 3.4)}

number = st.integers(-(10**12), 10**12).map(lambda n: n / 1000)
step = st.integers(1, 10**7).map(lambda n: n / 1000)
triples = st.tuples(number, number, number)
spaces = st.builds(
    Space,
    resolution_xyz=st.tuples(step, step, step),
    translation_xyz=triples,
    orientation=st.sampled_from([0, 1, 2]),
    factors_xyz=st.tuples(st.just((1, 1, 1)), st.tuples(*[st.integers(1, 64)] * 3)),
    catpy_axes=st.booleans(),
)
orders = st.sampled_from(["xyz", "zyx"])


def stack_info(**changes):
    """A server's answer, as small as it may be."""
    return {
        "sid": 1,
        "pid": 2,
        "dimension": {"x": 100, "y": 80, "z": 40},
        "resolution": {"x": 0.1, "y": 0.5, "z": 2.0},
        "translation": {"x": 1, "y": 2, "z": 3},
        "orientation": 0,
        "downsample_factors": [{"x": 1, "y": 1, "z": 1}, {"x": 2, "y": 2, "z": 1}, {"x": 4, "y": 4, "z": 2}],
        "mirrors": [],
        **changes,
    }


@pytest.mark.parametrize("orientation", CHECKED)
def test_agrees_with_catmaid(orientation):
    """The check values of CATMAID's own tests come out, both ways and in both orders."""
    space = Space((0.1, 0.5, 2.0), (1.0, 2.0, 3.0), orientation)
    expected = CHECKED[orientation]
    np.testing.assert_allclose(space.stack_to_project((4, 5, 6)), expected)
    np.testing.assert_allclose(space.project_to_stack(expected), (4, 5, 6))
    np.testing.assert_allclose(space.stack_to_project((6, 5, 4), "zyx"), expected[::-1])
    np.testing.assert_allclose(space.project_to_stack(expected[::-1], "zyx"), (6, 5, 4))


@pytest.mark.parametrize(
    ("orientation", "catmaid", "catpy"),
    [(0, (100, 50, 10), (100, 50, 10)), (1, (100, 50, 10), (100, 10, 50)), (2, (100, 50, 10), (10, 50, 100))],
)
def test_catpy_axes(orientation, catmaid, catpy):
    """While catpy divides by the resolution of the project's axis, CATMAID does by that of the stack's."""
    resolution = (1.0, 2.0, 10.0)
    point = (100, 100, 100)
    np.testing.assert_allclose(Space(resolution, orientation=orientation).project_to_stack(point), catmaid)
    as_catpy = Space(resolution, orientation=orientation, catpy_axes=True)
    np.testing.assert_allclose(as_catpy.project_to_stack(point), catpy)


@given(spaces, st.lists(triples, min_size=1, max_size=5), orders, st.sampled_from([0, 1]))
def test_there_and_back(space, points, order, level):
    """Every conversion undoes its inverse, for many points at once."""
    points = np.array(points)
    reach = np.abs(points).max() + max(map(abs, space.translation_xyz)) + 1
    close = {"rtol": 1e-9, "atol": 1e-12 * reach * 1e4 / min(space.resolution_xyz)}
    for there, back in (
        (space.project_to_stack, space.stack_to_project),
        (space.stack_to_project, space.project_to_stack),
    ):
        np.testing.assert_allclose(back(there(points, order), order), points, **close)
    scaled = space.stack_to_scaled(points, level, order)
    np.testing.assert_allclose(space.scaled_to_stack(scaled, level, order), points, rtol=1e-12, atol=1e-300)
    there = space.scaled_to_project(points, level, order)
    np.testing.assert_allclose(space.project_to_scaled(there, level, order), points, **close)


@given(spaces, st.lists(triples, min_size=1, max_size=4), orders)
def test_many_points_are_as_each(space, points, order):
    """An array of points of any shape gives what each point gives."""
    array = np.array(points).reshape(1, -1, 3)
    found = space.project_to_stack(array, order)
    assert found.shape == array.shape
    for point, one in zip(points, found[0], strict=True):
        np.testing.assert_array_equal(space.project_to_stack(point, order), one)
        flipped = space.project_to_stack(point[::-1], "zyx" if order == "xyz" else "xyz")
        np.testing.assert_array_equal(flipped[::-1], one)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((1, 1, 1), ([-10, -10, -10], [0, -5, -6])),
        ((2, 2, 1), ([-10, -5, -5], [0, -2, -3])),
        ((0.25, 0.25, 1), ([-10, -39, -40], [0, -21, -27])),
    ],
)
def test_project_boxes_as_catpy(factors, expected):
    """The test values of catpy for boxes in project space, z y x; a level finer than the first has factors below 1."""
    space = Space((3, 2, 1), (30, 20, 10), factors_xyz=(factors,))
    roi = [[0.5, 0.5, 0.5], [9.5, 9.5, 9.5]]
    assert space.box(roi, "project").tolist() == list(expected)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((1, 1, 1), ([0, 0, 0], [10, 10, 10])),
        ((2, 2, 1), ([0, 0, 0], [10, 5, 5])),
        ((0.25, 0.25, 1), ([0, 2, 2], [10, 38, 38])),
    ],
)
def test_stack_boxes_as_catpy(factors, expected):
    """The test values of catpy for boxes in stack space, z y x."""
    space = Space((3, 2, 1), (30, 20, 10), factors_xyz=(factors,))
    assert space.box([[0.5] * 3, [9.5] * 3], "stack").tolist() == list(expected)


@given(
    spaces,
    st.tuples(*[st.integers(-1000, 1000)] * 3),
    st.tuples(*[st.integers(0, 500)] * 3),
    st.sampled_from(["project", "stack", "scaled"]),
    st.sampled_from([0, 1]),
)
def test_whole_numbers_are_no_exception(space, start, size, name, level):
    """A box of whole numbers is rounded like the same box of floating ones."""
    roi = np.array([start, np.add(start, size)])
    np.testing.assert_array_equal(space.box(roi, name, level), space.box(roi.astype(float), name, level))


def test_whole_numbers_are_not_cut():
    """What integer division would cut off is inside: catpy loses it."""
    space = Space(factors_xyz=((1, 1, 1), (2, 2, 1)))
    assert space.box([[0, 0, 0], [1, 5, 5]], "stack", 1).tolist() == [[0, 0, 0], [1, 3, 3]]
    assert space.box([[0, 3, 3], [1, 7, 7]], "stack", 1).tolist() == [[0, 1, 1], [1, 4, 4]]
    assert space.box([[0, 0, 0], [1, 1, 1]], "stack", 1).tolist() == [[0, 0, 0], [1, 1, 1]]


@given(spaces, triples, st.tuples(step, step, step), orders, st.sampled_from([0, 1]))
def test_boxes_cover(space, lower, size, order, level):
    """A box in stack space reaches around both corners, by no more than a voxel."""
    roi = np.array([lower, np.add(lower, size)])
    start, stop = space.box(roi, "stack", level, order)
    exact = space.stack_to_scaled(roi, level, order)
    assert (start <= exact[0]).all()
    assert (exact[0] - start <= 1).all()
    assert (stop >= exact[1]).all()
    assert (stop - exact[1] <= 1).all()


def test_boxes_use_the_factor_of_each_axis():
    """Depth is divided by its own factor, as CATMAID does."""
    space = Space.from_stack_info(stack_info())
    assert space.box([[0, 0, 0], [9, 9, 9]], "stack", 2).tolist() == [[0, 0, 0], [5, 3, 3]]
    assert space.box([[0, 0, 0], [9, 9, 9]], "stack", 2, "xyz").tolist() == [[0, 0, 0], [3, 3, 5]]


@pytest.mark.parametrize("orientation", [0, 1, 2])
@given(z=st.integers(0, 39))
def test_slice_shown(orientation, z):
    """The viewer shows the slice whose number a position was made of, and stays inside the stack."""
    space = Space.from_stack_info(
        stack_info(
            orientation=orientation, resolution={"x": 3.8, "y": 4.1, "z": 35.7}, translation={"x": 0, "y": 0, "z": 0}
        )
    )
    assert space.slice_shown(space.stack_to_project((1, 2, z))) == z
    far = space.stack_to_project([(0, 0, -7.5), (0, 0, 1000)])
    assert space.slice_shown(far).tolist() == [0, 39]
    assert space.slice_shown(far[:, ::-1], "zyx").tolist() == [0, 39]


def test_from_stack_info():
    """A server's answer tells all, also levels that it leaves to be worked out."""
    space = Space.from_stack_info(stack_info(orientation=2))
    assert space.resolution_xyz == (0.1, 0.5, 2.0)
    assert space.translation_xyz == (1, 2, 3)
    assert space.orientation_name == "zy"
    assert space.factors_xyz == ((1, 1, 1), (2, 2, 1), (4, 4, 2))
    mirror = {"image_base": "tiles/", "tile_width": 32, "tile_height": 32, "tile_source_type": 4}
    space = Space.from_stack_info(stack_info(downsample_factors=None, mirrors=[mirror]))
    assert space.factors_xyz == ((1, 1, 1), (2, 2, 1), (4, 4, 1))
    with pytest.raises(MetadataError, match="resolution"):
        Space.from_stack_info(stack_info(resolution=None))


def test_what_makes_no_sense():
    """Levels, orders, boxes and resolutions that are not there say so."""
    space = Space(factors_xyz=((1, 1, 1),))
    with pytest.raises(IndexError, match="levels 0 to 0"):
        space.stack_to_scaled((0, 0, 0), 1)
    with pytest.raises(IndexError, match="no level -1"):
        space.box([[0] * 3, [1] * 3], "stack", -1)
    with pytest.raises(ValueError, match="order"):
        space.stack_to_project((0, 0, 0), "yxz")
    with pytest.raises(ValueError, match="three numbers"):
        space.stack_to_project((0, 0))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        space.box([0, 0, 0])
    with pytest.raises(ValueError, match="behind"):
        space.box([[0, 0, 5], [1, 1, 4]])
    with pytest.raises(ValueError, match="behind"):
        space.box([[0, 0, math.nan], [1, 1, 4]])
    with pytest.raises(ValueError, match="finite"):
        space.box([[0, 0, -math.inf], [1, 1, 4]])
    with pytest.raises(ValueError, match="project, stack, scaled"):
        space.box([[0] * 3, [1] * 3], "world")
    with pytest.raises(ValueError, match="orientation"):
        Space(orientation=3)
    flat = Space((1.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="0 nm"):
        flat.project_to_stack((0, 0, 0))
    assert flat.stack_to_project((1, 2, 3)).tolist() == [1, 2, 0]
