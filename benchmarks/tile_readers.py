"""Ways to read a box of tiles: storefs, catpy, one tile after another, and decoding alone. Arrays are zyx."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import simplejpeg

from benchmarks.readers import Opened, over_zarr
from benchmarks.selections import Points, Selection
from benchmarks.tiles import every, name, place

NO_CACHE = "?cache_bytes=0"  # tiles are kept encoded by default: a second read would ask for nothing


def storefs_bulk(url: str, _cores: int) -> Opened:
    """`storefs.open`."""
    import storefs

    return over_zarr(storefs.open(f"catmaid://{url}/1/1{NO_CACHE}")["0"])


def zarr_default(url: str, _cores: int) -> Opened:
    """`zarr.open` of the URL, all settings as they come."""
    import zarr

    return over_zarr(zarr.open_group(f"catmaid://{url}/1/1{NO_CACHE}", mode="r")["0"])


def catpy(url: str, _cores: int) -> Opened:
    """ThreadedImageFetcher of catpy with ten threads."""
    from catpy.image import ThreadedImageFetcher
    from catpy.stacks import ProjectStack

    stack = ProjectStack.from_stack_info(_info(url))
    fetcher = ThreadedImageFetcher(stack, preferred_mirror=stack.mirrors[0], threads=10)

    def read(selection: Selection) -> np.ndarray:
        box = _box(selection)
        found: np.ndarray = fetcher.get([[part.start for part in box], [part.stop for part in box]], "scaled")
        return found

    return Opened(read)


def one_by_one(url: str, _cores: int) -> Opened:
    """One request after another on one connection that is kept, decoded in between."""
    kind, shape = _kind_and_shape(url)
    connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def read(selection: Selection) -> np.ndarray:
        out = np.empty(shape, np.uint8)
        for tile in every(shape):
            connection.request("GET", "/tiles/" + name(kind, *tile))
            out[place(*tile)] = simplejpeg.decode_jpeg(connection.getresponse().read(), "GRAY")[..., 0]
        return out[_box(selection)]

    return Opened(read)


def from_memory(url: str, cores: int) -> Opened:
    """The same tiles, fetched beforehand, decoded on all cores: there is nothing faster to compare with."""
    kind, shape = _kind_and_shape(url)
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    tiles = {}
    for tile in every(shape):
        connection.request("GET", "/tiles/" + name(kind, *tile))
        tiles[tile] = connection.getresponse().read()
    threads = ThreadPoolExecutor(cores)

    def read(selection: Selection) -> np.ndarray:
        out = np.empty(shape, np.uint8)

        def decode(tile: tuple[int, int, int]) -> None:
            out[place(*tile)] = simplejpeg.decode_jpeg(tiles[tile], "GRAY")[..., 0]

        list(threads.map(decode, tiles))
        return out[_box(selection)]

    return Opened(read)


def _info(url: str) -> dict[str, object]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", "/1/stack/1/info")
    info: dict[str, object] = json.loads(connection.getresponse().read())
    connection.close()
    return info


def _kind_and_shape(url: str) -> tuple[int, tuple[int, int, int]]:
    info = _info(url)
    mirrors, dimension = info["mirrors"], info["dimension"]
    return mirrors[0]["tile_source_type"], (dimension["z"], dimension["y"], dimension["x"])


def _box(selection: Selection) -> tuple[slice, slice, slice]:
    if isinstance(selection, Points):
        raise TypeError("tiles are read in boxes")
    return selection


READERS: dict[str, Callable[[str, int], Opened]] = {
    "storefs.open": storefs_bulk,
    "zarr.open": zarr_default,
    "catpy": catpy,
    "one by one": one_by_one,
    "from memory": from_memory,
}
