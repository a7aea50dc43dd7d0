"""VirtualFileSystem: Sources as an fsspec filesystem, read only.

A path is a volume's address followed by a zarr key, such as `gs://bucket/layer/0/c/1/2/3`.
"""

from __future__ import annotations

import asyncio
import io
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.chained import ChainedFileSystem

from storefs.errors import NoSuchVolume, TransportError
from storefs.options import picklable, split_query

if TYPE_CHECKING:
    from storefs.options import Reader
    from storefs.source import Source

T = TypeVar("T")
Payload = bytes | memoryview

_DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_DOCUMENT = "|".join(re.escape(name) for name in _DOCUMENTS)
# what may follow a volume's address: a document, or an array and in it a document or (part of) a chunk key
_KEY = re.compile(rf"(?:{_DOCUMENT})?|\d+(?:/(?:{_DOCUMENT}))?|\d+(?:/c)?(?:/\d+)*")
_DEEPEST_KEY = 8
_FSSPEC_OPTIONS = ("asynchronous", "loop", "batch_size", "skip_instance_cache", "use_listings_cache", "max_paths")


class VirtualFileSystem(AsyncFileSystem, ChainedFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Volumes of one format as files, read only; `options` as for `storefs.open`."""

    async_impl = True
    own_options: ClassVar[Mapping[str, Reader]] = {}

    def __init__(
        self,
        fo: str | None = None,  # noqa: ARG002  # the chained path, which comes with every call too
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401  # checked when a volume is opened
    ) -> None:
        passed = {name: options.pop(name) for name in _FSSPEC_OPTIONS if name in options}
        super().__init__(**passed)
        self.target_protocol = target_protocol
        if target_options:
            options["target_options"] = target_options
        self.options = options
        self._sources: dict[str, Source] = {}

    def open_source(self, address: str, options: Mapping[str, Any]) -> Source:
        """The Source of the volume at `address`."""
        raise NotImplementedError

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # noqa: ANN401  # text or a list of texts
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        text = str(path)
        own = f"{cls.protocol}://"
        inner = text.removeprefix(own).partition("?")[0].partition("|")[0]
        if text.startswith(own) and "://" not in inner and inner:
            inner = posixpath.abspath(posixpath.expanduser(inner))
        return inner.rstrip("/")

    @classmethod
    def _get_kwargs_from_urls(cls, path: str) -> dict[str, Any]:
        return split_query(path.removeprefix(f"{cls.protocol}://"), cls.own_options)[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), picklable(self.storage_options))

    def __dask_tokenize__(self) -> tuple[str, str]:
        return type(self).__qualname__, repr(sorted(picklable(self.storage_options).items(), key=str))

    # which volume

    async def _resolve(self, path: str) -> tuple[Source, str]:
        """The volume that `path` lies in, and the zarr key. Raises NoSuchVolume, MetadataError, TransportError."""
        text = self._strip_protocol(path)
        address = f"{self.target_protocol}://{text}" if self.target_protocol else text
        for known, source in self._sources.items():
            if address == known or address.startswith(known + "/"):
                key = address[len(known) + 1 :]
                if _KEY.fullmatch(key):
                    return source, key
        refused: NoSuchVolume | None = None
        for root, key in _splits(address):
            source = self.open_source(root, self.options)
            try:
                await source.open_async()
            except NoSuchVolume as error:
                refused = refused or error
                continue
            return self._sources.setdefault(root, source), key
        raise refused or NoSuchVolume("this names no volume", url=address)

    # reading

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:  # noqa: ANN401  # fsspec passes more
        try:
            source, key = await self._resolve(path)
        except NoSuchVolume as error:
            # zarr takes a FileNotFoundError for "nothing here yet" and loses the message
            raise TransportError(error.message, url=error.url) from error
        payload = await source.get(key)
        if payload is None:
            raise FileNotFoundError(path)
        return bytes(payload[slice(start, end)])

    async def read_through(self, path: str, decode: Callable[[Payload], T], *, in_thread: bool) -> T | None:
        """`decode` of the chunk at `path`, for codecs that fetch their chunks themselves."""
        source, key = await self._resolve(path)
        return await source.read_through(key, decode, in_thread=in_thread)

    async def _get_file(self, rpath: str, lpath: str, **_: Any) -> None:  # noqa: ANN401  # fsspec passes more
        target = Path(lpath)
        if await self._isdir(rpath):
            await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
            return
        data = await self._cat_file(rpath)
        await asyncio.to_thread(_write, target, data)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:  # noqa: ANN401  # fsspec passes more
        if mode != "rb":
            raise PermissionError(f"{self.protocol} volumes are read only: {path}")
        return io.BytesIO(self.cat_file(path))

    # listing

    async def _exists(self, path: str, **_: Any) -> bool:  # noqa: ANN401  # fsspec passes more
        try:
            source, key = await self._resolve(path)
        except NoSuchVolume:
            return False
        return await source.exists(key) or await self._is_folder(source, key)

    async def _is_folder(self, source: Source, key: str) -> bool:
        return not key or bool(await source.list_dir(key))

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401  # fsspec passes more
        source, key = await self._resolve(path)
        name = self._strip_protocol(path)
        if await self._is_folder(source, key):
            return {"name": name, "size": 0, "type": "directory"}
        payload = await source.get(key)
        if payload is None:
            raise FileNotFoundError(path)
        return {"name": name, "size": len(payload), "type": "file"}

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ANN401, FBT001, FBT002  # the signature is fsspec's
        source, key = await self._resolve(path)
        root = self._strip_protocol(path)
        volume = await source.open_async()
        entries = []
        for name in await source.list_dir(key):
            child = f"{key}/{name}" if key else name
            document = volume.documents.get(child)
            is_file = document is not None or volume.chunk(child) is not None
            entries.append(
                {
                    "name": f"{root}/{name}",
                    "size": len(document) if document is not None else (None if is_file else 0),
                    "type": "file" if is_file else "directory",
                }
            )
        if not entries:
            if not await source.exists(key):
                raise FileNotFoundError(path)
            entries = [await self._info(path)]
        return entries if detail else [entry["name"] for entry in entries]

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,  # noqa: FBT001, FBT002  # the signature is fsspec's
        **kwargs: Any,  # noqa: ANN401  # fsspec passes more
    ) -> Any:  # noqa: ANN401  # names or entries
        detail = kwargs.pop("detail", False)
        try:
            source, key = await self._resolve(path)
        except NoSuchVolume:
            return {} if detail else []
        root = self._strip_protocol(path)
        base = root[: len(root) - len(key)].rstrip("/") if key else root
        found: dict[str, dict[str, Any]] = {}
        async for item in source.keys(f"{key}/" if key else ""):
            below = item[len(key) + 1 if key else 0 :].split("/")
            if maxdepth is not None and len(below) > maxdepth:
                continue
            if withdirs:
                for depth in range(len(below)):
                    folder = "/".join([root, *below[:depth]])
                    found.setdefault(folder, {"name": folder, "size": 0, "type": "directory"})
            found[f"{base}/{item}"] = {"name": f"{base}/{item}", "size": None, "type": "file"}
        if not found and key and await source.exists(key):
            found[root] = {"name": root, "size": None, "type": "file"}
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names


def _splits(address: str) -> Iterator[tuple[str, str]]:
    """Every way to read `address` as a volume followed by a key, the longest key first."""
    parts = address.split("/")
    for length in range(min(_DEEPEST_KEY, len(parts) - 1), -1, -1):
        key = "/".join(parts[len(parts) - length :])
        root = "/".join(parts[: len(parts) - length])
        if _KEY.fullmatch(key) and root and not root.endswith(_DOCUMENTS):
            yield root, key


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _restore(kind: type[VirtualFileSystem], options: Mapping[str, Any]) -> VirtualFileSystem:
    return kind(**options)
