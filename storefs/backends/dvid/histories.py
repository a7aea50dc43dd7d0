"""Repos and their versions as groups and attributes: what there is, without asking for voxels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storefs.errors import MetadataError
from storefs.model import Hierarchy


def describe_server(url: str, repos: object) -> Hierarchy:
    """The repos of a server as groups, their versions below them. Raises MetadataError."""
    if not isinstance(repos, dict):
        raise MetadataError(f"repos/info: expected an object, got {repos!r}", url=url)
    groups = [_repo(root, item) for root, item in sorted(repos.items()) if isinstance(item, dict)]
    return Hierarchy("dvid", (), {"source": url, "format": "dvid"}, "", tuple(groups))


def _repo(root: str, item: Mapping[str, Any]) -> Hierarchy:
    versions = tuple(Hierarchy(uuid, (), facts, f"{root}/{uuid}") for uuid, facts in history(item).items())
    instances = {
        name: (instance.get("Base") or {}).get("TypeName")
        for name, instance in (item.get("DataInstances") or {}).items()
    }
    attributes = {"alias": item.get("Alias"), "description": item.get("Description"), "instances": instances}
    return Hierarchy(root, (), attributes, root, versions)


def history(repo: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The versions of a repo, oldest first: branch, lock, note, parents and children by uuid."""
    dag = repo.get("DAG")
    found = dag.get("Nodes") if isinstance(dag, dict) else None
    nodes = {uuid: node for uuid, node in (found or {}).items() if isinstance(node, dict)}
    uuids = {node.get("VersionID"): uuid for uuid, node in nodes.items()}
    ordered = sorted(nodes.items(), key=lambda item: _number(item[1].get("VersionID")))
    return {uuid: _version_attributes(node, uuids) for uuid, node in ordered}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _version_attributes(node: Mapping[str, Any], uuids: Mapping[Any, str]) -> dict[str, Any]:
    return {
        "branch": node.get("Branch") or "master",
        "locked": node.get("Locked"),
        "note": node.get("Note"),
        "parents": [uuids.get(parent) for parent in node.get("Parents") or []],
        "children": [uuids.get(child) for child in node.get("Children") or []],
    }
