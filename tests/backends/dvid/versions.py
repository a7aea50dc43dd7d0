"""Repositories, their tree of versions, and values that belong to versions.

A version reads, key by key, what its nearest ancestor wrote. Names of versions: a UUID, a unique prefix of one, a
tag, `prefix:branch`, `prefix:branch~n`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tests.backends.dvid.answers import Refusal

if TYPE_CHECKING:
    from tests.backends.dvid.instance import Instance

K = TypeVar("K")
V = TypeVar("V")
Line = tuple[int, ...]


class Versioned(Generic[K, V]):
    """Values by key and version. A `line` lists version ids from the one asked to the root."""

    def __init__(self) -> None:
        self._values: dict[K, dict[int, V | None]] = {}

    def get(self, key: K, line: Line) -> V | None:
        """The value a version sees, None where there is none or it was deleted."""
        written = self._values.get(key)
        if written:
            for version in line:
                if version in written:
                    return written[version]
        return None

    def put(self, key: K, line: Line, value: V) -> None:
        """Write in the first version of the line."""
        self._values.setdefault(key, {})[line[0]] = value

    def delete(self, key: K, line: Line) -> None:
        """Hide the key from the first version of the line on."""
        self._values.setdefault(key, {})[line[0]] = None

    def items(self, line: Line) -> Iterator[tuple[K, V]]:
        """All that a version sees."""
        for key in list(self._values):
            value = self.get(key, line)
            if value is not None:
                yield key, value


def now() -> str:
    """The time as DVID prints it in records."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".000000001Z"


def log_line(words: str) -> str:
    """A line of a log, with the time in front."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) + "  " + words


@dataclass
class Node:
    """One version."""

    uuid: str
    version: int
    branch: str = ""
    note: str = ""
    log: list[str] = field(default_factory=list)
    locked: bool = False
    parents: list[int] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    created: str = field(default_factory=now)

    def described(self) -> dict[str, Any]:
        """As in the DAG of a repository's info."""
        return {
            "Branch": self.branch,
            "Note": self.note,
            "Log": self.log,
            "UUID": self.uuid,
            "VersionID": self.version,
            "Locked": self.locked,
            "Parents": self.parents,
            "Children": self.children,
            "Created": self.created,
            "Updated": now(),
        }


class Repo:
    """A repository: nodes by version id, instances by name."""

    def __init__(self, root: Node, alias: str, description: str) -> None:
        self.root, self.alias, self.description = root, alias, description
        self.nodes = {root.version: root}
        self.instances: dict[str, Instance] = {}
        self.log: list[str] = []
        self.mutations = 1_000_000_000
        self.created = now()

    def line(self, node: Node) -> Line:
        """Version ids from the node to the root, nearest first."""
        found, waiting = [node.version], list(node.parents)
        while waiting:
            version = waiting.pop(0)
            if version not in found:
                found.append(version)
                waiting += self.nodes[version].parents
        return tuple(found)

    def branch(self, name: str) -> list[Node]:
        """Nodes from the leaf of a branch to the root; `master` is the trunk."""
        wanted = "" if name == "master" else name
        members = [node for node in self.nodes.values() if node.branch == wanted]
        leaves = [n for n in members if all(self.nodes[child].branch != wanted for child in n.children)]
        return [self.nodes[version] for version in self.line(leaves[-1])] if leaves else []

    def may_grow(self, parent: Node, branch: str) -> None:
        """Refusal where a parent is open or a child's branch is taken."""
        if not parent.locked:
            raise Refusal("can't branch an unlocked node")
        taken = [node.branch for node in self.nodes.values()] if branch != parent.branch else []
        taken += [self.nodes[child].branch for child in parent.children]
        if branch in taken:
            raise Refusal("branch already exists with given name")

    def grow(self, parents: list[Node], child: Node) -> Node:
        """Add a version."""
        for parent in parents:
            parent.children.append(child.version)
            child.parents.append(parent.version)
        self.nodes[child.version] = child
        return child

    def next_mutation(self) -> int:
        """A fresh mutation id."""
        self.mutations += 1
        return self.mutations

    def described(self) -> dict[str, Any]:
        """The JSON of the repository's info."""
        leaf = self.branch("master")[0]
        return {
            "Root": self.root.uuid,
            "Alias": self.alias,
            "Description": self.description,
            "Log": self.log,
            "Properties": {},
            "DataInstances": {
                name: data.described(self.line(leaf), whole_repo=True) for name, data in self.instances.items()
            },
            "DAG": {"Root": self.root.uuid, "Nodes": {n.uuid: n.described() for n in self.nodes.values()}},
            "MutationID": self.mutations,
            "SavedMutationID": self.mutations + 100,
            "Created": self.created,
            "Updated": now(),
        }


def resolve(repos: Iterable[Repo], name: str) -> tuple[Repo, Node]:
    """The version a name stands for; Refusal where none or several match."""
    if ":" not in name:
        return _match(repos, name)
    prefix, _, branch = name.partition(":")
    known = list(repos)
    if prefix:
        repo = _match(known, prefix)[0]
    elif len(known) == 1:
        repo = known[0]
    else:
        raise Refusal("UUID must be specified if more than one repo exists")
    branch, _, back = branch.partition("~")
    nodes = repo.branch(branch)
    if not nodes:
        raise Refusal(f'branch "{branch}" not found in repo "{repo.root.uuid}"')
    steps = int(back) if back.isdigit() else 0
    if steps >= len(nodes):
        raise Refusal(f'parent {steps} is out of range for branch "{branch}"')
    return repo, nodes[steps]


def _match(repos: Iterable[Repo], prefix: str) -> tuple[Repo, Node]:
    found: dict[str, tuple[Repo, Node]] = {}
    for repo in repos:
        for node in repo.nodes.values():
            if node.uuid == prefix:
                return repo, node
            if node.uuid.startswith(prefix):
                found[node.uuid] = repo, node
    if not found:
        raise Refusal(f"could not find UUID with partial match to {prefix}")
    if len(found) > 1:
        raise Refusal(f"more than one UUID matches {prefix}")
    return next(iter(found.values()))


def checked_uuid(settings: Mapping[str, Any], key: str = "uuid") -> str | None:
    """A UUID that a client chose; Refusal where it is none."""
    chosen = settings.get(key)
    if chosen and (len(chosen) != 32 or set(chosen) - set("0123456789abcdef")):
        raise Refusal("Bad UUID provided: UUID must be 32 character hexadecimal string")
    return chosen or None
