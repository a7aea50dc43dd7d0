"""A Hierarchy as zarr documents: zarr.json (v3) or .zgroup, .zarray, .zattrs, .zmetadata (v2).

Groups are OME-Zarr multiscales, 0.5 with v3 and 0.4 with v2 (https://ngff.openmicroscopy.org), in nanometres;
consolidated metadata stands inline. Our codecs appear by name only; zarr and numcodecs find them by entry point.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storefs.model import ArrayNode, Hierarchy, Presentation

Json = dict[str, Any]

_ZSTD_LEVEL = 3
_GZIP_LEVEL = 5
_BLOSC_LEVEL = 5


def documents(hierarchy: Hierarchy, presentation: Presentation) -> dict[str, bytes]:
    """Every metadata document by key."""
    build = _v3 if presentation.zarr_format == 3 else _v2  # noqa: PLR2004  # format number
    return {key: json.dumps(doc, indent=1).encode() for key, doc in build(hierarchy, presentation).items()}


def _v3(hierarchy: Hierarchy, shown: Presentation) -> dict[str, Json]:
    sources = _sources(hierarchy)
    nodes: dict[str, Json] = {
        path: _v3_array(node, shown, sources[path]) for path, node in hierarchy.arrays_by_path.items()
    }
    groups = {group.path: group for group in hierarchy.walk()}
    nodes |= {path: _v3_group(group, shown) for path, group in groups.items()}
    docs = {}
    for path, node in nodes.items():
        prefix = f"{path}/" if path else ""
        below = {
            other[len(prefix) :]: doc for other, doc in nodes.items() if other != path and other.startswith(prefix)
        }
        consolidated = {"kind": "inline", "must_understand": False, "metadata": below}
        docs[f"{prefix}zarr.json"] = node | ({"consolidated_metadata": consolidated} if path in groups else {})
    return docs


def _v3_group(group: Hierarchy, shown: Presentation) -> Json:
    return {"zarr_format": 3, "node_type": "group", "attributes": _group_attributes(group, shown)}


def _v3_array(node: ArrayNode, shown: Presentation, source: str | None) -> Json:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shown.flip(node.shape)),
        "data_type": node.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shown.flip(node.chunk_shape))}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": node.fill_value,
        "codecs": _v3_codecs(node, shown),
        "dimension_names": list(shown.flip(node.dimension_names)),
        "attributes": _array_attributes(node, source),
    }


def _v3_codecs(node: ArrayNode, shown: Presentation) -> list[Json]:
    if shown.face == "native":
        config = native_configuration(node)
        if shown.axes == "xyz":
            config["transpose"] = True
        return [{"name": codec_id(node), "configuration": config}]
    chain: list[Json] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if shown.axes == "xyz":
        chain.insert(0, {"name": "transpose", "configuration": {"order": list(range(len(node.shape)))[::-1]}})
    itemsize = np.dtype(node.dtype).itemsize
    compressors: dict[str, Json] = {
        "zstd": {"level": _ZSTD_LEVEL, "checksum": False},
        "gzip": {"level": _GZIP_LEVEL},
        "blosc": {"cname": "zstd", "clevel": _BLOSC_LEVEL, "shuffle": "shuffle", "typesize": itemsize, "blocksize": 0},
    }
    if shown.codec != "raw":
        chain.append({"name": shown.codec, "configuration": compressors[shown.codec]})
    return chain


def _v2(hierarchy: Hierarchy, shown: Presentation) -> dict[str, Json]:
    docs: dict[str, Json] = {}
    sources = _sources(hierarchy)
    for group in hierarchy.walk():
        prefix = f"{group.path}/" if group.path else ""
        docs |= {f"{prefix}.zgroup": {"zarr_format": 2}, f"{prefix}.zattrs": _group_attributes(group, shown)}
    for node in hierarchy.arrays_by_path.values():
        docs[f"{node.path}/.zarray"] = _v2_array(node, shown)
        docs[f"{node.path}/.zattrs"] = _array_attributes(node, sources[node.path]) | {
            "_ARRAY_DIMENSIONS": list(shown.flip(node.dimension_names))
        }
    return docs | {".zmetadata": {"zarr_consolidated_format": 1, "metadata": dict(docs)}}


def _v2_array(node: ArrayNode, shown: Presentation) -> Json:
    return {
        "zarr_format": 2,
        "shape": list(shown.flip(node.shape)),
        "chunks": list(shown.flip(node.chunk_shape)),
        "dtype": np.dtype(node.dtype).newbyteorder("<").str,
        "compressor": v2_compressor(node, shown),
        # a number here makes xarray mask with it, turning uint64 labels into float64
        "fill_value": None,
        "order": "C" if shown.axes == "zyx" else "F",
        "filters": None,
        "dimension_separator": "/",
    }


def v2_compressor(node: ArrayNode, shown: Presentation) -> Json | None:
    """The numcodecs configuration that decodes a chunk as shown; None for plain voxels."""
    if shown.face == "native":
        return None if node.encoding.name == "raw" else {"id": codec_id(node)} | native_configuration(node)
    compressors: dict[str, Json] = {
        "zstd": {"id": "zstd", "level": _ZSTD_LEVEL},
        "gzip": {"id": "gzip", "level": _GZIP_LEVEL},
        "blosc": {"id": "blosc", "cname": "zstd", "clevel": _BLOSC_LEVEL, "shuffle": 1},
    }
    return compressors.get(shown.codec)


def codec_id(node: ArrayNode) -> str:
    """Id of the codec that reads the node's chunks as stored; raw where nothing can."""
    return "storefs.raw" if node.unsupported else f"storefs.{node.encoding.name}"


def native_configuration(node: ArrayNode) -> Json:
    """Keywords of that codec."""
    extra: Mapping[str, Any] = {} if node.unsupported else node.encoding.configuration
    return {"shape": list(node.chunk_shape), "dtype": node.dtype, **extra}


def _sources(hierarchy: Hierarchy) -> dict[str, str | None]:
    """Address of the volume that each array is of, by path: that of its group, or of the group around."""
    whole = hierarchy.attributes.get("source")
    return {node.path: group.attributes.get("source", whole) for group in hierarchy.walk() for node in group.arrays}


def _array_attributes(node: ArrayNode, source: str | None = None) -> Json:
    return {
        "storefs": {
            **({"source": source} if source else {}),
            "voxel_offset_xyz": list(node.voxel_offset_xyz),
            "resolution_xyz": list(node.resolution_xyz),
            "encoding": node.encoding.name,
            **({"unsupported": node.unsupported} if node.unsupported else {}),
            **node.attributes,
        }
    }


def _group_attributes(hierarchy: Hierarchy, shown: Presentation) -> Json:
    if not hierarchy.arrays:
        return {"storefs": dict(hierarchy.attributes)}
    finest = hierarchy.arrays[0]
    prefix = f"{hierarchy.path}/" if hierarchy.path else ""
    own = _array_attributes(finest)["storefs"] | dict(hierarchy.attributes)
    own.pop("unsupported", None)
    multiscale: Json = {
        "name": hierarchy.name,
        "axes": [_axis(name) for name in shown.flip(finest.dimension_names)],
        "datasets": [
            {
                "path": node.path.removeprefix(prefix),
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(shown.flip(node.scale_nm))},
                    {"type": "translation", "translation": list(shown.flip(node.translation_nm))},
                ],
            }
            for node in hierarchy.arrays
        ],
    }
    if shown.zarr_format == 3:  # noqa: PLR2004  # format number
        return {"ome": {"version": "0.5", "multiscales": [multiscale]}, "storefs": own}
    return {"multiscales": [{"version": "0.4"} | multiscale], "storefs": own}


def _axis(name: str) -> Json:
    if name == "c":
        return {"name": name, "type": "channel"}
    return {"name": name, "type": "space", "unit": "nanometer"}
