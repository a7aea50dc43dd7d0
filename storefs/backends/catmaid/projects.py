"""Servers, projects and stack groups as groups of stacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from storefs.backend import MirrorState, Stored
from storefs.backends.catmaid.answers import read_json
from storefs.backends.catmaid.info import StackInfo, parse_stack_info
from storefs.backends.catmaid.reading import Reading
from storefs.backends.catmaid.stack import StackBackend, describe_stack
from storefs.backends.catmaid.url import Address
from storefs.errors import MetadataError, StorefsError
from storefs.model import ArrayNode, ChunkId, Hierarchy
from storefs.plans import Call, Race, Reply, Volume, VolumeBox

if TYPE_CHECKING:
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

Json = dict[str, Any]
T = TypeVar("T")
AT_ONCE = 32
MAX_ANSWER_BYTES = 256 << 20


def describe_server(address: Address, reading: Reading) -> Plan[Stacks]:
    """The projects of a server and their stacks as groups, none of them described. One request."""
    url = address.url
    listed = yield from _ask(Call(("projects", "")), "projects", url, reading)
    groups = tuple(_project(item, url) for item in _objects(listed, "projects", url))
    attributes = {"source": url, "format": "catmaid"}
    return Stacks(url, Hierarchy("catmaid", (), attributes, "", groups), {})


def describe_project(address: Address, reading: Reading) -> Plan[Stacks]:
    """The stacks of a project: one request, and those of each stack."""
    url = address.url
    listed = yield from _ask(Call((str(address.project), "stacks")), "stacks", url, reading)
    titles: dict[int, str] = {}
    for item in _objects(listed, "stacks", url):
        titles[_id(item, "stacks", url)] = str(item.get("title") or "")
    attributes = {"source": url, "format": "catmaid", "project_id": address.project}
    return (yield from _stacks(address, str(address.project), titles, attributes, reading))


def describe_group(address: Address, reading: Reading) -> Plan[Stacks]:
    """The stacks of a stack group: one request, and those of each stack."""
    url = address.url
    path = (str(address.project), "stackgroup", str(address.group), "info")
    document = yield from _ask(Call(path), "stack group", url, reading)
    members = document.get("stacks") if isinstance(document, dict) else None
    stacks = _objects(members, "stack group: stacks", url)
    titles = {_id(item, "stack group: stacks", url): "" for item in stacks}
    title = str(document.get("title") or "")
    attributes = {
        "source": url,
        "format": "catmaid",
        "project_id": address.project,
        "stackgroup_id": address.group,
        "stackgroup_title": title,
        "stacks": [{key: item.get(key) for key in ("id", "relation", "position")} for item in stacks],
    }
    return (yield from _stacks(address, title or str(address.group), titles, attributes, reading))


def stack_info(address: Address, reading: Reading) -> Plan[StackInfo]:
    """The info of the stack at `address`. Raises NoSuchVolume, Refused, MetadataError, TransportError."""
    url = address.url
    if reading.stack_info is not None:
        return parse_stack_info(dict(reading.stack_info), url)
    path = (str(address.project), "stack", str(address.stack), "info")
    return parse_stack_info((yield from _ask(Call(path), "stack info", url, reading)), url)


def describe_one(address: Address, reading: Reading) -> Plan[StackBackend]:
    """The stack at `address`: its info, then a tile of a mirror."""
    info = yield from stack_info(address, reading)
    return (yield from describe_stack(info, address.url, address.server, reading))


class Stacks:
    """Several described stacks, each below the path of its group."""

    def __init__(self, url: str, hierarchy: Hierarchy, stacks: Mapping[str, StackBackend]) -> None:
        self.url = url
        self.hierarchy = hierarchy
        self.stacks = stacks

    def _stack(self, chunk: ChunkId) -> tuple[StackBackend, ChunkId]:
        group, _, path = chunk.array.partition("/")
        return self.stacks[group], ChunkId(path, chunk.index)

    def name(self, chunk: ChunkId) -> str:
        """The stack, and what it calls the chunk."""
        stack, own = self._stack(chunk)
        return f"stack {chunk.array.partition('/')[0]}: {stack.name(own)}"

    def read(self, chunk: ChunkId) -> Plan[Stored | None]:
        """As the stack reads it."""
        stack, own = self._stack(chunk)
        return (yield from stack.read(own))

    def read_box(self, chunk: ChunkId, start: tuple[int, ...], stop: tuple[int, ...]) -> Plan[Array] | None:
        """As the stack reads it."""
        stack, own = self._stack(chunk)
        return stack.read_box(own, start, stop)

    def exists(self, chunk: ChunkId) -> Plan[bool]:
        """As the stack says."""
        stack, own = self._stack(chunk)
        return (yield from stack.exists(own))

    def mirrors(self) -> Plan[list[MirrorState]]:
        """The mirrors of all stacks, stack by stack."""
        states: list[MirrorState] = []
        found = yield from abreast([stack.mirrors() for stack in self.stacks.values()])
        for path, result in zip(self.stacks, found, strict=True):
            if isinstance(result, StorefsError):
                raise result
            states += [replace(state, group=path) for state in result]
        return states


def _ask(call: Call, what: str, url: str, reading: Reading) -> Plan[Any]:
    reply: Reply = yield replace(call, limit=MAX_ANSWER_BYTES)
    return read_json(reply, what, url, with_token=reading.with_token)


def _stacks(address: Address, name: str, titles: Mapping[int, str], attributes: Json, reading: Reading) -> Plan[Stacks]:
    plans = [describe_one(replace(address, group=None, stack=number), reading) for number in titles]
    found = yield from abreast(plans)
    groups, stacks = [], {}
    for number, result in zip(titles, found, strict=True):
        path = str(number)
        if isinstance(result, StorefsError):
            told = {"stack_id": number, "stack_title": titles[number], "error": result.message}
            groups.append(Hierarchy(titles[number] or path, (), told, path))
        else:
            stacks[path] = result
            groups.append(_moved(result.hierarchy, path))
    return Stacks(address.url, Hierarchy(name, (), attributes, "", tuple(groups)), stacks)


def abreast(plans: Sequence[Plan[T]]) -> Plan[list[T | StorefsError]]:
    """The results of `plans`, or the errors that they raised, run side by side: what they ask for is asked together."""
    results: dict[int, T | StorefsError] = {}
    for first in range(0, len(plans), AT_ONCE):
        batch = {i: plans[i] for i in range(first, min(first + AT_ONCE, len(plans)))}
        answers: dict[int, Any] = dict.fromkeys(batch)
        while batch:
            asked: dict[int, Any] = {}
            for i, plan in list(batch.items()):
                answer = answers[i]
                try:
                    asked[i] = plan.throw(answer) if isinstance(answer, BaseException) else plan.send(answer)
                except StopIteration as stop:
                    results[i] = stop.value
                    del batch[i]
                except StorefsError as error:
                    results[i] = error
                    del batch[i]
            answers = yield from _answers(asked)
    return [results[i] for i in range(len(plans))]


def _answers(asked: Mapping[int, Any]) -> Plan[dict[int, Any]]:
    """The answers or errors to `asked`; other formats' volumes are asked one by one, as they are no single request."""
    single = {i: request for i, request in asked.items() if not isinstance(request, Volume | VolumeBox)}
    pairs = (yield Race(tuple(single.values()))) if single else ()
    answers = {i: answer for i, (answer, _) in zip(single, pairs, strict=True)}
    for i, request in asked.items():
        if i not in single:
            try:
                answers[i] = yield request
            except StorefsError as error:
                answers[i] = error
    return answers


def _moved(hierarchy: Hierarchy, path: str) -> Hierarchy:
    """The hierarchy of a stack, below `path`."""

    def below(node: ArrayNode) -> ArrayNode:
        return replace(node, path=f"{path}/{node.path}")

    return replace(hierarchy, path=path, arrays=tuple(below(node) for node in hierarchy.arrays))


def _project(item: Json, url: str) -> Hierarchy:
    number = str(_id(item, "projects", url))
    stacks = _objects(item.get("stacks") or [], "projects: stacks", url)
    groups = tuple(_listed_stack(stack, f"{number}/{_id(stack, 'projects: stacks', url)}") for stack in _once(stacks))
    attributes = {
        "project_title": item.get("title"),
        "comment": item.get("comment"),
        "stackgroups": item.get("stackgroups") or [],
    }
    return Hierarchy(str(item.get("title") or number), (), attributes, number, groups)


def _listed_stack(item: Json, path: str) -> Hierarchy:
    title = item.get("title")
    told = {"stack_title": title, "dimension_xyz": item.get("dimensions"), "comment": item.get("comment")}
    return Hierarchy(str(title or item.get("id")), (), told, path)


def _once(items: Iterable[Json]) -> list[Json]:
    """Each item once by its id: a stack may be linked to a project twice."""
    return list({str(item.get("id")): item for item in items}.values())


def _objects(listed: object, what: str, url: str) -> list[Json]:
    if not isinstance(listed, list) or not all(isinstance(item, dict) and "id" in item for item in listed):
        raise MetadataError(f"{what}: expected a list of objects with ids; is this a CATMAID server?", url=url)
    return listed


def _id(item: Json, what: str, url: str) -> int:
    try:
        return int(item["id"])
    except (TypeError, ValueError):
        raise MetadataError(f"{what}: id: expected a number, got {item['id']!r}", url=url) from None
