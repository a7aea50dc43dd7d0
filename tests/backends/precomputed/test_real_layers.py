"""Layers from the wild read voxel for voxel: hashes and points that two other readers agree on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

import storefs
from tests.backends.precomputed.golden import REAL

SLAB = 64


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """What is known of the real layers."""
    if not REAL.is_dir():
        pytest.skip("../shared/data/precomputed_real not found")
    found: dict[str, Any] = json.loads((REAL / "expected.json").read_text())
    return found


def digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, array.dtype.newbyteorder("<"))).hexdigest()


@pytest.mark.parametrize("scale", [0, 1])
def test_segmentation(facts, scale):
    """A compresso segmentation in .gz files has the known hash and the known labels at known places."""
    array = storefs.open(f"precomputed://{REAL / facts['layer']}")[str(scale)]
    known = list(facts["scales"].values())[scale]
    assert [1, *array.shape] == known["shape_czyx"]
    assert array.dtype == known["dtype"]
    whole = hashlib.sha256()
    points = {tuple(point[:3]): point[3] for point in known["points_xyz_label"]}
    for z in range(0, array.shape[0], SLAB):
        slab = array[z : z + SLAB]
        whole.update(np.ascontiguousarray(slab, slab.dtype.newbyteorder("<")))
        for place in [place for place in points if z <= place[2] < z + SLAB]:
            assert slab[place[2] - z, place[1], place[0]] == points.pop(place)
    assert whole.hexdigest() == known["sha256_czyx_le"]
    assert not points


def test_slices_and_points(facts):
    """Single slices and single voxels read from their chunks alone."""
    array = storefs.open_array(f"precomputed://{REAL / facts['layer']}", 1)
    known = list(facts["scales"].values())[1]
    for z, wanted in known["sha256_zslices"].items():
        assert digest(array[int(z)]) == wanted
    for x, y, z, label in known["points_xyz_label"][:6]:
        assert array[z, y, x] == label


def test_without_chunks(facts):
    """A layer of which only the info is there opens with all its scales; every chunk is absent, not an error."""
    group = storefs.open(f"precomputed://{REAL / 'test_cv'}")
    info = json.loads((REAL / "test_cv/info").read_text())
    assert group.attrs["storefs"]["info"] == info
    assert len(list(group.array_keys())) == len(info["scales"]) == 5
    for path, scale in enumerate(info["scales"]):
        array = group[str(path)]
        assert list(array.shape[::-1]) == scale["size"]
        assert not array[:3, -2:, :5].any()
    strict = storefs.open_array(f"precomputed://{REAL / 'test_cv'}", missing="error")
    with pytest.raises(storefs.MissingChunk):
        strict[0, 0, 0]


def test_sharded_without_shards(facts):
    """A sharded layer whose shard files are elsewhere opens and reads as absent."""
    array = storefs.open_array(f"precomputed://{REAL / 'test_cv_sharded'}")
    assert array.attrs["storefs"]["sharded"] is True
    assert array.attrs["storefs"]["encoding"] == "compresso"
    assert not array[:2, :2, :2].any()
    with pytest.raises(storefs.MissingChunk, match=r"in \d*[0-9a-f]*\.shard"):
        storefs.open_array(f"precomputed://{REAL / 'test_cv_sharded'}", missing="error")[0, 0, 0]


@pytest.mark.parametrize(
    ("folder", "fault"),
    [
        ("test_precomputed_annotation", '@type: this is "neuroglancer_annotations_v1", not a volume'),
        ("test_cv/skeletons_mip_2", "data_type: is missing"),
    ],
)
def test_other_kinds(facts, folder, fault):
    """Annotations and skeletons are refused, as what they say they are."""
    with pytest.raises(storefs.MetadataError, match=f"info: {fault}"):
        storefs.open(f"precomputed://{REAL / folder}")
