"""Every recorded tile tree reads as the array that it was made from, voxel for voxel, at every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr

import storefs
from tests.backends.catmaid.golden_files import ABSENT, GOLDEN, cases, local_info

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=ABSENT)

LEVELS = [(case, level) for case in cases() for level in case["levels"]]
MENDED = {  # by policy: which slice is shown for each
    "nearest": [0, 1, 1, 3, 4, 4, 7, 7],
    "previous": [0, 1, 1, 3, 4, 4, 4, 7],
    "next": [0, 1, 3, 3, 4, 7, 7, 7],
}


def case_of(tree: str) -> dict[str, Any]:
    return next(case for case in cases() if case["tree"] == tree)


def expected(case: dict[str, Any], level: str) -> Any:
    return np.load(GOLDEN / "trees" / case["expected"])[level]


def check(found: Any, case: dict[str, Any], level: str) -> None:
    wanted = expected(case, level)
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= case["tolerance"]


def channels_of(case: dict[str, Any], level: str) -> str:
    return "rgb" if case["levels"][level]["axes"] == "czyx" else "luma"


@pytest.mark.parametrize(("case", "level"), LEVELS, ids=lambda v: v if isinstance(v, str) else v["tree"])
def test_through_zarr(case: dict[str, Any], level: str):
    """`zarr.open` gives the voxels of the level."""
    options = {"stack_info": local_info(case), "channels": channels_of(case, level)}
    group = zarr.open("catmaid://tiles", mode="r", storage_options=options)
    assert isinstance(group, zarr.Group)
    array = group[level.removeprefix("s").partition("_")[0]]
    assert isinstance(array, zarr.Array)
    check(array[...], case, level)


@pytest.mark.parametrize(("case", "level"), LEVELS, ids=lambda v: v if isinstance(v, str) else v["tree"])
def test_in_bulk(case: dict[str, Any], level: str):
    """`storefs.open_array` gives the same."""
    number = int(level.removeprefix("s").partition("_")[0])
    array = storefs.open_array(
        "catmaid://tiles", number, stack_info=local_info(case), channels=channels_of(case, level)
    )
    check(array[...], case, level)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["tree"])
def test_as_many_levels_as_there_are(case: dict[str, Any]):
    """The group has the levels of the tree and no more."""
    group = storefs.open("catmaid://tiles", stack_info=local_info(case))
    assert sorted(group.array_keys()) == sorted({level[1:].partition("_")[0] for level in case["levels"]})


@pytest.mark.parametrize("policy", MENDED)
@pytest.mark.parametrize("level", ["s0", "s1", "s2"])
def test_broken_slices(policy: str, level: str):
    """Another slice stands for a broken one, which the policy names."""
    case = case_of("type1_missing_broken")
    array = storefs.open_array("catmaid://tiles", int(level[1:]), stack_info=local_info(case), broken=policy)
    np.testing.assert_array_equal(array[...], expected(case, level)[MENDED[policy]])


def test_first_channel():
    """`channels="first"` takes the red samples of coloured tiles."""
    case = case_of("type4_rgb_jpg")
    array = storefs.open_array("catmaid://tiles", 0, stack_info=local_info(case), channels="first")
    found, wanted = array[...], expected(case, "s0")[0]
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= case["tolerance"]


def test_fill_value():
    """Broken slices and missing tiles read as the fill value; what is there does not change."""
    case = case_of("type1_missing_broken")
    array = storefs.open_array("catmaid://tiles", 0, stack_info=local_info(case), fill_value=9)
    found, wanted = array[...], np.array(expected(case, "s0"))
    wanted[case["broken_slices"]] = 9
    for level, depth, row, col in case["missing_tiles_level_depth_row_col"]:
        if level == 0:
            wanted[depth, 64 * row : 64 * row + 64, 64 * col : 64 * col + 64] = 9
    np.testing.assert_array_equal(found, wanted)


def test_missing_tiles_may_be_errors():
    """With `missing="error"` a tile that is not there raises."""
    case = case_of("type1_missing_broken")
    array = storefs.open_array("catmaid://tiles", 0, stack_info=local_info(case), missing="error")
    assert array[0, :64, :64].any()
    with pytest.raises(storefs.MissingChunk, match="slice 0, row 1, column 2"):
        array[0]
