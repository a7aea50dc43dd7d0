"""What is asked of the server, of repositories and of versions, not of an instance."""

from __future__ import annotations

import json
import time
import uuid as uuids
from collections.abc import Callable
from typing import Any

from tests.backends.dvid.answers import (
    Asked,
    Refusal,
    Reply,
    as_json,
    json_fault,
    json_text,
    not_found,
    octets,
    parse_json,
    text,
)
from tests.backends.dvid.imageblk import KINDS, ImageBlk
from tests.backends.dvid.imagetile import ImageTile
from tests.backends.dvid.instance import SOURCE, TYPES, Instance, Settings
from tests.backends.dvid.keyvalue import KeyValue
from tests.backends.dvid.labelmap import LabelMap
from tests.backends.dvid.labels import LabelArray, LabelBlk
from tests.backends.dvid.roi import Roi
from tests.backends.dvid.versions import Node, Repo, checked_uuid, log_line, resolve

RESERVED = ("log", "branch", "note", "commit", "newversion")
EMULATED: dict[str, type[Instance]] = {
    **dict.fromkeys(KINDS, ImageBlk),
    "labelmap": LabelMap,
    "labelarray": LabelArray,
    "labelblk": LabelBlk,
    "keyvalue": KeyValue,
    "roi": Roi,
    "imagetile": ImageTile,
}
PRIVILEGE = "requires admin privileges (admintoken or DSG admin)"


class RepoApi:
    """Repositories, their versions and instances. `admin_needed` is false for servers before June 2026.

    `fresh_uuid` makes up UUIDs.
    """

    def __init__(self, admin_token: str, *, admin_needed: bool = True) -> None:
        self.repos: dict[str, Repo] = {}
        self.admin_token, self.admin_needed = admin_token, admin_needed
        self.throttled_limit = 1
        self.fresh_uuid: Callable[[], str] = lambda: uuids.uuid4().hex
        self._versions = 0
        self._started = time.monotonic()

    def is_admin(self, asked: Asked) -> bool:
        """Whether a request carries the administrator's token."""
        return asked.options.get("admintoken") == self.admin_token

    def find(self, name: str) -> tuple[Repo, Node]:
        """A version by any of its names."""
        return resolve(self.repos.values(), name)

    def answer(self, what: str, asked: Asked, words: list[str]) -> Reply:
        """`/api/{server|repos|repo}/...`."""
        if what == "repo" and not words:
            raise not_found()
        return {"server": self.server, "repos": self.all_repos, "repo": self.repo}[what](asked, words)

    # server

    def server(self, asked: Asked, words: list[str]) -> Reply:
        """`/api/server/...`."""
        in_use = {data.typename for repo in self.repos.values() for data in repo.instances.values()}
        match asked.method, words:
            case "GET", ["info"]:
                return as_json(self._info())
            case "GET", ["types"]:
                return as_json({name: SOURCE + TYPES[name][0] for name in sorted(in_use)})
            case "GET", ["compiled-types"]:
                return as_json({name: SOURCE + path for name, (path, _) in TYPES.items()})
            case "GET", ["note"]:
                return text("example server")
            case "POST", ["settings"]:
                self._need_admin(asked, "POST /api/server/settings")
                self.throttled_limit = int(parse_json(asked.body, dict, "map").get("throttle", self.throttled_limit))
                return octets()
            case "GET", ["config"]:
                self._need_admin(asked, "GET /api/server/config")
                return text("[server]\n")
        raise not_found()

    def _need_admin(self, asked: Asked, what: str) -> None:
        if not self.is_admin(asked):
            raise Refusal(f"{what} {PRIVILEGE}")

    def _info(self) -> dict[str, str]:
        return {
            "Cores": "2",
            "DVID Version": "emulated",
            "Datastore Version": "0.11.0",
            "Host": "localhost:8000",
            "Max Open Files": "20000",
            "Maximum Cores": "2",
            "Note": "example server",
            "RPC Address": "127.0.0.1:8001",
            "Server time": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime()),
            "Server uptime": f"{time.monotonic() - self._started:.6f}s",
            "Storage backend": "memory",
            "TOML location": "/srv/dvid/dvid.toml",
        }

    # repositories

    def all_repos(self, asked: Asked, words: list[str]) -> Reply:
        """`/api/repos` and `/api/repos/info`."""
        if asked.method == "GET" and words == ["info"]:
            return as_json({uuid: repo.described() for uuid, repo in self.repos.items()})
        if asked.method != "POST" or words:
            raise not_found()
        if self.admin_needed and not self.is_admin(asked):
            why = "requires admin privileges (admintoken or DSG admin) on a server that is not read-only"
            raise Refusal(f"Creating a repo {why}")
        given = parse_json(asked.body, dict, "map")
        return as_json_spaced({"root": self.create(given).root.uuid})

    def create(self, given: dict[str, Any]) -> Repo:
        """A new repository of `alias`, `description` and `root`."""
        chosen = checked_uuid(given, "root") or self.fresh_uuid()
        if any(node.uuid == chosen for repo in self.repos.values() for node in repo.nodes.values()):
            raise Refusal("UUID already exists in datastore")
        root = Node(chosen, self._next_version())
        repo = Repo(root, given.get("alias", ""), given.get("description", ""))
        self.repos[root.uuid] = repo
        return repo

    def _next_version(self) -> int:
        self._versions += 1
        return self._versions

    def repo(self, asked: Asked, words: list[str]) -> Reply:  # one return per endpoint
        """`/api/repo/{uuid}/...`."""
        if len(words) == 1 and asked.method != "HEAD":
            raise not_found()
        repo, node = self.find(words[0])
        if len(words) == 1:
            return text("")
        match asked.method, words[1:]:
            case _, ["info"]:
                return self._about(asked, repo)
            case _, ["log"]:
                return self._log(asked, repo)
            case "GET", ["branch-versions", branch]:
                return as_json([found.uuid for found in repo.branch(branch)])
            case "POST", ["instance"]:
                return self._new_instance(repo, node, asked.body)
            case "POST", ["merge"]:
                return self._merge(repo, parse_json(asked.body, dict, "map"))
        raise not_found()

    def _about(self, asked: Asked, repo: Repo) -> Reply:
        if asked.method == "GET":
            return as_json(repo.described())
        given = parse_json(asked.body, dict, "map")
        repo.alias, repo.description = (given.get(key, getattr(repo, key)) for key in ("alias", "description"))
        return octets()

    def _log(self, asked: Asked, repo: Repo) -> Reply:
        if asked.method == "GET":
            return as_json({"log": repo.log})
        repo.log += map(log_line, parse_json(asked.body, dict, "map")["log"])
        return octets()

    def _merge(self, repo: Repo, given: dict[str, Any]) -> Reply:
        parents = [self.find(name)[1] for name in given["parents"]]
        if not all(node.locked for node in parents):
            raise Refusal("can't merge an unlocked node")
        child = self._grow(repo, parents, parents[0].branch, given.get("note", ""), None)
        return as_json_spaced({"child": child.uuid})

    def _new_instance(self, repo: Repo, node: Node, body: bytes) -> Reply:
        where = "POST on repo endpoint requires specification of valid"
        given = _settings(body)
        keys = {key.lower(): key for key in given}
        for needed in ("typename", "dataname"):
            if needed not in keys:
                raise Refusal(f"{where} '{needed}'")
        typename, name = given[keys["typename"]], given[keys["dataname"]]
        if node.locked:
            raise Refusal(f"New data instance cannot be created on locked node {node.uuid}")
        if typename not in TYPES:
            raise Refusal(f'Data type "{typename}" is not supported by current DVID server')
        if name in RESERVED:
            raise Refusal(f'cannot use reserved name "{name}"')
        if name in repo.instances:
            raise Refusal(f'Data named "{name}" already exists in repo (root {repo.root.uuid})')
        if typename not in EMULATED:
            raise Refusal(f"{typename} is not emulated")
        repo.instances[name] = EMULATED[typename](name, typename, node, Settings(given))
        config = " ".join(f"{key.lower()}:{value}" for key, value in sorted(given.items(), key=lambda p: p[0].lower()))
        repo.log.append(log_line(f'New data instance "{name}" of type "{typename}" with config {{map[{config}]}}'))
        return as_json_spaced({"result": f"Added {name} [{typename}] to node {node.uuid}"})

    # versions

    def _grow(self, repo: Repo, parents: list[Node], branch: str, note: str, uuid: str | None) -> Node:
        repo.may_grow(parents[0], branch)
        return repo.grow(parents, Node(uuid or self.fresh_uuid(), self._next_version(), branch, note))

    def version(self, asked: Asked, repo: Repo, node: Node, keyword: str) -> Reply:
        """`/api/node/{uuid}/{keyword}` without an instance."""
        if asked.method == "GET":
            return self._version_state(node, keyword)
        if asked.method != "POST":
            raise not_found()
        if keyword == "commit":
            if node.locked:
                raise Refusal(f"Cannot do post on locked node {node.uuid}")
            self._note(node, _body(asked.body, needed=True))
            node.locked = True
            return as_json_spaced({"committed": node.uuid})
        given = _body(asked.body, needed=False)
        if keyword in ("note", "log"):
            self._note(node, given)
            return octets()
        if keyword in ("newversion", "branch"):
            branch = node.branch if keyword == "newversion" else given.get("branch", "")
            if keyword == "branch" and branch == "master":
                raise Refusal("Cannot create a master branch")
            child = self._grow(repo, [node], branch, given.get("note", ""), checked_uuid(given))
            return as_json_spaced({"child": child.uuid})
        if keyword == "tag":
            return self._tag(asked, repo, node, given)
        raise not_found()

    def _version_state(self, node: Node, keyword: str) -> Reply:
        if keyword in ("status", "commit"):
            return as_json({"Locked": node.locked})
        if keyword == "note":
            return as_json({"note": node.note})
        if keyword == "log":
            return as_json({"log": node.log})
        raise not_found()

    def _note(self, node: Node, given: dict[str, Any]) -> None:
        node.note = given.get("note", node.note)
        node.log += map(log_line, given.get("log", ()))

    def _tag(self, asked: Asked, repo: Repo, node: Node, given: dict[str, Any]) -> Reply:
        tag, where = given["tag"], f"({asked.path}).\n"
        note = f'Tag of version {node.uuid} with "{tag}"'
        try:
            child = self._grow(repo, [node], f"tag-{tag}", note, tag)
        except Refusal as refusal:
            twice = f"{refusal.text} {where}node {tag} already committed {where}"
            raise Refusal(twice, bare=True) from None
        child.locked = True
        return as_json_spaced({"child": tag})


def as_json_spaced(value: dict[str, str]) -> Reply:
    """JSON with a space after the colon, as these answers have."""
    return json_text(json.dumps(value, ensure_ascii=False))


def _settings(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        given = json.loads(body)
    except ValueError:
        why = json_fault(body)
    else:
        if isinstance(given, dict):
            return given
        why = "json: cannot unmarshal array into Go value of type map[string]interface {}"
    raise Refusal(f"Error decoding POSTed JSON config for 'new': Malformed JSON request in body: {why}")


def _body(body: bytes, *, needed: bool) -> dict[str, Any]:
    if not body and not needed:
        return {}
    try:
        return dict(parse_json(body, dict, "map[string]interface {}"))
    except Refusal as refusal:
        raise Refusal(f"Malformed JSON request in body: {refusal.text}") from None
