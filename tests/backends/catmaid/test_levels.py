"""Levels of a stack: how many, how big, which slices are broken."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storefs.backends.catmaid.broken import shown_slice
from storefs.backends.catmaid.info import StackInfo, parse_stack_info
from storefs.backends.catmaid.levels import broken_at, levels_of
from storefs.errors import MetadataError
from tests.backends.catmaid.golden_files import ABSENT, GOLDEN, body, cases
from tests.backends.catmaid.stack_infos import mirror, stack_info

SERVER = "https://catmaid.example.org"


def parsed(size_zyx: tuple[int, ...], *sides: int, **changes: Any) -> StackInfo:
    mirrors = [mirror(4, "https://h/", side=side, id=n) for n, side in enumerate(sides)]
    return parse_stack_info(stack_info(size_zyx, *mirrors, **changes), SERVER)


@pytest.mark.parametrize(
    ("width", "height", "side", "last"),
    [
        (253952, 155648, 1024, 8),
        (28128, 31840, 512, 6),
        (2048, 1536, 256, 3),
        (1025, 100, 512, 1),
        (1026, 100, 512, 2),
        (512, 512, 512, 0),
        (1, 1, 512, 0),
    ],
)
def test_automatic_levels(width: int, height: int, side: int, last: int):
    """Without factors there are levels until the stack fits the smallest tile."""
    levels = levels_of(parsed((3, height, width), side, 4 * side, factors=None))
    assert [level.number for level in levels] == list(range(last + 1))
    assert levels[-1].factor_xyz == (1 << last, 1 << last, 1)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 4096))
def test_the_rule_in_numbers(width: int, height: int, side: int):
    """The number of automatic levels is that of the viewer's logarithm."""
    longest = max(width - 1, height - 1)
    last = max(0, math.ceil(math.log2(longest / side))) if longest else 0
    levels = levels_of(parsed((1, height, width), side, factors=None))
    kept = [k for k in range(last + 1) if width >> k and height >> k]
    assert [level.number for level in levels] == kept


def test_without_mirrors_there_is_one_level():
    """Tiles of no size say nothing about levels."""
    assert len(levels_of(parsed((3, 5000, 5000), factors=None))) == 1


@given(st.tuples(*[st.integers(1, 10**5)] * 3), st.tuples(*[st.integers(1, 64)] * 3))
def test_sizes(size_xyz: tuple[int, int, int], factor: tuple[int, int, int]):
    """Sizes are floored in x and y, where tiles hold whole pixels, and ceiled in z, where each slice is shown."""
    levels = levels_of(parsed(size_xyz[::-1], 64, factors=((1, 1, 1), factor)))
    x, y, z = (n / f for n, f in zip(size_xyz, factor, strict=True))
    if math.floor(x) and math.floor(y):
        assert levels[1].shape_zyx == (math.ceil(z), math.floor(y), math.floor(x))
    else:
        assert len(levels) == 1


def test_levels_below_a_pixel_are_left_out():
    """A level that would have no pixels is none; others keep their numbers."""
    levels = levels_of(parsed((4, 3, 100), 64, factors=((1, 1, 1), (4, 4, 1), (2, 2, 1))))
    assert [level.number for level in levels] == [0, 2]


def test_no_level_at_all():
    """A stack that is smaller than a pixel everywhere is an error."""
    with pytest.raises(MetadataError, match="downsample_factors"):
        levels_of(parsed((4, 3, 3), 64, factors=((4, 4, 1),)))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=ABSENT)
@pytest.mark.parametrize("case", cases(), ids=lambda case: case["tree"])
def test_recorded(case: dict[str, Any]):
    """The levels of every recorded tree."""
    info = parse_stack_info(body(case["stack_info"].removeprefix("../").removesuffix(".json")), SERVER)
    levels = levels_of(info)
    assert [list(level.factor_xyz) for level in levels] == case["downsample_factors"]
    for level in levels:
        assert list(level.shape_zyx) == case["levels"][f"s{level.number}"]["shape"][-3:]


def test_broken_slices_of_coarse_levels():
    """A coarse slice is broken where all that it was made of is; the last may be made of less."""
    broken = {"2": 1, "3": 1, "5": 1, "6": 1, "99": 1}
    info = parsed((7, 64, 64), 64, factors=((1, 1, 1), (1, 1, 2), (1, 1, 4)), broken_slices=broken)
    assert [sorted(broken_at(info, level)) for level in levels_of(info)] == [[2, 3, 5, 6], [1, 3], []]


@pytest.mark.parametrize(
    ("broken", "policy", "shown"),
    [
        ({7, 8, 31}, "nearest", {7: 6, 8: 9, 31: 30, 5: 5}),
        ({7, 8, 9}, "nearest", {7: 6, 8: 6, 9: 10}),
        ({7, 8, 31}, "next", {7: 9, 8: 9, 31: 32}),
        ({7, 8, 31}, "previous", {7: 6, 8: 6, 31: 30}),
        ({7, 8, 31}, "fill", {7: None, 8: None, 31: None, 9: 9}),
        ({0, 1}, "nearest", {0: 2, 1: 2}),
        ({0, 1}, "previous", {0: None, 1: None}),
        ({39}, "next", {39: None}),
        (set(range(40)), "nearest", {3: None}),
    ],
)
def test_what_stands_for_a_broken_slice(broken: set[int], policy: Any, shown: dict[int, int | None]):
    """The nearest takes the lower of two; at the ends of the stack there may be none."""
    assert {z: shown_slice(z, 40, broken, policy) for z in shown} == shown
