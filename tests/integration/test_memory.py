"""Reading takes no more memory than what is read, plus a bounded number of chunks."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr

import storefs
from tests.layers import Sharded, voxels, write_layer

CHUNK = 32
CHUNKS_ALLOWED = 64


@pytest.mark.parametrize("sharded", [None, Sharded(preshift_bits=3, minishard_bits=2, shard_bits=2)])
@pytest.mark.parametrize("opener", ["zarr", "storefs"])
def test_reading_a_box_takes_the_box_and_at_most_64_chunks(tmp_path: Path, opener: str, sharded: Sharded | None):
    """The peak of all memory that Python and numpy allocate stays below the box plus 64 chunks."""
    volume = voxels((256, 256, 224))
    write_layer(tmp_path / "layer", volume, (CHUNK, CHUNK, CHUNK), sharded=sharded)
    url = f"precomputed://{tmp_path}/layer"
    array = zarr.open_array(f"{url}/0") if opener == "zarr" else storefs.open_array(url)
    array[:1, :1, :1]
    box = (slice(3, 221), slice(1, 250), slice(5, 255))
    expected = volume[box]
    tracemalloc.start()
    found = array[box]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(found, expected)
    assert peak < found.nbytes + CHUNKS_ALLOWED * CHUNK**3
