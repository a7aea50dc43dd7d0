"""Repositories and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storefs.backends.dvid import calls
from storefs.backends.dvid.creating import create_repo, new_child
from storefs.backends.dvid.part import Part, asked, field_of
from storefs.plans import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storefs.plans import Plan

Json = dict[str, Any]


class Repos(Part):
    """Repositories; `uuid` is any version of one, as a whole uuid, a unique prefix or `prefix:branch`."""

    @asked
    def create(self, alias: str = "", description: str = "", *, root: str | None = None) -> Plan[str]:
        """A new repository; gives the uuid of its root. Needs the admin token on servers since June 2026."""
        return (yield from create_repo(self._connection.url, alias, description, root))

    @asked
    def all(self) -> Plan[dict[str, Json]]:
        """Every repository by the uuid of its root: instances and versions included."""
        return (yield from self._ask_json(Call(("api", "repos", "info"))))  # type: ignore[no-any-return]  # JSON

    @asked
    def info(self, uuid: str) -> Plan[Json]:
        """The repository: alias, description, log, instances (`DataInstances`) and versions (`DAG`)."""
        return (yield from self._ask_json(Call(calls.repo(uuid, "info"))))  # type: ignore[no-any-return]  # JSON

    @asked
    def set_info(self, uuid: str, *, alias: str | None = None, description: str | None = None) -> Plan[None]:
        """Change alias, description, or both."""
        given = {"alias": alias, "description": description}
        yield from self._post_json(calls.repo(uuid, "info"), {k: v for k, v in given.items() if v is not None})

    @asked
    def exists(self, uuid: str) -> Plan[bool]:
        """Whether a repository has such a version."""
        reply = yield from self._ask_raw(Call(calls.repo(uuid), method="HEAD"))
        return bool(reply)

    def _ask_raw(self, call: Call) -> Plan[bool]:
        reply = yield from calls.ask(call, self._connection.url, {calls.OK, calls.BAD_REQUEST, 404})
        return reply.status == calls.OK

    @asked
    def log(self, uuid: str) -> Plan[list[str]]:
        """The repository's log, a line an item."""
        answer = yield from self._ask_json(Call(calls.repo(uuid, "log")))
        return [str(line) for line in field_of(answer, "log", list, self._connection.url)]

    @asked
    def add_to_log(self, uuid: str, lines: Sequence[str]) -> Plan[None]:
        """Add lines to the repository's log."""
        yield from self._post_json(calls.repo(uuid, "log"), {"log": list(lines)}, repeatable=False)

    @asked
    def branch_versions(self, uuid: str, branch: str = "master") -> Plan[list[str]]:
        """Uuids of a branch, from its leaf to the root."""
        return (yield from self._ask_json(Call(calls.repo(uuid, "branch-versions", branch))))  # type: ignore[no-any-return]  # JSON

    @asked
    def merge(self, uuids: Sequence[str], note: str = "") -> Plan[str]:
        """A version that joins committed versions which do not conflict; gives its uuid."""
        given = {"mergeType": "conflict-free", "parents": list(uuids), "note": note}
        answer = yield from self._post_json(calls.repo(uuids[0], "merge"), given, repeatable=False)
        return field_of(answer, "child", str, self._connection.url)


class Versions(Part):
    """Versions of repositories, which DVID also calls nodes."""

    @asked
    def is_locked(self, uuid: str) -> Plan[bool]:
        """Whether the version is committed, and so refuses changes."""
        answer = yield from self._ask_json(Call(("api", "node", uuid, "status")))
        return field_of(answer, "Locked", bool, self._connection.url)

    @asked
    def commit(self, uuid: str, note: str = "", log: Sequence[str] = ()) -> Plan[str]:
        """Lock the version for ever; gives its whole uuid."""
        given: Json = {key: value for key, value in (("note", note), ("log", list(log))) if value}
        answer = yield from self._post_json(("api", "node", uuid, "commit"), given, repeatable=False)
        return field_of(answer, "committed", str, self._connection.url)

    @asked
    def new_version(self, uuid: str, note: str = "", *, new_uuid: str | None = None) -> Plan[str]:
        """An open child of a committed version on the same branch; gives its uuid."""
        return (yield from new_child(self._connection.url, uuid, note=note, new_uuid=new_uuid))

    @asked
    def branch(self, uuid: str, branch: str, note: str = "", *, new_uuid: str | None = None) -> Plan[str]:
        """An open child of a committed version on a new branch; gives its uuid."""
        return (yield from new_child(self._connection.url, uuid, branch=branch, note=note, new_uuid=new_uuid))

    @asked
    def tag(self, uuid: str, tag: str, note: str = "") -> Plan[str]:
        """A name for a committed version, usable as a uuid; gives the tag."""
        given = {"tag": tag} | ({"note": note} if note else {})
        answer = yield from self._post_json(("api", "node", uuid, "tag"), given, repeatable=False)
        return field_of(answer, "child", str, self._connection.url)

    @asked
    def note(self, uuid: str) -> Plan[str]:
        """The version's note."""
        answer = yield from self._ask_json(Call(("api", "node", uuid, "note")))
        return field_of(answer, "note", str, self._connection.url)

    @asked
    def set_note(self, uuid: str, note: str) -> Plan[None]:
        """Change the version's note."""
        yield from self._post_json(("api", "node", uuid, "note"), {"note": note})

    @asked
    def log(self, uuid: str) -> Plan[list[str]]:
        """The version's log, a line an item."""
        answer = yield from self._ask_json(Call(("api", "node", uuid, "log")))
        return [str(line) for line in field_of(answer, "log", list, self._connection.url)]

    @asked
    def add_to_log(self, uuid: str, lines: Sequence[str]) -> Plan[None]:
        """Add lines to the version's log."""
        yield from self._post_json(("api", "node", uuid, "log"), {"log": list(lines)}, repeatable=False)
