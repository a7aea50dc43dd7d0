"""Mirrors of type 11: N5 datasets, one for each level, whose blocks are the chunks of an array. Pure.

    …/volume.n5/group/%SCALE_DATASET%/a_b_c     datasets s0, s1, … until one is missing
    …/volume.n5/group/dataset/a_b_c             one level

The last part says which of the dataset's dimensions lie along the stack's x, y and z. What a dataset holds says its
attributes.json (https://github.com/saalfeldlab/n5), whose lists begin with the dimension that varies fastest.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from storefs.backend import Stored
from storefs.backends.catmaid.levels import broken_at
from storefs.backends.catmaid.tile_sources import without_secrets
from storefs.backends.catmaid.views import SCALE_TOKEN, split_axes
from storefs.errors import MetadataError, NoSuchVolume, StorefsError, Unsupported
from storefs.grid import Grid
from storefs.model import Encoding
from storefs.plans import At, Body, Get, Race
from storefs_codecs.content_encoding import inflate
from storefs_codecs.n5_block import DECOMPRESS, N5Block

if TYPE_CHECKING:
    from storefs.backends.catmaid.info import Mirror, StackInfo, Triple
    from storefs.backends.catmaid.levels import Level
    from storefs.backends.catmaid.reading import Reading
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

N5_BLOCKS = 11
ATTRIBUTES = "attributes.json"
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")

_MAX_ATTRIBUTES = 1 << 24
_MAX_BLOCK_BYTES = 1 << 32
_WIDEST = 8
_SLACK = 1 << 16


@dataclass(frozen=True, slots=True)
class Dataset:
    """One N5 dataset at `url`; `size` and `block_size` are along its own dimensions, the fastest first.

    `axes_xyz` are its dimensions along the stack's x, y, z.
    """

    url: str
    size: Triple
    block_size: Triple
    dtype: str
    compression: Mapping[str, Any]
    axes_xyz: Triple
    document: Mapping[str, Any]

    @property
    def grid(self) -> Grid:
        """The blocks along the stack's axes, zyx."""
        return Grid(self._along(self.size), self._along(self.block_size))

    def _along(self, numbers: Triple) -> tuple[int, int, int]:
        x, y, z = (numbers[axis] for axis in self.axes_xyz)
        return z, y, x

    @property
    def encoding(self) -> Encoding:
        """How blocks are stored."""
        return Encoding("n5_block", {"compression": dict(self.compression), "order": list(self.axes_xyz)})

    def block_url(self, index_zyx: tuple[int, ...]) -> str:
        """The address of the block at `index_zyx` of the grid along the stack's axes."""
        place = [0, 0, 0]
        for axis, n in zip(self.axes_xyz, index_zyx[::-1], strict=True):
            place[axis] = n
        return "/".join([self.url, *map(str, place)])


@dataclass(frozen=True, slots=True)
class N5Voxels:
    """A level of the stack as the voxels of a dataset; `account` is that of the mirror."""

    dataset: Dataset
    account: str

    @property
    def encoding(self) -> Encoding:
        """How chunks are handed on: decoded."""
        return Encoding("raw")

    @property
    def dtype(self) -> str:
        """Data type of the voxels."""
        return self.dataset.dtype

    @property
    def channels(self) -> tuple[int, ...]:
        """The shape in front of z, y, x: none."""
        return ()

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """A block's, zyx."""
        return self.dataset.grid.chunk_shape

    @property
    def size_zyx(self) -> tuple[int, ...]:
        """The dataset's."""
        return self.dataset.grid.shape

    @property
    def in_parts(self) -> bool:
        """Blocks come whole."""
        return False

    @property
    def attributes(self) -> Mapping[str, object]:
        """Where the voxels come from."""
        return {
            "dataset": without_secrets(self.dataset.url),
            "dataset_axes": list(self.dataset.axes_xyz),
            "dataset_attributes": dict(self.dataset.document),
        }

    def read(self, start: tuple[int, ...], stop: tuple[int, ...], fill_value: int = 0) -> Plan[Array | None]:
        """Voxels of the level from `start` to `stop` (zyx), None where no block is stored.

        Raises TransportError, DecodeError.
        """
        grid, encoding = self.dataset.grid, self.dataset.encoding
        codec = N5Block(grid.chunk_shape, self.dtype, **encoding.configuration)
        out: Array | None = None
        cells = (range(a // c, -(-b // c)) for a, b, c in zip(start, stop, grid.chunk_shape, strict=True))
        for index in itertools.product(*cells):
            stored = yield from self.block(index)
            if stored is None:
                continue
            if out is None:
                shape = tuple(b - a for a, b in zip(start, stop, strict=True))
                out = np.full(shape, fill_value, self.dtype)
            origin, extent = grid.origin(index), grid.extent(index)
            block = codec.decode_chunk(stored() if callable(stored) else stored, extent=extent)
            inside = tuple(
                slice(max(0, a - o), min(n, b - o)) for a, b, o, n in zip(start, stop, origin, extent, strict=True)
            )
            at = tuple(slice(s.start + o - a, s.stop + o - a) for s, o, a in zip(inside, origin, start, strict=True))
            out[at] = block[inside]
        return out

    def block(self, index_zyx: tuple[int, ...]) -> Plan[Stored | None]:
        """The block as stored, None where absent. Raises TransportError."""
        if index_zyx not in self.dataset.grid:
            return None  # the stack may be larger than the dataset
        limit = block_limit(self.dataset)
        body: Body | None = yield At(Get(self.dataset.block_url(index_zyx), limit=limit), self.account)
        if body is None or not body.content_encoding:
            return None if body is None else body.data
        return partial(inflate, body.data, body.content_encoding, limit=limit)


class N5Blocks(N5Voxels):
    """A level of the stack as the blocks of a dataset, which are handed on as stored."""

    @property
    def encoding(self) -> Encoding:
        """How chunks are handed on: as stored."""
        return self.dataset.encoding

    def stored(self, index: tuple[int, ...]) -> Plan[Stored | None]:
        """The chunk at `index` as stored, None where absent. Raises TransportError."""
        return self.block(index)


def find_datasets(
    mirror: Mirror, info: StackInfo, levels: tuple[Level, ...], reading: Reading
) -> Plan[dict[int, N5Voxels] | None]:
    """The levels of `mirror` by number. Raises NoSuchVolume, MetadataError naming the key at fault, TransportError."""
    account = reading.account(mirror)
    found: dict[int, N5Voxels] = {}
    datasets = yield from _datasets(mirror, levels, account)
    for level in levels:
        if level.number in datasets:
            # what is not in the blocks themselves has to be put between their voxels
            mended = reading.fill_value or broken_at(info, level)
            kind = N5Voxels if mended else N5Blocks
            found[level.number] = kind(datasets[level.number], account)
    return found


def _datasets(mirror: Mirror, levels: tuple[Level, ...], account: str) -> Plan[dict[int, Dataset]]:
    template, axes = split_axes(mirror.image_base)
    if axes is None:
        shown = without_secrets(mirror.image_base)
        raise MetadataError(f"N5: {shown}: expected an address that ends in the order of axes, such as /0_1_2")
    numbers = [level.number for level in levels] if SCALE_TOKEN in template else [levels[0].number]
    addresses = {n: template.replace(SCALE_TOKEN, f"s{n}", 1).rstrip("/") for n in numbers}
    asked = (At(Get(f"{address}/{ATTRIBUTES}", limit=_MAX_ATTRIBUTES), account) for address in addresses.values())
    answers = yield Race(tuple(asked))
    found: dict[int, Dataset] = {}
    for (number, address), (answer, _) in zip(addresses.items(), answers, strict=True):
        if isinstance(answer, StorefsError):
            raise answer
        if answer is None:
            break
        found[number] = parse_attributes(_json(answer, address), address, axes)
    if not found:
        first = without_secrets(next(iter(addresses.values())))
        raise NoSuchVolume(f"no N5 dataset here: there is no {ATTRIBUTES}", url=first)
    return found


def block_limit(dataset: Dataset) -> int:
    """Most bytes that a block can have as stored; compressing noise makes it longer."""
    return 2 * math.prod(dataset.block_size) * np.dtype(dataset.dtype).itemsize + _SLACK


def parse_attributes(document: object, url: str, axes_xyz: Triple) -> Dataset:
    """The dataset at `url` that `document` describes. Raises MetadataError naming the key at fault."""
    if not isinstance(document, dict):
        _fail(url, "", f"expected an object, got {type(document).__name__}")
    dtype = document.get("dataType")
    if dtype not in DTYPES:
        _fail(url, "dataType", f"expected one of {', '.join(DTYPES)}, got {dtype!r}")
    block_size = _triple(document, "blockSize", url)
    if math.prod(block_size) * _WIDEST > _MAX_BLOCK_BYTES:
        _fail(url, "blockSize", f"{block_size} is impossibly big")
    return Dataset(
        url=url,
        size=_triple(document, "dimensions", url, least=0),
        block_size=block_size,
        dtype=str(dtype),
        compression=_compression(document, url),
        axes_xyz=axes_xyz,
        document=document,
    )


def _compression(document: Mapping[str, Any], url: str) -> Mapping[str, Any]:
    """As an object with a `type`; the first version of N5 had a mere name."""
    given = document.get("compression", document.get("compressionType"))
    if isinstance(given, str):
        given = {"type": given}
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        _fail(url, "compression", f"expected an object with a type, got {given!r}")
    if given["type"] not in DECOMPRESS:
        offered = ", ".join(DECOMPRESS)
        problem = f"compression: {given['type']!r} is not offered; offered are {offered}"
        raise Unsupported(f"N5 {ATTRIBUTES}: {problem}", url=without_secrets(url))
    return given


def _triple(document: Mapping[str, Any], key: str, url: str, least: int = 1) -> Triple:
    value = document.get(key)
    if not isinstance(value, list) or not all(type(n) is int and least <= n < 1 << 53 for n in value):
        _fail(url, key, f"expected a list of whole numbers, got {value!r}")
    if len(value) != 3:  # noqa: PLR2004  # x, y and z
        problem = f"{key}: {len(value)} dimensions; offered are datasets of three"
        raise Unsupported(f"N5 {ATTRIBUTES}: {problem}", url=without_secrets(url))
    x, y, z = value
    return x, y, z


def _json(body: Body, url: str) -> object:
    try:
        return json.loads(bytes(body.data))
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"N5 {ATTRIBUTES}: this is no JSON: {error}", url=without_secrets(url)) from error


def _fail(url: str, key: str, problem: str) -> NoReturn:
    message = f"N5 {ATTRIBUTES}: {key}: {problem}" if key else f"N5 {ATTRIBUTES}: {problem}"
    raise MetadataError(message, url=without_secrets(url))
