"""Values worth keeping: each computed once however many ask for it at the same time, the least used dropped first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import CancelledError, Future
from typing import Any

from storefs.tally import Tally


class OnceCache:
    """A cache of computed values, bounded in bytes, safe across threads, event loops and fork.

    Failures are handed to everyone who waits and are not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.tally = Tally()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._pending: dict[Hashable, Future[Any]] = {}
        self._bytes = 0

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:  # noqa: ANN401  # holds any value
        """The value of `key`, computed in this thread if nobody else is at it."""
        while True:
            found = self._values.get(key)  # without a future, as every chunk of a shard comes by here
            if found is not None and self._pid == os.getpid():
                return self._used(key, found)
            pending, mine = self._claim(key)
            if mine:
                break
            with contextlib.suppress(CancelledError):  # whoever computed it was cancelled
                return pending.result()
        try:
            value = compute()
        except BaseException as error:
            self._fail(key, pending, error)
            raise
        self._keep(key, pending, value)
        return value

    async def get_async(self, key: Hashable, compute: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401  # holds any value
        """The value of `key`, computed on this event loop if nobody else is at it."""
        while True:
            pending, mine = self._claim(key)
            if mine:
                break
            if pending.done() and not pending.cancelled():
                return pending.result()
            waiting = asyncio.wrap_future(pending)
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                return waiting.result()
        try:
            value = await compute()
        except asyncio.CancelledError:
            self._fail(key, pending, None)
            raise
        except BaseException as error:
            self._fail(key, pending, error)
            raise
        self._keep(key, pending, value)
        return value

    def _used(self, key: Hashable, value: Any) -> Any:  # noqa: ANN401  # holds any value
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
        self.tally.add(hits=1, bytes_read=value.nbytes)
        return value

    def clear(self) -> None:
        """Forget all values; what is being computed goes on."""
        if self._pid != os.getpid():
            self._reset()  # the parent's lock may be held for ever
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._bytes

    def _claim(self, key: Hashable) -> tuple[Future[Any], bool]:
        if self._pid != os.getpid():
            self._reset()  # locks and futures of the parent process never wake
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                self.tally.add(hits=1, bytes_read=self._values[key].nbytes)
                done: Future[Any] = Future()
                done.set_result(self._values[key])
                return done, False
            if key in self._pending:
                self.tally.add(hits=1)
                return self._pending[key], False
            self.tally.add(misses=1)
            self._pending[key] = Future()
            return self._pending[key], True

    def _fail(self, key: Hashable, pending: Future[Any], error: BaseException | None) -> None:
        with self._lock:
            self._pending.pop(key, None)
        if error is None:
            pending.cancel()
        else:
            pending.set_exception(error)

    def _keep(self, key: Hashable, pending: Future[Any], value: Any) -> None:  # noqa: ANN401  # holds any value
        with self._lock:
            self._pending.pop(key, None)
            self._values[key] = value
            self._bytes += value.nbytes
            self.tally.add(bytes_written=value.nbytes)
            while self._bytes > self.max_bytes and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self._bytes -= dropped.nbytes
        pending.set_result(value)
