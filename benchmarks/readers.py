"""How each library reads a layer: the whole of it, and single chunks. zyx arrays throughout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Box = tuple[slice, slice, slice]
Reader = Callable[[str], Callable[[Box], np.ndarray]]


def zarr_default(url: str) -> Callable[[Box], np.ndarray]:
    """`zarr.open` of the URL, all settings as they come."""
    import zarr

    array = zarr.open_array(f"precomputed://{url}/0", mode="r")
    return lambda box: np.asarray(array[box])


def storefs_open(url: str) -> Callable[[Box], np.ndarray]:
    """`storefs.open_array`."""
    import storefs

    array = storefs.open_array(f"precomputed://{url}")
    return lambda box: np.asarray(array[box])


def tensorstore(url: str) -> Callable[[Box], np.ndarray]:
    """TensorStore, default context."""
    import tensorstore as ts

    layer = ts.open({"driver": "neuroglancer_precomputed", "kvstore": f"{url}/"}, read=True).result()
    return lambda box: layer[(*box[::-1], 0)].read().result().T


def cloud_volume(url: str) -> Callable[[Box], np.ndarray]:
    """cloud-volume, no cache, one process."""
    from cloudvolume import CloudVolume

    volume = CloudVolume(f"precomputed://{url}", progress=False, fill_missing=True, cache=False)
    return lambda box: np.asarray(volume[box[::-1]])[..., 0].T


READERS: dict[str, Reader] = {
    "storefs (zarr.open)": zarr_default,
    "storefs.open": storefs_open,
    "tensorstore": tensorstore,
    "cloud-volume": cloud_volume,
}
