"""Recorded exchanges of a real CATMAID server, and an emulator that holds the same projects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.backends.catmaid.emulator import CatmaidEmulator, Group, Link, Mirror, Project, Stack

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "catmaid"
ABSENT = "the recorded CATMAID answers (../shared/golden/catmaid) are not here"

NOT_COMPARED = {
    "export_json": "the exporter is not emulated: info says more",
    "export_no_accept": "the exporter is not emulated: info says more",
    "export_yaml": "the exporter is not emulated: info says more",
}


@dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    name: str
    method: str
    path: str
    headers: dict[str, str]
    status: int
    answer_headers: dict[str, str]
    body: str

    def __str__(self) -> str:
        return self.name

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


def exchanges(folder: str = "server") -> list[Exchange]:
    """All recorded exchanges, none where there are no golden files."""
    found = []
    for file in sorted((GOLDEN / folder).glob("*.json")):
        told = json.loads(file.read_text())
        asked, said = told["request"], told["response"]
        found.append(
            Exchange(
                told["name"], asked["method"], asked["path"], asked["headers"],
                said["status"], said["headers"], said["body_text"],
            )
        )  # fmt: skip
    return found


def same_projects() -> CatmaidEmulator:
    """An emulator with the projects that the recorded answers tell of."""
    said = {exchange.name: exchange for exchange in exchanges()}
    infos = {}
    for exchange in said.values():
        if exchange.name.startswith("info_") and exchange.status == 200:
            infos[exchange.json["sid"]] = exchange.json
    projects = []
    for listed in said["projects_token"].json:
        members = said["stackgroup_info"].json["stacks"]
        groups = [
            Group(group["id"], group["title"], [(member["id"], member["relation"]) for member in members])
            for group in listed["stackgroups"]
        ]
        order = [stack["id"] for stack in listed["stacks"]]
        if listed["id"] == 1:
            order = [stack["id"] for stack in said["stacks"].json]
        mirrored = next((p for p in said["projects_with_mirrors"].json if p["id"] == listed["id"]), listed)
        stacks = {stack["id"]: _stack(stack, infos.get(stack["id"])) for stack in mirrored["stacks"]}
        links = [_link(stacks[number], infos.get(number)) for number in order]
        public = listed["id"] != 2
        projects.append(Project(listed["id"], listed["title"], links, groups, public, listed["comment"]))
    emulator = CatmaidEmulator(*projects)
    emulator.unlinked.append(Stack(24, "unlinked", (1, 1, 1)))
    return emulator


def _link(stack: Stack, told: dict[str, Any] | None) -> Link:
    return Link(stack) if told is None else Link(stack, _xyz(told["translation"]), told["orientation"])


def _stack(listed: dict[str, Any], told: dict[str, Any] | None) -> Stack:
    stack = Stack(listed["id"], listed["title"], tuple(listed["dimensions"]), comment=listed["comment"])
    mirrors = listed.get("mirrors") if told is None else told["mirrors"]
    stack.mirrors = [Mirror(**{k: v for k, v in mirror.items() if k != "stack_id"}) for mirror in mirrors or []]
    if told is not None:
        stack.resolution = _xyz(told["resolution"])
        stack.factors = told["downsample_factors"] and [_xyz(factor) for factor in told["downsample_factors"]]
        stack.broken_slices = tuple(map(int, told["broken_slices"]))
        stack.canary = _xyz(told["canary_location"])
        stack.placeholder = tuple(told["placeholder_color"][c] for c in "rgba")  # type: ignore[assignment]  # four
        stack.metadata, stack.description = told["metadata"], told["description"]
        stack.attribution = told["attribution"]
    return stack


def _xyz(told: dict[str, Any]) -> tuple[Any, Any, Any]:
    return told["x"], told["y"], told["z"]
