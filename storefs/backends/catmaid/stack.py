"""A described stack: its arrays, and how their chunks are read from the mirror's tiles or from another volume."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from storefs.backend import MirrorState, Stored
from storefs.backends.catmaid.attributes import stack_attributes
from storefs.backends.catmaid.broken import shown_slice
from storefs.backends.catmaid.info import Mirror, StackInfo
from storefs.backends.catmaid.levels import Level, broken_at, levels_of
from storefs.backends.catmaid.mended import read_mended
from storefs.backends.catmaid.mirrors import (
    Choice,
    LevelView,
    MirrorWarning,
    StoredView,
    choose,
    name_of,
    successor,
    survey,
    type_name,
)
from storefs.backends.catmaid.probing import tile_bytes
from storefs.backends.catmaid.reading import Reading
from storefs.backends.catmaid.space import Space
from storefs.backends.catmaid.tile_sources import (
    Tile,
    is_turned,
    served,
    shown_url,
    tile_limit,
    tile_request,
    without_secrets,
)
from storefs.errors import Refused, TransportError, UrlError
from storefs.grid import Grid
from storefs.model import ArrayNode, ChunkId, Encoding, Hierarchy
from storefs.plans import At, Body, Get, Head, Once
from storefs_codecs.content_encoding import inflate

if TYPE_CHECKING:
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

_COLOURS = 3
# answered from a file: HEAD tells whether it is there
_FILES = frozenset({1, 4, 5})


def describe_stack(info: StackInfo, url: str, server: str, reading: Reading) -> Plan[StackBackend]:
    """The stack of `info`: picks the mirror, and asks it what its voxels are.

    Raises UrlError, MetadataError, Unsupported, TransportError.
    """
    levels = levels_of(info)
    unknown = [axis for axis, r in zip("xyz", info.resolution_xyz, strict=True) if r == 0]
    if unknown:
        warnings.warn(
            f"the server gives a resolution of 0 along {', '.join(unknown)}; 1 is taken instead [{url}]",
            MirrorWarning,
            stacklevel=2,
        )
    choice: Choice = yield from choose(info, url, reading)
    if np.dtype(choice.dtype).kind != "f" and reading.fill_value > np.iinfo(choice.dtype).max:
        raise UrlError(f"option fill_value: {reading.fill_value} does not fit in {choice.dtype}", url=url)
    return StackBackend(info, levels, choice, url, server, reading)


@dataclass(frozen=True, slots=True)
class _Successor:
    """The mirror that takes over from one that died, None where there is none."""

    mirror: Mirror | None
    nbytes: int = 0  # part of no budget


class StackBackend:
    """A described stack; level `n` is the array of path `str(n)`.

    Reads from one mirror. With `fallback` the next takes over when it dies, for good, so that it is waited for once.
    """

    def __init__(
        self, info: StackInfo, levels: tuple[Level, ...], choice: Choice, url: str, server: str, reading: Reading
    ) -> None:
        self.info = info
        self.url = url
        self.server = server
        self.reading = reading
        self.mirror = choice.mirror
        self.views = choice.views
        self._used: tuple[Mirror, ...] = (choice.mirror,)
        if choice.views is not None:
            self.levels = {str(level.number): level for level in levels if level.number in choice.views}
        else:
            self.levels = {str(level.number): level for level in served(choice.mirror, levels)}
        self._broken = {path: broken_at(info, level) for path, level in self.levels.items()}
        self._dtype = choice.dtype
        self._space = Space.from_stack_info(info).as_attributes()
        attributes = stack_attributes(info, url, choice)
        arrays = tuple(self._array(path, level) for path, level in self.levels.items())
        self.hierarchy = Hierarchy(info.title.strip() or str(info.stack_id), arrays, attributes)
        self._grids = {node.path: Grid(node.shape, node.chunk_shape) for node in arrays}

    @property
    def chosen(self) -> Mapping[str, str]:
        """The mirror, and what its voxels are."""
        if self.mirror.id is None:
            return {}
        return {"mirror": str(self.mirror.id)} | ({} if self.views is not None else {"dtype": self._dtype})

    # describing

    def _array(self, path: str, level: Level) -> ArrayNode:
        view = self.views[level.number] if self.views is not None else None
        if view is None:
            dtype, encoding = self._dtype, self._encoding()
            channels: tuple[int, ...] = (_COLOURS,) if self.reading.channels == "rgb" else ()
            chunk_shape: tuple[int, ...] = (*channels, 1, self.mirror.tile_height, self.mirror.tile_width)
        else:
            dtype, encoding, channels, chunk_shape = view.dtype, view.encoding, view.channels, view.chunk_shape
        x, y, z = (f * (r or 1.0) for f, r in zip(level.factor_xyz, self.info.resolution_xyz, strict=True))
        return ArrayNode(
            path=path,
            shape=channels + level.shape_zyx,
            chunk_shape=chunk_shape,
            dtype=dtype,
            encoding=encoding,
            dimension_names=("c", "z", "y", "x")[-len(chunk_shape) :],
            scale_nm=(1.0,) * len(channels) + (z, y, x),
            # positions in the stack are voxel corners, OME-Zarr means centres
            translation_nm=(0.0,) * len(channels) + (z / 2, y / 2, x / 2),
            voxel_offset_xyz=(0, 0, 0),
            resolution_xyz=(x, y, z),
            attributes={
                "level": level.number,
                "factor_xyz": list(level.factor_xyz),
                "space": self._space,
                **(view.attributes if view is not None else {}),
            },
            fill_value=self.reading.fill_value,
        )

    def _encoding(self) -> Encoding:
        configuration: dict[str, Any] = {"channels": self.reading.channels}
        if self.reading.fill_value:
            configuration["fill_value"] = self.reading.fill_value
        if is_turned(self.mirror, self.info.orientation):
            configuration["turned"] = True
        return Encoding("tile", configuration)

    def name(self, chunk: ChunkId) -> str:
        """Level and first voxel (x, y, z) of the chunk, and the tile's address."""
        level = self.levels[chunk.array]
        if self.views is not None:
            z, y, x = self._grids[chunk.array].origin(chunk.index)[-3:]
            return f"level {level.number} at voxel {x},{y},{z}"
        depth, row, col = chunk.index[-3:]
        tile = self._tile(chunk)
        where = "" if tile is None else f" ({shown_url(self.mirror, self.info, self.server, tile)})"
        return f"level {level.number}, slice {depth}, row {row}, column {col}{where}"

    def mirrors(self) -> Plan[list[MirrorState]]:
        """Every mirror of the stack, each asked for a tile."""
        problems = yield from survey(self.info, self.url, self.reading)
        return [
            MirrorState(
                group="",
                id=mirror.id,
                title=mirror.title,
                position=mirror.position,
                kind=f"{mirror.tile_source_type} ({type_name(mirror)})",
                tile_size=(mirror.tile_width, mirror.tile_height),
                extension=mirror.file_extension,
                url=without_secrets(mirror.image_base).partition("?")[0],
                problem=problem,
                is_read=mirror == self.mirror,
            )
            for mirror, problem in problems.items()
        ]

    # reading

    def read(self, chunk: ChunkId) -> Plan[Stored | None]:
        """The tile as it came, or the voxels of another volume; None where there are none, or the slice is broken.

        Raises TransportError, DecodeError.
        """
        view = self._view(chunk)
        if view is not None and isinstance(view, StoredView):  # asking a protocol takes longer than a tile's address
            return (yield from view.stored(chunk.index))
        if view is not None:
            voxels = yield from self._read_view(view, chunk.array, *self._span(chunk))
            # turning axes is work for a thread
            return None if voxels is None else partial(_plain_bytes, voxels)
        tile = self._tile(chunk)
        if tile is None:
            return None
        answer = yield from self._ask(tile)
        if isinstance(answer, Body) and answer.content_encoding:
            return partial(inflate, answer.data, answer.content_encoding, limit=tile_limit(self.mirror))
        return tile_bytes(answer, tile_limit(self.mirror), self.url)

    def read_box(self, chunk: ChunkId, start: tuple[int, ...], stop: tuple[int, ...]) -> Plan[Array] | None:
        """Just the voxels from `start` to `stop` in the chunk, where another volume gives less than a chunk for less.

        Raises TransportError, DecodeError.
        """
        view = self._view(chunk)
        if view is None or not view.in_parts:
            return None
        origin = self._grids[chunk.array].origin(chunk.index)
        low, high = (tuple(o + n for o, n in zip(origin, corner, strict=True)) for corner in (start, stop))
        return self._read_part(view, chunk.array, low, high)

    def exists(self, chunk: ChunkId) -> Plan[bool]:
        """Whether the mirror has the tile; never for a slice that is broken and filled."""
        tile = None if self.views is not None else self._tile(chunk)
        if tile is None or self.mirror.tile_source_type not in _FILES:
            return (yield from self.read(chunk)) is not None
        request = self._request(self.mirror, tile)
        if isinstance(request, At) and isinstance(request.request, Get):
            request = At(Head(request.request.path), request.account)
        return (yield request) is not None

    def _ask(self, tile: Tile) -> Plan[Any]:
        while True:
            mirror = self.mirror
            try:
                return (yield self._request(mirror, tile))
            except Refused:
                raise
            except TransportError as error:
                if not self.reading.fallback:
                    raise
                yield from self._fall_back(mirror, error)

    def _fall_back(self, dead: Mirror, error: TransportError) -> Plan[None]:
        """Go on with the next mirror, for all that is read from now on. Raises `error` where there is none."""
        if self.mirror != dead:
            return  # another tile's failure has been here before
        used = self._used
        found: _Successor = yield Once(("successor", self.url, dead), lambda: self._successor(used))
        if found.mirror is None:
            raise error
        if self.mirror == dead:
            self.mirror = found.mirror
            self._used = (*used, found.mirror)
            warnings.warn(
                f"{name_of(dead)} fails ({error.message}); reading goes on from {name_of(found.mirror)} [{self.url}]",
                MirrorWarning,
                stacklevel=2,
            )

    def _successor(self, used: tuple[Mirror, ...]) -> Plan[_Successor]:
        return _Successor((yield from successor(self.info, self.url, self.reading, used, self._dtype)))

    def _request(self, mirror: Mirror, tile: Tile) -> Any:  # noqa: ANN401  # At or Call
        account = self.reading.account(mirror)
        return tile_request(mirror, self.info, tile, account=account, query=self.reading.flix_query)

    def _tile(self, chunk: ChunkId) -> Tile | None:
        """The tile that is shown as `chunk`, None where a broken slice is filled."""
        level = self.levels[chunk.array]
        depth, row, col = chunk.index[-3:]
        shown = self._shown(chunk.array, depth)
        return None if shown is None else Tile(level.number, col, row, shown)

    def _shown(self, array: str, depth: int) -> int | None:
        count = self.levels[array].shape_zyx[0]
        return shown_slice(depth, count, self._broken[array], self.reading.broken)

    def _view(self, chunk: ChunkId) -> LevelView | None:
        return None if self.views is None else self.views[self.levels[chunk.array].number]

    def _span(self, chunk: ChunkId) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Start and stop of a chunk in its array."""
        grid = self._grids[chunk.array]
        start = grid.origin(chunk.index)
        return start, tuple(o + n for o, n in zip(start, grid.extent(chunk.index), strict=True))

    def _read_view(
        self, view: LevelView, array: str, start: tuple[int, ...], stop: tuple[int, ...]
    ) -> Plan[Array | None]:
        return read_mended(view, start, stop, partial(self._shown, array), self.reading.fill_value)

    def _read_part(self, view: LevelView, array: str, start: tuple[int, ...], stop: tuple[int, ...]) -> Plan[Array]:
        voxels = yield from self._read_view(view, array, start, stop)
        if voxels is not None:
            return voxels
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        return np.full(shape, self.reading.fill_value, view.dtype)


def _plain_bytes(voxels: Array) -> memoryview:
    return np.ascontiguousarray(voxels).reshape(-1).view(np.uint8).data
