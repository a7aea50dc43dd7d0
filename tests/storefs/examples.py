"""Small hierarchies to show and to ask for."""

from __future__ import annotations

from typing import Any

from storefs.model import ArrayNode, Encoding, Hierarchy


def node(path: str = "0", **changes: Any) -> ArrayNode:
    """An array of 70 x 90 x 100 (zyx) uint8 voxels in raw chunks of 32 x 64 x 64."""
    facts: dict[str, Any] = {
        "path": path,
        "shape": (70, 90, 100),
        "chunk_shape": (32, 64, 64),
        "dtype": "uint8",
        "encoding": Encoding("raw"),
        "dimension_names": ("z", "y", "x"),
        "scale_nm": (40.0, 8.0, 4.0),
        "translation_nm": (20.0, 84.0, -6.0),
        "voxel_offset_xyz": (-2, 10, 0),
        "resolution_xyz": (4.0, 8.0, 40.0),
    }
    return ArrayNode(**facts | changes)


def coloured(path: str = "0", **changes: Any) -> ArrayNode:
    """The same with three channels."""
    return node(
        path,
        **{
            "shape": (3, 70, 90, 100),
            "chunk_shape": (3, 32, 64, 64),
            "dimension_names": ("c", "z", "y", "x"),
            "scale_nm": (1.0, 40.0, 8.0, 4.0),
            "translation_nm": (0.0, 20.0, 84.0, -6.0),
        }
        | changes,
    )


def pyramid(*nodes: ArrayNode) -> Hierarchy:
    """A hierarchy of `nodes`, or of two scales."""
    coarse = node(
        "1",
        shape=(35, 45, 50),
        scale_nm=(80.0, 16.0, 8.0),
        translation_nm=(40.0, 88.0, -4.0),
        voxel_offset_xyz=(-1, 5, 0),
    )
    return Hierarchy("sample", nodes or (node(), coarse), {"source": "memory://sample", "format": "test"})
