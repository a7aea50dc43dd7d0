"""A stack's info, as CATMAID servers of every age send it, parsed once into frozen values.

Triples are x, y, z. Sizes, resolution, factors and the canary are in stack axes, the translation in project axes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeGuard
from urllib.parse import urljoin, urlsplit

from storefs.backends.catmaid.answers import OK, failure, is_failure
from storefs.errors import MetadataError

Json = dict[str, Any]
Triple = tuple[int, int, int]
FloatTriple = tuple[float, float, float]

ORIENTATIONS = ("xy", "xz", "zy")
MAX_SIZE = 1 << 53
MAX_TILE_SIDE = 1 << 16
MAX_TILE_PIXELS = 1 << 28
MAX_LEVELS = 64

# their image_base is no address but a name that the CATMAID server understands
SERVED_BY_CATMAID = frozenset({3, 13})

_TRIPLE = ("x", "y", "z")
_ID_DIGITS = 19
_STACK_PATH = re.compile(r"/\d+/\d+/?$")


@dataclass(frozen=True, slots=True)
class Mirror:
    """One place that serves the tiles of a stack; `image_base` is absolute, save for types 3 and 13.

    Servers of 2016 have one, without id.
    """

    id: int | None
    title: str
    image_base: str
    file_extension: str
    tile_width: int
    tile_height: int
    tile_source_type: int
    position: int


@dataclass(frozen=True, slots=True)
class StackInfo:
    """A stack as linked to a project.

    `downsample_factors` None means levels are worked out from sizes. `resolution_xyz` may hold zeros, as the server
    rounds to six decimals. `broken_slices` count along z at full resolution. Mirrors are in order of position, title.
    """

    project_id: int
    stack_id: int
    title: str
    project_title: str
    dimension_xyz: Triple
    resolution_xyz: FloatTriple
    translation_xyz: FloatTriple
    orientation: int
    downsample_factors: tuple[Triple, ...] | None
    broken_slices: frozenset[int]
    mirrors: tuple[Mirror, ...]
    canary_xyz: Triple
    metadata: Any
    document: Mapping[str, Any] = field(repr=False)


def parse_stack_info(document: object, url: str) -> StackInfo:
    """The stack that `document` describes; `url` is the stack's or its server's, where relative image bases begin.

    Raises MetadataError naming the key at fault; Refused, NoSuchVolume, ServerFault where the document is an error.
    """
    return _Parser(url).stack(document)


class _Parser:
    def __init__(self, url: str) -> None:
        self.url = url
        self.server = _STACK_PATH.sub("", url).rstrip("/") + "/"

    def stack(self, document: object) -> StackInfo:
        if not isinstance(document, dict):
            self.fail("", f"expected an object, got {_short(document)}")
        if is_failure(document):
            raise failure(OK, document, "stack info", self.url)
        orientation = document.get("orientation") or 0
        if not _is_integer(orientation) or orientation not in range(len(ORIENTATIONS)):
            self.fail("orientation", f"expected 0 (xy), 1 (xz) or 2 (zy), got {_short(orientation)}")
        mirrors = document.get("mirrors")
        if mirrors is None and "image_base" in document:
            mirrors = [document]  # before 2017.02 a stack was its own only mirror
        if mirrors is None:
            mirrors = []
        if not isinstance(mirrors, list):
            self.fail("mirrors", f"expected a list, got {_short(mirrors)}")
        parsed = [self.mirror(item, f"mirrors[{i}]", whole=item is document) for i, item in enumerate(mirrors)]
        return StackInfo(
            project_id=self.number(document, "pid"),
            stack_id=self.number(document, "sid"),
            title=_text(document.get("stitle")),
            project_title=_text(document.get("ptitle")),
            dimension_xyz=self.sizes(document, "dimension"),
            resolution_xyz=self.floats(document, "resolution", minimum=0.0),
            translation_xyz=self.floats(document, "translation") if "translation" in document else (0.0, 0.0, 0.0),
            orientation=orientation,
            downsample_factors=self.factors(document),
            broken_slices=self.broken(document),
            mirrors=tuple(sorted(parsed, key=lambda mirror: (mirror.position, mirror.title))),
            canary_xyz=self.canary(document),
            metadata=document.get("metadata"),
            document=document,
        )

    def mirror(self, item: object, where: str, *, whole: bool) -> Mirror:
        if not isinstance(item, dict):
            self.fail(where, f"expected an object, got {_short(item)}")
        prefix = "" if whole else f"{where}."
        width, height = (self.side(item, key, prefix) for key in ("tile_width", "tile_height"))
        if width * height > MAX_TILE_PIXELS:
            self.fail(f"{prefix}tile_width", f"tiles of {width} x {height} pixels are impossibly big")
        kind = item.get("tile_source_type")
        if not _is_integer(kind):
            self.fail(f"{prefix}tile_source_type", f"expected a whole number, got {_short(kind)}")
        base = item.get("image_base")
        if not isinstance(base, str):
            self.fail(f"{prefix}image_base", f"expected an address, got {_short(base)}")
        position = item.get("position")
        return Mirror(
            id=None if whole or item.get("id") is None else self.number(item, "id", prefix),
            title=_text(item.get("title")),
            image_base=base if kind in SERVED_BY_CATMAID else self.absolute(base, f"{prefix}image_base"),
            file_extension=_text(item.get("file_extension")),
            tile_width=width,
            tile_height=height,
            tile_source_type=kind,
            position=position if _is_integer(position) else 0,
        )

    def absolute(self, base: str, key: str) -> str:
        if urlsplit(base).scheme:
            return base
        if "://" not in self.server:
            self.fail(key, f"{base!r} is relative and there is no server: expected https://… or file:///…")
        # not urljoin on the whole: it would tidy the template's dots and slashes
        if base.startswith("//"):
            return f"{urlsplit(self.server).scheme}:{base}"
        return urljoin(self.server, "/") + base[1:] if base.startswith("/") else self.server + base

    def factors(self, document: Json) -> tuple[Triple, ...] | None:
        given = document.get("downsample_factors")
        if given is None or given == []:
            # before 2018.04 the number of levels was all there was
            last = document.get("num_zoom_levels")
            if "downsample_factors" in document or not _is_integer(last) or last < 0:
                return None
            if last >= MAX_LEVELS:
                self.fail("num_zoom_levels", f"expected less than {MAX_LEVELS}, got {last}")
            return tuple((1 << level, 1 << level, 1) for level in range(last + 1))
        if not isinstance(given, list) or len(given) > MAX_LEVELS:
            self.fail("downsample_factors", f"expected a list of at most {MAX_LEVELS}, got {_short(given)}")
        return tuple(self.triple(item, f"downsample_factors[{i}]") for i, item in enumerate(given))

    def broken(self, document: Json) -> frozenset[int]:
        given = document.get("broken_slices") or {}
        # a list in the importer's form of a stack
        if not isinstance(given, dict | list):
            self.fail("broken_slices", f"expected an object, got {_short(given)}")
        try:
            found = frozenset(int(key) for key in given)
        except (TypeError, ValueError):
            self.fail("broken_slices", f"expected whole numbers as keys, got {_short(list(given))}")
        return found

    def canary(self, document: Json) -> Triple:
        given = document.get("canary_location")
        if not isinstance(given, dict) or not all(_is_number(given.get(axis)) for axis in _TRIPLE):
            return 0, 0, 0
        x, y, z = (int(given[axis]) for axis in _TRIPLE)
        return x, y, z

    def sizes(self, document: Json, key: str) -> Triple:
        if key not in document:
            self.fail(key, "missing")
        return self.triple(document[key], key)

    def triple(self, value: object, key: str) -> Triple:
        if not isinstance(value, dict):
            self.fail(key, f"expected x, y and z, got {_short(value)}")
        for axis in _TRIPLE:
            number = value.get(axis)
            if not _is_integer(number) or not 1 <= number <= MAX_SIZE:
                self.fail(f"{key}.{axis}", f"expected a whole number from 1, got {_short(number)}")
        return value["x"], value["y"], value["z"]

    def floats(self, document: Json, key: str, minimum: float = -math.inf) -> FloatTriple:
        value = document.get(key)
        if not isinstance(value, dict):
            self.fail(key, "missing" if value is None else f"expected x, y and z, got {_short(value)}")
        for axis in _TRIPLE:
            number = value.get(axis)
            if not _is_number(number) or number < minimum:
                wanted = "a number" if minimum == -math.inf else "a number from 0"
                self.fail(f"{key}.{axis}", f"expected {wanted}, got {_short(number)}")
        return float(value["x"]), float(value["y"]), float(value["z"])

    def side(self, item: Json, key: str, prefix: str) -> int:
        value = item.get(key)
        if not _is_integer(value) or not 1 <= value <= MAX_TILE_SIDE:
            self.fail(f"{prefix}{key}", f"expected a whole number from 1 to {MAX_TILE_SIDE}, got {_short(value)}")
        return int(value)

    def number(self, item: Json, key: str, prefix: str = "") -> int:
        """An id, which some middleware sends as text; 0 where a stack told without a server has none."""
        value: object = item.get(key, 0)
        is_text = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _ID_DIGITS
        if not _is_integer(value) and not is_text:
            self.fail(f"{prefix}{key}", f"expected a whole number, got {_short(value)}")
        return int(str(value))

    def fail(self, key: str, problem: str) -> NoReturn:
        raise MetadataError(f"stack info: {key}: {problem}" if key else f"stack info: {problem}", url=self.url)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004  # fits a line
