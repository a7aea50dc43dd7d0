"""What a source answered, kept in files: one an answer, shared by processes, bounded in bytes.

A file appears whole or not at all, and says what it holds, how long it is and its checksum: one that is torn, foreign
or damaged counts as absent and is removed. Nothing here is locked, and no process minds the others: the ones used
longest ago are dropped by whoever writes, now and then, so that the bound is kept to a few percent.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_LOG = logging.getLogger("storefs")
_FOLDER = "storefs-1"
_SUFFIX = ".entry"
_PART = ".part"
_MAGIC = b"storefs\x01"
_HEAD = struct.Struct("<8sIIQ")  # magic, checksum of all that follows it, length of the facts, of the data
_CHECKED_FROM = 12
_BLOCK = 4096
_LONGEST_FACTS = 1 << 20
_ABANDONED_AFTER = 3600.0
_TOUCHED_EVERY = 60.0
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This is a cache of storefs; it can be removed at any time.\n"
# counting a part of a big cache at a time keeps the pauses short
_PARTED_FROM = 1 << 30
_WRITTEN_BETWEEN_COUNTS = 16
_LEFT_AFTER_TRIM = 0.9
_COUNTED_AT_MOST = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer: what `kind` of, its `data`, further `facts` (JSON), and when it was given (seconds since 1970)."""

    kind: str
    data: bytes | memoryview = b""
    facts: Mapping[str, Any] = field(default_factory=dict)
    made: float = 0.0


class DiskCache:
    """Entries by key in the folder `root`, about `max_bytes` of them at most. Safe across threads and processes.

    A folder that cannot be written is told of once, as a warning; nothing fails for it.
    """

    def __init__(self, root: str, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._digits = 0 if max_bytes < _PARTED_FROM else 1
        self._lock = threading.Lock()
        self._left: dict[str, int] = {}
        self._warned = False

    def prepare(self) -> None:
        """Make the folder. Raises OSError."""
        os.makedirs(os.path.join(self.root, _FOLDER), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH118  # text throughout
        tag = os.path.join(self.root, "CACHEDIR.TAG")  # noqa: PTH118  # text throughout
        with contextlib.suppress(FileExistsError), open(tag, "x", encoding="ascii") as file:  # noqa: PTH123  # text throughout
            file.write(_TAG)

    def get(self, key: str) -> Entry | None:
        """What is kept under `key`, None where there is nothing sound."""
        path = self._path(key)
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # pathlib is slow
                used = os.fstat(file.fileno()).st_mtime
                content = file.readall()
        except OSError:
            return None
        entry = _parse(content or b"", _name(path))
        if entry is None:
            _remove(path)
        elif time.time() - used > _TOUCHED_EVERY:
            with contextlib.suppress(OSError):
                os.utime(path)
        return entry

    def __contains__(self, key: str) -> bool:
        return os.path.exists(self._path(key))  # noqa: PTH110  # pathlib is slow

    def put(self, key: str, entry: Entry) -> int:
        """Keep `entry` under `key`; gives the bytes written, 0 where it is too long or the folder cannot be written."""
        path = self._path(key)
        facts = json.dumps({"name": _name(path), "kind": entry.kind, "made": entry.made, **entry.facts}).encode()
        data = memoryview(entry.data).cast("B")
        size = _HEAD.size + len(facts) + len(data)
        if size > self.max_bytes * _LEFT_AFTER_TRIM / (1 << 4 * self._digits):
            return 0
        lengths = struct.pack("<IQ", len(facts), len(data))
        checksum = zlib.crc32(data, zlib.crc32(facts, zlib.crc32(lengths)))
        try:
            self._write(path, [_MAGIC + struct.pack("<I", checksum) + lengths + facts, data])
        except OSError as error:
            self._warn(error)
            return 0
        self._account(_name(path)[: self._digits], size)
        return size

    def remove(self, key: str) -> None:
        """Forget what is kept under `key`."""
        _remove(self._path(key))

    def clear(self, source: str | None = None, array: str | None = None) -> int:
        """Remove everything, or what came from the volume at `source`, or of its `array` and what is below.

        Gives the number of entries removed.
        """
        removed = 0
        for path, _ in list(self._files("")):
            if source is None or _is_from(_facts_of(path), source, array):
                removed += path.endswith(_SUFFIX)
                _remove(path)
        with self._lock:
            self._left.clear()
        return removed

    def usage(self) -> tuple[int, int]:
        """Number of entries, and bytes that they take on disk."""
        sizes = [_size_of(status) for path, status in self._files("") if path.endswith(_SUFFIX)]
        return len(sizes), sum(sizes)

    def volumes(self) -> dict[str, tuple[int, int]]:
        """Number of entries and bytes on disk, by the volume that they came from."""
        found: dict[str, tuple[int, int]] = {}
        for path, status in self._files(""):
            if path.endswith(_SUFFIX):
                source = str(_facts_of(path).get("source", "damaged"))
                entries, nbytes = found.get(source, (0, 0))
                found[source] = entries + 1, nbytes + _size_of(status)
        return found

    def _path(self, key: str) -> str:
        # a key may hold what nobody is to see
        name = hashlib.sha256(key.encode()).hexdigest()
        return f"{self.root}/{_FOLDER}/{name[:2]}/{name}{_SUFFIX}"

    def _write(self, path: str, pieces: list[bytes | memoryview]) -> None:
        part = f"{path[: -len(_SUFFIX)]}.{os.getpid()}.{threading.get_ident()}{_PART}"
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        try:
            try:
                file = os.open(part, flags, 0o666)
            except FileNotFoundError:
                self.prepare()
                os.makedirs(os.path.dirname(part), exist_ok=True)  # noqa: PTH103, PTH120  # text throughout
                file = os.open(part, flags, 0o666)
            with open(file, "wb", buffering=0) as raw:  # noqa: PTH123  # a descriptor
                for piece in pieces:
                    _write_all(raw.fileno(), memoryview(piece))
            os.replace(part, path)  # noqa: PTH105  # text throughout
        except BaseException:
            _remove(part)
            raise

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("the cache in %s cannot be written (%s); reading goes on without", self.root, error)

    # bound

    def _account(self, part: str, size: int) -> None:
        """Note `size` bytes written to `part` of the cache; count and trim it when what it was allowed is used up."""
        rounded = -(-size // _BLOCK) * _BLOCK
        with self._lock:
            self._left[part] = self._left.get(part, 0) - rounded
            if self._left[part] >= 0:
                return
            self._left[part] = sys.maxsize  # others go on while this thread counts
        most = self.max_bytes >> 4 * self._digits
        for _ in range(_COUNTED_AT_MOST):
            held = self._trim(part, most)
            with self._lock:
                written_meanwhile = sys.maxsize - self._left.get(part, sys.maxsize)
                # other processes write too, and know as little of this one
                left = max(0, min(most - held, most // _WRITTEN_BETWEEN_COUNTS)) - written_meanwhile
                self._left[part] = left if left >= 0 else sys.maxsize
            if left >= 0:
                return
        with self._lock:
            self._left[part] = 0

    def _trim(self, part: str, most: int) -> int:
        """Remove what was used longest ago where `part` holds more than `most` bytes; gives the bytes it holds then."""
        files = list(self._files(part))
        held = sum(_size_of(status) for _, status in files)
        now = time.time()
        for path, status in files:
            if path.endswith(_PART) and now - status.st_mtime > _ABANDONED_AFTER:
                held -= _size_of(status)
                _remove(path)  # its writer died
        if held <= most:
            return held
        entries = [(status.st_mtime_ns, path, _size_of(status)) for path, status in files if path.endswith(_SUFFIX)]
        for _, path, size in sorted(entries):
            if held <= most * _LEFT_AFTER_TRIM:
                break
            _remove(path)
            held -= size
        return held

    def _files(self, part: str) -> Iterator[tuple[str, os.stat_result]]:
        """The files of `part` of the cache, with their status."""
        for folder in _scan(f"{self.root}/{_FOLDER}"):
            if len(folder.name) == 2 and folder.name.startswith(part):  # noqa: PLR2004  # two digits
                for item in _scan(folder.path):
                    if item.name.endswith((_SUFFIX, _PART)):
                        with contextlib.suppress(OSError):
                            yield item.path, item.stat(follow_symlinks=False)


@functools.lru_cache(maxsize=64)
def disk_cache(root: str, max_bytes: int, _pid: int) -> DiskCache:
    """The cache in `root` for the process `_pid`, which keeps one account of what it writes there."""
    return DiskCache(root, max_bytes)


def usual_folder() -> str:
    """Where this system keeps caches, as an absolute path."""
    home = os.path.expanduser("~")  # noqa: PTH111  # text throughout
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or tempfile.gettempdir()
    elif sys.platform == "darwin":
        base = f"{home}/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    return os.path.join(base, "storefs")  # noqa: PTH118  # text throughout


def _parse(content: bytes, name: str) -> Entry | None:
    """The entry in the `content` of the file `name`, None where it is not whole or belongs elsewhere."""
    if len(content) < _HEAD.size:
        return None
    magic, checksum, facts_length, length = _HEAD.unpack_from(content)
    if magic != _MAGIC or len(content) != _HEAD.size + facts_length + length:
        return None
    view = memoryview(content)
    if zlib.crc32(view[_CHECKED_FROM:]) != checksum:
        return None
    start = _HEAD.size + facts_length
    try:
        facts = json.loads(content[_HEAD.size : start])
        if facts.pop("name") != name:
            return None
        return Entry(facts.pop("kind"), view[start:], made=facts.pop("made"), facts=facts)
    except (ValueError, KeyError, AttributeError):
        return None


def _name(path: str) -> str:
    return path[-64 - len(_SUFFIX) : -len(_SUFFIX)]


def _facts_of(path: str) -> dict[str, Any]:
    """The facts of the entry in a file, none where it is torn."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # text throughout
            magic, _, length, _ = _HEAD.unpack(file.read(_HEAD.size))
            facts = json.loads(file.read(min(length, _LONGEST_FACTS))) if magic == _MAGIC else None
    except (OSError, ValueError, struct.error):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_from(facts: Mapping[str, Any], source: str, array: str | None) -> bool:
    """Whether an entry came from `array` of `source` or what is below; from anywhere there, for no array."""
    found = str(facts.get("array", ""))
    return facts.get("source") == source and (not array or found == array or found.startswith(f"{array}/"))


def _size_of(status: os.stat_result) -> int:
    return -(-status.st_size // _BLOCK) * _BLOCK


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except OSError:
        return []


def _write_all(file: int, view: memoryview) -> None:
    while view:
        view = view[os.write(file, view) :]


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108  # text throughout
