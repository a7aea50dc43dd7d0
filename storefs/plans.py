"""Plans: what to ask for, without asking.

A backend does no I/O. It yields requests, is sent their answers and returns a value; a driver does the asking. The
same plan runs on asyncio, in a worker thread, or by hand in a test with `next` and `send`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Get:
    """Ask for an object, or for bytes `start` to `stop` (exclusive) of it.

    `path` is relative to the volume. A body longer than `limit` is a fault, noticed before it is read. `parts` are the
    spans (start, stop) within that are wanted, where what lies between is not: caches keep each by itself.
    """

    path: str
    start: int | None = None
    stop: int | None = None
    limit: int | None = None
    parts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Gets:
    """Ask for several at the same time; answered with what each of them would be, in order."""

    requests: tuple[Get, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Ask whether an object exists; the body of the answer is empty."""

    path: str


@dataclass(frozen=True, slots=True)
class Names:
    """Ask for the names in a folder; answered with None where the source cannot list cheaply."""

    path: str


class Sink(Protocol):
    """Takes the body of a successful answer piece by piece, so that nothing holds it whole."""

    def restart(self) -> None:
        """Forget what was written: the answer broke off and comes again."""

    def write(self, piece: bytes) -> None:
        """Take the next piece; called in any thread, one at a time."""


@dataclass(frozen=True, slots=True)
class Call:
    """Ask a web service. `path` is a sequence of segments, each escaped on its way; so is `query`.

    `repeatable` says that asking twice does no harm, so that a lost answer may be asked for again; a `body` that is
    an iterator of pieces is never sent twice. What succeeds (200, 206) goes into `into`, if given, and Reply.data is
    empty.
    """

    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    body: bytes | memoryview | Iterable[bytes] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    repeatable: bool = True
    limit: int | None = None
    into: Sink | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A web service's answer, whatever its status; what it means is for the backend to say."""

    status: int
    data: bytes
    content_type: str = ""
    content_range: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """An object's bytes as stored; `content_encoding` is what the source says it is wrapped in."""

    data: bytes | memoryview
    content_encoding: str | None = None


class Sized(Protocol):
    """A value that knows roughly how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""


@dataclass(frozen=True, slots=True)
class Once:
    """Ask for the value of a plan that is run once and remembered under `key` (shard indexes)."""

    key: Hashable
    plan: Callable[[], Plan[Sized]]


@dataclass(frozen=True, slots=True)
class At:
    """Ask a place that is not the volume's own server, with the credentials given for `account` ("" for none).

    The path of `request` is the whole address.
    """

    request: Get | Head
    account: str = ""


@dataclass(frozen=True, slots=True)
class Race:
    """Ask all at once, each within `timeout` seconds and without a second try; None asks as patiently as usual.

    Answered with a pair for each, in order: the answer or the StorefsError, and the seconds that it took.
    """

    requests: tuple[Request, ...]
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """Ask what the volume at `url` looks like, of whatever format; answered with its Hierarchy."""

    url: str


@dataclass(frozen=True, slots=True)
class VolumeBox:
    """Ask for voxels of an array of the volume at `url`: from `start` to `stop`, in its axes, also beyond its edges.

    Answered with them, absent ones as `fill_value`; None where there is nothing at all.
    """

    url: str
    array: str
    start: tuple[int, ...]
    stop: tuple[int, ...]
    fill_value: int = 0


Request = Get | Gets | Head | Names | Call | Once | At | Race | Volume | VolumeBox
Plan = Generator[Request, Any, T]
"""Get and Head are answered with a Body, None where absent, Gets with a list of these; Names with names or None;
Call with a Reply."""


def resumed(plan: Plan[T], answer: Any) -> Plan[T]:  # noqa: ANN401  # answers differ by request
    """What is left of `plan` once its first request has been answered with `answer`, or has failed with it."""
    try:
        next(plan)
        request = plan.throw(answer) if isinstance(answer, BaseException) else plan.send(answer)
        while True:
            try:
                found = yield request
            except BaseException as error:  # noqa: BLE001  # handed to the plan, not swallowed
                request = plan.throw(error)
            else:
                request = plan.send(found)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # a generator's value is untyped


def drive(plan: Plan[T], answer: Callable[[Request], Any]) -> T:
    """Run `plan` to its end in this thread; `answer` fetches."""
    try:
        request = next(plan)
        while True:
            try:
                found = answer(request)
            except BaseException as error:  # noqa: BLE001  # handed to the plan, not swallowed
                request = plan.throw(error)
            else:
                request = plan.send(found)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # a generator's value is untyped


async def drive_async(plan: Plan[T], answer: Callable[[Request], Awaitable[Any]]) -> T:
    """Run `plan` to its end on the running event loop; `answer` fetches."""
    try:
        request = next(plan)
        while True:
            try:
                found = await answer(request)
            except BaseException as error:  # noqa: BLE001  # handed to the plan, not swallowed
                request = plan.throw(error)
            else:
                request = plan.send(found)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # a generator's value is untyped
