"""The layers that are read: real EM where it is at hand, else a procedural stand-in, written by TensorStore."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

REAL = Path(__file__).parents[1] / ".." / "shared" / "data" / "flyem_medulla"
CHUNK = 64

LAYERS: dict[str, dict[str, Any]] = {
    "raw": {"encoding": "raw"},
    "jpeg": {"encoding": "jpeg", "jpeg_quality": 75},
    "compressed_segmentation": {
        "encoding": "compressed_segmentation",
        "compressed_segmentation_block_size": [8, 8, 8],
    },
}


def volumes() -> tuple[np.ndarray, np.ndarray, str]:
    """A uint8 image of 512^3 and uint64 labels of 256 x 512 x 512 (zyx), and where they come from."""
    if REAL.is_dir():
        image = np.load(REAL / "gray.npz")["gray"]
        labels = np.load(REAL / "labels.npz")["labels"]
        return _mirrored(image, (512, 512, 512)), _mirrored(labels, (256, 512, 512)), "FlyEM medulla, mirrored"
    return *_procedural(), "procedural"


def write(folder: Path) -> str:
    """Write every layer into `folder`; what they were made from."""
    image, labels, origin = volumes()
    for name, settings in LAYERS.items():
        voxels = labels if name == "compressed_segmentation" else image
        for sharded in (False, True):
            _write_layer(folder / (f"{name}_sharded" if sharded else name), voxels, dict(settings), sharded=sharded)
    return origin


def _write_layer(path: Path, voxels: np.ndarray, settings: dict[str, Any], *, sharded: bool) -> None:
    if sharded:
        data = "raw" if settings["encoding"] == "jpeg" else "gzip"
        settings["sharding"] = {
            "@type": "neuroglancer_uint64_sharded_v1",
            "hash": "identity",
            "preshift_bits": 3,
            "minishard_bits": 3,
            "shard_bits": 3,
            "minishard_index_encoding": "gzip",
            "data_encoding": data,
        }
    layer = ts.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": f"file://{path}/",
            "multiscale_metadata": {"type": "image", "data_type": voxels.dtype.name, "num_channels": 1},
            "scale_metadata": {
                "size": voxels.shape[::-1],
                "resolution": [8, 8, 8],
                "chunk_size": [CHUNK] * 3,
                **settings,
            },
        },
        create=True,
        open=True,
    ).result()
    layer[..., 0].write(voxels.T).result()


def _mirrored(voxels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    for axis, length in enumerate(shape):
        while voxels.shape[axis] < length:
            voxels = np.concatenate([voxels, np.flip(voxels, axis)], axis)
        voxels = voxels.take(range(length), axis)
    return voxels


def _procedural() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    coarse = rng.integers(1, 2**60, (16, 16, 16), dtype=np.uint64)
    labels = coarse.repeat(16, 0).repeat(32, 1).repeat(32, 2)
    image = (labels[:, :, :] % np.uint64(97)).astype(np.uint8).repeat(2, 0) + rng.integers(
        0, 40, (512, 512, 512), np.uint8
    )
    return image, labels
