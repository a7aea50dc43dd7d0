"""Fetching: a transport that counts what it is asked and, where there is a cache on disk, remembers the answers.

What describes a volume is asked for anew whenever it is opened, so that a change shows; its answers are kept for
`offline`. What a described volume then asks for is taken for good. Errors are never kept.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fsspec.asyn import get_loop

from storefs.disk_cache import DiskCache, Entry, disk_cache
from storefs.disk_entries import answer_of, entry_of, joined, split
from storefs.errors import NotCached
from storefs.plans import At, Body, Call, Get, Gets, Head, Names, Race, Reply, Request, Volume, VolumeBox
from storefs.tally import Tally

if TYPE_CHECKING:
    from storefs.backend import Transport
    from storefs.options import Keeping

_CONCURRENCY = 32


class Fetching:
    """`inner`, whose answers are counted in `tally` and kept as `keeping` says; finds and misses go to `disk_tally`.

    `describing`: what is kept is not believed, unless offline. `array` is what the requests are about.
    """

    def __init__(
        self,
        inner: Transport,
        keeping: Keeping,
        tally: Tally,
        disk_tally: Tally,
        *,
        describing: bool = True,
        array: str = "",
    ) -> None:
        self.inner = inner
        self.tally = tally
        self.disk_tally = disk_tally
        self.keeping = keeping
        self.keeps = keeping.cache is not None
        self.describing = describing
        self.array = array
        self._abouts: dict[str, Fetching] = {}
        self.url = inner.url
        self.blocking = inner.blocking or keeping.offline
        self.local = getattr(inner, "local", False) or keeping.offline
        self.concurrency = getattr(inner, "concurrency", _CONCURRENCY)
        self.quickest = math.inf  # seconds that an answer took

    def connect(self, url: str) -> Fetching:
        """The same for another volume; `url` absolute or relative to this one's. Raises UrlError."""
        return self._around(self.inner.connect(url), describing=self.describing)

    def settled(self) -> Fetching:
        """The same for a volume that is described, whose answers are taken from the cache."""
        return self._around(self.inner, describing=False)

    def about(self, array: str) -> Fetching:
        """The same for requests about one array."""
        if self.keeping.cache is None:
            return self
        known = self._abouts.get(array)
        if known is None:
            known = self._abouts[array] = self._around(self.inner, describing=self.describing, array=array)
        return known

    def _around(self, inner: Transport, *, describing: bool, array: str = "") -> Fetching:
        return Fetching(inner, self.keeping, self.tally, self.disk_tally, describing=describing, array=array)

    @property
    def disk(self) -> DiskCache | None:
        """The cache, None where there is none."""
        if self.keeping.cache is None:
            return None
        return disk_cache(self.keeping.cache, self.keeping.cache_size, os.getpid())

    # asking

    def fetch(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched in this thread. Raises as `inner` does, and NotCached."""
        if isinstance(request, Gets):
            return self._fetch_each(request)
        keeps = self.keeps and not isinstance(request, Volume | VolumeBox)
        if keeps:
            found, kept = self._look_up(request)
            if found:
                return kept
        started, answer = time.perf_counter(), None
        try:
            answer = self.inner.fetch(request)
        finally:
            self._count(request, answer, started)
        if keeps:
            self._keep(request, answer)
        return answer

    def _fetch_each(self, request: Gets) -> list[Any]:
        if self.local or self.blocking:
            return list(map(self.fetch, request.requests))
        answers = asyncio.run_coroutine_threadsafe(self.fetch_async(request), get_loop())
        try:
            found: list[Any] = answers.result()
        except BaseException:
            answers.cancel()
            raise
        return found

    def fill(self, path: str, memory: memoryview, start: int, size: int) -> bool:
        """Whether the object at `path` has `size` bytes, and those from `start` on now fill `memory`.

        Whatever is the matter if not, `fetch` tells.
        """
        fill = None if self.keeping.cache is not None else getattr(self.inner, "fill", None)
        if fill is None or not fill(path, memory, start, size):
            return False
        self.tally.add(requests=1, bytes_received=len(memory))
        return True

    @property
    def path_of(self) -> Callable[[str], str] | None:
        """Path in the file system of an object; None where they are no files, or are to be kept."""
        return None if self.keeping.cache is not None else getattr(self.inner, "path_of", None)

    async def fetch_async(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched on the running event loop. Raises as `inner` does, and NotCached."""
        if isinstance(request, Gets):
            return await asyncio.gather(*map(self.fetch_async, request.requests))
        if not self.keeps or isinstance(request, Volume | VolumeBox):
            return await self._ask_async(request)
        found, answer = await asyncio.to_thread(self._look_up, request)
        if found:
            return answer
        answer = await self._ask_async(request)
        await asyncio.to_thread(self._keep, request, answer)
        return answer

    async def _ask_async(self, request: Request) -> Any:  # noqa: ANN401  # each transport has its requests
        started, answer = time.perf_counter(), None
        try:
            answer = await self.inner.fetch_async(request)
        finally:
            self._count(request, answer, started)
        return answer

    def _count(self, request: Request, answer: Any, started: float) -> None:  # noqa: ANN401  # answers differ by request
        """Count `request`, whatever became of it, and its `answer`, None where there is none."""
        length = len(answer.data) if type(answer) is Body else _length(answer)
        if length:  # what is answered without asking tells nothing
            self.quickest = min(self.quickest, time.perf_counter() - started)
        self.tally.add(requests=1 if type(request) is Get else _count(request), bytes_received=length)

    # keeping

    def holds(self, request: Request) -> bool:
        """Whether the answer is in the cache, however old."""
        disk, keys = self.disk, self._keys(request)
        return disk is not None and bool(keys) and all(key in disk for key in keys)

    def forget(self, request: Request) -> None:
        """Remove the answer from the cache."""
        disk = self.disk
        for one in request.requests if isinstance(request, Race) else (request,):
            for key in self._keys(one) if disk is not None else ():
                disk.remove(key)  # type: ignore[union-attr]  # there are keys only with it

    def recall(self, request: Request) -> tuple[bool, Any]:
        """Whether the cache has the answer, and the answer; asks nobody, counts nothing."""
        disk, keys = self.disk, self._keys(request)
        entries = [disk.get(key) for key in keys] if disk is not None else []
        sound = [entry for entry in entries if entry is not None and self._is_believed(entry, request)]
        if isinstance(request, Head) and not sound:
            found, body = self.recall(Get(request.path))
            return found, body and Body(b"")
        if not keys or len(sound) < len(keys):
            return False, None
        if isinstance(request, Get) and request.parts:
            return joined(request, sound)
        return True, answer_of(sound[0])

    def _look_up(self, request: Request) -> tuple[bool, Any]:
        offline = self.keeping.offline
        if isinstance(request, Race):
            return offline, tuple((self._outcome(one), 0.0) for one in request.requests) if offline else None
        if self.describing and not offline:
            return False, None
        found, answer = self.recall(request)
        if self._keys(request):
            self.disk_tally.add(hits=found, misses=not found, bytes_read=_length(answer))
        if offline and not found:
            raise NotCached(
                f"offline=True, and the cache in {self.keeping.cache} does not have {_shown(request)}: read it once"
                " without offline",
                url=self.url,
            )
        return found, answer

    def _outcome(self, request: Request) -> Any:  # noqa: ANN401  # an answer or an error
        try:
            return self._look_up(request)[1]
        except NotCached as error:
            return error

    def _keep(self, request: Request, answer: Any) -> None:  # noqa: ANN401  # answers differ by request
        disk = self.disk
        if disk is None:
            return
        if isinstance(request, Race):
            for one, (outcome, _) in zip(request.requests, answer, strict=True):
                if not isinstance(outcome, Exception):
                    self._keep(one, outcome)
            return
        keys = self._keys(request)
        answers = split(request, answer) if isinstance(request, Get) and request.parts else [answer]
        for key, part in zip(keys, answers, strict=False):
            entry = entry_of(part)
            if entry is not None and not (entry.kind == "absent" and not self.keeping.cache_absent):
                kept = replace(entry, facts={**entry.facts, "source": self.url, "array": self.array}, made=time.time())
                self.disk_tally.add(bytes_written=disk.put(key, kept))

    def _is_believed(self, entry: Entry, request: Request) -> bool:
        if entry.kind in ("absent", "names") and not self.keeping.offline:
            return time.time() - entry.made <= self.keeping.cache_absent
        limit = getattr(request, "limit", None)
        return limit is None or len(entry.data) <= limit

    def _keys(self, request: Request) -> list[str]:
        """Under which keys the answer is kept, one a part; none where it is not kept."""
        match request:
            case At(inner, _):
                return self._keys(inner)
            case Get(path=path, start=start, stop=stop, parts=parts):
                return [self._key("get", path, *span) for span in parts or ((start, stop),)]
            case Head(path) | Names(path):
                return [self._key(type(request).__name__.lower(), path)]
            case Call() if request.method == "GET" and not (request.body or request.headers or request.into):
                return [self._key("call", *request.path, *request.query)]
        return []

    def _key(self, *asked: Any) -> str:  # noqa: ANN401  # text, numbers and pairs
        return json.dumps([self.url, self.keeping.identity, *asked])


def _count(request: Request) -> int:
    match request:
        case Race(requests):
            return sum(_count(one) for one in requests)
        case Names() | Volume() | VolumeBox():
            return 0  # nothing is sent, or by another volume, which counts it
    return 1


def _length(answer: Any) -> int:  # noqa: ANN401  # answers differ by request
    match answer:
        case Body(data) | Reply(_, data):
            return len(data)
        case tuple():
            return sum(_length(one) for one, _ in answer)
    return 0


def _shown(request: Request) -> str:
    """What is asked for, without what may be secret."""
    match request:
        case At(inner, _):
            return _shown(inner)
        case Get(path=path) | Head(path) | Names(path):
            return path.partition("?")[0].rpartition("@")[2]
        case Call(path):
            return "/" + "/".join(path)
    return "the answer"
