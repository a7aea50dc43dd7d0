"""Telling how far long reads have come: a line on the terminal, or a function of the caller's.

Reads that run at once, in whatever threads, share one line, and so do those that follow within a second (dask).
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from rich.filesize import decimal

SHOWN_AFTER = 0.5
_REDRAWN_EVERY = 0.1
_CONTINUED_WITHIN = 1.0
_BAR_WIDTH = 30
_NARROWEST = 20

Hook = Callable[[int, int], object]


class Progress(Protocol):
    """Is told how far a long read has come; any thread may tell, and several reads may run at once.

    What it raises ends the read.
    """

    def start(self, total_chunks: int, total_bytes: int) -> None:
        """A read of so many chunks begins, which make so many bytes of voxels."""

    def advance(self, chunks: int, nbytes: int) -> None:
        """So many more are done."""

    def finish(self) -> None:
        """A read that began has ended, well or not."""


class Told:
    """Tells `hook(done_bytes, total_bytes)`, in the thread that got on, one call at a time."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._lock = threading.RLock()
        self._counts = _Counts()

    def start(self, total_chunks: int, total_bytes: int) -> None:
        """A read begins."""
        with self._lock:
            self._counts.start(total_chunks, total_bytes, 0.0)
            self._hook(self._counts.done, self._counts.total)

    def advance(self, chunks: int, nbytes: int) -> None:
        """Tell of what is done."""
        with self._lock:
            self._counts.advance(chunks, nbytes)
            self._hook(self._counts.done, self._counts.total)

    def finish(self) -> None:
        """A read has ended."""
        with self._lock:
            self._counts.finish()


class Line:
    """One line on `stream` for all reads of a process, drawn anew ten times a second, gone when they have ended.

    Only reads that last are shown, and only where somebody looks: on a terminal or in a notebook.
    """

    def __init__(self, stream: Callable[[], TextIO], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = _Counts()
        self._drawn = 0.0
        self._width = 0

    def start(self, total_chunks: int, total_bytes: int) -> None:
        """A read begins."""
        with self._lock:
            self._counts.start(total_chunks, total_bytes, self._clock())

    def advance(self, chunks: int, nbytes: int) -> None:
        """Draw the line, if it is time."""
        with self._lock:
            self._counts.advance(chunks, nbytes)
            now = self._clock()
            if now - self._counts.began >= SHOWN_AFTER and now - self._drawn >= _REDRAWN_EVERY:
                self._drawn = now
                self._draw(self._counts, now)

    def finish(self) -> None:
        """A read has ended; with the last one goes the line."""
        with self._lock:
            self._counts.finish()
            if not self._counts.running:
                self._counts.ended = self._clock()
                self._write("")

    def _draw(self, counts: _Counts, now: float) -> None:
        stream = self._stream()
        if not is_watched(stream):
            return
        width = shutil.get_terminal_size().columns - 1
        self._write(_line(counts, now - counts.began, width, fancy=_knows_bars(stream)))

    def _write(self, text: str) -> None:
        if not text and not self._width:
            return
        stream = self._stream()
        stream.write(f"\r{text.ljust(self._width)}" + ("" if text else "\r"))
        stream.flush()
        self._width = len(text)


class _Counts:
    """What reads that run at once add up to; `began` and `ended` in seconds of a clock."""

    def __init__(self) -> None:
        self.running = 0
        self.ended = -_CONTINUED_WITHIN
        self.began = 0.0
        self.chunks = self.total_chunks = self.done = self.total = 0

    def start(self, total_chunks: int, total_bytes: int, now: float) -> None:
        if not self.running and (now - self.ended >= _CONTINUED_WITHIN or not now):
            self.chunks = self.total_chunks = self.done = self.total = 0
            self.began = now
        self.running += 1
        self.total_chunks += total_chunks
        self.total += total_bytes

    def advance(self, chunks: int, nbytes: int) -> None:
        self.chunks += chunks
        self.done += nbytes

    def finish(self) -> None:
        self.running = max(0, self.running - 1)


def progress_of(option: Any) -> Progress | None:  # noqa: ANN401  # a hook, or whether
    """What is to be told, from the option `progress`: nothing, the terminal's line, a function or such an object."""
    if option is True:
        return line(os.getpid())
    if not option:
        return None
    if hasattr(option, "advance"):
        told: Progress = option
        return told
    return Told(option)


@functools.cache
def line(_pid: int) -> Line:
    """The line of the process `_pid`; a fork draws its own."""
    return Line(lambda: sys.stderr)


def is_watched(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal or a notebook's output."""
    if stream is None:  # a window program has none
        return False
    return stream.isatty() or type(stream).__module__.startswith("ipykernel")


def _line(counts: _Counts, seconds: float, width: int, *, fancy: bool) -> str:
    part = counts.done / counts.total if counts.total else 1.0
    rate = counts.done / seconds if seconds else 0.0
    left = _time((counts.total - counts.done) / rate) if rate else "?"
    text = (
        f"{part:4.0%} {decimal(counts.done)} of {decimal(counts.total)}, {counts.chunks} of {counts.total_chunks}"
        f" chunks, {decimal(int(rate))}/s, {left} left"
    )
    room = min(_BAR_WIDTH, width - len(text) - 1)
    if room < _BAR_WIDTH // 3:
        return text[: max(width, _NARROWEST)]
    full = min(room, int(part * room))
    bar = "━" * full + "╌" * (room - full) if fancy else "#" * full + "-" * (room - full)
    return f"{bar} {text}"


def _time(seconds: float) -> str:
    whole = int(seconds + 0.5)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _knows_bars(stream: TextIO) -> bool:
    try:
        "━╌".encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True
