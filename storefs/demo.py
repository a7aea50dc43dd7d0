"""The demo: make a volume, open it in every way, check every voxel, draw a picture. No network, no server."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from rich.markup import escape
from rich.padding import Padding

from storefs.errors import StorefsError
from storefs.registry import open_source
from storefs.report import info
from storefs.sample import Sample, SampleLayer, write_sample
from storefs.sample.picture import draw
from storefs.summary import size_text, summarise

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.console import Console

JPEG_MEAN_ERROR = 6.0
EXACT_IN_FLOAT = 2**53
MEGA = 1_000_000


def run_demo(folder: Path | str, console: Console) -> None:
    """Make the sample in `folder` and show what storefs does with it. Raises StorefsError where voxels differ."""
    started = time.perf_counter()
    sample = _make(Path(folder), console)
    image, labels = _with_zarr(sample, console)
    _if_installed("dask", lambda: _with_dask(sample, console), console)
    _if_installed("xarray", lambda: _with_xarray(sample, console), console)
    _picture(sample, image, labels, console)
    _step(console, f"Done in {time.perf_counter() - started:.1f} s. Every voxel was checked. Now try")
    for line in (
        f"storefs info {sample.labels.url}",
        f"storefs tree {sample.image.url}",
        f"python -c \"import zarr; print(zarr.open('{sample.image.url}')['0'][20])\"",
    ):
        console.print(f"  {escape(line)}", style="bold", soft_wrap=True)


def _make(folder: Path, console: Console) -> Sample:
    _step(console, "Growing a piece of tissue and storing it as Neuroglancer precomputed layers")
    sample = write_sample(folder)
    voxels = sample.image.levels[0].voxels
    grown, written = sample.seconds
    count = len(np.unique(sample.labels.levels[0].voxels))
    _say(console, f"{voxels.size / MEGA:.1f} million voxels of tissue, {count} neurites", grown)
    kept = ", ".join(f"{layer.folder.as_posix()} {size_text(layer.nbytes)}" for layer in (sample.image, sample.labels))
    _say(console, kept, written)
    return sample


def _with_zarr(sample: Sample, console: Console) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    _step(console, "What is there: one request for each layer")
    for layer in (sample.image, sample.labels):
        console.print(Padding.indent(info(summarise(open_source(layer.url))), 2))
    _step(console, "Reading all of it with zarr")
    finest = []
    for layer in (sample.image, sample.labels):
        _code(console, f'zarr.open("{layer.url}")')
        with _timed() as seconds:
            group: Any = zarr.open(layer.url, mode="r")
            levels = [group[str(i)][...] for i in range(len(layer.levels))]
        _say(console, _compare(layer, levels), seconds[0])
        finest.append(levels[0])
    return finest[0], finest[1]


def _compare(layer: SampleLayer, levels: list[npt.NDArray[Any]]) -> str:
    """What the comparison of `levels` with those written shows. Raises StorefsError where they differ."""
    written = [level.voxels for level in layer.levels]
    size = size_text(sum(level.nbytes for level in levels))
    if written[0].dtype == np.uint64:
        if not all(map(np.array_equal, written, levels)):
            raise StorefsError("labels read differ from those written", url=layer.url)
        largest = int(levels[0].max())
        beyond = " (beyond 2^53)" if largest > EXACT_IN_FLOAT else ""
        return f"{size} read, {len(levels)} scales, all equal; largest label {largest}{beyond}"
    errors = [np.abs(a.astype(np.int16) - b).mean() for a, b in zip(written, levels, strict=True)]
    if max(errors) > JPEG_MEAN_ERROR:
        raise StorefsError(f"the image read differs from that written by {max(errors):.1f} grey levels", url=layer.url)
    return (
        f"{size} read, {len(levels)} scales; jpeg changed voxels by {np.mean(errors):.1f} of 255 grey levels on average"
    )


def _with_dask(sample: Sample, console: Console) -> None:
    da: Any = importlib.import_module("dask.array")  # an optional extra, untyped
    _step(console, "The same address in dask")
    _code(console, f'da.from_zarr("{sample.labels.url}", component="0")')
    with _timed() as seconds:
        lazy = da.from_zarr(sample.labels.url, component="0")
        sizes = da.unique(lazy, return_counts=True)
        ids, counts = (np.asarray(part) for part in da.compute(*sizes))
    expected = np.unique(sample.labels.levels[0].voxels, return_counts=True)
    if not (np.array_equal(ids, expected[0]) and np.array_equal(counts, expected[1])):
        raise StorefsError("dask counts other voxels than were written", url=sample.labels.url)
    _say(
        console,
        f"{lazy.npartitions} tasks; the largest neurite is {ids[counts.argmax()]}, {counts.max()} voxels",
        seconds[0],
    )


def _with_xarray(sample: Sample, console: Console) -> None:
    xr: Any = importlib.import_module("xarray")  # an optional extra
    _step(console, "The same address in xarray")
    coarser = [str(i) for i in range(1, len(sample.image.levels))]
    _code(console, f'xr.open_zarr("{sample.image.url}", drop_variables={coarser})["0"]')
    with _timed() as seconds:
        volume = xr.open_zarr(sample.image.url, drop_variables=coarser, chunks=None)["0"]
        brightness = float(volume.isel(z=slice(0, 4)).mean())
    shape = ", ".join(f"{name}: {n}" for name, n in volume.sizes.items())
    _say(console, f"{shape}; mean grey of the first sections {brightness:.0f}", seconds[0])


def _picture(sample: Sample, image: npt.NDArray[Any], labels: npt.NDArray[Any], console: Console) -> None:
    _step(console, "A picture of the middle section, and of a cut through all sections")
    path = sample.image.folder.parent / "slice.png"
    with _timed() as seconds:
        path.write_bytes(draw(image, labels, sample.image.levels[0].resolution_xyz[::-1]))
    _say(console, str(path.resolve()), seconds[0])


def _if_installed(package: str, show: Callable[[], None], console: Console) -> None:
    if importlib.util.find_spec(package):
        show()
    else:
        _step(console, f"{package} is not installed, left out (pip install 'storefs[{package}]')")


def _step(console: Console, text: str) -> None:
    console.print(f"\n[bold cyan]{escape(text)}[/]")


def _code(console: Console, text: str) -> None:
    console.print(f"  [green]{escape(text)}[/]", soft_wrap=True)


def _say(console: Console, text: str, seconds: float) -> None:
    console.print(f"  {escape(text)}  [dim]{seconds:.2f} s[/]", soft_wrap=True)


@contextmanager
def _timed() -> Iterator[list[float]]:
    """A list that holds, after the block, how many seconds it took."""
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - started)
