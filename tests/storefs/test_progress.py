"""Telling of long reads: one line for all, only where somebody looks; or a function."""

from __future__ import annotations

import io
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from storefs.progress import Line, Told, is_watched, progress_of


class Terminal(io.StringIO):
    """What a terminal would get."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        """What stood on the line, one after the other."""
        return [text.rstrip() for text in self.getvalue().split("\r") if text.strip()]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def read(line: Line, clock: Clock, seconds: float, chunks: int = 10) -> None:
    line.start(chunks, chunks * 1000)
    for _ in range(chunks):
        clock.now += seconds / chunks
        line.advance(1, 1000)
    line.finish()


def test_short_reads_are_silent(terminal, clock):
    """What is done in less than half a second shows nothing."""
    line = Line(lambda: terminal, clock)
    for _ in range(5):
        read(line, clock, 0.4)
        clock.now += 5
    assert terminal.getvalue() == ""


def test_long_reads_are_shown_and_leave_nothing(terminal, clock):
    """A long read shows how far it is, how fast and how long still, on one line which is blank in the end."""
    line = Line(lambda: terminal, clock)
    read(line, clock, 10.0)
    assert "40% 4.0 kB of 10.0 kB, 4 of 10 chunks, 1.0 kB/s, 6 s left" in terminal.shown[3]
    assert terminal.shown[3].startswith("━" * 12 + "╌")
    assert "\n" not in terminal.getvalue()
    assert re.search(r"\r +\r$", terminal.getvalue())


def test_it_is_not_drawn_too_often(terminal, clock):
    """However many chunks there are, the line is drawn ten times a second at most."""
    line = Line(lambda: terminal, clock)
    read(line, clock, 2.0, chunks=5000)
    assert 10 <= len(terminal.shown) <= 17


def test_reads_at_once_share_the_line(terminal, clock):
    """Reads in several threads add up on one line, which goes when the last has ended."""
    line = Line(lambda: terminal, clock)
    line.start(10, 1000)
    line.start(10, 3000)
    clock.now += 1
    line.advance(1, 100)
    assert "2% 100 bytes of 4.0 kB, 1 of 20 chunks" in terminal.shown[-1]
    line.finish()
    assert terminal.getvalue()[-1] != "\r"
    line.finish()
    assert terminal.getvalue()[-1] == "\r"


def test_reads_that_follow_closely_are_one(terminal, clock):
    """Many short reads after one another, as a dask worker does them, count as one long read."""
    line = Line(lambda: terminal, clock)
    for _ in range(10):
        read(line, clock, 0.2)
    assert " of 100 chunks" in terminal.shown[-1]
    clock.now += 60
    read(line, clock, 1.0)
    assert " of 10 chunks" in terminal.shown[-1]


def test_narrow_and_plain_terminals(monkeypatch, clock):
    """A narrow terminal gets no bar and no line that breaks; one that knows no such letters gets plain ones."""
    narrow = Terminal()
    monkeypatch.setenv("COLUMNS", "40")
    read(Line(lambda: narrow, clock), clock, 3.0)
    assert max(map(len, narrow.shown)) < 40
    monkeypatch.setenv("COLUMNS", "100")
    plain = Terminal()
    plain.encoding = "ascii"
    clock.now += 10
    read(Line(lambda: plain, clock), clock, 3.0)
    assert plain.shown[-1].startswith("####")
    assert plain.getvalue().isascii()


def test_nobody_looks(clock):
    """Nothing is written to files, pipes, or where there is no stream."""
    log = io.StringIO()
    read(Line(lambda: log, clock), clock, 10.0)
    assert log.getvalue() == ""
    read(Line(lambda: None, clock), clock, 10.0)
    assert not is_watched(None)


def test_notebooks_are_watched():
    """The stream of a notebook's kernel is no terminal, but somebody looks."""
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    assert is_watched(stream)


def test_threads(terminal):
    """Advances from many threads add up."""
    line = Line(lambda: terminal)
    line.start(4000, 4000)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: [line.advance(1, 1) for _ in range(1000)], range(4)))
    assert (line._counts.chunks, line._counts.done) == (4000, 4000)
    line.finish()


def test_a_function_is_told():
    """A function hears bytes done and bytes in all, from the beginning to the end, read by read."""
    heard = []
    told = Told(lambda done, total: heard.append((done, total)))
    for _ in range(2):
        told.start(2, 200)
        told.advance(1, 100)
        told.advance(1, 100)
        told.finish()
    assert heard == [(0, 200), (100, 200), (200, 200)] * 2


def test_a_function_may_stop_the_read():
    """What the function raises comes out where the read gets on."""

    def stop(done: int, total: int) -> None:
        if done:
            raise InterruptedError("enough")

    told = Told(stop)
    told.start(2, 200)
    with pytest.raises(InterruptedError, match="enough"):
        told.advance(1, 100)


def test_options():
    """True is the process's line on stderr, a function is wrapped, an object with the right methods serves itself."""
    off, on = False, True
    assert progress_of(off) is None
    line = progress_of(on)
    assert isinstance(line, Line)
    assert progress_of(on) is line
    assert line._stream() is sys.stderr
    assert isinstance(progress_of(print), Told)
    assert progress_of(line) is line
