# /// script
# dependencies = ["storefs[dask,xarray]"]
# ///
"""Open one scale with xarray, give it coordinates in nanometres, and cut out a box by position.

Prints the selected box with its coordinates.

    python examples/xarray_slice.py --url precomputed://gs://bucket/layer
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import numpy as np
import xarray as xr

from storefs.sample import write_sample


def main(argv: Sequence[str] | None = None) -> None:
    """Open, place, select."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a precomputed layer; a sample is made where none is given")
    url = parser.parse_args(argv).url
    with tempfile.TemporaryDirectory() as folder:
        volume = open_scale(url or write_sample(folder).image.url)
        middle = {axis: float(volume[axis].mean()) for axis in "zyx"}
        box = volume.sel({axis: slice(nm - 200, nm + 200) for axis, nm in middle.items()})
        print(box.load())


def open_scale(url: str, scale: int = 0) -> xr.DataArray:
    """One scale of the layer at `url`, lazily, its coordinates those of voxel centres in nanometres."""
    # the levels of a pyramid share their dimensions' names but not their lengths: open one of them
    multiscale = xr.open_zarr(url, drop_variables=[str(i) for i in range(32) if i != scale])
    datasets = multiscale.attrs["ome"]["multiscales"][0]["datasets"]
    volume = multiscale[str(scale)]
    step, first = (
        next(iter(part[kind] for part in datasets[scale]["coordinateTransformations"] if part["type"] == kind))
        for kind in ("scale", "translation")
    )
    return volume.assign_coords(
        {axis: a + s * np.arange(volume.sizes[axis]) for axis, s, a in zip(volume.dims, step, first, strict=True)}
    )


if __name__ == "__main__":
    main()
