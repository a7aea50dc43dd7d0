"""How each library reads a layer. Arrays are zyx: those of libraries that think in xyz are shown transposed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.selections import Points, Selection


@dataclass(frozen=True, slots=True)
class Opened:
    """An open layer: `read` is what is timed."""

    read: Callable[[Selection], np.ndarray]


def over_zarr(array: Any) -> Opened:
    """A zarr array, by basic indexing and vindex."""

    def read(selection: Selection) -> np.ndarray:
        if isinstance(selection, Points):
            return np.asarray(array.vindex[selection.z, selection.y, selection.x])
        return np.asarray(array[selection])

    return Opened(read)


def storefs_bulk(url: str, _cores: int) -> Opened:
    """`storefs.open`."""
    import storefs

    return over_zarr(storefs.open(f"precomputed://{url}")["0"])


def zarr_default(url: str, _cores: int) -> Opened:
    """`zarr.open` of the URL, all settings as they come."""
    import zarr

    return over_zarr(zarr.open_group(f"precomputed://{url}", mode="r")["0"])


def tensorstore(url: str, cores: int) -> Opened:
    """TensorStore without a cache; as many decoding threads as there are cores, which is its default.

    Read in Fortran order, in which the voxels of precomputed lie: in its default order it would transpose them.
    """
    import tensorstore as ts

    layer = ts.open(
        {"driver": "neuroglancer_precomputed", "kvstore": f"{url}/"},
        context=ts.Context({"data_copy_concurrency": {"limit": cores}, "cache_pool": {"total_bytes_limit": 0}}),
        read=True,
    ).result()

    def read(selection: Selection) -> np.ndarray:
        if isinstance(selection, Points):
            found: np.ndarray = layer.vindex[selection.x, selection.y, selection.z, 0].read().result()
        else:
            found = layer[(*selection[::-1], 0)].read(order="F").result().T
        return found

    return Opened(read)


def cloud_volume(url: str, cores: int) -> Opened:
    """cloud-volume without a cache, one process, as many decoding threads as there are cores.

    Its `scattered_points` fetches a chunk for each point anew: taking the points out of the box around them is faster.
    """
    from cloudvolume import CloudVolume

    volume = CloudVolume(
        f"precomputed://{url}", progress=False, fill_missing=True, cache=False, lru_bytes=0, codec_threads=cores
    )

    def read(selection: Selection) -> np.ndarray:
        if isinstance(selection, Points):
            x, y, z = corner = [int(axis.min()) for axis in (selection.x, selection.y, selection.z)]
            stop = [int(axis.max()) + 1 for axis in (selection.x, selection.y, selection.z)]
            box = np.asarray(volume[tuple(map(slice, corner, stop))])
            return box[selection.x - x, selection.y - y, selection.z - z, 0]
        return np.asarray(volume[selection[::-1]])[..., 0].T

    return Opened(read)


READERS: dict[str, Callable[[str, int], Opened]] = {
    "storefs.open": storefs_bulk,
    "zarr.open": zarr_default,
    "tensorstore": tensorstore,
    "cloud-volume": cloud_volume,
}
