"""Worker threads: one pool a process, and jobs whose tasks they share.

The first failure stops a job, and so does whatever interrupts the thread that waits for it; nothing is written for
it from then on. Threads that are still waiting for a server are left to themselves.
"""

from __future__ import annotations

import atexit
import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from queue import SimpleQueue
from typing import Any

Task = Callable[[], Any]

MOST_THREADS = 128
MOST_SCRATCH = 1 << 20
# threads that take turns in less get into each other's way
QUICK_SECONDS = 0.0002
# how often a waiting thread looks up, where signals do not wake it
_LOOK_UP = 0.5
# threads that come back from native code while the interpreter goes down can bring the process down
_SETTLE = 1.0


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Threads that wait for work, as many as were ever needed at once."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._lock = threading.Lock()
        self._work: SimpleQueue[Callable[[], Task | None]] = SimpleQueue()
        self._threads = self._idle = 0
        self._pid = os.getpid()
        atexit.register(self._settle)

    def start(self, work: Callable[[], Task | None]) -> None:
        """Have a thread do `work`, which must not raise, and then, when it is free for more, what that gives."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._threads < MOST_THREADS:
                self._threads += 1
                threading.Thread(target=self._run, name="storefs", daemon=True).start()
        self._work.put(work)

    def scratch(self, nbytes: int) -> memoryview | None:
        """Memory of this thread's own, for what is used up before it asks again; None where that would be too much."""
        if nbytes > MOST_SCRATCH:
            return None
        kept: memoryview | None = getattr(self._own, "scratch", None)
        if kept is None or len(kept) < nbytes:
            kept = self._own.scratch = memoryview(bytearray(nbytes))
        return kept if len(kept) == nbytes else kept[:nbytes]

    def _run(self) -> None:
        while True:
            then = self._work.get()()
            with self._lock:
                self._idle += 1
            if then is not None:
                then()

    def _settle(self) -> None:
        until = time.monotonic() + _SETTLE
        while self._pid == os.getpid() and self._idle < self._threads and time.monotonic() < until:
            time.sleep(0.01)


def pool() -> Pool:
    """The threads of this process."""
    return _pool(os.getpid())


@functools.cache
def _pool(_pid: int) -> Pool:
    # a fork has none of its parent's threads
    return Pool()


class Job:
    """Tasks shared by at most `width` threads, the caller's one of them if it is to take part; a task may add more.

    With `alone`, that one has no help as long as the parts of the work, of which `advance` tells, are quick.
    """

    def __init__(self, width: int, *, take_part: bool, alone: bool = False) -> None:
        self._width = width
        self._take_part = take_part
        self._alone = take_part and alone
        # how long the caller took for how many parts, and since when it is at the next
        self._parts, self._seconds, self._since = 1, 0.0, 0.0
        self._tasks: deque[Task] = deque()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._running = 0
        self._writing: set[int] = set()
        self._stopped = False
        self._error: BaseException | None = None

    def run(self, tasks: Sequence[Task]) -> None:
        """Do `tasks` and what they add. Raises the first failure of any, CancelledError where stopped."""
        try:
            if self._take_part:
                self._running = 1
                self._tasks.extend(tasks[:1])
                self.add(tasks[1:])
                if self._help() is not None:
                    self._over.set()
            elif tasks:
                self.add(tasks)
            else:
                return
            while not self._over.wait(_LOOK_UP):
                pass
        except BaseException:
            self.stop()
            raise
        if self._stopped:
            error, self._error = self._error, None
            raise error or CancelledError

    def add(self, tasks: Iterable[Task]) -> None:
        """More to do; threads are called in as far as there is work for them."""
        with self._lock:
            if self._stopped:
                return
            before = len(self._tasks)
            self._tasks.extend(tasks)
            wanted = 0 if self._alone else self._call_in(len(self._tasks) - before)
        for _ in range(wanted):
            pool().start(self._help)

    def _call_in(self, most: int) -> int:
        """How many more threads are to start, for at most as many tasks; they count as running."""
        wanted = max(0, min(self._width - self._running, most))
        self._running += wanted
        return wanted

    def advance(self) -> None:
        """A part of the work is done. Threads are called in if that took long."""
        if not self._alone:
            return
        now = time.perf_counter()
        self._parts += 1
        self._seconds += now - self._since
        self._since = now
        if self._seconds < QUICK_SECONDS * self._parts:
            return
        with self._lock:
            self._alone = False
            wanted = self._call_in(len(self._tasks))
        for _ in range(wanted):
            pool().start(self._help)

    def stop(self) -> None:
        """Begin nothing more; when this returns, no other thread is writing."""
        self._writing.discard(threading.get_ident())
        self._fail(None)
        while not self._over.wait(_LOOK_UP):
            pass

    def begin_writing(self) -> bool:
        """Whether the result may still be written to; if so, `end_writing` follows."""
        with self._lock:
            if self._stopped:
                return False
            self._writing.add(threading.get_ident())
            return True

    def end_writing(self) -> None:
        """What `begin_writing` allowed is done."""
        with self._lock:
            self._writing.discard(threading.get_ident())
            if self._stopped and not self._writing:
                self._over.set()

    def _fail(self, error: BaseException | None) -> None:
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._error = error
            self._tasks.clear()
            if not self._writing:
                self._over.set()

    def _help(self) -> Task | None:
        """Do tasks until there are none; what to do then, if this was the last."""
        while True:
            with self._lock:
                if not self._tasks:
                    self._running -= 1
                    return None if self._running else self._over.set
                task = self._tasks.popleft()
            if self._alone:  # of tasks that only add others nothing is told
                self._since = time.perf_counter()
            try:
                task()
            except BaseException as error:  # noqa: BLE001  # handed to the one who waits
                self._fail(error)
