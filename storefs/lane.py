"""A lane: work for a few threads at a time, awaited on event loops.

Cheaper than asyncio's own threads: one hop there and one back, which shows where chunks are asked for one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from storefs.workers import Task, pool


class _Awaited(NamedTuple):
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Lane:
    """Does what it is given, in order, in at most `width` threads of this process."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._lock = threading.Lock()
        self._waiting: deque[_Awaited] = deque()
        self._running = 0

    def run(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """What `work` gives or raises, awaited on the running event loop; not begun any more once that is cancelled."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            self._waiting.append(_Awaited(work, loop, future))
            starts = self._running < self._width
            self._running += starts
        if starts:
            pool().start(self._help)
        return future

    def _help(self) -> Task | None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return None
                work, loop, future = self._waiting.popleft()
            if future.cancelled():
                continue
            result: Any = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001  # handed to the one who waits
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:  # noqa: ANN401  # any value
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
