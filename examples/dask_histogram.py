# /// script
# dependencies = ["storefs[dask]"]
# ///
"""Count the voxels of every label of a segmentation with dask, a few chunks in memory at a time.

Prints the number of labels and the largest ones with their volumes.

    python examples/dask_histogram.py --url precomputed://gs://bucket/segmentation --scale 3
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import dask.array as da
import numpy as np
import zarr

from storefs.sample import write_sample


def main(argv: Sequence[str] | None = None) -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a segmentation; a sample is made where none is given")
    parser.add_argument("--scale", default="0", help="0 is the finest")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        count(arguments.url or write_sample(folder).labels.url, arguments.scale)


def count(url: str, scale: str) -> None:
    """Print the largest labels of one scale of the segmentation at `url`."""
    labels = da.from_zarr(url, component=scale)
    print(labels)
    ids, voxels = da.compute(*da.unique(labels, return_counts=True))

    resolution = zarr.open_array(url, path=scale, mode="r").attrs["storefs"]["resolution_xyz"]
    cubic_um = voxels * np.prod(resolution) / 1e9
    print(f"{len(ids)} labels in {voxels.sum()} voxels")
    for i in np.argsort(voxels)[::-1][:5]:
        print(f"{ids[i]:>20}  {voxels[i]:>9} voxels  {cubic_um[i]:.4f} cubic micrometres")


if __name__ == "__main__":
    main()
