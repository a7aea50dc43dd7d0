"""A stateful DVID server for tests: repositories, versions, instances, the traps of the real one, and faults.

Emulated: server, repository and version endpoints; uint8blk to uint64blk, float32blk, rgba8blk, labelblk, labelarray,
labelmap, keyvalue, roi and imagetile with the wire forms and error texts of DVID's head of June 2026; copy-on-write
versions; locks; throttling; requests that end the server (it then hangs up on everybody until `revive`).
Not emulated (501): google compressions, tif and bmp, GridStore, authentication, annotation and other types, split and
index writes of labelmap, pseudocolor, blob stores.
"""

from __future__ import annotations

import contextlib
import itertools
import posixpath
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tests.backends.dvid.answers import Asked, Crash, NotEmulated, Panic, Refusal, Reply, as_json, not_found, text
from tests.backends.dvid.faults import Fault, Record
from tests.backends.dvid.imagetile import ImageTile
from tests.backends.dvid.instance import Call, Instance
from tests.backends.dvid.loopback import Loopback
from tests.backends.dvid.repo_api import RepoApi
from tests.backends.dvid.versions import Node, Repo, log_line
from tests.backends.dvid.wire import Malformed

CHUNKED_FROM = 2048
ADMIN_TOKEN = "example-admin-token"  # of nothing but this emulator
NODE_KEYWORDS = ("status", "commit", "note", "log", "newversion", "branch", "tag")


class DvidEmulator:
    """A DVID server on the loopback interface; a context manager.

    `faults` may be changed at any time; the first that accepts a request counts. `latency` seconds pass before each
    answer. `single_missing_block_fails` is labelmap's failure to read exactly one missing block (false as in v0.9.17),
    `honours_ranges` the Range header of keyvalue (false as in releases), `admin_needed` who may create repositories.
    """

    def __init__(self, *, admin_needed: bool = True, latency: float = 0.0) -> None:
        self.faults: list[Fault] = []
        self.latency = latency
        self.single_missing_block_fails = True
        self.honours_ranges = True
        self.dead = False
        self.record = Record()
        self.api = RepoApi(ADMIN_TOKEN, admin_needed=admin_needed)
        self._lock = threading.RLock()
        self._throttled = 0
        self._panics = itertools.count(1)
        self._server = Loopback(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return self._server.url

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def revive(self) -> None:
        """Start the server again after a crash; its data are as they were."""
        self.dead = False

    def instance(self, uuid: str, name: str) -> Instance:
        """An instance, to look into or to do what DVID only does by command."""
        return self.api.find(uuid)[0].instances[name]

    def generate_tiles(self, uuid: str, name: str, levels: dict[str, dict[str, list[float]]]) -> None:
        """The command that makes the tiles of an imagetile instance; `levels` as in its metadata."""
        node, tiles = self.api.find(uuid)[1], self.instance(uuid, name)
        assert isinstance(tiles, ImageTile)
        tiles.generate(levels)
        node.log.append(log_line(f"node {node.uuid} {name} generate planes=xy;xz;yz"))

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """All throttled slots taken."""
        with self._lock:
            taken = self.api.throttled_limit - self._throttled
            self._throttled += taken
        try:
            yield
        finally:
            with self._lock:
                self._throttled -= taken

    # answering

    def _answer(self, asked: Asked) -> Reply:
        self.record.enter()
        reply = Reply(None)
        try:
            fault = self._fault(asked)
            time.sleep(self.latency + fault.delay)
            if not self.dead:
                reply = fault.instead() or self._reply(asked)
                fault.spoil(reply)
                reply.chunked = len(reply.body) > CHUNKED_FROM
        finally:
            self.record.leave(asked, reply)
        return reply

    def _fault(self, asked: Asked) -> Fault:
        with self._lock:
            for fault in self.faults:
                if fault.times != 0 and fault.where(asked):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault()

    def _reply(self, asked: Asked) -> Reply:
        done = None
        try:
            cleaned = _cleaned(asked.path)
            if cleaned != asked.path:
                return _moved(quote(cleaned))
            words = cleaned.strip("/").split("/")
            done = self._slot(asked, words)
            with self._lock:
                reply = self._route(asked, words)
            reply.done, done = done or reply.done, None
        except Refusal as refusal:
            reply = _refused(
                asked, refusal.status, refusal.text if refusal.bare else f"{refusal.text} ({asked.path}).\n"
            )
            reply.headers |= refusal.headers
        except Panic as panic:
            number = f"vm/EmULat0r01-{next(self._panics):06}"
            shown = f"Panic detected on request {number}:\n{panic}\nIP: 127.0.0.1:50000, URL: {asked.path}\n\n"
            reply = _refused(asked, 500, shown)
        except Crash:
            self.dead = True
            reply = Reply(None)
        except NotEmulated as error:
            reply = _refused(asked, 501, f"not emulated: {error}\n")
        except Malformed as error:
            reply = _refused(asked, 400, f"{error} ({asked.path}).\n")
        finally:
            if done:
                done()
        return reply

    def _route(self, asked: Asked, words: list[str]) -> Reply:
        match words:
            case ["api", "heartbeat"]:
                return text("OK")
            case ["api", "load"]:
                verbs = [seen.method for seen in self.record.requests]
                return as_json({"GET requests": verbs.count("GET"), "PUT requests": verbs.count("POST")})
            case ["api", "storage"]:
                what = "Storage summary takes considerable resources"
                raise Refusal(f"{what} and is only available to admin users.")
            case ["api", ("server" | "repos" | "repo") as what, *rest]:
                return self.api.answer(what, asked, rest)
            case ["api", "node", uuid, keyword] if keyword in NODE_KEYWORDS:
                return self.api.version(asked, *self.api.find(uuid), keyword)
            case ["api", "node", uuid, name, *rest] if rest or asked.path.count("/") > 4:
                return self._ask_instance(asked, *self.api.find(uuid), name, rest)
        raise not_found()

    def _ask_instance(self, asked: Asked, repo: Repo, node: Node, name: str, words: list[str]) -> Reply:
        data = repo.instances.get(name)
        if data is None:
            raise Refusal("invalid data instance name")
        if not words:
            raise not_found()
        admin = self.api.is_admin(asked)
        writes = asked.method in ("POST", "PUT", "DELETE") and words[0] not in data.reads_by_post
        if writes and node.locked and data.versioned and not admin:
            raise Refusal(f'Cannot do {asked.method} on endpoint "{words[0]}" of locked node {node.uuid}')
        traits = (admin, self.single_missing_block_fails, self.honours_ranges)
        return data.answer(Call(asked, repo, node, repo.line(node), words, *traits))

    def _slot(self, asked: Asked, words: list[str]) -> Release | None:
        """A slot for a request that asks to be throttled; Refusal where all are taken."""
        if asked.options.get("throttle") not in ("true", "on") or not self._can_be_throttled(words):
            return None
        with self._lock:
            if self._throttled >= self.api.throttled_limit:
                shown = (
                    f"Server already running {self._throttled} throttled operations (max = {self.api.throttled_limit})"
                )
                raise Refusal(shown + "\n\n", 503, bare=True)
            self._throttled += 1
        return Release(self)

    def _can_be_throttled(self, words: list[str]) -> bool:
        if words[:2] != ["api", "node"] or len(words) < 5:
            return False
        with self._lock:
            data = self.api.find(words[2])[0].instances.get(words[3])
        if data is None:
            return False
        if words[4] in ("raw", "isotropic"):
            return len(words) > 5 and words[5] in ("0_1_2", "vol")
        return words[4] in ("arb", "subvolblocks") or (words[4] == "blocks" and data.typename.startswith("label"))

    def give_back(self) -> None:
        """Free a throttled slot."""
        with self._lock:
            self._throttled -= 1


class Release:
    """Gives a throttled slot back, once."""

    def __init__(self, owner: DvidEmulator) -> None:
        self._owner: DvidEmulator | None = owner

    def __call__(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.give_back()


def _cleaned(path: str) -> str:
    cleaned = "/" + posixpath.normpath(path).lstrip("/")
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def _moved(location: str) -> Reply:
    body = f'<a href="{location}">Moved Permanently</a>.\n\n'.encode()
    return Reply(301, body, {"Location": location, "Content-Type": "text/html; charset=utf-8"})


def _refused(asked: Asked, status: int, shown: str) -> Reply:
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    body = shown.encode()
    if asked.method == "HEAD":
        headers["Content-Length"] = str(len(body))
    return Reply(status, body, headers)


def main() -> None:
    """Serve in a process of its own: print the address, stop when the input ends.

    The first argument, if any, is the latency in seconds. Repositories can be created without the token.
    """
    with DvidEmulator(admin_needed=False, latency=float(sys.argv[1]) if sys.argv[1:] else 0.0) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
