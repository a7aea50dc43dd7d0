"""VirtualFileSystem: Sources as an fsspec filesystem, read only.

A path is a volume's address followed by a zarr key, such as `gs://bucket/layer/0/c/1/2/3`.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from fsspec.asyn import AsyncFileSystem, get_loop
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.spec import AbstractBufferedFile

from storefs.errors import NoSuchVolume, TransportError, Unsupported, UrlError
from storefs.mapper import VolumeMap
from storefs.options import picklable, read_options, split_query
from storefs.parts import Parts
from storefs.volumes import DOCUMENTS, Volumes
from storefs.writing import write_chunk, write_through

if TYPE_CHECKING:
    from storefs.options import Reader
    from storefs.source import Source
    from storefs_codecs.chunk_codec import Array

Payload = bytes | memoryview
Entry = dict[str, Any]

_FSSPEC_OPTIONS = (
    "asynchronous",
    "loop",
    "batch_size",
    "skip_instance_cache",
    "use_listings_cache",
    "listings_expiry_time",
    "max_paths",
)


class VirtualFileSystem(AsyncFileSystem, ChainedFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Volumes of one format as files, read only; `options` as for `storefs.open`.

    Raises UrlError for options that cannot be read. Not kept in fsspec's instance cache: a volume is described once
    by each instance, and one that was written anew is seen when it is opened anew.
    """

    async_impl = True
    cachable = False
    own_options: ClassVar[Mapping[str, Reader]] = {}

    def __init__(
        self,
        fo: str | None = None,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401  # checked below
    ) -> None:
        passed = {name: options.pop(name) for name in _FSSPEC_OPTIONS if name in options}
        super().__init__(**passed)
        if fo and "?" in fo:
            message = 'options of a chained address go into storage_options, not after "?"'
            raise UrlError(message, url=fo.partition("?")[0])
        self._made_in = os.getpid()
        self.target_protocol = target_protocol
        if target_options:
            options["target_options"] = target_options
        read_options(options, self.own_options)
        self.options = options
        self._volumes = Volumes(lambda address: self.open_source(address, self.options))
        self._parts = Parts(self.volume_of)

    def open_source(self, address: str, options: Mapping[str, Any]) -> Source:
        """The Source of the volume at `address`."""
        raise NotImplementedError

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of fsspec's thread; after a fork, the child's own."""
        if self._made_in != os.getpid() and not self.asynchronous:
            self._loop = get_loop()
            self._pid = self._made_in = os.getpid()
        loop: asyncio.AbstractEventLoop = super().loop
        return loop

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # noqa: ANN401  # text or a list of texts
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        text = str(path)
        own = f"{cls.protocol}://"
        if text.startswith(own):
            text = text.removeprefix(own).partition("?")[0].partition("|")[0]
            text = text.removeprefix("file://") if text.startswith("file:///") else text
            if text and "://" not in text:
                text = posixpath.abspath(posixpath.expanduser(text))
        return text.rstrip("/")

    @classmethod
    def _get_kwargs_from_urls(cls, path: str) -> dict[str, Any]:
        return split_query(path.removeprefix(f"{cls.protocol}://"), cls.own_options)[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), picklable(self.storage_options), self._volumes.layouts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VirtualFileSystem) and self.__dask_tokenize__() == other.__dask_tokenize__()

    def __hash__(self) -> int:
        return hash(self.__dask_tokenize__())

    def __dask_tokenize__(self) -> tuple[str, str]:
        # fsspec's own identity changes with process and thread
        return type(self).__qualname__, repr(sorted(picklable(self.storage_options).items(), key=str))

    # which volume

    async def _resolve(self, path: str) -> tuple[Source, str]:
        """The volume that `path` lies in, and the zarr key. Raises NoSuchVolume, MetadataError, TransportError."""
        text = self._strip_protocol(path)
        return await self._volumes.resolve(self._address(text))

    def _address(self, text: str) -> str:
        scheme, found, _ = text.partition("://")
        if not self.target_protocol or scheme == self.target_protocol:
            return text
        # what stands before an address with a scheme of its own is a cache
        return f"{self.target_protocol}{'::' if found else '://'}{text}"

    async def volume_of(self, path: str) -> tuple[Source, str]:
        """The volume that `path` lies in, and the zarr key, for those who read it: NoSuchVolume is TransportError."""
        try:
            return await self._resolve(path)
        except NoSuchVolume as error:
            # zarr takes a FileNotFoundError for "nothing here yet" and loses the message
            raise TransportError(error.message, url=error.url) from error

    # reading

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:  # noqa: ANN401  # fsspec passes more
        source, key = await self.volume_of(path)
        payload = await source.get(key)
        if payload is None:
            raise FileNotFoundError(path)
        return bytes(payload[slice(start, end)])

    async def _cat(self, path: Any, *args: Any, on_error: str = "raise", **settings: Any) -> Any:  # noqa: ANN401  # as fsspec passes
        found = await super()._cat(path, *args, on_error="raise" if on_error == "raise" else "return", **settings)
        if on_error == "raise" or not isinstance(found, dict):
            return found
        _raise_failures(found.values())
        return {k: v for k, v in found.items() if on_error == "return" or not isinstance(v, BaseException)}

    async def _cat_ranges(self, *args: Any, on_error: str = "return", **settings: Any) -> list[Any]:  # noqa: ANN401  # as fsspec passes
        found: list[Any] = await super()._cat_ranges(*args, on_error=on_error, **settings)
        _raise_failures(found)
        return found

    async def read_part(self, path: str, selection: Any) -> Array | None:  # noqa: ANN401  # zarr's selectors are untyped
        """The voxels at `selection` of the chunk at `path`, None where it is absent; for codecs that read parts."""
        return await self._parts.read(path, selection)

    async def _get_file(self, rpath: str, lpath: str, **_: Any) -> None:  # noqa: ANN401  # fsspec passes more
        data = None if await self._isdir(rpath) else await self._cat_file(rpath)
        await asyncio.to_thread(_keep, Path(lpath), data)

    def _open(self, path: str, mode: str = "rb", **settings: Any) -> VirtualFile:  # noqa: ANN401  # fsspec's buffering
        if mode != "rb":
            self._refuse(path)
        return VirtualFile(self, path, self.cat_file(path), **settings)

    def get_mapper(
        self,
        root: str = "",
        check: bool = False,  # noqa: FBT001, FBT002  # the signature is fsspec's
        create: bool = False,  # noqa: FBT001, FBT002  # the signature is fsspec's
        missing_exceptions: tuple[type[BaseException], ...] | None = None,
    ) -> VolumeMap:
        """The volume at `root` as a mapping from zarr keys to bytes, for zarr 2."""
        return VolumeMap(root, self, check=check, create=create, missing_exceptions=missing_exceptions)

    # listing

    async def _exists(self, path: str, **_: Any) -> bool:  # noqa: ANN401  # fsspec passes more
        try:
            source, key = await self._resolve(path)
        except NoSuchVolume:
            return False
        return await source.exists(key) or await self._is_folder(source, key)

    async def _is_folder(self, source: Source, key: str) -> bool:
        return not key or bool(await source.list_dir(key))

    async def _info(self, path: str, **_: Any) -> Entry:  # noqa: ANN401  # fsspec passes more
        source, key = await self._resolve(path)
        name = self._strip_protocol(path)
        if await self._is_folder(source, key):
            return _folder(name)
        payload = await source.get(key)
        if payload is None:
            raise FileNotFoundError(path)
        return _file(name, len(payload))

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ANN401, FBT001, FBT002  # the signature is fsspec's
        source, key = await self._resolve(path)
        root = self._strip_protocol(path)
        entries = [
            await self._entry(source, f"{key}/{name}" if key else name, f"{root}/{name}")
            for name in await source.list_dir(key)
        ]
        if not entries:
            entries = [await self._info(path)]
        return entries if detail else [entry["name"] for entry in entries]

    async def _entry(self, source: Source, key: str, name: str) -> Entry:
        if key.endswith(DOCUMENTS):
            return _file(name, len(await source.get(key) or b""))
        return _file(name, None) if await source.is_leaf(key) else _folder(name)

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
        found: dict[str, Entry] = {}
        prefix = f"{key}/" if key else ""
        async for item in source.keys(prefix):
            below = item[len(prefix) :].split("/")
            if withdirs:
                for depth in range(len(below) if maxdepth is None else min(len(below), maxdepth + 1)):
                    folder = "/".join([root, *below[:depth]])
                    found.setdefault(folder, _folder(folder))
            if maxdepth is None or len(below) <= maxdepth:
                name = f"{root}/{'/'.join(below)}"
                found[name] = _file(name, None)
        if not found and key and await source.exists(key):
            found[root] = _file(root, None)
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    # writing

    def _refuse(self, path: str) -> NoReturn:
        raise Unsupported(f"{self.protocol} volumes are read only here", url=self._strip_protocol(path))

    async def _pipe_file(self, path: str, value: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401  # as fsspec passes
        source, key = await self._resolve(path)
        await write_chunk(source, key, memoryview(value))

    async def write_through(self, path: str, selection: Any, values: Any) -> None:  # noqa: ANN401  # zarr's selectors are untyped
        """Put `values` at `selection` of the chunk at `path`, for codecs that write parts. Raises Unsupported."""
        source, key = await self._resolve(path)
        await write_through(source, key, selection, values)

    async def _put_file(self, lpath: str, rpath: str, **_: Any) -> None:  # noqa: ANN401, ARG002  # the signature is fsspec's
        self._refuse(rpath)

    async def _cp_file(self, path1: str, path2: str, **_: Any) -> None:  # noqa: ANN401, ARG002  # the signature is fsspec's
        self._refuse(path2)

    async def _rm_file(self, path: str, **_: Any) -> None:  # noqa: ANN401  # fsspec passes more
        self._refuse(path)

    async def _rm(self, path: Any, **_: Any) -> None:  # noqa: ANN401  # fsspec passes more
        self._refuse(path if isinstance(path, str) else path[0])

    async def _mkdir(self, path: str, **_: Any) -> None:  # noqa: ANN401  # fsspec passes more
        self._refuse(path)

    async def _makedirs(self, path: str, **_: Any) -> None:  # noqa: ANN401  # fsspec passes more
        self._refuse(path)


class VirtualFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is untyped
    """A document or chunk open for reading; its bytes, which come in one piece anyway, are held."""

    def __init__(self, fs: VirtualFileSystem, path: str, data: bytes, **settings: Any) -> None:  # noqa: ANN401  # fsspec's buffering
        self._data = data
        super().__init__(fs, path, **{**settings, "size": len(data)})

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._data[start:end]


def _raise_failures(found: Iterable[Any]) -> None:
    """Raise what failed otherwise than by being absent: zarr takes any error that is returned for an absent key."""
    for value in found:
        if isinstance(value, BaseException) and not isinstance(value, FileNotFoundError):
            raise value


def _keep(target: Path, data: bytes | None) -> None:
    folder = target if data is None else target.parent
    folder.mkdir(parents=True, exist_ok=True)
    if data is not None:
        target.write_bytes(data)


def _file(name: str, size: int | None) -> Entry:
    return {"name": name, "size": size, "type": "file"}


def _folder(name: str) -> Entry:
    return {"name": name, "size": 0, "type": "directory"}


def _restore(
    kind: type[VirtualFileSystem], options: Mapping[str, Any], layouts: Mapping[str, Mapping[str, str]]
) -> VirtualFileSystem:
    filesystem = kind(**options)
    # zarr goes on with the metadata that it has, so that what is read has to be laid out alike
    filesystem._volumes.expect(layouts)  # noqa: SLF001  # this module's own
    return filesystem
