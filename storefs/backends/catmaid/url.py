"""Addresses and options of CATMAID stacks.

catmaid://https://host[/prefix]/<project id>/<stack id>
catmaid://https://host[/prefix]/<project id>/stackgroup/<group id>   the stacks of a group
catmaid://https://host[/prefix]/<project id>                         all stacks of a project
catmaid://https://host[/prefix]                                      the projects of a server
catmaid://tiles                                                      a stack given by its info, without a server
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from storefs.backends.catmaid.broken import POLICIES
from storefs.errors import UrlError
from storefs.options import Reader, boolean, one_of
from storefs.transport.site import basic
from storefs.volumes import DOCUMENTS

SCHEME = "catmaid"
PIPELINE = "catmaid"
TILES = "tiles"
TOKEN_VARIABLE = "CATMAID_API_TOKEN"  # noqa: S105  # the name, not the token
ANY_MIRROR = "*"
DTYPES = ("uint8", "uint16")

_GROUP = "stackgroup"
_EXPECTED = "expected catmaid://https://host/project/stack, with the numbers of a project and of a stack"


@dataclass(frozen=True, slots=True)
class Address:
    """A server (`https://host/prefix`, "" for none), and what of it: project, and stack or stack group."""

    server: str
    project: int | None = None
    stack: int | None = None
    group: int | None = None

    @property
    def url(self) -> str:
        """The address as text, without "catmaid://"."""
        if not self.server:
            return TILES
        named = [str(self.project)] if self.project is not None else []
        named += [_GROUP, str(self.group)] if self.group is not None else []
        named += [str(self.stack)] if self.stack is not None else []
        return "/".join([self.server, *named])


def parse_address(text: str) -> Address:
    """The address in `text`, with or without "catmaid://". Raises UrlError."""
    address, rest = split_address(text)
    if rest not in ("", "info"):  # as CATMAID's own addresses of stacks and groups end
        raise UrlError(f"{_EXPECTED}; what does {rest!r} mean?", url=text)
    return address


def split_address(text: str) -> tuple[Address, str]:
    """The address that `text` begins with, and what follows it, such as a zarr key. Raises UrlError.

    Ids begin with the first part of the path that is a number; what stands before it is the server's prefix.
    """
    rest = text.removeprefix("catmaid://")
    if rest.partition("/")[0] == TILES:
        return Address(""), rest.partition("/")[2]
    if "://" not in rest:
        rest = f"https://{rest}"
    parts = urlsplit(rest)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UrlError(_EXPECTED, url=text)
    if "@" in parts.netloc:
        raise UrlError("an address holds no password: pass user=… and password=…, or token=…", url=parts.hostname)
    segments = [segment for segment in unquote(parts.path).split("/") if segment]
    first = next((i for i, segment in enumerate(segments) if _is_id(segment)), None)
    if first is None:
        # below a server without ids there are only the documents of its own group
        first = len(segments) - (segments[-1:] != [] and segments[-1] in DOCUMENTS)
    server = "".join((f"{parts.scheme}://{parts.netloc}", *(f"/{segment}" for segment in segments[:first])))
    address, used = _ids(server, segments[first:])
    return address, "/".join(segments[first + used :])


def _ids(server: str, segments: list[str]) -> tuple[Address, int]:
    """The project, stack or group that `segments` begin with, and how many of them say so."""
    match segments:
        case [project, "stackgroup", group, *_] if _is_id(group):
            return Address(server, int(project), group=int(group)), 3
        case [project, "stack", stack, *_] if _is_id(stack):
            return Address(server, int(project), int(stack)), 3
        case [project, stack, *_] if _is_id(project) and _is_id(stack):
            return Address(server, int(project), int(stack)), 2
        case [project, *_] if _is_id(project):
            return Address(server, int(project)), 1
    return Address(server), 0


def service_headers(own: Mapping[str, Any]) -> dict[str, str]:
    """The headers for the CATMAID server: token from option or environment, HTTP basic. Raises UrlError."""
    headers = {"Accept": "application/json"}
    token = own.get("token") or os.environ.get(TOKEN_VARIABLE)
    if token:
        # leaves Authorization to the web server in front
        headers["X-Authorization"] = f"Token {token.removeprefix('Token ').strip()}"
    if own.get("password") is not None and own.get("user") is None:
        raise UrlError("option password: user=… is missing")
    if own.get("user") is not None:
        headers["Authorization"] = basic(own["user"], own.get("password") or "")
    return headers


def mirror_accounts(own: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The headers for tile hosts, by mirror id, title or host; "*" is for all others."""
    accounts: dict[str, dict[str, str]] = {}
    for key, (user, password) in own.get("mirror_auth", {}).items():
        accounts.setdefault(key, {})["Authorization"] = basic(user, password)
    for key, headers in own.get("mirror_headers", {}).items():
        accounts.setdefault(key, {}).update({name: os.path.expandvars(value) for name, value in headers.items()})
    return accounts


def _is_id(segment: str) -> bool:
    return segment.isascii() and segment.isdecimal() and len(segment) < 19  # noqa: PLR2004  # digits of 63 bits


def _mirror_auth(value: Any) -> dict[str, tuple[str, str]]:  # noqa: ANN401  # any option
    if isinstance(value, Mapping):
        return {str(key): _pair(item) for key, item in value.items()}
    return {ANY_MIRROR: _pair(value)}


def _pair(value: Any) -> tuple[str, str]:  # noqa: ANN401  # any option
    if isinstance(value, str) and ":" in value:
        value = value.split(":", 1)
    # the value is a secret: the message shows nothing of it
    if not isinstance(value, tuple | list) or [type(item) for item in value] != [str, str]:
        raise ValueError("expected (user, password), or a dictionary of them by mirror id, title or host")
    user, password = value
    return user, password


def _mirror_headers(value: Any) -> dict[str, dict[str, str]]:  # noqa: ANN401  # any option
    if isinstance(value, Mapping):
        if all(isinstance(item, str) for item in value.values()):
            return {ANY_MIRROR: dict(value)}
        if all(isinstance(item, Mapping) for item in value.values()):
            return {str(key): {str(name): str(text) for name, text in item.items()} for key, item in value.items()}
    raise ValueError("expected a dictionary of headers, or of such dictionaries by mirror id, title or host")


def _mirror(value: Any) -> int | str:  # noqa: ANN401  # any option
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f'expected an id, a position, a title or "fastest", got {value!r}')
    return value


def _stack_info(value: Any) -> dict[str, Any]:  # noqa: ANN401  # any option
    document = json.loads(value) if isinstance(value, str | bytes) else value
    if not isinstance(document, Mapping):
        raise TypeError("expected a stack's info as a dictionary or JSON text")
    return dict(document)


def _whole(low: int, high: int) -> Reader:
    def read(value: Any) -> int:  # noqa: ANN401  # text or numbers
        number = int(value)
        if isinstance(value, float | bool) or not low <= number <= high:
            raise ValueError(f"expected a whole number from {low} to {high}, got {value!r}")
        return number

    return read


def _dtype(value: Any) -> str:  # noqa: ANN401  # anything numpy takes
    name = str(np.dtype(value).name)
    if name not in DTYPES:
        raise ValueError(f"expected one of {', '.join(DTYPES)}, got {name}")
    return name


OPTIONS: dict[str, Reader] = {
    "token": str,
    "user": str,
    "password": str,
    "mirror": _mirror,
    "mirror_auth": _mirror_auth,
    "mirror_headers": _mirror_headers,
    "channels": one_of("luma", "rgb", "first"),
    "broken": one_of(*POLICIES),
    "fill_value": _whole(0, 0xFFFF),
    "dtype": _dtype,
    "concurrency": _whole(1, 1024),
    "cache_bytes": _whole(0, 1 << 40),
    "fallback": boolean,
    "flix_query": str,
    "stack_info": _stack_info,
}
