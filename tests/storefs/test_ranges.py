"""Ranges that are merged: everybody gets the bytes asked for, by as few requests as the gaps allow."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storefs.plans import Body
from storefs.transport.ranges import MAX_GAP, MAX_MERGED, RangeMerger

KIB = 1 << 10
OBJECT = bytes(range(256)) * (4 * KIB)  # 1 MiB
spans = st.tuples(st.integers(0, len(OBJECT) + KIB), st.integers(1, 64 * KIB)).map(lambda s: (s[0], s[0] + s[1]))


class Objects:
    """A source that counts requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []

    async def get_range(self, path: str, start: int, stop: int) -> Body | None:
        self.asked.append((path, start, stop))
        await asyncio.sleep(0)
        if path == "broken":
            raise ConnectionResetError(path)
        return None if path == "absent" else Body(OBJECT[start:stop])


async def fetch_all(source: Objects, wanted: list[tuple[str, int, int]]) -> list[Body | BaseException | None]:
    merger = RangeMerger(source.get_range)
    return await asyncio.gather(*(merger.fetch(*item) for item in wanted), return_exceptions=True)


@given(st.lists(spans, min_size=1, max_size=12))
def test_everybody_gets_the_bytes_asked_for(wanted):
    """Overlapping, touching, distant and too long ranges, in any order: each answer is its own slice."""
    source = Objects()
    found = asyncio.run(fetch_all(source, [("object", *span) for span in wanted]))
    assert [bytes(body.data) for body in found] == [OBJECT[start:stop] for start, stop in wanted]
    assert len(source.asked) <= len(wanted)
    for one, other in zip(sorted(source.asked), sorted(source.asked)[1:], strict=False):
        assert other[1] - one[2] > MAX_GAP or other[2] - one[1] > MAX_MERGED


def test_gaps_decide():
    """A gap of 64 KiB is read over, a larger one is not; other objects are other requests."""
    source = Objects()
    wanted = [
        ("a", 0, 10),
        ("a", 10 + MAX_GAP, 20 + MAX_GAP),
        ("a", 30 + 2 * MAX_GAP + 1, 40 + 2 * MAX_GAP),
        ("b", 0, 10),
    ]
    asyncio.run(fetch_all(source, wanted))
    assert sorted(source.asked) == [
        ("a", 0, 20 + MAX_GAP),
        ("a", 31 + 2 * MAX_GAP, 40 + 2 * MAX_GAP),
        ("b", 0, 10),
    ]


def test_what_is_absent_or_fails_is_so_for_all():
    """An absent object is None and a failure an error for everybody who waits, and for nobody else."""
    wanted = [("absent", 0, 5), ("broken", 0, 5), ("broken", 5, 9), ("absent", 6, 7), ("object", 1, 3)]
    found = asyncio.run(fetch_all(Objects(), wanted))
    assert found[0] is found[3] is None
    assert isinstance(found[1], ConnectionResetError)
    assert isinstance(found[2], ConnectionResetError)
    assert found[4] == Body(OBJECT[1:3])


def test_one_who_gives_up_does_not_disturb_the_others():
    """A cancelled fetch leaves the others of its group their answers."""

    async def work() -> Body | None:
        merger = RangeMerger(Objects().get_range)
        first = asyncio.ensure_future(merger.fetch("object", 0, 10))
        second = asyncio.ensure_future(merger.fetch("object", 10, 20))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(work()) == Body(OBJECT[10:20])


def test_those_who_come_late_are_not_waited_for():
    """Ranges asked for after the others were sent are requests of their own."""

    async def work() -> int:
        source = Objects()
        merger = RangeMerger(source.get_range)
        await merger.fetch("object", 0, 10)
        await merger.fetch("object", 10, 20)
        return len(source.asked)

    assert asyncio.run(work()) == 2


@pytest.mark.parametrize("turns", [1, 2])
def test_those_who_come_a_turn_later_are(turns):
    """Tasks that wake one after the other still share a request."""

    async def work() -> int:
        source = Objects()
        merger = RangeMerger(source.get_range)

        async def late(delay: int) -> None:
            for _ in range(delay):
                await asyncio.sleep(0)
            await merger.fetch("object", 10 * delay, 10 * delay + 10)

        await asyncio.gather(*(late(delay) for delay in range(turns + 1)))
        return len(source.asked)

    assert asyncio.run(work()) == 1
