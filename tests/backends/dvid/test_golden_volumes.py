"""Every volume of a recorded DVID server reads as the arrays that were put there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import storefs
from tests.backends.dvid import replay
from tests.backends.dvid.asking import Asker
from tests.backends.dvid.emulator import DvidEmulator

GOLDEN = Path(__file__).parents[3] / ".." / "shared" / "golden" / "dvid"

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden/dvid not found")


def manifest() -> dict[str, Any]:
    if not GOLDEN.is_dir():
        return {"volumes": [], "arrays": {}}
    found: dict[str, Any] = json.loads((GOLDEN / "manifest.json").read_text())
    return found


VOLUMES = [volume for volume in manifest()["volumes"] if volume["array"] is not None]


@pytest.fixture(scope="module")
def server() -> Iterator[DvidEmulator]:
    """An emulated server that was set up by the recorded requests."""
    with DvidEmulator() as emulator, Asker(emulator.port) as ask:
        for exchange in replay.load(GOLDEN, "setup"):
            if exchange.data["method"] != "GET":
                ask(exchange.data["method"], exchange.target, exchange.request_body or b"")
        yield emulator


@pytest.mark.parametrize(
    "volume", VOLUMES, ids=lambda v: f"{v['instance']}-{v['uuid'][:4]}-s{v['scale']}{'-sv' if v['supervoxels'] else ''}"
)
def test_volume(server: DvidEmulator, volume: dict[str, Any]):
    """The array holds the expected voxels at their place and zeros around them."""
    array = storefs.open_array(
        f"dvid://{server.url}/{volume['uuid']}/{volume['instance']}",
        scale=volume["scale"],
        supervoxels=volume["supervoxels"],
    )
    about = manifest()["arrays"][volume["array"]]
    stored = np.load(GOLDEN / about["file"])[about["key"]]
    if stored.ndim == 4:
        stored = np.moveaxis(stored, -1, 0)
    found = array[...]
    expected = np.zeros(found.shape, stored.dtype)
    offset = array.attrs["storefs"]["voxel_offset_xyz"][::-1]
    shift = [o - f for o, f in zip(about["origin_zyx"], offset, strict=True)]
    spans = list(zip(shift, stored.shape[-3:], found.shape[-3:], strict=True))
    target = tuple(slice(max(0, s), min(n, s + m)) for s, m, n in spans)
    origin = tuple(slice(max(0, -s), min(m, n - s)) for s, m, n in spans)
    expected[(..., *target)] = stored[(..., *origin)]
    assert found.dtype == expected.dtype
    # the emulator compresses with another JPEG encoder than the recorded server
    tolerance = 16 if volume["instance"] == "grayscalejpeg" else 0
    if tolerance:
        assert np.abs(found.astype(int) - expected).max() <= tolerance
    else:
        np.testing.assert_array_equal(found, expected)
