"""What a server is asked and what it answers, and the ways in which DVID says no."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote


@dataclass(frozen=True)
class Asked:
    """One request as it came; `target` is the path and query as sent, header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    at: float = field(default_factory=time.monotonic)

    @cached_property
    def sent_path(self) -> str:
        """The path, still percent-encoded."""
        return self.target.partition("?")[0]

    @cached_property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(self.sent_path)

    @cached_property
    def query(self) -> str:
        """The query as sent, without the question mark."""
        return self.target.partition("?")[2]

    @cached_property
    def options(self) -> dict[str, str]:
        """The query's values; of a repeated name the first."""
        pairs = parse_qsl(self.query, keep_blank_values=True)
        return dict(reversed(pairs))


@dataclass
class Reply:
    """An answer. No status: the connection is closed without one, with a reset where `reset` is set.

    `chunked` leaves out the Content-Length. `cut` closes the connection after so many bytes of the body. `done` is
    called when all has been sent. A Content-Length of HEAD is only sent where `headers` has one.
    """

    status: int | None = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False
    cut: int | None = None
    reset: bool = False
    done: Callable[[], None] = lambda: None


class Refusal(Exception):
    """A request answered with a status and a text; DVID puts the path behind the text, but for a few."""

    def __init__(self, text: str, status: int = 400, *, bare: bool = False) -> None:
        super().__init__(text)
        self.text, self.status, self.bare = text, status, bare
        self.headers: dict[str, str] = {}


class Panic(Exception):
    """A fault that the server catches: status 500."""


class Crash(Exception):
    """A fault that ends the server process: no answer, now or later."""


class NotEmulated(Exception):
    """Something DVID has and this emulator has not: status 501."""


def not_found() -> Refusal:
    """The answer to an unknown route."""
    return Refusal("404 page not found\n", 404, bare=True)


def absent() -> Reply:
    """A 404 without a word, as for labels that do not exist."""
    return Reply(404)


def octets(body: bytes = b"", **headers: str) -> Reply:
    """A binary answer."""
    return Reply(body=body, headers={"Content-Type": "application/octet-stream", **headers})


def text(body: str) -> Reply:
    """An answer in plain text."""
    return Reply(body=body.encode(), headers={"Content-Type": "text/plain; charset=utf-8"})


def go_json(value: Any) -> str:
    """JSON as Go writes it: compact, <, > and & escaped, whole floats without a point."""
    raw = json.dumps(_whole(value), separators=(",", ":"), ensure_ascii=False)
    return raw.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else value


def as_json(value: Any, content_type: str = "application/json") -> Reply:
    """A JSON answer."""
    return Reply(body=go_json(value).encode(), headers={"Content-Type": content_type})


def json_text(raw: str) -> Reply:
    """A JSON answer in the spelling given."""
    return Reply(body=raw.encode(), headers={"Content-Type": "application/json"})


def parse_json(body: bytes, kind: type | None = None, go_type: str = "") -> Any:
    """The JSON value of a body, of a kind; a Refusal in Go's words otherwise."""
    try:
        value = json.loads(body)
    except ValueError:
        raise Refusal(json_fault(body)) from None
    if kind is not None and not isinstance(value, kind):
        found = {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(value), "number")
        raise Refusal(f"json: cannot unmarshal {found} into Go value of type {go_type}")
    return value


def json_fault(body: bytes) -> str:
    """What Go says about a body that is not JSON, for the commonest faults."""
    raw = body.decode(errors="replace").strip()
    for word in ("true", "false", "null"):
        if raw.startswith(word[0]):
            for found, wanted in zip(raw, word, strict=False):
                if found != wanted:
                    return f"invalid character '{found}' in literal {word} (expecting '{wanted}')"
    if not raw or raw[0] in '[{"' or raw == "-" or "true".startswith(raw):
        return "unexpected end of JSON input"
    return f"invalid character '{raw[0]}' looking for beginning of value"
