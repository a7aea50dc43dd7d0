"""Ranges of one object asked for at the same moment, merged where they lie close together."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from storefs.plans import Body

MAX_GAP = 64 << 10
MAX_MERGED = 8 << 20
# tasks that waited for the same index wake one after the other
_MIN_TURNS, _MAX_TURNS = 2, 8


@dataclass(frozen=True, slots=True)
class _Wanted:
    start: int
    stop: int
    answer: asyncio.Future[Body | None]


class RangeMerger:
    """Collects the ranges that tasks of one event loop ask for in the same few turns and fetches them merged."""

    def __init__(self, get_range: Callable[[str, int, int], Awaitable[Body | None]]) -> None:
        self._get_range = get_range
        self._waiting = threading.local()  # one collection for each loop's thread

    async def fetch(self, path: str, start: int, stop: int) -> Body | None:
        """Bytes `start` to `stop` of `path`; fewer where the object ends before, None where there is none."""
        loop = asyncio.get_running_loop()
        waiting = self._collection(loop)
        if not waiting:
            loop.call_soon(self._turn, waiting, 0, 0)
        wanted = _Wanted(start, stop, loop.create_future())
        waiting[path].append(wanted)
        return await wanted.answer

    def _collection(self, loop: asyncio.AbstractEventLoop) -> defaultdict[str, list[_Wanted]]:
        if getattr(self._waiting, "loop", None) is not loop:
            self._waiting.loop = loop
            self._waiting.paths = defaultdict(list)
            self._waiting.tasks = set()
        return self._waiting.paths  # type: ignore[no-any-return]  # thread locals are untyped

    def _turn(self, waiting: defaultdict[str, list[_Wanted]], turns: int, before: int) -> None:
        count = sum(map(len, waiting.values()))
        if turns < _MIN_TURNS or (count > before and turns < _MAX_TURNS):
            asyncio.get_running_loop().call_soon(self._turn, waiting, turns + 1, count)
        else:
            self._send(waiting)

    def _send(self, waiting: defaultdict[str, list[_Wanted]]) -> None:
        tasks: set[asyncio.Task[None]] = self._waiting.tasks
        for path, wanted in waiting.items():
            for group in merged(wanted):
                task = asyncio.get_running_loop().create_task(self._fetch_group(path, group))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        waiting.clear()

    async def _fetch_group(self, path: str, group: list[_Wanted]) -> None:
        first, last = group[0].start, max(wanted.stop for wanted in group)
        try:
            body = await self._get_range(path, first, last)
        except BaseException as error:  # noqa: BLE001  # handed to those who wait
            for wanted in group:
                if not wanted.answer.done():
                    wanted.answer.set_exception(error)
            return
        for wanted in group:
            if not wanted.answer.done():
                wanted.answer.set_result(None if body is None else _part(body, wanted, first))


def merged(wanted: list[_Wanted]) -> Iterator[list[_Wanted]]:
    """Groups of ranges, each to be fetched by one request."""
    group: list[_Wanted] = []
    for item in sorted(wanted, key=lambda item: item.start):
        stop = max((member.stop for member in group), default=0)
        if group and (item.start - stop > MAX_GAP or item.stop - group[0].start > MAX_MERGED):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _part(body: Body, wanted: _Wanted, first: int) -> Body:
    return Body(memoryview(body.data)[wanted.start - first : wanted.stop - first], body.content_encoding)
