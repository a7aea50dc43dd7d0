"""The requests of DVID's HTTP API that storefs makes, and what an answer's status means. Pure.

Nearly every failure of a DVID server is a 400 with a line of text; 404 is rare and means many things, so that each
caller says which statuses are an answer for it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from storefs.backends.dvid.info import parse_json
from storefs.errors import Refused, ServerFault, TransportError
from storefs.plans import Call, Reply

if TYPE_CHECKING:
    from collections.abc import Collection

    from storefs.plans import Plan

Triple = tuple[int, int, int]

OK = 200
BAD_REQUEST = 400
REFUSED = frozenset({401, 403})
_SHOWN = 300


def text(triple: tuple[int, ...]) -> str:
    """Coordinates as they stand in a path: x_y_z."""
    return "_".join(str(n) for n in triple)


def node(version: str, instance: str, *rest: str) -> tuple[str, ...]:
    """Path of something of an instance at a version."""
    return ("api", "node", version, instance, *rest)


def repo(version: str, *rest: str) -> tuple[str, ...]:
    """Path of something of the repo that holds a version."""
    return ("api", "repo", version, *rest)


def ask(call: Call, url: str, accept: Collection[int] = (OK,)) -> Plan[Reply]:
    """The answer to `call`, whose status is one of `accept`.

    Raises Refused for 401 and 403, and ServerFault with the server's own words for the rest.
    """
    reply: Reply = yield call
    if reply.status in accept:
        return reply
    said = words(reply)
    if reply.status in REFUSED:
        raise Refused(f"the server refused this ({reply.status}: {said}); pass token=… or set DVID_TOKEN", url=url)
    kind = TransportError if reply.status == BAD_REQUEST else ServerFault
    raise kind(f"the server answered {reply.status} to {call.method} /{'/'.join(call.path)}: {said}", url=url)


def ask_json(call: Call, url: str, accept: Collection[int] = (OK,)) -> Plan[Any]:
    """The answer to `call` as JSON. Raises as `ask` does, and MetadataError."""
    reply = yield from ask(call, url, accept)
    return parse_json(reply.data, "/".join(call.path), url)


def words(reply: Reply) -> str:
    """What an error answer says, on one line."""
    return " ".join(reply.data[:_SHOWN].decode("utf-8", "replace").split()) or "nothing"


def to_json(value: object) -> bytes:
    """A request's body."""
    return json.dumps(value).encode()
