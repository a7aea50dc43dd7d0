"""The reference layers in `../shared`: finding, parametrising and comparing them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

SHARED = Path(__file__).parents[3] / "../shared"
LAYERS = (SHARED / "golden/precomputed").resolve()
BROKEN = (SHARED / "golden/precomputed_broken").resolve()
REAL = (SHARED / "data/precomputed_real").resolve()
VECTORS = (SHARED / "golden/codecs/vectors.json").resolve()

LIBRARIES = {"crackle": "crackle", "fpzip": "fpzip", "kempressed": "fpzip"}

Array = np.ndarray[Any, Any]


def cases(root: Path, *names: str) -> Any:
    """Parametrise `name` over the cases below `root`, or over nothing where they are not there."""
    found = list(names) or case_names(root)
    if not (root.is_dir() and found):
        mark = pytest.mark.skip(reason=f"../shared/golden/{root.name} not found")
        return pytest.mark.parametrize("name", [pytest.param("", marks=mark)])
    return pytest.mark.parametrize("name", found)


def case_names(root: Path) -> list[str]:
    """Every case below `root`; none where it is not there."""
    return sorted(path.parent.name for path in root.glob("*/case.json"))


def case(root: Path, name: str) -> dict[str, Any]:
    """What case.json says of a case."""
    found: dict[str, Any] = json.loads((root / name / "case.json").read_text())
    return found


def expected(root: Path, name: str) -> dict[str, Array]:
    """The arrays of a case, each [c, z, y, x]."""
    with np.load(root / name / "expected.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def need_library(encoding: str) -> None:
    """Skip where the optional library of `encoding` is not installed."""
    if encoding in LIBRARIES:
        pytest.importorskip(LIBRARIES[encoding])


def assert_within(found: Array, wanted: Array, tolerance: float) -> None:
    """`found`, zyx or czyx, is `wanted`, [c, z, y, x], up to `tolerance`."""
    assert found.dtype == wanted.dtype
    found = found[None] if found.ndim == 3 else found
    assert found.shape == wanted.shape
    if tolerance:
        np.testing.assert_allclose(found.astype(float), wanted.astype(float), rtol=0, atol=tolerance)
    else:
        np.testing.assert_array_equal(found, wanted)


def assemble(filesystem: Any, root: str, array: str) -> Array:
    """The array `array` of the v3 volume at `root`, pasted together from what the filesystem gives, without zarr."""
    document = json.loads(filesystem.cat(f"{root}/{array}/zarr.json"))
    shape = document["shape"]
    chunk_shape = document["chunk_grid"]["configuration"]["chunk_shape"]
    (codec,) = document["codecs"]
    decode = numcodecs.get_codec({"id": codec["name"], **codec["configuration"]}).decode
    out = np.full(shape, document["fill_value"], document["data_type"])
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(shape, chunk_shape, strict=True))):
        path = "/".join([root, array, "c", *map(str, index)])
        try:
            payload = filesystem.cat(path)
        except FileNotFoundError:
            continue
        box = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, chunk_shape, shape, strict=True))
        chunk = np.asarray(decode(payload)).reshape(chunk_shape)
        out[box] = chunk[tuple(slice(0, part.stop - part.start) for part in box)]
    return out
