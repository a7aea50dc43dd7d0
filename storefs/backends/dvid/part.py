"""What the parts of the client share: the connection, plans as methods, errors that say what is wrong.

A method decorated with `asked` is written as a plan and called as a function; the plan stays at hand as
`method.__wrapped__`, for tests and for others who drive plans.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, Protocol, TypeVar

from storefs.backends.dvid import calls
from storefs.backends.dvid.info import Instance, parse_instance, parse_json
from storefs.errors import MetadataError, NoSuchVolume, TransportError, Unsupported
from storefs.plans import Call, Reply, drive, drive_async

if TYPE_CHECKING:
    from storefs.plans import Plan, Request

P = ParamSpec("P")
T = TypeVar("T")

_NO_INSTANCE = re.compile(r"invalid data instance name")
_NO_VERSION = re.compile(
    r"could not find UUID|more than one UUID matches|branch \".*\" not found|is out of range for branch"
    r"|UUID must be specified"
)
_NO_ENDPOINT = re.compile(r"Bad API call|endpoint is not supported|is not label indexed")
_FULL_WRITE = "allow writes on committed nodes"


def field_of(answer: object, key: str, kind: type[T], url: str) -> T:
    """The value of `key` in an answer, of type `kind`. Raises MetadataError."""
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise MetadataError(f"expected {key} ({kind.__name__}) in the answer, got {str(answer)[:200]}", url=url)
    return value


class Asks(Protocol):
    """A transport as far as a client needs one."""

    def fetch(self, request: Call) -> Reply:
        """The answer, awaited in this thread."""

    async def fetch_async(self, request: Call) -> Reply:
        """The answer, awaited on the running event loop."""


@dataclass
class Connection:
    """One server: how it is asked, and what of it never changes."""

    transport: Asks
    url: str
    is_admin: bool = False
    throttle: bool = False
    instances: dict[tuple[str, str], Instance] = field(default_factory=dict)

    def run(self, plan: Plan[T]) -> T:
        """The value of `plan`, asked for in this thread."""
        return drive(plan, lambda request: self.transport.fetch(_call(request)))

    async def run_async(self, plan: Plan[T]) -> T:
        """The value of `plan`, asked for on the running event loop, for filesystems and stores.

        NoSuchVolume comes as TransportError, which zarr does not take for "nothing here".
        """
        try:
            return await drive_async(plan, lambda request: self.transport.fetch_async(_call(request)))
        except NoSuchVolume as error:
            raise TransportError(error.message, url=error.url) from error


def _call(request: Request) -> Call:
    if not isinstance(request, Call):
        raise TypeError(f"a service is asked by Call, not by {type(request).__name__}")
    return request


class Part:
    """One subject of the client."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection.url!r})"

    def _ask(self, call: Call, accept: Collection[int] = (calls.OK,)) -> Plan[Reply]:
        return (yield from ask(call, self._connection.url, accept))

    def _ask_json(self, call: Call) -> Plan[Any]:
        reply = yield from self._ask(call)
        return parse_json(reply.data, "/".join(call.path), self._connection.url)

    def _post_json(self, path: tuple[str, ...], value: object, *, repeatable: bool = True) -> Plan[Any]:
        call = Call(path, method="POST", body=calls.to_json(value), repeatable=repeatable)
        reply = yield from self._ask(call)
        return parse_json(reply.data, "/".join(path), self._connection.url) if reply.data else None

    def _voxels(self, uuid: str, name: str) -> Plan[Instance]:
        """The voxel instance `name`: type, block size and so on, remembered; extents may be old."""
        key = uuid, name
        if key not in self._connection.instances:
            document = yield from self._ask_json(Call(calls.node(uuid, name, "info")))
            self._connection.instances[key] = parse_instance(document, self._connection.url)
        return self._connection.instances[key]

    def _throttled(self) -> tuple[tuple[str, str], ...]:
        return (("throttle", "true"),) if self._connection.throttle else ()

    def _check_open(self, uuid: str, name: str) -> Plan[None]:
        """Raise TransportError where `uuid` is locked and so refuses to change `name`: before a byte is sent."""
        status = yield from self._ask_json(Call(("api", "node", uuid, "status")))
        if not (isinstance(status, dict) and status.get("Locked")) or self._connection.is_admin:
            return
        info = yield from self._ask_json(Call(calls.node(uuid, name, "info")))
        base = info.get("Base") if isinstance(info, dict) else None
        if isinstance(base, dict) and base.get("Versioned") is False:
            return
        server = yield from self._ask_json(Call(("api", "server", "info")))
        if isinstance(server, dict) and server.get("Mode") == _FULL_WRITE:
            return
        self._fail(
            f"version {uuid} is locked, so nothing was sent; write to an open child of it (versions.new_version)"
        )

    def _fail(self, message: str) -> NoReturn:
        raise TransportError(message, url=self._connection.url)


S = TypeVar("S", bound=Part)


def asked(plan: Callable[Concatenate[S, P], Plan[T]]) -> Callable[Concatenate[S, P], T]:
    """The method that asks what `plan` asks for and gives its value."""

    @functools.wraps(plan)
    def run(part: S, *args: P.args, **settings: P.kwargs) -> T:
        return part._connection.run(plan(part, *args, **settings))  # noqa: SLF001  # parts are made for this

    signature = inspect.signature(plan)
    gives = str(signature.return_annotation).removeprefix("Plan[").removesuffix("]")
    run.__signature__ = signature.replace(return_annotation=gives)  # type: ignore[attr-defined]  # read by inspect
    return run  # type: ignore[return-value]  # wraps hides that the first is a position


def ask(call: Call, url: str, accept: Collection[int] = (calls.OK,)) -> Plan[Reply]:
    """The answer to `call`, whose status is one of `accept`.

    Raises NoSuchVolume for an unknown version or instance, Unsupported for what the instance does not offer, and
    otherwise what `calls.ask` raises.
    """
    reply: Reply = yield from calls.ask(call, url, {*accept, calls.BAD_REQUEST})
    if reply.status in accept:
        return reply
    said = calls.words(reply)
    where = f" ({call.method} /{'/'.join(call.path)})"
    if _NO_INSTANCE.search(said) and call.path[:2] == ("api", "node"):
        raise NoSuchVolume(f"no data instance {call.path[3]!r} at version {call.path[2]}: {said}", url=url)
    if _NO_VERSION.search(said):
        raise NoSuchVolume(f"no version {call.path[2]!r}: {said}", url=url)
    if _NO_ENDPOINT.search(said):
        raise Unsupported(f"the server does not offer this: {said}{where}", url=url)
    raise TransportError(f"the server answered {reply.status} to {call.method} /{'/'.join(call.path)}: {said}", url=url)
