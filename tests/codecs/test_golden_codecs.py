"""Chunks written by other software decode to the arrays their writers meant."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storefs_codecs import ChunkCodec, DecodeError
from storefs_codecs.content_encoding import inflate, sniff

SHARED = Path(__file__).parents[2] / "../shared/golden"
CHUNKS = sorted(path.parent for path in (SHARED / "codecs").glob("*/*/payload.bin"))
WRAPPED = [path for path in CHUNKS if path.parent.name == "general_compression"]
BARE = [path for path in CHUNKS if path.parent.name != "general_compression"]
BROKEN = sorted(
    path.parent
    for path in (SHARED / "precomputed_broken").glob("*/case.json")
    if path.parent.name.split("_")[0] in {"jpeg", "png", "jxl", "raw", "cseg", "compresso", "crackle", "fpzip"}
    and "bomb" not in path.parent.name
)
WRAPPED_BROKEN = sorted(
    path.parent
    for path in (SHARED / "precomputed_broken").glob("*/case.json")
    if path.parent.name.startswith(("gzip_", "zstd_", "brotli_"))
)
CLASSES = {
    "raw": "Raw",
    "jpeg": "Jpeg",
    "png": "Png",
    "jxl": "Jxl",
    "compressed_segmentation": "CompressedSegmentation",
    "compresso": "Compresso",
    "crackle": "Crackle",
    "fpzip": "Fpzip",
    "kempressed": "Kempressed",
}
LIBRARIES = {"crackle": "crackle", "fpzip": "fpzip", "kempressed": "fpzip"}


def cases(paths: list[Path]) -> Any:
    """Parametrise over folders, or over nothing where there are none."""
    if not paths:
        reason = f"../shared/{SHARED.name} not found"
        return pytest.mark.parametrize("folder", [pytest.param(None, marks=pytest.mark.skip(reason=reason))])
    return pytest.mark.parametrize("folder", paths, ids=lambda path: f"{path.parent.name}-{path.name}")


def codec_for(encoding: str, shape: tuple[int, ...], dtype: str, settings: dict[str, Any]) -> ChunkCodec:
    if encoding in LIBRARIES:
        pytest.importorskip(LIBRARIES[encoding])
    cls = getattr(importlib.import_module(f"storefs_codecs.{encoding}"), CLASSES[encoding])
    block = settings.get("compressed_segmentation_block_size")
    codec: ChunkCodec = cls(shape, dtype, **({} if block is None else {"block_size": block}))
    return codec


def read(folder: Path) -> tuple[dict[str, Any], bytes, np.ndarray[Any, Any], ChunkCodec]:
    config = json.loads((folder / "config.json").read_text())
    with np.load(folder / "expected.npz") as arrays:
        expected = arrays["data"]
    codec = codec_for(config["encoding"], expected.shape, config["data_type"], config)
    return config, (folder / "payload.bin").read_bytes(), expected, codec


def assert_within(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], tolerance: float) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if tolerance:
        np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=0, atol=tolerance)
    else:
        np.testing.assert_array_equal(found, expected)


@cases(BARE)
def test_chunk(folder):
    """A chunk decodes to the expected array, fresh and into strided memory."""
    config, payload, expected, codec = read(folder)
    assert_within(codec.decode_chunk(payload), expected, config["tolerance"])
    room = np.zeros(tuple(n + 2 for n in expected.shape), expected.dtype)
    out = room[tuple(slice(1, n + 1) for n in expected.shape)]
    codec.decode_chunk(payload, out=out)
    assert_within(out, expected, config["tolerance"])


@cases(BARE)
def test_chunk_as_spatial_array(folder):
    """A chunk of one channel decodes the same without its channel axis."""
    config, payload, expected, codec = read(folder)
    if expected.shape[0] == 1:
        settings = {**codec.get_config(), "shape": list(expected.shape[1:])}
        flat = type(codec).from_config({key: value for key, value in settings.items() if key != "id"})
        assert_within(flat.decode_chunk(payload), expected[0], config["tolerance"])


@cases(BARE)
def test_truncated_chunk(folder):
    """A chunk without its last bytes, or half of them, raises DecodeError or still gives the right array."""
    config, payload, expected, codec = read(folder)
    for length in (0, 1, len(payload) // 2, len(payload) - 1):
        try:
            found = codec.decode_chunk(payload[:length])
        except DecodeError:
            continue
        assert_within(found, expected, config["tolerance"])


@cases(WRAPPED)
def test_content_encoding(folder):
    """A wrapped chunk inflates and decodes; its magic, where it has one, is recognised."""
    config, payload, expected, codec = read(folder)
    limit = max(2 * expected.nbytes, 4096)
    inner = inflate(payload, config["wrapped_in"], limit=limit)
    assert_within(codec.decode_chunk(inner), expected, config["tolerance"])
    assert sniff(payload) == (config["wrapped_in"] if config["wrapped_in"] not in {"br", "zlib"} else None)
    assert inflate(payload, config["wrapped_in"], limit=len(inner)) == inner
    if config["wrapped_in"] == "zlib":
        assert inflate(payload, "gzip", limit=limit) == inner
    with pytest.raises(DecodeError):
        inflate(payload, config["wrapped_in"], limit=len(inner) - 1)
    with pytest.raises(DecodeError):
        inflate(payload[: len(payload) // 2], config["wrapped_in"], limit=limit)


def bad_chunk(folder: Path) -> tuple[ChunkCodec, tuple[int, ...], Path]:
    """The codec, the true extent and the file of the damaged chunk."""
    case = json.loads((folder / "case.json").read_text())
    layer = folder / "layer"
    info = json.loads((layer / "info").read_text())
    name = Path(case["bad_chunk"])
    scale = next(scale for scale in info["scales"] if scale["key"] == str(name.parent))
    spans = [span.split("-") for span in name.name.split(".")[0].split("_")]
    extent = (info["num_channels"], *(int(end) - int(begin) for begin, end in reversed(spans)))
    shape = (info["num_channels"], *reversed(scale["chunk_sizes"][0]))
    return codec_for(scale["encoding"], shape, info["data_type"], scale), extent, layer / name


@cases(BROKEN)
def test_broken_chunk(folder):
    """A damaged chunk raises DecodeError."""
    codec, extent, path = bad_chunk(folder)
    with pytest.raises(DecodeError) as caught:
        codec.decode_chunk(path.read_bytes(), extent=extent)
    assert codec.codec_id in str(caught.value)


@cases(WRAPPED_BROKEN)
def test_broken_wrapping(folder):
    """A damaged or endless wrapping raises DecodeError."""
    codec, extent, path = bad_chunk(folder)
    path = path if path.exists() else next(path.parent.glob(path.name + ".*"))
    encoding = {".gz": "gzip", ".br": "br", ".zstd": "zstd"}[path.suffix]
    with pytest.raises(DecodeError):
        inflate(path.read_bytes(), encoding, limit=int(np.prod(extent)) * codec.dtype.itemsize)
