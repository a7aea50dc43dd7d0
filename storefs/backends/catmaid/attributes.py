"""What the attributes of a stack tell: where it lies in the project, its mirrors, and the server's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storefs.backends.catmaid.info import ORIENTATIONS, Mirror, StackInfo
from storefs.backends.catmaid.mirrors import Choice, type_name
from storefs.backends.catmaid.tile_sources import without_secrets


def stack_attributes(info: StackInfo, url: str, choice: Choice) -> dict[str, Any]:
    """The `storefs` attributes of the stack's group, without credentials; `translation_xyz` is in project axes."""
    unknown = [axis for axis, r in zip("xyz", info.resolution_xyz, strict=True) if r == 0]
    return {
        "source": url,
        "format": "catmaid",
        "project_id": info.project_id,
        "project_title": info.project_title,
        "stack_id": info.stack_id,
        "stack_title": info.title,
        "orientation": info.orientation,
        "orientation_name": ORIENTATIONS[info.orientation],
        "translation_xyz": list(info.translation_xyz),
        "stack_resolution_xyz": list(info.resolution_xyz),
        **({"unknown_resolution": unknown} if unknown else {}),
        "dimension_xyz": list(info.dimension_xyz),
        "downsample_factors": None if info.downsample_factors is None else [list(f) for f in info.downsample_factors],
        "broken_slices": sorted(info.broken_slices),
        "mirrors": [_mirror(mirror, choice) for mirror in info.mirrors],
        "colour": choice.colour,
        "metadata": info.metadata,
        "info": _document(info.document),
    }


def _mirror(mirror: Mirror, choice: Choice) -> dict[str, Any]:
    return {
        "id": mirror.id,
        "title": mirror.title,
        "position": mirror.position,
        "image_base": without_secrets(mirror.image_base),
        "file_extension": mirror.file_extension,
        "tile_source_type": mirror.tile_source_type,
        "type_name": type_name(mirror),
        "tile_width": mirror.tile_width,
        "tile_height": mirror.tile_height,
        "in_use": mirror == choice.mirror,
        **({"problem": choice.problems[mirror]} if mirror in choice.problems else {}),
    }


def _document(document: Mapping[str, Any]) -> dict[str, Any]:
    """The info as it came, without passwords in addresses."""
    shown = dict(document)
    if isinstance(shown.get("image_base"), str):
        shown["image_base"] = without_secrets(shown["image_base"])
    mirrors = shown.get("mirrors")
    if isinstance(mirrors, list):
        shown["mirrors"] = [_document(mirror) for mirror in mirrors]
    return shown
