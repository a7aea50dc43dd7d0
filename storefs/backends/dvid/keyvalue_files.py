"""Values of a keyvalue instance as fsspec files: `dvid://host/uuid/instance/some key`, to read and to write.

A path with slashes is kept under an escaped key and seen as folders; other keys stay as they are (see keys.py).
Keys are taken as written, without percent-decoding.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fsspec.asyn import AsyncFileSystem, sync
from fsspec.core import has_magic
from fsspec.spec import AbstractBufferedFile

from storefs.backends.dvid import calls
from storefs.backends.dvid.info import parse_json
from storefs.backends.dvid.keys import file_key, file_path
from storefs.backends.dvid.keyvalue import (
    KeyValues,
    Place,
    Value,
    delete_key,
    get_size,
    get_value,
    has_key,
    list_keys,
)
from storefs.backends.dvid.part import Connection
from storefs.errors import NotCached, Unsupported
from storefs.fetching import Fetching
from storefs.filesystem import VirtualFileSystem
from storefs.options import read_options
from storefs.plans import Call
from storefs.tally import Tally

if TYPE_CHECKING:
    from storefs.transport.service import ServiceTransport

Entry = dict[str, Any]

_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class ValueFile:
    """A path in a keyvalue instance: `root` is the instance's own, `path` what follows, "" for the instance."""

    connection: Connection
    place: Place
    root: str
    path: str

    def missing(self) -> FileNotFoundError:
        """What to raise where there is nothing."""
        return FileNotFoundError(f"{self.root}/{self.path}")

    async def read(self, start: int | None, stop: int | None) -> bytes:
        """The value, or part of it. Raises FileNotFoundError."""
        if not self.path:
            raise IsADirectoryError(self.root)
        value = await self.connection.run_async(get_value(self.place, file_key(self.path), start, stop))
        if value is None:
            raise self.missing()
        return value

    async def write(self, value: Value) -> None:
        """Store a value."""
        if not self.path:
            raise IsADirectoryError(self.root)
        plan = KeyValues(self.connection).put_plan(self.place.uuid, self.place.name, file_key(self.path), value)
        await self.connection.run_async(plan)

    async def remove(self) -> None:
        """Forget the value."""
        if self.path:
            await self.connection.run_async(delete_key(self.place, file_key(self.path)))

    async def is_file(self) -> bool:
        """Whether there is a value."""
        return bool(self.path) and await self.connection.run_async(has_key(self.place, file_key(self.path)))

    async def below(self) -> list[str]:
        """Paths of all values in this folder, from the instance on."""
        folder = f"{self.path}/" if self.path else ""
        prefix = file_key(folder) if folder else ""
        found = map(file_path, await self.connection.run_async(list_keys(self.place, prefix)))
        return [path for path in found if path.startswith(folder)]

    async def info(self) -> Entry:
        """Kind and size. Raises FileNotFoundError."""
        name = f"{self.root}/{self.path}".rstrip("/")
        if self.path:
            size = await self.connection.run_async(get_size(self.place, file_key(self.path)))
            if size is not None:
                return {"name": name, "size": size, "type": "file"}
            if not await self.below():
                raise self.missing()
        return {"name": name, "size": 0, "type": "directory"}

    async def entries(self) -> list[Entry]:
        """What is directly in this folder; sizes of values are not told. Raises FileNotFoundError."""
        start = len(self.path) + 1 if self.path else 0
        below = await self.below()
        if not below:
            return [await self.info()] if self.path else []
        found: dict[str, Entry] = {}
        for path in below:
            name, slash, _ = path[start:].partition("/")
            shown = "/".join(part for part in (self.root, self.path, name) if part)
            if slash:
                found.setdefault(f"{name}/", {"name": shown, "size": 0, "type": "directory"})
            else:
                found[name] = {"name": shown, "size": None, "type": "file"}
        return list(found.values())


class KeyValueFileSystem(VirtualFileSystem):
    """A filesystem whose keyvalue instances hold files; all else is what VirtualFileSystem makes of it."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  # checked there
        super().__init__(*args, **options)
        self._connections: dict[str, Connection] = {}
        self._is_keyvalue: dict[tuple[str, str, str], bool] = {}

    def connect(self, server: str) -> ServiceTransport:
        """The way to `server`."""
        raise NotImplementedError

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # noqa: ANN401  # text or a list of texts
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        text = str(path)
        own = f"{cls.protocol}://"
        if text.startswith(own):
            text = text.removeprefix(own).partition("?")[0].partition("|")[0]
        return (text if "://" in text or not text else f"http://{text}").rstrip("/")

    async def _value(self, path: str) -> ValueFile | None:
        """The value or folder of values at `path`, None where that is no keyvalue instance's."""
        if self.target_protocol:
            return None
        scheme, _, rest = self._strip_protocol(path).partition("://")
        host, *names = rest.split("/", _DEEPEST)
        if len(names) < _DEEPEST - 1 or not names[1]:
            return None
        version, instance, key = (*names, "")[:_DEEPEST]
        server = f"{scheme}://{host}"
        if server not in self._connections:
            transport = self.connect(server)
            keeping = read_options(self.options, self.own_options).keeping
            kept = Fetching(transport, keeping, Tally(), Tally())
            self._connections[server] = Connection(kept, server, "admintoken" in transport.options.query)
        connection = self._connections[server]
        place = Place(server, unquote(version), unquote(instance))
        known = (server, place.uuid, place.name)
        if known not in self._is_keyvalue:
            try:
                reply = await connection.transport.fetch_async(Call(place.path("info")))
            except NotCached:
                return None
            if reply.status != calls.OK:
                return None
            info = parse_json(reply.data, "info", server)
            base = info.get("Base") if isinstance(info, dict) else None
            self._is_keyvalue[known] = isinstance(base, dict) and base.get("TypeName") == "keyvalue"
        if not self._is_keyvalue[known]:
            return None
        return ValueFile(connection, place, f"{server}/{version}/{instance}", key)

    # reading

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **settings: Any) -> bytes:  # noqa: ANN401  # fsspec passes more
        value = await self._value(path)
        if value is None:
            return await super()._cat_file(path, start, end, **settings)
        return await value.read(start, end)

    def _open(self, path: str, mode: str = "rb", **settings: Any) -> Any:  # noqa: ANN401  # one of two files
        if sync(self.loop, self._value, path) is None:
            return super()._open(path, mode, **settings)
        if mode not in ("rb", "wb"):
            raise Unsupported(f'a value is read or replaced (modes "rb", "wb"), not {mode!r}', url=path)
        return KeyValueFile(self, path, mode, **{**settings, "cache_type": settings.get("cache_type", "readahead")})

    def get_mapper(self, root: str = "", *args: Any, **settings: Any) -> Any:  # noqa: ANN401  # as fsspec passes
        """The files below `root` as a mapping."""
        if sync(self.loop, self._value, root) is None:
            return super().get_mapper(root, *args, **settings)
        return AsyncFileSystem.get_mapper(self, root, *args, **settings)

    # listing

    async def _exists(self, path: str, **settings: Any) -> bool:  # noqa: ANN401  # fsspec passes more
        value = await self._value(path)
        if value is None:
            return await super()._exists(path, **settings)
        return not value.path or await value.is_file() or bool(await value.below())

    async def _info(self, path: str, **settings: Any) -> Entry:  # noqa: ANN401  # fsspec passes more
        value = await self._value(path)
        return await (super()._info(path, **settings) if value is None else value.info())

    async def _ls(self, path: str, detail: bool = True, **settings: Any) -> list[Any]:  # noqa: ANN401, FBT001, FBT002  # the signature is fsspec's
        value = await self._value(path)
        if value is None:
            return await super()._ls(path, detail, **settings)
        entries = await value.entries()
        return entries if detail else [entry["name"] for entry in entries]

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,  # noqa: FBT001, FBT002  # the signature is fsspec's
        **settings: Any,  # noqa: ANN401  # fsspec passes more
    ) -> Any:  # noqa: ANN401  # names or entries
        if await self._value(path) is None:
            return await super()._find(path, maxdepth, withdirs, **settings)
        return await AsyncFileSystem._find(self, path, maxdepth, withdirs, **settings)  # noqa: SLF001  # passes over VirtualFileSystem's own

    # writing

    async def _pipe_file(self, path: str, value: Any, *args: Any, **settings: Any) -> None:  # noqa: ANN401  # bytes
        target = await self._value(path)
        if target is None:
            await super()._pipe_file(path, value, *args, **settings)
        else:
            await target.write(value)

    async def _put_file(self, lpath: str, rpath: str, **settings: Any) -> None:  # noqa: ANN401  # fsspec passes more
        target = await self._value(rpath)
        if target is None:
            await super()._put_file(lpath, rpath, **settings)
        elif not await asyncio.to_thread(os.path.isdir, lpath):
            with await asyncio.to_thread(Path(lpath).open, "rb") as file:
                await target.write(file)

    async def _cp_file(self, path1: str, path2: str, **settings: Any) -> None:  # noqa: ANN401  # fsspec passes more
        target = await self._value(path2)
        if target is None:
            await super()._cp_file(path1, path2, **settings)
        else:
            await target.write(await self._cat_file(path1))

    async def _rm_file(self, path: str, **settings: Any) -> None:  # noqa: ANN401  # fsspec passes more
        value = await self._value(path)
        await (super()._rm_file(path, **settings) if value is None else value.remove())

    async def _rm(self, path: Any, **settings: Any) -> None:  # noqa: ANN401  # fsspec passes more
        paths = [path] if isinstance(path, str) else list(path)
        if paths and await self._value(paths[0]) is not None:
            if isinstance(path, str) and not has_magic(path) and not await self._exists(path):
                raise FileNotFoundError(path)
            await AsyncFileSystem._rm(self, path, **settings)  # noqa: SLF001  # passes over VirtualFileSystem's own
        else:
            await super()._rm(path, **settings)

    async def _mkdir(self, path: str, **settings: Any) -> None:  # noqa: ANN401  # fsspec passes more
        if await self._value(path) is None:  # folders of values come with the values
            await super()._mkdir(path, **settings)

    async def _makedirs(self, path: str, **settings: Any) -> None:  # noqa: ANN401  # fsspec passes more
        if await self._value(path) is None:
            await super()._makedirs(path, **settings)


class KeyValueFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec is untyped
    """A value open for reading, in ranges, or for writing, which happens on closing."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = self.fs.cat_file(self.path, start, end)
        return found

    def _upload_chunk(self, final: bool = False) -> bool:  # noqa: FBT001, FBT002  # the signature is fsspec's
        if final:
            self.fs.pipe_file(self.path, self.buffer.getvalue())
        return final
