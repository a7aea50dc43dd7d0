"""zarr 2 reads through the fsspec mapper.

Runs where zarr 2 is installed, and storefs beside it without its requirements.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from tests.http_server import Faults, FolderServer
from tests.small_volume import Array, Volume, volume

if not zarr.__version__.startswith("2."):
    pytest.skip(f"wants zarr 2, here is {zarr.__version__}", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:The .*Store is deprecated:FutureWarning")

ENCODINGS = {
    "raw": ("uint64", {}),
    "png": ("uint16", {}),
    "jpeg": ("uint8", {}),
    "jxl": ("uint8", {}),
    "compressed_segmentation": ("uint64", {"compressed_segmentation_block_size": [4, 4, 4]}),
    "compresso": ("uint64", {}),
}


def blobs(shape: tuple[int, ...], dtype: str) -> Array:
    """Smooth voxels without zeros, which every encoding can store."""
    grid = np.indices(shape).sum(0) // 3
    return (grid % 40 + 100).astype(dtype)


def write(folder: Path, encoding: str) -> Volume:
    import importlib

    dtype, extra = ENCODINGS[encoding]
    module = importlib.import_module(f"storefs_codecs.{encoding}")
    (kind,) = (k for k in vars(module).values() if getattr(k, "codec_id", None) == f"storefs.{encoding}")
    options = {"block_size": [4, 4, 4]} if encoding == "compressed_segmentation" else {}
    encode = kind((8, 8, 10), dtype, **options).encode_chunk
    made = volume(dtype=dtype, encoding=encoding, encode=encode, extra=extra, data=blobs((20, 18, 25), dtype))
    return made.write(folder)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "options", [{}, {"axes": "xyz"}, {"face": "portable"}, {"face": "portable", "codec": "raw"}], ids=str
)
def test_reading(tmp_path, encoding, options):
    """Every encoding, face and axis order reads right, and an absent chunk as zeros, never as memory left over."""
    layer = write(tmp_path, encoding)
    expected = layer.arrays[0].T if options.get("axes") == "xyz" else layer.arrays[0]
    group = zarr.open(fsspec.get_mapper(layer.url, zarr_format=2, **options), mode="r")
    array = group["0"]
    assert array.dtype == expected.dtype
    for _ in range(3):
        np.full(expected.shape, 0xAA, expected.dtype)  # what a chunk left alone would show
        found = array[...]
        if encoding in ("jpeg", "jxl"):
            assert np.abs(found.astype(float) - expected).max() < 12
            assert not found[expected == 0].any()
        else:
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(array[3:9, ::2, -3:], expected[3:9, ::2, -3:])
    assert sorted(group.array_keys()) == ["0", "1"]


def test_group(tmp_path):
    """The group is an OME-Zarr 0.4 multiscale, with consolidated metadata."""
    layer = write(tmp_path, "raw")
    for opened in (zarr.open_group, zarr.open_consolidated):
        group = opened(fsspec.get_mapper(layer.url, zarr_format=2), mode="r")
        assert group.attrs["multiscales"][0]["version"] == "0.4"
        assert group["0"].attrs["_ARRAY_DIMENSIONS"] == ["z", "y", "x"]
        assert group["1"].shape == (10, 9, 13)


def test_by_url(tmp_path):
    """Zarr 2 opens the URL itself too."""
    layer = write(tmp_path, "png")
    found = zarr.open(layer.url, mode="r", storage_options={"zarr_format": 2})["0"][...]
    np.testing.assert_array_equal(found, layer.arrays[0])


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_no_fault_becomes_a_voxel(tmp_path, encoding):
    """A server error, a refusal and a damaged chunk raise; zarr 2 takes any OSError of a mapper for an absent chunk."""
    layer = write(tmp_path, encoding)
    server = FolderServer(layer.folder)
    url = f"precomputed://{server.url}"
    by_mapper = zarr.open(fsspec.get_mapper(url, zarr_format=2, retries=0), mode="r")["0"]
    by_url = zarr.open(url, mode="r", storage_options={"zarr_format": 2, "retries": 0})["0"]
    try:
        for array in (by_mapper, by_url):
            for status in (500, 403):
                server.faults = Faults(where=lambda path: "_" in path, status=status)
                with pytest.raises(Exception, match=str(status)):
                    array[...]
                with pytest.raises(Exception, match=str(status)):
                    array[0, 0, 0]
            server.faults = Faults()
            np.testing.assert_array_equal(array[...], layer.arrays[0])
    finally:
        server.close()
    name = next(name for name in layer.files if name.startswith("4_40/"))
    (tmp_path / name).write_bytes(layer.files[name][:-2])
    array = zarr.open(fsspec.get_mapper(layer.url, zarr_format=2), mode="r")["0"]
    with pytest.raises(ValueError, match=name if encoding == "raw" else r"storefs\.png"):
        array[...]


def test_missing_chunks_can_be_errors(tmp_path):
    """missing="error" holds for zarr 2."""
    layer = write(tmp_path, "raw")
    array = zarr.open(fsspec.get_mapper(layer.url, zarr_format=2, missing="error"), mode="r")["0"]
    np.testing.assert_array_equal(array[:8], layer.arrays[0][:8])
    with pytest.raises(OSError, match="not stored"):
        array[...]


def test_no_volume_here(tmp_path):
    """Opening where no volume is says so."""
    with pytest.raises(RuntimeError, match="no precomputed volume here"):
        zarr.open(fsspec.get_mapper(f"precomputed://{tmp_path}/x", zarr_format=2), mode="r")


def test_the_filesystem_does_not_import_zarr():
    """Filesystem and codecs do without zarr."""
    code = "import fsspec, sys; fsspec.filesystem('precomputed'); import storefs; assert 'zarr' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
