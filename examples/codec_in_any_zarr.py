# /// script
# dependencies = ["storefs"]
# ///
"""Use storefs' codecs in ordinary zarr arrays on disk: jpeg for an image, compressed_segmentation for labels.

Prints how small the arrays become, and what became of the voxels.

    python examples/codec_in_any_zarr.py --url precomputed://gs://bucket/segmentation
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
from zarr.abc.codec import ArrayBytesCodec

from storefs.sample import write_sample
from storefs_codecs.compressed_segmentation import CompressedSegmentationCodec
from storefs_codecs.jpeg import JpegCodec

CHUNKS = (16, 64, 64)


def main(argv: Sequence[str] | None = None) -> None:
    """Write two arrays, read them back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a uint32 or uint64 segmentation; a sample is made where none is given")
    url = parser.parse_args(argv).url
    with tempfile.TemporaryDirectory() as folder:
        source = zarr.open_group(url or write_sample(folder).labels.url, mode="r")["0"]
        labels = source[tuple(slice(256) for _ in source.shape)]
        write(Path(folder) / "labels.zarr", labels, CompressedSegmentationCodec(block_size=[8, 8, 8]))
        smooth = np.linspace(0, 255, labels.size).reshape(labels.shape).astype("uint8")
        write(Path(folder) / "image.zarr", smooth, JpegCodec(quality=90))


def write(path: Path, voxels: np.ndarray, codec: ArrayBytesCodec) -> None:
    """Store `voxels` (zyx) at `path` with `codec`, open them again and compare."""
    array = zarr.create_array(
        path, shape=voxels.shape, chunks=CHUNKS, dtype=voxels.dtype, serializer=codec, compressors=None
    )
    array[...] = voxels
    stored = sum(file.stat().st_size for file in path.rglob("c/*/*/*"))
    # any zarr finds the codec by its name once storefs is installed: no import is needed to read
    worst = np.abs(zarr.open_array(path, mode="r")[...].astype("int64") - voxels.astype("int64")).max()
    print(f"{path.name}: {voxels.nbytes} -> {stored} bytes, 1:{voxels.nbytes / stored:.0f}, largest change {worst}")


if __name__ == "__main__":
    main()
