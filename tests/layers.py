"""Small precomputed layers written from the format's description, sharing no code with the product.

Arrays are C order zyx; sizes, chunks and offsets are x, y, z as in an info file.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Sharded:
    """How a scale is sharded; chunks are placed by their key itself (hash "identity").

    `apart` puts each minishard's index behind its data instead of all indexes together in front.
    """

    preshift_bits: int = 0
    minishard_bits: int = 2
    shard_bits: int = 1
    index_gzip: bool = False
    data_gzip: bool = False
    apart: bool = False


def voxels(size: Triple, dtype: str = "uint8", seed: int = 0) -> npt.NDArray[np.generic]:
    """A volume of noise in which no voxel is zero, so that a zero is always a fault."""
    rng = np.random.default_rng(seed)
    top = min(int(np.iinfo(dtype).max), 1 << 40)
    return rng.integers(1, top, size[::-1], dtype, endpoint=True)


def cells(size: Triple, chunk: Triple) -> Iterator[tuple[Triple, tuple[slice, slice, slice]]]:
    """Each grid cell (x, y, z) and where its voxels lie in a zyx array."""
    counts = [-(-n // c) for n, c in zip(size, chunk, strict=True)]
    for z, y, x in np.ndindex(*counts[::-1]):
        box = tuple(slice(g * c, min((g + 1) * c, n)) for g, c, n in zip((x, y, z), chunk, size, strict=True))
        yield (x, y, z), (box[2], box[1], box[0])


def name_of(cell: Triple, size: Triple, chunk: Triple, offset: Triple = (0, 0, 0)) -> str:
    """Name of the chunk object of a grid cell."""
    spans = zip(cell, size, chunk, offset, strict=True)
    return "_".join(f"{o + g * c}-{o + min((g + 1) * c, n)}" for g, n, c, o in spans)


def write_layer(
    root: Path,
    volume: npt.NDArray[np.generic],
    chunk: Triple,
    *,
    offset: Triple = (0, 0, 0),
    key: str = "1_1_1",
    wrap: Callable[[bytes], bytes] = bytes,
    leave_out: Collection[Triple] = (),
    sharded: Sharded | None = None,
    encoding: dict[str, object] | None = None,
    encode: Callable[[npt.NDArray[np.generic]], bytes] | None = None,
) -> None:
    """Write `volume` (zyx) as a precomputed layer of one scale, without the cells in `leave_out`.

    Raw, unless `encoding` has other keys of the scale, and `encode` makes the bytes of a chunk.
    """
    z, y, x = volume.shape
    size = (x, y, z)
    scale = {
        "key": key,
        "size": list(size),
        "voxel_offset": list(offset),
        "resolution": [4, 4, 40],
        "chunk_sizes": [list(chunk)],
        "encoding": "raw",
        **(encoding or {}),
    }
    if sharded:
        scale["sharding"] = {
            "@type": "neuroglancer_uint64_sharded_v1",
            "hash": "identity",
            "preshift_bits": sharded.preshift_bits,
            "minishard_bits": sharded.minishard_bits,
            "shard_bits": sharded.shard_bits,
            "minishard_index_encoding": "gzip" if sharded.index_gzip else "raw",
            "data_encoding": "gzip" if sharded.data_gzip else "raw",
        }
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image",
        "data_type": volume.dtype.name,
        "num_channels": 1,
        "scales": [scale],
    }
    folder = root / key
    folder.mkdir(parents=True, exist_ok=True)
    (root / "info").write_text(json.dumps(info))
    little = volume.astype(volume.dtype.newbyteorder("<"))
    to_bytes = encode or (lambda voxels: voxels.tobytes())
    stored = {cell: to_bytes(little[box]) for cell, box in cells(size, chunk) if cell not in leave_out}
    if sharded:
        _write_shards(folder, stored, [-(-n // c) for n, c in zip(size, chunk, strict=True)], sharded)
        return
    for cell, data in stored.items():
        (folder / name_of(cell, size, chunk, offset)).write_bytes(wrap(data))


def morton(cell: Triple, counts: list[int]) -> int:
    """Key of a grid cell: the bits of x, y, z in turn, only those that the axis needs."""
    key, place = 0, 0
    for bit in range(32):
        for position, count in zip(cell, counts, strict=True):
            if (count - 1) >> bit:
                key |= ((position >> bit) & 1) << place
                place += 1
    return key


def place_of(key: int, sharded: Sharded) -> tuple[int, int]:
    """Shard and minishard of a key."""
    shifted = key >> sharded.preshift_bits
    return (
        shifted >> sharded.minishard_bits & ((1 << sharded.shard_bits) - 1),
        shifted & ((1 << sharded.minishard_bits) - 1),
    )


def shard_name(shard: int, sharded: Sharded) -> str:
    """Name of the file of a shard."""
    return f"{shard:0{-(-sharded.shard_bits // 4)}x}.shard"


def _write_shards(folder: Path, stored: dict[Triple, bytes], counts: list[int], sharded: Sharded) -> None:
    shards: dict[int, dict[int, dict[int, bytes]]] = {}
    for cell, data in stored.items():
        key = morton(cell, counts)
        shard, minishard = place_of(key, sharded)
        body = gzip.compress(data, mtime=0) if sharded.data_gzip else data
        shards.setdefault(shard, {}).setdefault(minishard, {})[key] = body
    for shard, minishards in shards.items():
        (folder / shard_name(shard, sharded)).write_bytes(_shard(minishards, sharded))


def _shard(minishards: dict[int, dict[int, bytes]], sharded: Sharded) -> bytes:
    """Indexes together: data first, then all indexes. Apart: each minishard's data, then its index."""
    body = b""
    bounds = {}
    waiting: list[tuple[int, bytes]] = []
    for minishard, chunks in sorted(minishards.items()):
        rows = []
        last_key, last_end = 0, 0
        for key, data in sorted(chunks.items()):
            rows.append((key - last_key, len(body) - last_end, len(data)))
            body += data
            last_key, last_end = key, len(body)
        index = b"".join(struct.pack(f"<{len(rows)}Q", *column) for column in zip(*rows, strict=True))
        index = gzip.compress(index, mtime=0) if sharded.index_gzip else index
        if sharded.apart:
            bounds[minishard] = len(body), len(body) + len(index)
            body += index
        else:
            waiting.append((minishard, index))
    for minishard, index in waiting:
        bounds[minishard] = len(body), len(body) + len(index)
        body += index
    entries = (bounds.get(minishard, (0, 0)) for minishard in range(1 << sharded.minishard_bits))
    return b"".join(struct.pack("<2Q", *entry) for entry in entries) + body
