"""Runs decoders that damaged bytes can crash, in child processes that stay alive between chunks.

Some libraries read and write out of bounds on invalid input. Whatever they do happens in a process of their
own: a crash, a hang or an allocation gone wild becomes a GuardedError here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import queue
import subprocess
import sys
import weakref
from typing import Any

from storefs_codecs.errors import MissingExtra
from storefs_codecs.guarded_worker import ANSWER, DONE, MESSAGE_BYTES, REQUEST

MOST_WORKERS = 8
WORKER_SCRIPT = pathlib.Path(__file__).with_name("guarded_worker.py")
BASE_SECONDS = 10.0
BYTES_PER_SECOND = 1e6


class GuardedError(ValueError):
    """The library refused the bytes, crashed on them, or took too long."""


class CrashedError(GuardedError):
    """The process ended without an answer."""


def require(codec: str, library: str, extra: str) -> None:
    """Raise MissingExtra where `library` cannot be found."""
    if importlib.util.find_spec(library) is None:
        raise MissingExtra(codec, library, extra)


def run_guarded(task: str, payload: memoryview, result_bytes: int, settings: dict[str, Any]) -> bytearray:
    """The result of a task of guarded_worker.py, which gets `settings`; at most `result_bytes` long.

    Raises GuardedError where the library fails in whichever way.
    """
    request = {
        "task": task,
        "result_bytes": result_bytes,
        "seconds": BASE_SECONDS + (len(payload) + result_bytes) / BYTES_PER_SECOND,
        **settings,
    }
    return _pool(os.getpid()).run(request, payload)


@functools.cache
def _pool(_pid: int) -> _Pool:
    """The workers of this process; a fork gets its own."""
    return _Pool(min(os.cpu_count() or 1, MOST_WORKERS))


class _Pool:
    """Up to `size` workers, started when needed; the one used last is used next."""

    def __init__(self, size: int) -> None:
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(None)
        weakref.finalize(self, _close_all, self._idle, os.getpid())

    def run(self, request: dict[str, Any], payload: memoryview) -> bytearray:
        worker = self._idle.get()
        try:
            if worker is not None:
                with contextlib.suppress(CrashedError):  # which may be the fault of an earlier chunk
                    return worker.run(request, payload)
                worker.close()
            worker = _Worker()
            return worker.run(request, payload)
        finally:
            if worker is not None and not worker.sound:
                worker.close()
                worker = None
            self._idle.put(worker)


class _Worker:
    """One child process. `sound` until a request fails: what a library then left in memory nobody knows."""

    def __init__(self) -> None:
        paths = json.dumps([os.path.abspath(path) for path in sys.path])  # noqa: PTH100 an empty path means here
        self._process = subprocess.Popen(  # noqa: S603 our own script and interpreter
            [sys.executable, "-I", str(WORKER_SCRIPT), paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self.sound = True

    def run(self, request: dict[str, Any], payload: memoryview) -> bytearray:
        self.sound = False
        status, body = self._exchange(json.dumps(request).encode(), payload, request["result_bytes"])
        if status != DONE:
            raise GuardedError(body.decode(errors="replace"))
        self.sound = True
        return body

    def _exchange(self, request: bytes, payload: memoryview, result_bytes: int) -> tuple[int, bytearray]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise CrashedError("the decoding process has no pipes")
        with contextlib.suppress(BrokenPipeError):  # the missing answer tells
            stdin.write(REQUEST.pack(len(request), len(payload)) + request)
            stdin.write(payload)
            stdin.flush()
        answer = stdout.read(ANSWER.size)
        if len(answer) == ANSWER.size:
            status, length = ANSWER.unpack(answer)
            if length <= max(result_bytes, MESSAGE_BYTES):
                body = bytearray(length)
                if stdout.readinto(body) == length:  # type: ignore[attr-defined]  # a BufferedReader
                    return status, body
        self._process.kill()
        code = self._process.wait()
        raise CrashedError(f"the library crashed or ran out of time (exit code {code})")

    def close(self) -> None:
        self._process.kill()  # closed pipes would not end it while a fork of ours holds them too
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _close_all(idle: queue.LifoQueue[_Worker | None], pid: int) -> None:
    """End the workers that wait, where this is the process that started them."""
    if os.getpid() != pid:
        return
    while not idle.empty():
        worker = idle.get_nowait()
        if worker is not None:
            worker.close()
