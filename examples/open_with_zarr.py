# /// script
# dependencies = ["storefs"]
# ///
"""Open a precomputed layer with zarr alone and read a box of it, in nanometres.

Prints every scale with its shape and voxel size, then the position of a box and its mean.

    python examples/open_with_zarr.py --url precomputed://gs://bucket/layer
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import numpy as np
import zarr

from storefs.sample import write_sample


def main(argv: Sequence[str] | None = None) -> None:
    """Open, describe, read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a precomputed layer; a sample is made where none is given")
    url = parser.parse_args(argv).url
    with tempfile.TemporaryDirectory() as folder:
        read(url or write_sample(folder).image.url)


def read(url: str) -> None:
    """Print the scales of the layer at `url` and read a box from the middle of the finest."""
    group = zarr.open_group(url, mode="r")
    for dataset in group.attrs["ome"]["multiscales"][0]["datasets"]:
        array = group[dataset["path"]]
        scale = dataset["coordinateTransformations"][0]["scale"]
        print(f"scale {dataset['path']}: {array.shape} {array.dtype}, voxels of {scale[-3:]} nm (z, y, x)")

    finest = group["0"]
    box = tuple(slice(n // 2 - min(n, 32) // 2, n // 2 + min(n, 32) // 2) for n in finest.shape[-3:])
    voxels = finest[(..., *box)]
    offset = finest.attrs["storefs"]["voxel_offset_xyz"][::-1]
    first = [o + s.start for o, s in zip(offset, box, strict=True)]
    print(f"box of {voxels.shape} at voxel {first} (z, y, x) of the source: mean {np.mean(voxels):.1f}")


if __name__ == "__main__":
    main()
