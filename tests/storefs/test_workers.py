"""Jobs shared by the worker threads of a process."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest

from storefs import workers
from storefs.workers import Job, pool


@pytest.mark.parametrize("take_part", [True, False])
def test_all_tasks_are_done_once(take_part):
    """Also those that tasks add, by no more threads at a time than the job is wide."""
    done: list[int] = []
    at_once = [0, 0]
    lock = threading.Lock()
    job = Job(3, take_part=take_part)

    def task(number: int) -> None:
        with lock:
            at_once[0] += 1
            at_once[1] = max(at_once)
        time.sleep(0.001)
        done.append(number)
        if number < 20:
            job.add([lambda: task(number + 100), lambda: task(number + 200)])
        with lock:
            at_once[0] -= 1

    job.run([lambda n=n: task(n) for n in range(50)])
    assert sorted(done) == sorted([*range(50), *range(100, 120), *range(200, 220)])
    assert at_once[1] <= 3


@pytest.mark.parametrize("take_part", [True, False])
def test_a_job_of_nothing_ends(take_part):
    """There is nothing to wait for."""
    Job(4, take_part=take_part).run([])


@pytest.mark.parametrize("take_part", [True, False])
def test_the_first_failure_stops_the_rest(take_part):
    """It is raised once, and tasks that have not begun are not begun."""
    begun: list[int] = []

    def task(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise KeyError(number)
        time.sleep(0.002)

    with pytest.raises(KeyError, match="3"):
        Job(2, take_part=take_part).run([lambda n=n: task(n) for n in range(500)])
    time.sleep(0.05)
    assert len(begun) < 50


def test_nothing_is_written_after_a_job_was_stopped():
    """`stop` waits for those who are writing and lets nobody else begin, however long they were on their way."""
    on_the_way, may_go_on = threading.Event(), threading.Event()
    writing, written = threading.Event(), []
    job = Job(2, take_part=False)

    def slow_to_fetch() -> None:
        on_the_way.set()
        may_go_on.wait(10)
        written.append("late" if job.begin_writing() else "not begun")

    def slow_to_write() -> None:
        assert job.begin_writing()
        writing.set()
        time.sleep(0.2)
        written.append("in time")
        job.end_writing()

    def run() -> None:
        with pytest.raises(CancelledError):
            job.run([slow_to_fetch, slow_to_write])

    waiting = threading.Thread(target=run)
    waiting.start()
    assert on_the_way.wait(10)
    assert writing.wait(10)
    job.stop()
    assert written == ["in time"]
    waiting.join(10)
    may_go_on.set()
    for _ in range(100):
        if len(written) == 2:
            break
        time.sleep(0.02)
    assert written == ["in time", "not begun"]


def test_threads_are_used_again():
    """Many jobs, one after the other, take about as many threads as one."""
    before = threading.active_count()
    for _ in range(60):
        Job(2, take_part=False).run([lambda: None] * 2)
    assert threading.active_count() - before < 12


def test_scratch_is_each_threads_own():
    """Asking again gives the same memory; another thread gets other memory; nobody gets very much."""
    mine = pool().scratch(100)
    again = pool().scratch(50)
    assert mine is not None
    assert again is not None
    assert len(again) == 50
    mine[0] = 7
    assert again[0] == 7
    others: list[memoryview | None] = []
    Job(1, take_part=False).run([lambda: others.append(pool().scratch(100))])
    assert others[0] is not None
    others[0][0] = 9
    assert mine[0] == 7
    assert pool().scratch(1 << 30) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_has_threads_of_its_own():
    """Jobs run in a forked process."""
    Job(2, take_part=False).run([lambda: None] * 4)
    child = os.fork()
    if child == 0:
        done: list[int] = []
        Job(2, take_part=False).run([lambda: done.append(1)] * 4)
        os._exit(0 if len(done) == 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("quick", [True, False])
def test_the_caller_has_help_only_where_parts_take_long(monkeypatch, quick):
    """Alone while all parts were quick; with others from the first on that was not."""
    monkeypatch.setattr(workers, "QUICK_SECONDS", 1000.0 if quick else 0.0)
    job = Job(3, take_part=True, alone=True)
    helped = threading.Event()
    done: list[int] = []

    def task() -> None:
        if threading.get_ident() != caller:
            helped.set()
        elif done and not quick:
            assert helped.wait(20)  # others take tasks as well
        done.append(threading.get_ident())
        job.advance()

    caller = threading.get_ident()
    job.run([lambda: job.add([task] * 7), task])
    assert len(done) == 8
    assert helped.is_set() is not quick
    assert (set(done) == {caller}) is quick


def test_tasks_that_only_add_others_are_no_slow_parts(monkeypatch):
    """Of a task that tells of no part its time does not count."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(workers, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(workers, "pool", lambda: pytest.fail("help was called in"))
    job = Job(3, take_part=True, alone=True)
    done = []

    def part() -> None:
        clock.now += workers.QUICK_SECONDS
        done.append(clock.now)
        job.advance()

    def others() -> None:
        clock.now += 1.0
        job.add([part] * 3)

    job.run([others, part])
    assert len(done) == 4
