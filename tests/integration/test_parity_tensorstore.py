"""Side by side with TensorStore: layers that it writes read voxel for voxel as it reads them, and the other way."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import storefs

ts: Any = pytest.importorskip("tensorstore", reason="tensorstore is not installed")

Array = np.ndarray[Any, Any]
Triple = tuple[int, int, int]

OFFERED = {
    "raw": (["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"], [1, 2, 3]),
    "jpeg": (["uint8"], [1, 3]),
    "png": (["uint8", "uint16"], [1, 2, 3, 4]),
    "compressed_segmentation": (["uint32", "uint64"], [1, 2]),
}
WAYS: list[dict[str, Any]] = [
    {},
    {"axes": "xyz"},
    {"face": "portable", "codec": "raw"},
    {"face": "portable", "codec": "zstd", "axes": "xyz"},
    {"zarr_format": 2},
    {"zarr_format": 2, "face": "portable", "codec": "blosc"},
]


@dataclass(frozen=True)
class Layer:
    """What TensorStore is to write, and which part of the volume holds anything."""

    dtype: str
    channels: int
    size: Triple
    offset: Triple
    scale: dict[str, Any]
    seed: int
    filled: float

    def voxels(self) -> Array:
        """Blocky labels with noise in x, y, z, c order; zero from some plane of x on."""
        rng = np.random.default_rng(self.seed)
        shape = (*self.size, self.channels)
        if self.dtype == "float32":
            data = rng.normal(0, 1e3, shape).astype(self.dtype)
        else:
            limits = np.iinfo(self.dtype)
            labels = rng.integers(limits.min, limits.max, 7, self.dtype, endpoint=True)
            data = labels[rng.integers(0, 7, shape)]
            calm = tuple(slice(n // 3, None) for n in self.size)
            data[calm] = labels[0]
        data[round(self.size[0] * self.filled) :] = 0
        return data


def write(layer: Layer, root: Path) -> Any:
    """Write `layer` with TensorStore; gives its own reader."""
    kvstore = {"driver": "file", "path": f"{root}/"}
    store = ts.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": kvstore,
            "multiscale_metadata": {
                "type": "segmentation" if "seg" in layer.scale["encoding"] else "image",
                "data_type": layer.dtype,
                "num_channels": layer.channels,
            },
            "scale_metadata": {
                "size": layer.size,
                "voxel_offset": layer.offset,
                "resolution": [4, 4, 40],
                **layer.scale,
            },
        },
        create=True,
    ).result()
    with ts.Transaction() as transaction:
        store.with_transaction(transaction).write(layer.voxels()).result()
    return ts.open({"driver": "neuroglancer_precomputed", "kvstore": kvstore}).result()


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """Every kind of layer that TensorStore can write, small."""
    encoding = draw(st.sampled_from(list(OFFERED)))
    dtypes, counts = OFFERED[encoding]
    size = draw(st.tuples(*[st.integers(1, 22)] * 3))
    scale: dict[str, Any] = {"encoding": encoding, "chunk_size": draw(st.tuples(*[st.integers(1, 12)] * 3))}
    # few chunks, or the file system is what is tested
    chunks = np.prod([-(-n // c) for n, c in zip(size, scale["chunk_size"], strict=True)])
    if chunks > 64:
        scale["chunk_size"] = tuple(max(6, c) for c in scale["chunk_size"])
    if encoding == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = draw(st.tuples(*[st.integers(1, 9)] * 3))
    if encoding == "jpeg":
        scale["jpeg_quality"] = draw(st.sampled_from([10, 75, 100]))
    if draw(st.booleans()):
        scale["sharding"] = {
            "@type": "neuroglancer_uint64_sharded_v1",
            "hash": draw(st.sampled_from(["identity", "murmurhash3_x86_128"])),
            "preshift_bits": draw(st.integers(0, 5)),
            "minishard_bits": draw(st.integers(0, 4)),
            "shard_bits": draw(st.integers(0, 5)),
            "minishard_index_encoding": draw(st.sampled_from(["raw", "gzip"])),
            "data_encoding": draw(st.sampled_from(["raw", "gzip"])),
        }
    event(f"{encoding}, sharded {'sharding' in scale}")
    return Layer(
        dtype=draw(st.sampled_from(dtypes)),
        channels=draw(st.sampled_from(counts)),
        size=size,
        offset=draw(st.tuples(*[st.integers(-40, 40) | st.sampled_from([1 << 33, -(1 << 33), 1 << 45])] * 3)),
        scale=scale,
        seed=draw(st.integers(0, 1 << 16)),
        filled=draw(st.sampled_from([1.0, 0.5])),
    )


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A box with steps somewhere in an array of `shape`."""
    box = []
    for n in shape:
        start = draw(st.integers(0, n - 1))
        box.append(slice(start, draw(st.integers(start + 1, n)), draw(st.integers(1, 4))))
    return tuple(box)


def shown(array: Array, channels: int, *, xyz: bool) -> Array:
    """An array in x, y, z, c order as storefs shows it."""
    turned = array.transpose(3, 2, 1, 0) if channels > 1 else array[..., 0].transpose(2, 1, 0)
    return turned.T if xyz else turned


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(layer=layers(), way=st.sampled_from(WAYS), data=st.data())
def test_layers_that_tensorstore_writes(layer, way, data):
    """A layer reads as TensorStore reads it: the whole, and boxes with steps, by every way of showing it."""
    with tempfile.TemporaryDirectory() as folder:
        peer = write(layer, Path(folder))
        array = storefs.open_array(f"precomputed://{folder}", **way)
        xyz = way.get("axes") == "xyz"
        whole = shown(peer.read().result(), layer.channels, xyz=xyz)
        assert array.shape == whole.shape
        assert array.dtype == whole.dtype
        np.testing.assert_array_equal(array[...], whole)
        for _ in range(2):
            box = data.draw(boxes((*layer.size, layer.channels)))
            there = tuple(
                slice(o + part.start, o + part.stop, part.step) for o, part in zip((*layer.offset, 0), box, strict=True)
            )
            wanted = shown(peer[there].read().result(), layer.channels, xyz=xyz)
            here = box if layer.channels > 1 else box[:3]
            np.testing.assert_array_equal(array[here if xyz else here[::-1]], wanted)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(layers().filter(lambda layer: layer.scale["encoding"] != "jpeg"))
def test_what_tensorstore_wrote_is_what_is_read(layer):
    """Lossless layers hold the voxels that were written, through both."""
    with tempfile.TemporaryDirectory() as folder:
        write(layer, Path(folder))
        found = storefs.open_array(f"precomputed://{folder}")[...]
    np.testing.assert_array_equal(found, shown(layer.voxels(), layer.channels, xyz=False))


SOURCES = {
    "raw": Layer("uint16", 1, (21, 18, 13), (-7, 5, 0), {"encoding": "raw", "chunk_size": (8, 8, 8)}, 1, 0.5),
    "jpeg": Layer("uint8", 3, (21, 18, 13), (0, 0, 0), {"encoding": "jpeg", "chunk_size": (8, 8, 8)}, 2, 0.5),
    "labels": Layer(
        "uint64",
        2,
        (21, 18, 13),
        (0, 0, -9),
        {
            "encoding": "compressed_segmentation",
            "chunk_size": (8, 8, 8),
            "compressed_segmentation_block_size": (4, 4, 2),
            "sharding": {
                "@type": "neuroglancer_uint64_sharded_v1",
                "hash": "identity",
                "preshift_bits": 1,
                "minishard_bits": 1,
                "shard_bits": 1,
                "minishard_index_encoding": "gzip",
                "data_encoding": "gzip",
            },
        },
        3,
        0.5,
    ),
}


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize("codec", ["raw", "zstd", "gzip", "blosc"])
@pytest.mark.parametrize("source", SOURCES)
def test_portable_copies_read_by_tensorstore(source, codec, zarr_format, axes, tmp_path):
    """The portable face, copied out as files, is a zarr array that TensorStore reads to the same voxels."""
    layer = SOURCES[source]
    peer = write(layer, tmp_path / "layer")
    filesystem = fsspec.filesystem(
        "precomputed", zarr_format=zarr_format, face="portable", codec=codec, axes=axes, skip_instance_cache=True
    )
    filesystem.get(f"{tmp_path}/layer", f"{tmp_path}/copy", recursive=True)
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert ("zarr.json" if zarr_format == 3 else ".zgroup") in copied
    array = ts.open(
        {
            "driver": "zarr3" if zarr_format == 3 else "zarr",
            "kvstore": {"driver": "file", "path": f"{tmp_path}/copy/0/"},
        }
    ).result()
    whole = shown(peer.read().result(), layer.channels, xyz=axes == "xyz")
    assert whole.any()
    np.testing.assert_array_equal(array.read().result(), whole)
