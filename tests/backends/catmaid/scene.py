"""A CATMAID server, a tile host and stacks made up for a test. Shares no code with the product."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.backends.catmaid.emulator import CatmaidEmulator, Link, Mirror, Project, Stack
from tests.backends.catmaid.specimen import HALVES, Array, Factor, image_base, pyramid, tiles, tissue
from tests.backends.catmaid.tile_hosts import TileHost

SHAPE = (5, 101, 150)
SIZE = (64, 48)


@dataclass
class Shown:
    """A stack that is served: its address, what reading its levels should give, and the stack itself."""

    url: str
    levels: list[Array]
    stack: Stack

    @property
    def finest(self) -> Array:
        """Level 0, zyx or czyx."""
        return self.levels[0]


@dataclass
class Scene:
    """One server with project 1, and one host, to which stacks are added."""

    server: CatmaidEmulator
    host: TileHost
    project: Project
    count: int = field(default=0)

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"catmaid://{self.server.url}"

    def mirror(
        self,
        levels: Sequence[Array],
        host: TileHost | None = None,
        *,
        kind: int = 4,
        size: tuple[int, int] = SIZE,
        extension: str = "png",
        orientation: int = 0,
        title: str = "main",
        position: int = 0,
        **cutting: Any,
    ) -> Mirror:
        """Put tiles of `levels` on a host, in a folder of their own; the mirror that says so."""
        host = host or self.host
        self.count += 1
        folder = f"em{self.count}"
        made = tiles(levels, kind, size, extension, orientation=orientation, **cutting)
        host.put(f"{folder}/vol/raw" if kind == 10 else folder, made)
        base = image_base(kind, host.url, f"{folder}/vol/raw" if kind == 10 else folder, size)
        shown = "" if kind == 12 else extension
        return Mirror(base, kind, shown, *size, title=title, position=position, id=10 + self.count)

    def stack(
        self,
        finest: Array | None = None,
        factors: Sequence[Factor] = HALVES,
        *,
        mirrors: list[Mirror] | None = None,
        orientation: int = 0,
        translation: tuple[float, float, float] = (0.0, 0.0, 0.0),
        facts: dict[str, Any] | None = None,
        **mirror: Any,
    ) -> Shown:
        """A new stack of project 1; without `mirrors` on the scene's host, made as `mirror` says."""
        finest = tissue(SHAPE) if finest is None else finest
        levels = pyramid(finest, factors)
        if mirrors is None:
            mirrors = [self.mirror(levels, orientation=orientation, **mirror)]
        self.count += 1
        depth, height, width = finest.shape[-3:]
        stack = Stack(
            self.count, f"stack {self.count}", (width, height, depth), mirrors, factors=list(factors), **(facts or {})
        )
        self.project.links.append(Link(stack, translation, orientation))
        return Shown(f"{self.url}/1/{stack.id}", levels, stack)


@contextlib.contextmanager
def scene(prefix: str = "") -> Iterator[Scene]:
    """A new scene."""
    project = Project(1, "Demo")
    with CatmaidEmulator(project, prefix=prefix) as server, TileHost() as host:
        yield Scene(server, host, project)
