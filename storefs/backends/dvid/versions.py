"""Which version an address means, and what a repo holds at it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storefs.backends.dvid import calls
from storefs.backends.dvid.info import parse_json
from storefs.errors import MetadataError, NoSuchVolume
from storefs.plans import Call, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storefs.plans import Plan

_NO_SUCH = frozenset({200, 400, 404})


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a repo, pinned: its full uuid, whether it is locked, and the repo's instances by name."""

    uuid: str
    locked: bool
    alias: str
    instances: Mapping[str, str]  # name -> type
    repo: Mapping[str, Any]

    def require(self, name: str, url: str) -> str:
        """Type of the instance `name`. Raises NoSuchVolume, with a suggestion."""
        if name in self.instances:
            return self.instances[name]
        near = difflib.get_close_matches(name, self.instances, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        offered = ", ".join(sorted(self.instances)) or "none"
        raise NoSuchVolume(f"no data instance {name!r} in this repo; {hint}there are: {offered}", url=url)


def why_it_changes(attributes: Mapping[str, Any]) -> str | None:
    """Why voxels at the version that a group's `attributes` tell of may change; None where it is locked."""
    if attributes.get("locked"):
        return None
    return f"version {attributes.get('resolved_uuid')} is not locked and its voxels may change"


def find_version(text: str, url: str) -> Plan[Version]:
    """The version that `text` names: a uuid, a unique prefix, a tag, or `prefix:branch`, whose leaf is taken.

    Raises NoSuchVolume with the server's words, MetadataError.
    """
    reply: Reply = yield from calls.ask(Call(calls.repo(text, "info")), url, accept=_NO_SUCH)
    if reply.status != calls.OK:
        raise NoSuchVolume(f"no version {text!r}: {calls.words(reply)}", url=url)
    repo = parse_json(reply.data, "the repo's info", url)
    nodes = _object(_object(repo, "DAG", url), "Nodes", url)
    prefix, colon, branch = text.partition(":")
    if colon:
        name, tilde, back = branch.partition("~")
        listed = yield from calls.ask_json(Call(calls.repo(prefix, "branch-versions", name)), url)
        steps = int(back) if tilde and back.isdecimal() else 0
        if not isinstance(listed, list) or len(listed) <= steps:
            raise NoSuchVolume(f"branch {name!r} has no version {text!r}", url=url)
        uuid = str(listed[steps])
    else:
        matching = [uuid for uuid in nodes if uuid == text] or [uuid for uuid in nodes if uuid.startswith(text)]
        if len(matching) != 1:
            raise NoSuchVolume(f"{text!r} names {len(matching)} versions of this repo", url=url)
        uuid = matching[0]
    node = nodes.get(uuid)
    instances = repo.get("DataInstances") or {}
    return Version(
        uuid=uuid,
        locked=bool(isinstance(node, dict) and node.get("Locked")),
        alias=str(repo.get("Alias") or ""),
        instances={name: str(item["Base"]["TypeName"]) for name, item in instances.items() if _has_type(item)},
        repo=repo,
    )


def _object(document: Any, key: str, url: str) -> Mapping[str, Any]:  # noqa: ANN401  # any JSON value
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, dict):
        raise MetadataError(f"the repo's info: {key}: expected an object, got {value!r}", url=url)
    return value


def _has_type(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("Base"), dict) and "TypeName" in item["Base"]
