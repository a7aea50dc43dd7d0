"""Addresses and options of DVID volumes.

dvid://https://host[:port]/<uuid | prefix | prefix:branch>/<instance>
dvid://https://host[:port]/<uuid>           all voxel instances of a version
dvid://https://host[:port]                  the repos of a server and their versions
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from storefs.errors import UrlError
from storefs.options import Reader, boolean, triple

SCHEME = "dvid"
PIPELINE = "dvid"
OPTIONS: dict[str, Reader] = {
    "user": str,
    "app": str,
    "token": str,
    "admin_token": str,
    "supervoxels": boolean,
    "roi": str,
    "throttle": boolean,
    "chunk_shape": triple,
    "retry_timeout": float,
    "warning_interval": float,
}
TOKEN_VARIABLE = "DVID_TOKEN"  # noqa: S105  # the name, not the token
ADMIN_TOKEN_VARIABLE = "DVID_ADMIN_TOKEN"  # noqa: S105  # the name, not the token


@dataclass(frozen=True, slots=True)
class Address:
    """A server (`https://host:port`), and what of it: version as written, instance, key; "" where not named."""

    server: str
    version: str = ""
    instance: str = ""
    key: str = ""

    @property
    def url(self) -> str:
        """The address as text, without "dvid://"."""
        parts = [part for part in (self.version, self.instance, self.key) if part]
        return "/".join([self.server, *parts])


def parse_address(text: str) -> Address:
    """The address in `text`, with or without "dvid://". Raises UrlError."""
    rest = text.removeprefix("dvid://")
    if "://" not in rest:
        rest = f"http://{rest}"
    parts = urlsplit(rest)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UrlError("expected dvid://https://host[:port]/uuid/instance", url=text)
    if "@" in parts.netloc:
        raise UrlError("an address holds no password: pass token=… or headers={…}", url=parts.hostname)
    segments = unquote(parts.path).strip("/").split("/", 2)
    if segments[:2] == ["api", "node"]:
        raise UrlError("leave out api/node: dvid://https://host/uuid/instance", url=text)
    version, instance, key = (*segments, "", "", "")[:3]
    return Address(f"{parts.scheme}://{parts.netloc}", version, instance, key)


def credentials(own: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Headers and query members that every request carries: tokens from options or environment, user and app.

    A token given as "" is none, whatever the environment says.
    """
    token = own.get("token", os.environ.get(TOKEN_VARIABLE))
    admin = own.get("admin_token", os.environ.get(ADMIN_TOKEN_VARIABLE))
    query = {"u": own.get("user") or os.environ.get("USER") or "anonymous", "app": own.get("app") or "storefs"}
    if admin:
        query["admintoken"] = admin
    return ({"Authorization": f"Bearer {token}"} if token else {}), query
