"""The cache: one computation however many ask, nothing kept of failures, a bound on bytes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from storefs.once import OnceCache


@dataclass
class Value:
    name: str
    nbytes: int = 10


class Counter:
    """Computes values slowly and counts how often; fails the first `failures` times."""

    def __init__(self, failures: int = 0, wait: float = 0.05) -> None:
        self.calls = 0
        self.failures = failures
        self.wait = wait
        self._lock = threading.Lock()

    def _count(self) -> None:
        with self._lock:
            self.calls += 1
            call = self.calls
        if call <= self.failures:
            raise OSError(f"failure {call}")

    def __call__(self) -> Value:
        time.sleep(self.wait)
        self._count()
        return Value("slow")

    async def later(self) -> Value:
        await asyncio.sleep(self.wait)
        self._count()
        return Value("slow")


def test_threads_share_one_computation():
    """Threads that ask at the same time get the same value, computed once; so does whoever asks later."""
    cache, compute = OnceCache(1000), Counter()
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: cache.get("key", compute), range(8)))
    assert compute.calls == 1
    assert all(value is values[0] for value in values)
    assert cache.get("key", compute) is values[0]
    assert compute.calls == 1


async def test_tasks_share_one_computation():
    """Tasks of one event loop do too."""
    cache, compute = OnceCache(1000), Counter()
    values = await asyncio.gather(*(cache.get_async("key", compute.later) for _ in range(8)))
    assert compute.calls == 1
    assert all(value is values[0] for value in values)


def test_event_loops_and_threads_share_one_computation():
    """Two event loops and plain threads wait for one another."""
    cache, compute = OnceCache(1000), Counter(wait=0.1)

    def in_loop() -> Value:
        return asyncio.run(cache.get_async("key", compute.later))  # type: ignore[no-any-return]

    def in_thread() -> Value:
        return cache.get("key", compute)  # type: ignore[no-any-return]

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(call) for call in (in_loop, in_thread) * 3]
    assert compute.calls == 1
    assert len({id(future.result(10)) for future in futures}) == 1


def test_keys_do_not_wait_for_each_other():
    """A computation may ask for another key's value."""
    cache = OnceCache(1000)
    inner = Value("inner")
    outer = cache.get("outer", lambda: Value(cache.get("inner", lambda: inner).name + "!"))
    assert outer.name == "inner!"


@pytest.mark.parametrize("kind", ["threads", "tasks"])
async def test_failures_are_not_kept(kind):
    """Everyone who waits hears of a failure; who asks afterwards gets a new computation."""
    cache, compute = OnceCache(1000), Counter(failures=1, wait=0.2)
    if kind == "threads":
        together = threading.Barrier(4)

        def ask() -> Value:
            together.wait(10)
            return cache.get("key", compute)  # type: ignore[no-any-return]

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(ask) for _ in range(4)]
        outcomes = [future.exception(10) for future in futures]
    else:
        outcomes = await asyncio.gather(
            *(cache.get_async("key", compute.later) for _ in range(4)), return_exceptions=True
        )
    assert compute.calls == 1
    assert [str(outcome) for outcome in outcomes] == ["failure 1"] * 4
    assert cache.get("key", compute).name == "slow"
    assert compute.calls == 2


async def test_cancelled_owner():
    """Where the task that computes is cancelled, another that waits takes over; nobody hangs, none is cancelled."""
    cache = OnceCache(1000)
    started = asyncio.Event()
    calls = 0

    async def compute() -> Value:
        nonlocal calls
        calls += 1
        started.set()
        await asyncio.sleep(10 if calls == 1 else 0)
        return Value(f"call {calls}")

    owner = asyncio.create_task(cache.get_async("key", compute))
    await started.wait()
    waiting = [asyncio.create_task(cache.get_async("key", compute)) for _ in range(3)]
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(cache.get, "key", lambda: Value("thread"))
        await asyncio.sleep(0.02)
        owner.cancel()
        values = await asyncio.wait_for(asyncio.gather(*waiting), 5)
        late = await asyncio.wait_for(asyncio.wrap_future(thread), 5)
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert len({value.name for value in [*values, late]}) == 1


async def test_cancelled_waiter():
    """A task that waits can be cancelled without harm to the one that computes."""
    cache, compute = OnceCache(1000), Counter(wait=0.1)
    owner = asyncio.create_task(cache.get_async("key", compute.later))
    await asyncio.sleep(0.01)
    waiter = asyncio.create_task(cache.get_async("key", compute.later))
    await asyncio.sleep(0.01)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert (await owner).name == "slow"
    assert (await cache.get_async("key", compute.later)).name == "slow"
    assert compute.calls == 1


def test_bytes_are_bounded():
    """The values used longest ago are dropped first; the last one stays, however big."""
    cache = OnceCache(30)
    made: list[str] = []

    def make(name: str, nbytes: int = 10) -> Value:
        def compute() -> Value:
            made.append(name)
            return Value(name, nbytes)

        return cache.get(name, compute)  # type: ignore[no-any-return]

    for name in ("a", "b", "c", "a", "d"):
        make(name)
    assert made == ["a", "b", "c", "d"]
    make("a")
    make("c")
    assert made == ["a", "b", "c", "d"]
    make("b")
    assert made == ["a", "b", "c", "d", "b"]
    make("huge", 1000)
    make("huge", 1000)
    assert made[-1] == "huge"
    assert made.count("huge") == 1
    make("c")
    assert made[-1] == "c"
    make("huge", 1000)
    assert made.count("huge") == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_while_computing():
    """A child forked while a thread computes is not left waiting for a thread that it does not have."""
    cache = OnceCache(1000)
    started, finish = threading.Event(), threading.Event()

    def slow() -> Value:
        started.set()
        finish.wait(20)
        return Value("parent")

    thread = threading.Thread(target=cache.get, args=("key", slow))
    thread.start()
    started.wait(10)
    child = os.fork()
    if not child:
        signal_alarm()
        os._exit(0 if cache.get("key", lambda: Value("child")).name == "child" else 1)
    _, status = os.waitpid(child, 0)
    finish.set()
    thread.join(10)
    assert os.waitstatus_to_exitcode(status) == 0
    assert cache.get("key", lambda: Value("never")).name == "parent"


def signal_alarm() -> None:
    """End this process after a while."""
    import signal

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(10)
