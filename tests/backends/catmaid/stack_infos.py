"""Stack infos as a server would send them, for tests without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Triple = tuple[int, int, int]


def stack_info(
    size_zyx: tuple[int, ...],
    *mirrors: dict[str, Any],
    factors: Sequence[Triple] | None = ((1, 1, 1),),
    orientation: int = 0,
    resolution: tuple[float, float, float] = (4.0, 5.0, 40.0),
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0),
    **changes: Any,
) -> dict[str, Any]:
    """A stack of `size_zyx` voxels; other triples are x, y, z."""
    return {
        "sid": 7,
        "pid": 3,
        "stitle": "specimen",
        "ptitle": "project",
        "dimension": _xyz(size_zyx[::-1]),
        "resolution": _xyz(resolution),
        "translation": _xyz(translation),
        "orientation": orientation,
        "broken_slices": {},
        "canary_location": _xyz((0, 0, 0)),
        "downsample_factors": None if factors is None else [_xyz(factor) for factor in factors],
        "num_zoom_levels": -1 if factors is None else len(factors) - 1,
        "metadata": None,
        "mirrors": list(mirrors),
        **changes,
    }


def mirror(kind: int, base: str, extension: str = "png", side: int = 64, **changes: Any) -> dict[str, Any]:
    """A mirror of square tiles."""
    return {
        "id": 1,
        "title": "main",
        "image_base": base,
        "file_extension": extension,
        "tile_width": side,
        "tile_height": side,
        "tile_source_type": kind,
        "position": 0,
        **changes,
    }


def _xyz(values: Sequence[float]) -> dict[str, float]:
    return dict(zip("xyz", values, strict=True))
