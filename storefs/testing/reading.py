"""A store read the plain way, key by key, with keys spelled out as the zarr specifications say."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.sync import sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storefs.store import VirtualStore


def run(answer: Any) -> Any:  # noqa: ANN401  # any coroutine's value
    """The value of a coroutine, on zarr's event loop."""
    return sync(answer)


async def read(store: VirtualStore, key: str) -> bytes | None:
    """The bytes under `key`."""
    found = await store.get(key)
    return None if found is None else found.to_bytes()


def get(store: VirtualStore, key: str) -> bytes | None:
    """The bytes under `key`, waited for."""
    found: bytes | None = run(read(store, key))
    return found


async def collect(names: Any) -> list[str]:  # noqa: ANN401  # any asynchronous iterator
    """All of an asynchronous iterator."""
    return [name async for name in names]


def listed(store: VirtualStore) -> list[str]:
    """All keys of a store."""
    found: list[str] = run(collect(store.list()))
    return found


def is_document(key: str) -> bool:
    """Whether `key` names a metadata document."""
    return key.rsplit("/", 1)[-1] in ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


def without_members(document: dict[str, Any]) -> dict[str, Any]:
    """A document without consolidated metadata."""
    return {key: value for key, value in document.items() if key != "consolidated_metadata"}


def open_array(store: VirtualStore, path: str) -> zarr.Array[Any]:
    """The array at `path`."""
    return zarr.open_array(store, path=path, mode="r", zarr_format=store.source.presentation.zarr_format)


def cells(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Number of chunks along each axis."""
    return tuple(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))


def chunk_key(array: zarr.Array[Any], index: tuple[Any, ...]) -> str:
    """The key of a chunk, spelled out by the zarr specifications."""
    parts = [*([array.path] if array.path else []), *(["c"] if array.metadata.zarr_format == 3 else [])]  # noqa: PLR2004  # format number
    return "/".join([*parts, *map(str, index)])


def chunk_keys(array: zarr.Array[Any]) -> Iterator[str]:
    """The keys of all chunks of the grid."""
    return (chunk_key(array, index) for index in itertools.product(*map(range, cells(array))))
