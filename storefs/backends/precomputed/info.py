"""The `info` file of a precomputed volume, parsed once into frozen values.

Follows https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md and is as lenient as
its readers together: a byte order mark, upper case, integral floats and numeric strings, absent voxel_offset and
@type, `"sharding": null` and unknown keys are all accepted. What makes no sense is a MetadataError naming the key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

from storefs.backends.precomputed.document import Json, clipped, shown
from storefs.backends.precomputed.sharding import Sharding, parse_sharding
from storefs.errors import MetadataError, Unsupported
from storefs.model import Encoding

Triple = tuple[int, int, int]

MAX_INFO_BYTES = 64 << 20
MAX_CHUNK_BYTES = 1 << 36
MAX_SIZE = 1 << 50  # zarr divides in floating point
MAX_RESOLUTION = 1e100  # positions must not overflow either
MAX_MESSAGE = 300
MAX_INTEGER = 1 << 62
MAX_BLOCK_VOXELS = 1 << 24

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
VOLUME_TYPE = "neuroglancer_multiscale_volume"

_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
ENCODINGS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    # encoding: data types, numbers of channels (empty: any)
    "raw": (DTYPES, ()),
    "jpeg": (("uint8",), (1, 3)),
    "png": (("uint8", "uint16"), (1, 2, 3, 4)),
    "jxl": (("uint8",), (1, 3, 4)),
    "compressed_segmentation": (("uint32", "uint64"), ()),
    "compresso": (_UNSIGNED, (1,)),
    "crackle": (_UNSIGNED, (1,)),
    "fpzip": (("float32", "float64"), ()),
    "kempressed": (("float32",), ()),
}
QUALITY_KEYS = {"jpeg": {"quality": "jpeg_quality"}, "png": {"level": "png_level"}}


@dataclass(frozen=True, slots=True)
class Scale:
    """One scale. Triples are in x, y, z order as in the file; resolution in nm per voxel."""

    key: str
    size_xyz: Triple
    resolution_xyz: tuple[float, float, float]
    voxel_offset_xyz: Triple
    chunk_size_xyz: Triple
    chunk_sizes: tuple[Triple, ...]
    encoding: Encoding
    sharding: Sharding | None
    unsupported: str | None


@dataclass(frozen=True, slots=True)
class Info:
    """A volume's description; `document` is the file as it was, unknown keys included."""

    kind: str
    dtype: str
    channels: int
    scales: tuple[Scale, ...]
    document: Json


def parse_info(document: Json, url: str, chunk_size_xyz: Triple | None = None) -> Info:
    """The volume that `document` describes; `chunk_size_xyz` picks among several chunk_sizes.

    Raises MetadataError naming the key at fault.
    """
    return _Parser(url, chunk_size_xyz).info(document)


class _Parser:
    """Reads the keys of one info file; knows the address for its messages."""

    def __init__(self, url: str, chunk_size_xyz: Triple | None) -> None:
        self.url = url
        self.wanted = chunk_size_xyz

    def info(self, document: Json) -> Info:
        kind = document.get("@type", VOLUME_TYPE)
        if kind != VOLUME_TYPE:
            self.fail("@type", f"this is {shown(kind)}, not a volume ({VOLUME_TYPE})")
        volume_type = document.get("type", "image")
        if not isinstance(volume_type, str):
            self.fail("type", f"expected text, got {shown(volume_type)}")
        dtype = self.text(document, "data_type", "").lower()
        if dtype not in DTYPES:
            self.fail("data_type", f"expected one of {', '.join(DTYPES)}, got {shown(document['data_type'])}")
        channels = self.integer(self.need(document, "num_channels", ""), "num_channels", minimum=1)
        scales = self.need(document, "scales", "")
        if not isinstance(scales, list) or not scales:
            self.fail("scales", f"expected a list of at least one scale, got {shown(scales)}")
        parsed = tuple(self.scale(item, f"scales[{i}]", dtype, channels) for i, item in enumerate(scales))
        return Info(volume_type.lower(), dtype, channels, parsed, document)

    def scale(self, item: object, where: str, dtype: str, channels: int) -> Scale:
        if not isinstance(item, dict):
            self.fail(where, f"expected an object, got {shown(item)}")
        chunk_sizes = self.chunk_sizes(item, where)
        chunk_size = self.chosen(chunk_sizes, where)
        if math.prod(chunk_size) * channels * 8 > MAX_CHUNK_BYTES:
            self.fail(where, f"a chunk of {chunk_size} voxels and {channels} channels is impossibly big")
        size = self.triple(item, "size", where, minimum=0)
        if max(size) > MAX_SIZE:
            self.fail(f"{where}.size", f"expected at most 2^50 voxels along an axis, got {shown(item['size'])}")
        sharding = None
        if item.get("sharding") is not None:
            if len(chunk_sizes) > 1:
                self.fail(f"{where}.chunk_sizes", "a sharded scale must have exactly one chunk size")
            grid = tuple(-(-n // c) for n, c in zip(size, chunk_size, strict=True))
            try:
                sharding = parse_sharding(item["sharding"], grid)  # type: ignore[arg-type]  # three cells
            except ValueError as error:
                self.fail(f"{where}.sharding", str(error))
        encoding, unsupported = self.encoding(item, where, dtype, channels)
        offset = self.triple(item, "voxel_offset", where) if item.get("voxel_offset") is not None else (0, 0, 0)
        return Scale(
            key=self.key(item, where),
            size_xyz=size,
            resolution_xyz=self.resolution(item, where),
            voxel_offset_xyz=offset,
            chunk_size_xyz=chunk_size,
            chunk_sizes=chunk_sizes,
            encoding=encoding,
            sharding=sharding,
            unsupported=unsupported,
        )

    def chosen(self, chunk_sizes: tuple[Triple, ...], where: str) -> Triple:
        if self.wanted is None or self.wanted in chunk_sizes:
            return self.wanted or chunk_sizes[0]
        if where == "scales[0]":
            raise Unsupported(
                f"chunk_size {list(self.wanted)} is not offered; the info has {[list(c) for c in chunk_sizes]}",
                url=self.url,
            )
        return chunk_sizes[0]

    def key(self, item: Json, where: str) -> str:
        key = self.need(item, "key", where)
        if not isinstance(key, str):
            self.fail(f"{where}.key", f"expected text, got {shown(key)}")
        parts: list[str] = []
        for part in key.split("/"):
            if part == ".." and parts and parts[-1] != "..":
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        if not _is_text(key):
            self.fail(f"{where}.key", f"expected Unicode text, got {shown(key)}")
        if key.startswith("/") or "://" in key or "\\" in key or "\0" in key:
            self.fail(f"{where}.key", f"expected a path relative to the info, got {shown(key)}")
        if parts.count("..") > 1 or parts == [".."]:
            self.fail(f"{where}.key", f"{shown(key)} leaves the folder that holds the volume")
        return "/".join(parts)

    def resolution(self, item: Json, where: str) -> tuple[float, float, float]:
        x, y, z = (self.number(n, f"{where}.resolution") for n in self.three(item, "resolution", where))
        if not all(0 < n <= MAX_RESOLUTION for n in (x, y, z)):
            self.fail(f"{where}.resolution", f"expected three positive numbers of nm, got {shown(item['resolution'])}")
        return x, y, z

    def chunk_sizes(self, item: Json, where: str) -> tuple[Triple, ...]:
        listed = self.need(item, "chunk_sizes", where)
        if not isinstance(listed, list) or not listed or not all(isinstance(c, list) for c in listed):
            self.fail(f"{where}.chunk_sizes", f"expected a list of [x, y, z], got {shown(listed)}")
        return tuple(self.triple({"chunk_sizes": size}, "chunk_sizes", where, minimum=1) for size in listed)

    def encoding(self, item: Json, where: str, dtype: str, channels: int) -> tuple[Encoding, str | None]:
        name = self.text(item, "encoding", where).lower()
        if name not in ENCODINGS:
            return Encoding(name), f"encoding {shown(name)} is not offered; offered are {', '.join(ENCODINGS)}"
        dtypes, counts = ENCODINGS[name]
        if dtype not in dtypes:
            self.fail(f"{where}.encoding", f"{name} stores {', '.join(dtypes)}, the volume is {dtype}")
        if counts and channels not in counts:
            self.fail(f"{where}.encoding", f"{name} stores {counts} channels, the volume has {channels}")
        if name == "compressed_segmentation":
            block = self.triple(item, "compressed_segmentation_block_size", where, minimum=1)
            if math.prod(block) > MAX_BLOCK_VOXELS:
                self.fail(f"{where}.compressed_segmentation_block_size", f"{block} is impossibly big")
            return Encoding(name, {"block_size": list(block)}), None
        settings = {}
        for keyword, key in QUALITY_KEYS.get(name, {}).items():
            if isinstance(item.get(key), int):
                settings[keyword] = item[key]
        return Encoding(name, settings), None

    # single values

    def need(self, item: Json, key: str, where: str) -> Any:  # noqa: ANN401  # any JSON value
        if key not in item:
            self.fail(_join(where, key), "is missing")
        return item[key]

    def text(self, item: Json, key: str, where: str) -> str:
        value = self.need(item, key, where)
        if not isinstance(value, str):
            self.fail(_join(where, key), f"expected text, got {shown(value)}")
        return value

    def three(self, item: Json, key: str, where: str) -> list[Any]:
        value = self.need(item, key, where)
        if not isinstance(value, list) or len(value) != 3:  # noqa: PLR2004  # x, y and z
            self.fail(_join(where, key), f"expected [x, y, z], got {shown(value)}")
        return value

    def triple(self, item: Json, key: str, where: str, minimum: int = -MAX_INTEGER) -> Triple:
        at = _join(where, key)
        x, y, z = (self.integer(n, at, minimum=minimum) for n in self.three(item, key, where))
        return x, y, z

    def integer(self, value: object, where: str, *, minimum: int) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        else:
            real = self.number(value, where)
            if not real.is_integer():
                self.fail(where, f"expected a whole number, got {shown(value)}")
            number = int(value) if isinstance(value, str) and value.strip("+-").isdecimal() else int(real)
        if not minimum <= number <= MAX_INTEGER:
            self.fail(where, f"expected a whole number of at least {minimum}, got {shown(value)}")
        return number

    def number(self, value: object, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.fail(where, f"expected a number, got {shown(value)}")
        try:
            number = float(value)
        except (ValueError, OverflowError):
            self.fail(where, f"expected a number, got {shown(value)}")
        return number

    def fail(self, key: str, problem: str) -> NoReturn:
        raise MetadataError(f"info: {key}: {clipped(problem, MAX_MESSAGE)}", url=self.url)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _is_text(value: str) -> bool:
    """Whether `value` can be written as UTF-8: JSON can hold halves of characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)
