"""Zarr documents: what other readers find in them."""

from __future__ import annotations

import json
from typing import Any

import numcodecs
import pytest
import zarr
from zarr.storage import MemoryStore

from storefs.metadata import documents
from storefs.model import Encoding, Presentation
from tests.storefs.examples import coloured, node, pyramid


def written(hierarchy: Any, **shown: Any) -> dict[str, Any]:
    return {key: json.loads(text) for key, text in documents(hierarchy, Presentation(**shown)).items()}


def opened(hierarchy: Any, **shown: Any) -> zarr.Group:
    """The documents as zarr reads them out of a plain store."""
    store = MemoryStore()
    group_format = shown.get("zarr_format", 3)
    for key, text in documents(hierarchy, Presentation(**shown)).items():
        store._store_dict[key] = store_buffer(text)
    return zarr.open_group(store, mode="r", zarr_format=group_format)


def store_buffer(text: bytes) -> Any:
    from zarr.core.buffer import default_buffer_prototype

    return default_buffer_prototype().buffer.from_bytes(text)


def test_v3_keys():
    """A v3 volume is one document for the group and one for each array."""
    assert set(written(pyramid())) == {"zarr.json", "0/zarr.json", "1/zarr.json"}


def test_v2_keys():
    """A v2 volume has its four kinds of document."""
    arrays = {f"{path}/{name}" for path in "01" for name in (".zarray", ".zattrs")}
    assert set(written(pyramid(), zarr_format=2)) == {".zgroup", ".zattrs", ".zmetadata", *arrays}


def test_ome_05():
    """The group of a v3 volume is an OME-Zarr 0.5 multiscale in nanometres."""
    attributes = written(pyramid())["zarr.json"]["attributes"]
    assert attributes["ome"] == {
        "version": "0.5",
        "multiscales": [
            {
                "name": "sample",
                "axes": [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [40.0, 8.0, 4.0]},
                            {"type": "translation", "translation": [20.0, 84.0, -6.0]},
                        ],
                    },
                    {
                        "path": "1",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [80.0, 16.0, 8.0]},
                            {"type": "translation", "translation": [40.0, 88.0, -4.0]},
                        ],
                    },
                ],
            }
        ],
    }


def test_ome_04():
    """The group of a v2 volume says the same as OME-Zarr 0.4: no "ome" level, the version inside the multiscale."""
    v2 = written(pyramid(), zarr_format=2)[".zattrs"]
    v3 = written(pyramid())["zarr.json"]["attributes"]
    (multiscale,) = v2["multiscales"]
    assert multiscale.pop("version") == "0.4"
    assert [multiscale] == v3["ome"]["multiscales"]
    assert "ome" not in v2
    assert v2["storefs"] == v3["storefs"]


def test_channels():
    """A channel axis comes first, has a type and no unit, and does not move the voxels."""
    (multiscale,) = written(pyramid(coloured()))["zarr.json"]["attributes"]["ome"]["multiscales"]
    assert multiscale["axes"][0] == {"name": "c", "type": "channel"}
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "z", "y", "x"]
    zoom, shift = multiscale["datasets"][0]["coordinateTransformations"]
    assert zoom["scale"] == [1.0, 40.0, 8.0, 4.0]
    assert shift["translation"] == [0.0, 20.0, 84.0, -6.0]


def test_xyz_reverses_everything_that_has_axes():
    """With axes="xyz" shapes, chunks, names, axes, scales and translations are all reversed."""
    docs = written(pyramid(coloured()), axes="xyz")
    array = docs["0/zarr.json"]
    assert array["shape"] == [100, 90, 70, 3]
    assert array["chunk_grid"]["configuration"]["chunk_shape"] == [64, 64, 32, 3]
    assert array["dimension_names"] == ["x", "y", "z", "c"]
    (multiscale,) = docs["zarr.json"]["attributes"]["ome"]["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["x", "y", "z", "c"]
    zoom, shift = multiscale["datasets"][0]["coordinateTransformations"]
    assert zoom["scale"] == [4.0, 8.0, 40.0, 1.0]
    assert shift["translation"] == [-6.0, 84.0, 20.0, 0.0]
    assert docs["0/zarr.json"]["attributes"]["storefs"]["voxel_offset_xyz"] == [-2, 10, 0]


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
@pytest.mark.parametrize("face", ["native", "portable"])
def test_v3_consolidated_inline(axes, face):
    """The group's document holds every array's document, word for word, and zarr reads them from there."""
    docs = written(pyramid(), axes=axes, face=face)
    consolidated = docs["zarr.json"]["consolidated_metadata"]
    assert consolidated["kind"] == "inline"
    assert consolidated["must_understand"] is False
    assert consolidated["metadata"] == {path: docs[f"{path}/zarr.json"] for path in "01"}
    assert opened(pyramid(), axes=axes, face=face).metadata.consolidated_metadata is not None


def test_v2_consolidated():
    """.zmetadata holds every other document, word for word."""
    docs = written(pyramid(), zarr_format=2)
    consolidated = docs.pop(".zmetadata")
    assert consolidated == {"zarr_consolidated_format": 1, "metadata": docs}


def test_v2_array():
    """A v2 array has no fill value, or xarray would mask labels into floats; axis names are xarray's attribute."""
    docs = written(pyramid(node(dtype="uint64")), zarr_format=2)
    assert docs["0/.zarray"] == {
        "zarr_format": 2,
        "shape": [70, 90, 100],
        "chunks": [32, 64, 64],
        "dtype": "<u8",
        "compressor": None,
        "fill_value": None,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }
    assert docs["0/.zattrs"]["_ARRAY_DIMENSIONS"] == ["z", "y", "x"]
    assert written(pyramid(), zarr_format=2, axes="xyz")["0/.zarray"]["order"] == "F"
    assert written(pyramid(), zarr_format=2, axes="xyz")["0/.zattrs"]["_ARRAY_DIMENSIONS"] == ["x", "y", "z"]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint64", "int64", "float32", "float64"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_reads_the_documents(dtype, zarr_format):
    """Zarr opens the documents and finds shape, chunks, data type and members."""
    group = opened(pyramid(node(dtype=dtype)), zarr_format=zarr_format)
    assert list(group.array_keys()) == ["0"]
    array = group["0"]
    assert (array.shape, array.chunks, array.dtype.name) == ((70, 90, 100), (32, 64, 64), dtype)
    if zarr_format == 3:
        assert array.fill_value == 0
        assert array.metadata.dimension_names == ("z", "y", "x")


def test_native_codec():
    """A native array names the codec of its encoding, with chunk shape, data type and settings, in both formats."""
    labels = node(dtype="uint64", encoding=Encoding("compressed_segmentation", {"block_size": [8, 8, 4]}))
    settings = {"shape": [32, 64, 64], "dtype": "uint64", "block_size": [8, 8, 4]}
    v3 = written(pyramid(labels))["0/zarr.json"]["codecs"]
    assert v3 == [{"name": "storefs.compressed_segmentation", "configuration": settings}]
    v2 = written(pyramid(labels), zarr_format=2)["0/.zarray"]["compressor"]
    assert v2 == {"id": "storefs.compressed_segmentation"} | settings
    assert numcodecs.get_codec(dict(v2)).get_config() == v2
    xyz = written(pyramid(labels), axes="xyz")["0/zarr.json"]["codecs"]
    assert xyz == [{"name": "storefs.compressed_segmentation", "configuration": settings | {"transpose": True}}]


@pytest.mark.parametrize("codec", ["raw", "zstd", "gzip", "blosc"])
def test_portable_codecs(codec):
    """A portable array is plain bytes in little-endian order, transposed for xyz, in a codec every reader has."""
    labels = node(dtype="uint64", encoding=Encoding("compressed_segmentation", {"block_size": [8, 8, 4]}))
    plain = written(pyramid(labels), face="portable", codec=codec)["0/zarr.json"]["codecs"]
    names = [step["name"] for step in plain]
    assert names == (["bytes"] if codec == "raw" else ["bytes", codec])
    assert plain[0]["configuration"] == {"endian": "little"}
    turned = written(pyramid(labels), face="portable", codec=codec, axes="xyz")["0/zarr.json"]["codecs"]
    assert turned == [{"name": "transpose", "configuration": {"order": [2, 1, 0]}}, *plain]
    if codec == "blosc":
        assert plain[1]["configuration"]["typesize"] == 8
    v2 = written(pyramid(labels), face="portable", codec=codec, zarr_format=2)["0/.zarray"]["compressor"]
    assert (v2 and v2["id"]) == (None if codec == "raw" else codec)


def test_attributes():
    """Every array says where it lies and how it is stored; the group adds what the backend says of the whole."""
    docs = written(pyramid(node(attributes={"key": "8_8_40"})))
    own = {
        "voxel_offset_xyz": [-2, 10, 0],
        "resolution_xyz": [4.0, 8.0, 40.0],
        "encoding": "raw",
        "key": "8_8_40",
    }
    assert docs["0/zarr.json"]["attributes"] == {"storefs": own | {"source": "memory://sample"}}
    group = docs["zarr.json"]["attributes"]["storefs"]
    assert group == own | {"source": "memory://sample", "format": "test"}


def test_unsupported_array():
    """An array that cannot be read still opens: raw stands for its codec, an attribute says why."""
    strange = node("1", encoding=Encoding("zork", {"knob": 3}), unsupported="encoding zork is not offered")
    docs = written(pyramid(node(), strange))
    (codec,) = docs["1/zarr.json"]["codecs"]
    assert codec == {"name": "storefs.raw", "configuration": {"shape": [32, 64, 64], "dtype": "uint8"}}
    assert docs["1/zarr.json"]["attributes"]["storefs"]["unsupported"] == "encoding zork is not offered"
    assert "unsupported" not in docs["zarr.json"]["attributes"]["storefs"]
    assert opened(pyramid(node(), strange))["1"].shape == (70, 90, 100)
