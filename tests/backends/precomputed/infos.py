"""An info file to change, and where it would lie."""

from __future__ import annotations

from typing import Any

URL = "memory://layer"
SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "hash": "murmurhash3_x86_128",
    "preshift_bits": 2,
    "minishard_bits": 3,
    "shard_bits": 4,
}


def info(**changes: Any) -> dict[str, Any]:
    """An info of one scale; `changes` go to the scale where it has the key, to the top otherwise; ... removes."""
    scale = {
        "key": "8_8_40",
        "size": [100, 90, 70],
        "voxel_offset": [-10, 5, 0],
        "resolution": [8, 8, 40],
        "chunk_sizes": [[64, 64, 32]],
        "encoding": "raw",
        "sharding": None,
        "compressed_segmentation_block_size": [8, 8, 4],
        "jpeg_quality": 80,
    }
    document: dict[str, Any] = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image",
        "data_type": "uint8",
        "num_channels": 1,
        "scales": [scale],
    }
    for key, value in changes.items():
        part = scale if key in scale else document
        name = "@type" if key == "at_type" else key
        if value is ...:
            del part[name]
        else:
            part[name] = value
    return document
