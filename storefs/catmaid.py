"""CATMAID stacks beyond zarr: coordinates, reading by them, and tiles without a server.

    >>> import storefs.catmaid
    >>> stack = storefs.catmaid.Stack("catmaid://https://example.org/1/2")
    >>> stack.read([[0, 0, 0], [400, 4000, 4000]], space="project", level=2)  # nm, z y x

`catmaid://` addresses are opened by `storefs.open`, `zarr.open` and fsspec; this is what they do not say.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import default_buffer_prototype

from storefs.api import open as open_group
from storefs.backends.catmaid.info import StackInfo, parse_stack_info
from storefs.backends.catmaid.space import Order, Space, SpaceName
from storefs.errors import MetadataError, UrlError
from storefs.progress import Hook, Progress, progress_of
from storefs.store import VirtualStore

__all__ = ["Space", "Stack", "StackInfo", "open_tiles"]

Array = npt.NDArray[Any]
Slices = tuple[slice, ...]

TILES = "catmaid://tiles"
CHUNKS_AT_ONCE = 256
_SPATIAL_AXES = 3


def open_tiles(stack_info: Mapping[str, Any] | str | os.PathLike[str], **options: Any) -> zarr.Group:  # noqa: ANN401  # checked one by one
    """The stack that `stack_info` describes, as a zarr group, from its tiles alone: no CATMAID server is asked.

    `stack_info` is what a server answers to `…/stack/…/info`: a dictionary, JSON text, or the path of a JSON file.
    Options as for `storefs.open`. Raises MetadataError, UrlError, and what `storefs.open` raises.
    """
    return open_group(TILES, stack_info=_document(stack_info), **options)


class Stack:
    """A stack and its place in the project: `group` (zarr), `info`, `space`, and reading by coordinates.

    `address` is that of a stack (`catmaid://https://host/project/stack`) or what `open_tiles` takes. `catpy_axes` is
    that of Space; other options as for `storefs.open`. Raises what `storefs.open` raises.
    """

    def __init__(
        self,
        address: Mapping[str, Any] | str | os.PathLike[str],
        *,
        catpy_axes: bool = False,
        **options: Any,  # noqa: ANN401  # checked one by one
    ) -> None:
        if isinstance(address, str) and address.lstrip().startswith("catmaid:"):
            self.group = open_group(address, **options)
        else:
            self.group = open_tiles(address, **options)
        about: Mapping[str, Any] = self.group.attrs.get("storefs", {})  # type: ignore[assignment]  # JSON
        source = str(about.get("source", TILES))
        if "info" not in about or not any(True for _ in self.group.array_keys()):
            raise UrlError("this is the address of no stack but of a group of them: add a stack's id", url=source)
        self.info: StackInfo = parse_stack_info(about["info"], source)
        self.space = Space.from_stack_info(self.info, catpy_axes=catpy_axes)
        # zarr version 2 documents name none
        self._fill_value = _fill_value(self.group)

    def __repr__(self) -> str:
        return f"<Stack {self.info.title!r} {self.info.dimension_xyz} levels {', '.join(self._levels())}>"

    def read(
        self,
        roi: npt.ArrayLike,
        space: SpaceName = "stack",
        level: int = 0,
        out: Any = None,  # noqa: ANN401  # any array that takes slices
        order: Order = "zyx",
        progress: Hook | bool | None = None,  # noqa: FBT001  # as storefs.open takes it
    ) -> Any:  # noqa: ANN401  # an array, or out as it was
        """The voxels of `level` that `roi` touches: an array with its axes in `order`, channels in front.

        `roi` is (2, 3): lower and upper (exclusive) corner in `space`, columns in `order`; "project" is in nm, "stack"
        in voxels of level 0, "scaled" in those of `level`. Lower corners are rounded down, upper ones up. Outside of
        the stack is the fill value, without a request.

        With `out`, an array of the right shape, voxels are written there and `out` is given back. `progress` is
        that of `storefs.open`: a function of bytes done and to do, or True.

        Raises ValueError for what is no box and an `out` of another shape or of a dtype that cannot hold the voxels,
        IndexError for a level that is not there, and what reading an array raises.
        """
        shown, teller = self._array(level), progress_of(progress)
        start, stop = (tuple(map(int, corner)) for corner in self.space.box(roi, space, level, order))
        if order == "xyz":
            start, stop = start[::-1], stop[::-1]
        size = tuple(b - a for a, b in zip(start, stop, strict=True))
        shape = (*shown.channels, *size)
        if out is None and teller is None and shown.holds(start, stop):
            return _turned(shown.box(start, stop), order)
        target: Array = np.empty(shape, shown.array.dtype)
        if out is not None:
            expected = _turned(target, order).shape
            if np.shape(out) != expected:
                axes = "c" * len(shown.channels) + order
                raise ValueError(f"out must be of shape {expected} ({axes}), got {np.shape(out)}")
            dtype = getattr(out, "dtype", shown.array.dtype)
            if not np.can_cast(shown.array.dtype, dtype, "safe"):
                raise ValueError(f"out must be able to hold {shown.array.dtype}, got an array of {dtype}")
            target = _turned(out, order) if isinstance(out, np.ndarray) else target
        shown.read(start, stop, target, teller)
        if out is None:
            return _turned(target, order)
        if not isinstance(out, np.ndarray):
            out[...] = _turned(target, order)
        return out

    def _levels(self) -> list[str]:
        return sorted(self.group.array_keys(), key=int)

    def _array(self, level: int) -> _Shown:
        found = self.group.get(str(level))
        if not isinstance(found, zarr.Array):
            raise IndexError(f"no level {level!r}; the stack has levels {', '.join(self._levels())}")
        return _Shown(found, self._fill_value)


class _Shown:
    """An array of any presentation, read along z, y, x with channels in front."""

    def __init__(self, array: zarr.Array[Any], fill_value: int) -> None:
        names = getattr(array.metadata, "dimension_names", None) or ()
        self.array = array
        self.fill_value = fill_value
        # version 2 names no axes, and F order is how xyz is told there
        self.flipped = names[0] == "x" if names else array.order == "F"
        self.shape: tuple[int, ...] = array.shape[::-1] if self.flipped else array.shape
        self.chunks: tuple[int, ...] = array.chunks[::-1] if self.flipped else array.chunks

    @property
    def channels(self) -> tuple[int, ...]:
        """The shape in front of z, y, x."""
        return self.shape[:-_SPATIAL_AXES]

    def holds(self, start: tuple[int, ...], stop: tuple[int, ...]) -> bool:
        """Whether the box from `start` to `stop` (zyx) lies inside and is not empty."""
        size = self.shape[-_SPATIAL_AXES:]
        return all(0 <= a < b <= n for a, b, n in zip(start, stop, size, strict=True))

    def box(self, start: tuple[int, ...], stop: tuple[int, ...]) -> Array:
        """The voxels of a box that lies inside, zyx with channels in front."""
        selection = self._selection(start, stop)
        return np.asarray(self.array[selection[::-1]]).T if self.flipped else np.asarray(self.array[selection])

    def _selection(self, start: tuple[int, ...], stop: tuple[int, ...]) -> Slices:
        return (*(slice(0, n) for n in self.channels), *(slice(a, b) for a, b in zip(start, stop, strict=True)))

    def read(self, start: tuple[int, ...], stop: tuple[int, ...], target: Array, teller: Progress | None) -> None:
        """Fill `target` (zyx, channels in front), which reaches from `start` to `stop` of the array."""
        if not self.holds(start, stop):
            target[...] = self.fill_value
        size = self.shape[-_SPATIAL_AXES:]
        low = tuple(max(0, a) for a in start)
        high = tuple(min(n, b) for n, b in zip(size, stop, strict=True))
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return
        chunk = self.chunks[-_SPATIAL_AXES:]
        if teller is None:
            self._read_part(low, high, start, target)
            return
        teller.start(_chunks(low, high, chunk), self._nbytes(low, high))
        try:
            for first, last in _parts(low, high, chunk):
                self._read_part(first, last, start, target)
                teller.advance(_chunks(first, last, chunk), self._nbytes(first, last))
        finally:
            teller.finish()

    def _nbytes(self, low: tuple[int, ...], high: tuple[int, ...]) -> int:
        voxels = math.prod(b - a for a, b in zip(low, high, strict=True))
        return math.prod(self.channels) * voxels * self.array.dtype.itemsize

    def _read_part(self, low: tuple[int, ...], high: tuple[int, ...], start: tuple[int, ...], target: Array) -> None:
        selection = self._selection(low, high)
        at = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, start, strict=True))
        part = target[(slice(None),) * len(self.channels) + at]
        if self.flipped:
            selection, part = selection[::-1], part.T
        if part.dtype == self.array.dtype:
            # decoded where it belongs
            self.array.get_basic_selection(selection, out=default_buffer_prototype().nd_buffer.from_numpy_array(part))
        else:
            part[...] = self.array[selection]


def _fill_value(group: zarr.Group) -> int:
    store = group.store
    if not isinstance(store, VirtualStore):
        raise TypeError(f"expected a group of a VirtualStore, got one of {type(store).__name__}")
    return store.source.open().backend.hierarchy.arrays[0].fill_value


def _document(stack_info: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    if isinstance(stack_info, Mapping):
        return dict(stack_info)
    text = os.fspath(stack_info)
    is_json = isinstance(stack_info, str) and text.lstrip().startswith("{")
    try:
        document = json.loads(text if is_json else Path(text).read_bytes())
    except FileNotFoundError as error:
        raise UrlError("expected a stack info: a dictionary, JSON text or the path of a JSON file", url=text) from error
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"the stack info is not JSON: {error}", url=None if is_json else text) from error
    if not isinstance(document, dict):
        raise MetadataError(f"the stack info: expected an object, got {type(document).__name__}")
    return document


def _turned(array: Array, order: Order) -> Array:
    """`array`, zyx with channels in front, with its spatial axes in `order`; a view."""
    leading = array.ndim - _SPATIAL_AXES
    axes = range(leading, array.ndim)
    return array if order == "zyx" else array.transpose(*range(leading), *reversed(axes))


def _chunks(low: tuple[int, ...], high: tuple[int, ...], chunk: tuple[int, ...]) -> int:
    return math.prod(-(-b // c) - a // c for a, b, c in zip(low, high, chunk, strict=True))


def _parts(
    low: tuple[int, ...], high: tuple[int, ...], chunk: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The box in parts that are rows or slices of chunks, about CHUNKS_AT_ONCE each."""
    across = _chunks(low[2:], high[2:], chunk[2:])
    rows = _chunks(low[1:2], high[1:2], chunk[1:2])
    rows_at_once = max(1, min(rows, CHUNKS_AT_ONCE // across))
    slices_at_once = max(1, CHUNKS_AT_ONCE // (across * rows)) if rows_at_once == rows else 1
    for z0, z1 in _steps(low[0], high[0], chunk[0] * slices_at_once):
        for y0, y1 in _steps(low[1], high[1], chunk[1] * rows_at_once):
            yield (z0, y0, low[2]), (z1, y1, high[2])


def _steps(low: int, high: int, step: int) -> Iterator[tuple[int, int]]:
    """From `low` to `high` in steps that end at multiples of `step`."""
    while low < high:
        stop = min(high, (low // step + 1) * step)
        yield low, stop
        low = stop
