"""Zarr groups and arrays of a volume whose reads go through the engine; everything else is zarr's own."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype

from storefs.bulk_pipeline import BulkPipeline
from storefs.engine import open_reader
from storefs.interrupts import interruptible
from storefs.memory import empty
from storefs.points import coordinates_of
from storefs.store import VirtualStore
from storefs.window import basic_window

if TYPE_CHECKING:
    from zarr.core.buffer import BufferPrototype, NDBuffer

    from storefs.engine import Reader
    from storefs.window import Window

Node = zarr.Array[Any] | zarr.Group

_NUMPY_BUFFER = "zarr.buffer.cpu.NDBuffer"


class Array(zarr.Array[Any]):
    """A zarr array whose reads are planned as a whole and decoded by worker threads straight into the result.

    Reading gives what any zarr array gives, and raises DecodeError, Unsupported, MissingChunk or a TransportError,
    each naming chunk and URL. Ctrl-C ends a read within moments.
    """

    _reader: Reader | None = None

    def __init__(self, async_array: Any) -> None:  # noqa: ANN401  # generic over zarr's formats
        super().__init__(async_array)
        store = async_array.store_path.store
        if isinstance(store, VirtualStore) and not isinstance(async_array.codec_pipeline, BulkPipeline):
            pipeline = BulkPipeline(async_array.codec_pipeline, store, async_array.store_path.path)
            object.__setattr__(async_array, "codec_pipeline", pipeline)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_reader"}

    def __getitem__(self, selection: Any) -> Any:  # noqa: ANN401  # as zarr's
        """The voxels at `selection`: basic, orthogonal or by coordinates, as zarr tells them apart."""
        found = self._read(selection)
        if found is None:
            with interruptible():
                return super().__getitem__(selection)
        items = selection if isinstance(selection, tuple) else (selection,)
        # plain integers alone are an orthogonal selection for zarr, which is no scalar
        if found.ndim or (found.ndim == len(self.shape)) or all(isinstance(item, int) for item in items):
            return found
        return found[()]

    def get_basic_selection(
        self,
        selection: Any = Ellipsis,  # noqa: ANN401  # as zarr's
        *,
        out: NDBuffer | None = None,
        prototype: BufferPrototype | None = None,
        fields: Any = None,  # noqa: ANN401  # as zarr's
    ) -> Any:  # noqa: ANN401  # as zarr's
        """The voxels at integers and slices, into `out` where given."""
        found = self._read(selection) if _is_plain(out, fields, prototype) else None
        if found is not None:
            return found if found.ndim else found[()]
        with interruptible():
            return super().get_basic_selection(selection, out=out, prototype=prototype, fields=fields)

    def get_orthogonal_selection(self, selection: Any, **settings: Any) -> Any:  # noqa: ANN401  # as zarr's
        """The voxels at integers, slices and arrays, each along its own axis."""
        with interruptible():
            return super().get_orthogonal_selection(selection, **settings)

    def get_mask_selection(self, mask: Any, **settings: Any) -> Any:  # noqa: ANN401  # as zarr's
        """The voxels where `mask` is true."""
        with interruptible():
            return super().get_mask_selection(mask, **settings)

    def get_coordinate_selection(
        self,
        selection: Any,  # noqa: ANN401  # as zarr's
        *,
        out: NDBuffer | None = None,
        fields: Any = None,  # noqa: ANN401  # as zarr's
        prototype: BufferPrototype | None = None,
    ) -> Any:  # noqa: ANN401  # as zarr's
        """The voxels at coordinates, into `out` where given."""
        found = self._read_points(selection) if _is_plain(out, fields, prototype) else None
        if found is not None:
            return found
        with interruptible():
            return super().get_coordinate_selection(selection, out=out, fields=fields, prototype=prototype)

    def get_block_selection(self, selection: Any, **settings: Any) -> Any:  # noqa: ANN401  # as zarr's
        """The voxels of whole chunks."""
        with interruptible():
            return super().get_block_selection(selection, **settings)

    def _read(self, selection: Any) -> np.ndarray[Any, Any] | None:  # noqa: ANN401  # as zarr's
        """The voxels of a basic selection; None where it is none, or zarr has something to say about it."""
        reader = self._reader or self._open_reader()
        window = None if reader is None else basic_window(selection, reader.shape)
        if reader is None or window is None:
            return None
        out = self._empty(reader, window)
        if out is None:
            return None
        if out.size:
            reader.read(window, out.reshape(window.lengths, order="A"))
        return out

    def _read_points(self, selection: Any) -> np.ndarray[Any, Any] | None:  # noqa: ANN401  # as zarr's
        """The voxels at coordinates; None where it is something else, or zarr has something to say about it."""
        reader = self._reader or self._open_reader()
        points = None if reader is None else coordinates_of(selection, reader.shape)
        if reader is None or points is None or zarr.config.get("ndbuffer") != _NUMPY_BUFFER:
            return None
        found = reader.read_points(points)
        return None if found is None else found.reshape(points[0].shape)

    def _empty(self, reader: Reader, window: Window) -> np.ndarray[Any, Any] | None:
        """Memory for the result as zarr would make it; None where that is not numpy's."""
        if zarr.config.get("ndbuffer") != _NUMPY_BUFFER:
            return None
        return empty(window.shape, reader.dtype, self.order)

    def _open_reader(self) -> Reader | None:
        store = self.store_path.store
        # zarr is to raise for missing chunks itself
        if not isinstance(store, VirtualStore) or not getattr(self.config, "read_missing_chunks", True):
            return None
        self._reader = open_reader(store.source, self.store_path.path)
        return self._reader


class Group(zarr.Group):
    """A zarr group whose arrays, and those of all groups below it, are read as `Array` says."""

    def __getitem__(self, path: str) -> Any:  # noqa: ANN401  # an array or a group
        """The array or group at `path`. Raises KeyError."""
        return bulk(super().__getitem__(path))

    def members(self, *args: Any, **settings: Any) -> tuple[tuple[str, Any], ...]:  # noqa: ANN401  # as zarr's
        """The arrays and groups below, with their paths."""
        return tuple((path, bulk(node)) for path, node in super().members(*args, **settings))

    def groups(self) -> Generator[tuple[str, zarr.Group], None]:
        """The groups directly below, with their names."""
        for name, group in super().groups():
            yield name, Group(group._async_group)  # noqa: SLF001  # zarr offers no other way

    def arrays(self) -> Generator[tuple[str, zarr.Array[Any]], None]:
        """The arrays directly below, with their names."""
        for name, array in super().arrays():
            yield name, Array(array.async_array)

    if hasattr(zarr.Group, "get_array"):  # newer zarr only

        def get_array(self, path: str) -> Array:
            """The array at `path`. Raises ArrayNotFoundError, ContainsGroupError."""
            return Array(super().get_array(path).async_array)  # type: ignore[misc]  # newer zarr only

        def get_group(self, path: str) -> Group:
            """The group at `path`. Raises GroupNotFoundError, ContainsArrayError."""
            return Group(super().get_group(path)._async_group)  # type: ignore[misc]  # noqa: SLF001  # newer zarr only


def _is_plain(out: object, fields: object, prototype: object) -> bool:
    """Whether just voxels are asked for, in memory of the result's own."""
    return out is None and not fields and (prototype is None or prototype == default_buffer_prototype())


def bulk(node: Node) -> Array | Group:
    """`node` of a volume, read in bulk."""
    return Array(node.async_array) if isinstance(node, zarr.Array) else Group(node._async_group)  # noqa: SLF001  # zarr offers no other way
