"""Versions drawn as a tree: a branch's versions one below the other, other branches indented where they leave it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.tree import Tree

    from storefs.summary import VersionSummary

_NOTE = 60


def draw(versions: Sequence[VersionSummary], into: Tree, current: str | None = None) -> None:
    """Add `versions` to the tree `into`; the one named `current` is pointed at."""
    known = {version.name for version in versions}
    children: dict[str | None, list[VersionSummary]] = defaultdict(list)
    for version in versions:
        children[next((parent for parent in version.parents if parent in known), None)].append(version)
    waiting = [(root, into) for root in reversed(children[None])]
    while waiting:
        start, branch = waiting.pop()
        following: VersionSummary | None = start
        while following is not None:
            node = branch.add(_line(following, current))
            below = children[following.name]
            same = next((child for child in below if child.branch == following.branch), None)
            waiting += [(child, node) for child in reversed(below) if child is not same]
            following = same


def _line(version: VersionSummary, current: str | None) -> Text:
    state = "locked" if version.locked else "open"
    merged = f"  merges {', '.join(version.parents)}" if len(version.parents) > 1 else ""
    words = " ".join(version.note.split())
    note = f'  "{words[:_NOTE]}{"…" * (len(words) > _NOTE)}"' if words else ""
    here = "  <- here" if version.name == current else ""
    text = (version.name, "bold"), f"  {version.branch}, {state}{merged}{note}{here}"
    return Text.assemble(*text, no_wrap=True, overflow="ignore")
