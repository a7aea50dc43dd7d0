"""The recorded exchanges served to any client: user and application are ignored, and so is how paths are escaped."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.backends.dvid.answers import Asked, Reply
from tests.backends.dvid.replay import ReplayServer

IGNORED = ("u", "app")
Key = tuple[Any, ...]


class ForgivingReplay(ReplayServer):
    """A ReplayServer for the product's own requests."""

    def __init__(self, folder: Path, *groups: str) -> None:
        super().__init__(folder, *groups)
        lines = (folder / "exchanges.jsonl").read_text().splitlines()
        self.by_id: dict[str, dict[str, Any]] = {record["id"]: record for record in map(json.loads, lines)}
        self._folder = folder
        self._forgiving = {_key(*key): exchange for key, exchange in reversed(list(self._known.items()))}

    def body(self, record: dict[str, Any]) -> bytes:
        """The body of a recorded answer."""
        name = record["response_body_file"]
        if name is None:
            return b""
        content = (self._folder / name).read_bytes()
        return gzip.decompress(content) if name.endswith(".gz") else content

    def _answer(self, asked: Asked) -> Reply:
        found = self._forgiving.get(
            _key(asked.method, asked.sent_path, asked.query, asked.body, asked.headers.get("range", ""))
        )
        if found is None:
            self.missed.append(asked)
            return Reply(501, f"not recorded: {asked.method} {asked.target}\n".encode())
        return found.reply


def _key(method: str, path: str, query: str, body: bytes, span: str) -> Key:
    pairs = sorted(pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] not in IGNORED)
    try:
        content: Any = json.dumps(json.loads(body)) if body else ""
    except ValueError:
        content = body
    spelled = unquote(path).removesuffix("/png")
    for plane, dims in (("xy", "0_1"), ("xz", "0_2"), ("yz", "1_2")):
        spelled = spelled.replace(f"/raw/{plane}/", f"/raw/{dims}/").replace(
            f"/isotropic/{plane}/", f"/isotropic/{dims}/"
        )
    return method, spelled, tuple(pairs), content, span
