"""The layers that are read: real EM where it is at hand, else made-up tissue, written once by TensorStore."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import ENCODINGS
from benchmarks.selections import CHUNK, Shape

REAL = Path(__file__).parents[1] / ".." / "shared" / "data" / "flyem_medulla"
SIZE = 512
GROWN = (128, 256, 256)  # larger would take minutes to grow

SETTINGS: dict[str, dict[str, Any]] = {
    "raw": {"encoding": "raw"},
    "jpeg": {"encoding": "jpeg", "jpeg_quality": 75},
    "compressed_segmentation": {
        "encoding": "compressed_segmentation",
        "compressed_segmentation_block_size": [8, 8, 8],
    },
    "png": {"encoding": "png"},
}
SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "hash": "identity",
    "preshift_bits": 3,
    "minishard_bits": 3,
    "shard_bits": 3,
    "minishard_index_encoding": "gzip",
}
SHARD_DATA = {"raw": "gzip", "jpeg": "raw", "compressed_segmentation": "gzip", "png": "raw"}  # as the usual writers do
RECIPE = 1


def cache_folder() -> Path:
    """Where data is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "storefs-benchmarks"


def volumes(size: int = SIZE) -> tuple[np.ndarray, np.ndarray, str]:
    """A uint8 image and uint64 labels, both of size^3, and where they come from. The same on every machine."""
    if REAL.is_dir():
        image, labels = np.load(REAL / "gray.npz")["gray"], np.load(REAL / "labels.npz")["labels"]
        origin = "FlyEM medulla, mirrored"
    else:
        from storefs.sample.tissue import grow

        tissue = grow(GROWN)
        image, labels, origin = tissue.image, tissue.labels, "made-up tissue, mirrored"
    shape = (size, size, size)
    return mirrored(image, shape), mirrored(labels, shape), origin


def build(folder: Path, size: int = SIZE) -> str:
    """Write every layer, and what it must read as, into `folder` unless they are there; what they were made from."""
    made = folder / "made.json"
    recipe = {"recipe": RECIPE, "size": size, "real": REAL.is_dir(), "settings": SETTINGS, "sharding": SHARDING}
    if made.is_file():
        found = json.loads(made.read_text())
        if found["recipe"] == recipe:
            return str(found["origin"])
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    image, labels, origin = volumes(size)
    for encoding in ENCODINGS:
        for sharded in (False, True):
            voxels = labels if encoding == "compressed_segmentation" else image
            _write(folder / (f"{encoding}_sharded" if sharded else encoding), voxels, encoding, sharded=sharded)
    np.save(folder / "image.npy", image)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "jpeg.npy", np.ascontiguousarray(_open(folder / "jpeg")[..., 0].read().result().T))
    made.write_text(json.dumps({"recipe": recipe, "origin": origin}))
    return origin


def expected(folder: Path, encoding: str) -> Path:
    """The npy file that holds what a layer of `encoding` reads as."""
    return folder / {"compressed_segmentation": "labels.npy", "jpeg": "jpeg.npy"}.get(encoding, "image.npy")


def stored_bytes(layer: Path) -> int:
    """Size of all files of a layer."""
    return sum(file.stat().st_size for file in layer.rglob("*") if file.is_file())


def into_memory(layer: Path) -> None:
    """Read all files of a layer, as systems drop from memory what nobody has read for some minutes."""
    for file in layer.rglob("*"):
        if file.is_file():
            file.read_bytes()


def mirrored(voxels: np.ndarray, shape: Shape) -> np.ndarray:
    """`voxels` continued by mirroring, or cut, to `shape`."""
    for axis, length in enumerate(shape):
        n = voxels.shape[axis]
        back_and_forth = np.arange(length) % (2 * n)
        voxels = voxels.take(np.minimum(back_and_forth, 2 * n - 1 - back_and_forth), axis)
    return voxels


def _write(path: Path, voxels: np.ndarray, encoding: str, *, sharded: bool) -> None:
    settings = dict(SETTINGS[encoding])
    if sharded:
        settings["sharding"] = {**SHARDING, "data_encoding": SHARD_DATA[encoding]}
    create = {
        "multiscale_metadata": {
            "type": "segmentation" if voxels.dtype == np.uint64 else "image",
            "data_type": voxels.dtype.name,
            "num_channels": 1,
        },
        "scale_metadata": {
            "size": voxels.shape[::-1],
            "resolution": [8, 8, 8],
            "chunk_size": [CHUNK] * 3,
            **settings,
        },
        "create": True,
    }
    _open(path, create)[..., 0].write(voxels.T).result()


def _open(path: Path, create: dict[str, Any] | None = None) -> Any:
    import tensorstore as ts

    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/", "open": True, **(create or {})}
    return ts.open(spec).result()
