"""Plans: driven by hand, in a thread and on an event loop, with the same outcome."""

from __future__ import annotations

import asyncio

import pytest

from storefs.plans import Body, Get, Head, Names, Plan, Request, drive, drive_async, resumed


def count_bytes(*paths: str) -> Plan[int]:
    """The bytes in several objects; absent ones count nothing, broken ones one."""
    total = 0
    for path in paths:
        try:
            body: Body | None = yield Get(path)
        except OSError:
            total += 1
        else:
            total += 0 if body is None else len(body.data)
    return total


def nothing() -> Plan[str]:
    """A plan without a request."""
    return "done"
    yield Head("never")


OBJECTS = {"a": b"12345", "b": b"678"}


def answer(request: Request) -> Body | None:
    assert isinstance(request, Get)
    if request.path == "broken":
        raise OSError("broken")
    if request.path == "worse":
        raise KeyError("worse")
    return Body(OBJECTS[request.path]) if request.path in OBJECTS else None


async def answer_later(request: Request) -> Body | None:
    await asyncio.sleep(0)
    return answer(request)


def test_by_hand():
    """A plan asks with `next` and `send` and ends with its value."""
    plan = count_bytes("a", "missing")
    assert next(plan) == Get("a")
    assert plan.send(Body(b"1234")) == Get("missing")
    with pytest.raises(StopIteration) as stop:
        plan.send(None)
    assert stop.value.value == 4


@pytest.mark.parametrize(("paths", "total"), [((), 0), (("a", "b"), 8), (("a", "missing"), 5), (("broken", "b"), 4)])
async def test_drivers_agree(paths, total):
    """Both drivers give what the plan returns; failures are handed to the plan, which may go on."""
    assert drive(count_bytes(*paths), answer) == total
    assert await drive_async(count_bytes(*paths), answer_later) == total


@pytest.mark.parametrize(("first", "total"), [(Body(b"12"), 5), (None, 3), (OSError("broken"), 4)])
async def test_a_plan_goes_on_from_its_first_answer(first, total):
    """What has been asked for already is not asked for again, whether it was answered or has failed."""
    asked: list[Request] = []

    def note(request: Request) -> Body | None:
        asked.append(request)
        return answer(request)

    assert drive(resumed(count_bytes("first", "b"), first), note) == total
    assert asked == [Get("b")]
    assert await drive_async(resumed(count_bytes("first", "broken"), first), answer_later) == total - 2
    assert drive(resumed(count_bytes("only"), first), note) == total - 3
    with pytest.raises(KeyError, match="worse"):
        drive(resumed(count_bytes("first", "worse"), first), answer)


async def test_plan_without_requests():
    """A plan may end at once."""
    assert drive(nothing(), answer) == "done"
    assert await drive_async(nothing(), answer_later) == "done"


async def test_failures_pass_through():
    """What a plan does not catch reaches the caller as it was raised."""
    with pytest.raises(KeyError, match="worse"):
        drive(count_bytes("a", "worse", "b"), answer)
    with pytest.raises(KeyError, match="worse"):
        await drive_async(count_bytes("a", "worse", "b"), answer_later)


async def test_cancelling_reaches_the_plan():
    """Cancelling the task ends the plan where it waits, and runs its clean-up."""
    ended = []

    def careful() -> Plan[None]:
        try:
            yield Names("folder")
        finally:
            ended.append(True)

    async def never(request: Request) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(drive_async(careful(), never))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
