"""A plain HTTP client for tests of the emulators: one request at a time, nothing hidden."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tests.backends.dvid.emulator import ADMIN_TOKEN, DvidEmulator


class Answer(NamedTuple):
    """Status, body and headers (names in lower case); status None where the server hung up."""

    status: int | None
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def words(self) -> str:
        """The body as text."""
        return self.body.decode()


class Asker:
    """Requests to one server over one kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __call__(self, method: str, target: str, body: Any = None, *, chunked: bool = False, **headers: str) -> Answer:
        """Ask; lists and dictionaries are sent as JSON, `chunked` sends without a length."""
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        sent: bytes | Iterable[bytes] | None = iter([body]) if chunked else body
        try:
            self._connection.request(method, target, sent, names, encode_chunked=chunked)
            reply = self._connection.getresponse()
            return Answer(reply.status, reply.read(), {k.lower(): v for k, v in reply.getheaders()})
        except (http.client.HTTPException, ConnectionError) as error:
            self._connection.close()
            return Answer(None, repr(error).encode(), {})

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class Lab:
    """An emulator with one repository, and shorthands for what tests do with it."""

    def __init__(self, server: DvidEmulator) -> None:
        self.server, self.ask = server, Asker(server.port)
        self.root: str = self.ask("POST", f"/api/repos?admintoken={ADMIN_TOKEN}", {"alias": "lab"}).json["root"]

    def make(self, name: str, typename: str, node: str = "", **settings: str) -> None:
        """A new instance."""
        given = {"typename": typename, "dataname": name, **settings}
        assert self.ask("POST", f"/api/repo/{node or self.root}/instance", given).status == 200

    def at(self, path: str, node: str = "") -> str:
        """`/api/node/{uuid}/{path}`, of the root where no version is given."""
        return f"/api/node/{node or self.root}/{path}"

    def get(self, path: str, node: str = "", body: Any = None, **headers: Any) -> Answer:
        """GET below a version."""
        return self.ask("GET", self.at(path, node), body, **headers)

    def post(self, path: str, body: Any, node: str = "") -> Answer:
        """POST below a version."""
        return self.ask("POST", self.at(path, node), body)

    def commit(self, node: str = "") -> str:
        """Lock a version; its new child."""
        assert self.post("commit", {}, node).status == 200
        return str(self.post("newversion", {}, node).json["child"])

    def voxels(self, path: str, shape: tuple[int, ...], dtype: str = "u1", node: str = "") -> npt.NDArray[Any]:
        """Voxels z, y, x of a successful GET."""
        answer = self.get(path, node)
        assert answer.status == 200, answer.words
        return np.frombuffer(answer.body, dtype).reshape(shape)


def one_record(at: tuple[int, int, int], payload: bytes) -> bytes:
    """A stream of one block."""
    return struct.pack("<iiiI", *at, len(payload)) + payload
