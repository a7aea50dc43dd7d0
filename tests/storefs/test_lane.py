"""Work for a few threads at a time, awaited on event loops."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from storefs.lane import QUICK_SECONDS, Lane


def at_once(width: int, count: int) -> int:
    """How many of `count` pieces of work a lane of `width` has under way at most."""
    lock, under_way, most = threading.Lock(), 0, 0

    def work(number: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)
        with lock:
            under_way -= 1
        return number

    async def run() -> list[int]:
        lane = Lane(width)
        return await asyncio.gather(*(lane.run(lambda n=n: work(n)) for n in range(count)))

    assert asyncio.run(run()) == list(range(count))
    return most


@pytest.mark.parametrize("width", [1, 2, 5])
def test_so_many_at_a_time(width):
    """As many pieces of work as the lane is wide run at once, and each gives what it gives."""
    assert at_once(width, 12) == width


@pytest.mark.parametrize("inline", [False, True])
def test_failures_are_raised_where_they_are_awaited(inline):
    """Other work goes on."""

    def fail() -> None:
        raise KeyError("mine")

    async def run() -> None:
        lane = Lane(2, inline=inline)
        with pytest.raises(KeyError, match="mine"):
            await lane.run(fail)
        assert await lane.run(lambda: 3) == 3

    asyncio.run(run())


def test_what_is_cancelled_is_not_begun():
    """Work that waits for its turn is left out once nobody waits for it, and that which runs does no harm."""
    begun: list[int] = []
    started, go_on = threading.Event(), threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        started.set()
        go_on.wait(10)

    async def run() -> None:
        lane = Lane(1)
        first, second, third = (lane.run(lambda n=n: work(n)) for n in range(3))
        await asyncio.to_thread(started.wait, 10)
        first.cancel()
        second.cancel()
        go_on.set()
        await third

    asyncio.run(run())
    assert begun == [0, 2]


def test_quick_work_is_done_on_the_spot():
    """On the event loop's own thread as long as it is quick; then in others, and now and then it is tried again."""
    lane = Lane(2, inline=True)
    slow = 4 * QUICK_SECONDS

    async def where(seconds: float, count: int) -> list[bool]:
        def work() -> bool:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                pass
            return threading.get_ident() == here

        here = threading.get_ident()
        return [await lane.run(work) for _ in range(count)]

    asyncio.run(where(0.0, 10))
    on_the_spot = asyncio.run(where(slow, 200))
    assert 0 < sum(on_the_spot) < 60
    assert any(asyncio.run(where(0.0, 300)))


def test_without_leave_nothing_is_done_on_the_spot():
    """However quick it is."""

    async def run() -> set[int]:
        lane = Lane(2)
        return {await lane.run(threading.get_ident) for _ in range(50)}

    assert threading.get_ident() not in asyncio.run(run())


def test_a_loop_that_has_ended_is_no_trap():
    """A lane serves the next event loop when one was closed under its work."""
    lane = Lane(1)
    go_on = threading.Event()

    async def leave() -> None:
        lane.run(lambda: go_on.wait(10))
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    go_on.set()

    async def again() -> int:
        return await lane.run(lambda: 5)

    assert asyncio.run(again()) == 5
