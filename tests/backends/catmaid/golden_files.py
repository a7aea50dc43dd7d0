"""The recorded answers, tiles and arrays, for tests that need no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[3] / ".." / "shared" / "golden" / "catmaid"
ABSENT = "../shared/golden/catmaid not found"
FOLDERS = ("server", "server_constructed")


def names(pattern: str, *folders: str) -> list[str]:
    """Recorded answers as "folder/name", none where the files are absent."""
    found = [path for folder in folders or FOLDERS for path in sorted((GOLDEN / folder).glob(f"{pattern}.json"))]
    return [f"{path.parent.name}/{path.stem}" for path in found]


def response(name: str) -> dict[str, Any]:
    """The recorded response: `status`, `headers`, `body_text`."""
    found: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())["response"]
    return found


def body(name: str) -> Any:
    """The recorded response's JSON."""
    return json.loads(response(name)["body_text"])


def cases() -> list[dict[str, Any]]:
    """The tile trees."""
    return [json.loads(path.read_text()) for path in sorted((GOLDEN / "trees").glob("*.case.json"))]


def local_info(case: dict[str, Any]) -> dict[str, Any]:
    """The stack info of a tree, its mirrors turned to the tree's own folder."""
    name = str(Path(case["stack_info"]).with_suffix("")).removeprefix("../")
    info: dict[str, Any] = body(name)
    folder = f"file://{(GOLDEN / 'trees' / case['tree']).resolve()}/"
    return info | {"mirrors": [mirror | {"image_base": folder} for mirror in info["mirrors"]]}
