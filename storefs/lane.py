"""A lane: work for a few threads at a time, awaited on event loops.

Cheaper than asyncio's own threads: one hop there and one back, which shows where chunks are asked for one by one; and
none where the work takes less than the hop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from storefs.workers import Task, pool

# two threads that take turns cost each other about as much
QUICK_SECONDS = 0.00025
# how much the latest says of how long work takes
LATEST = 0.2
# for how many it is not tried again, doubled every time
FIRST_PAUSE, LONGEST_PAUSE = 16, 4096


class Lane:
    """Does what it is given, in order, in at most `width` threads of this process.

    With `inline`, on the event loop itself as long as that is found to be quick.
    """

    def __init__(self, width: int, *, inline: bool = False) -> None:
        self._width = width
        self._usual_seconds = 0.0
        self._pause = FIRST_PAUSE
        self._until_tried = 0 if inline else -1
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0

    def run(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """What `work` gives or raises, awaited on the running event loop; not begun any more once that is cancelled."""
        answer = Answer(asyncio.get_running_loop())
        if self._until_tried == 0:
            started = time.perf_counter()
            _settle(answer.future, *_outcome(work))
            self._judge(time.perf_counter() - started)
        else:
            self._until_tried -= self._until_tried > 0
            self.add(partial(answer.give, work))
        return answer.future

    def add(self, task: Callable[[], None]) -> None:
        """Do `task`, which must not raise, in one of the threads."""
        with self._lock:
            self._waiting.append(task)
            starts = self._running < self._width
            self._running += starts
        if starts:
            pool().start(self._help)

    def _help(self) -> Task | None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return None
                task = self._waiting.popleft()
            task()

    def _judge(self, seconds: float) -> None:
        # one hiccup says nothing
        self._usual_seconds += LATEST * (min(seconds, 2 * QUICK_SECONDS) - self._usual_seconds)
        if self._usual_seconds > QUICK_SECONDS:
            self._usual_seconds = 0.0
            self._until_tried = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)


class Answer:
    """A future of an event loop, to be settled from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def give(self, work: Callable[[], Any]) -> None:
        """Settle it with what `work` gives or raises; nothing is done where nobody waits any more."""
        if not self.future.cancelled():
            self._settle(*_outcome(work))

    def fail(self, error: BaseException) -> None:
        """Settle it with `error`."""
        self._settle(None, error)

    def _settle(self, result: Any, error: BaseException | None) -> None:  # noqa: ANN401  # any value
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(_settle, self.future, result, error)


def _outcome(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:  # noqa: BLE001  # handed to the one who waits
        return None, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:  # noqa: ANN401  # any value
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
