"""What a format brings, and what reaches it: the protocols between a Source and the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from storefs.model import ChunkId, Hierarchy
from storefs.plans import Body, Get, Plan
from storefs_codecs.chunk_codec import Array

Payload = bytes | memoryview
Stored = Payload | Callable[[], Payload]
"""A payload, or what makes it where that takes work worth a thread. Raises DecodeError when called."""


Box = tuple[tuple[int, ...], tuple[int, ...]]
Reach = Callable[[Hashable, Box], Box]
"""How far something has been written by this process: the union of the boxes (start, stop) told so far."""


class Backend(Protocol):
    """A described volume: pure, no I/O."""

    @property
    def hierarchy(self) -> Hierarchy:
        """What the volume looks like."""

    def name(self, chunk: ChunkId) -> str:
        """What the source calls `chunk`, for messages."""

    def read(self, chunk: ChunkId) -> Plan[Stored | None]:
        """The chunk's payload as its codec reads it, None where the source has no such chunk."""

    def exists(self, chunk: ChunkId) -> Plan[bool]:
        """Whether the source has the chunk."""


@runtime_checkable
class Volatile(Protocol):
    """A backend whose voxels may change under the same address."""

    @property
    def changes(self) -> str | None:
        """Why they may, as the beginning of a sentence; None where these do not."""


@runtime_checkable
class SupportsRegion(Protocol):
    """A backend that can read less than a chunk."""

    def read_box(self, chunk: ChunkId, start: tuple[int, ...], stop: tuple[int, ...]) -> Plan[Array] | None:
        """Just the voxels from `start` to `stop` in the chunk; None where the chunk as a whole is as cheap."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Boxes of `shape` side by side, the first at voxel `origin` of an array."""

    origin: tuple[int, ...]
    shape: tuple[int, ...]

    def count(self, start: tuple[int, ...], stop: tuple[int, ...]) -> int:
        """How many of them hold the voxels from `start` to `stop`."""
        sides = zip(self.origin, self.shape, start, stop, strict=True)
        return math.prod((b - 1 - o) // n - (a - o) // n + 1 for o, n, a, b in sides)


@runtime_checkable
class SupportsBoxes(Protocol):
    """A backend that can read boxes across chunks, so that many chunks, or slices through them, take few requests."""

    def boxes(self, array: str, start: tuple[int, ...], stop: tuple[int, ...], nbytes: int) -> Tiling:
        """The boxes in which the voxels from `start` to `stop` are best asked for, each about `nbytes` long."""

    def read_across(self, array: str, start: tuple[int, ...], stop: tuple[int, ...]) -> Plan[Array]:
        """The voxels of the array from `start` to `stop`, absent ones as the fill value."""


@runtime_checkable
class SupportsObjects(Protocol):
    """A backend some of whose chunks are objects of their own: what `read` first asks for, without its detours."""

    def object_of(self, chunk: ChunkId) -> Get | None:
        """The object that is the chunk's and nobody else's; None where it lies with others."""

    def payload_of(self, chunk: ChunkId, body: Body) -> Stored:
        """The payload of `chunk` from its object, which is not empty. Raises DecodeError."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the stored bytes of a chunk lie: `start` to `stop` of the object at `path`."""

    path: str
    start: int
    stop: int


@runtime_checkable
class SupportsBatch(Protocol):
    """A backend some of whose chunks share objects, so that many are found, and asked for, in few requests."""

    def batches(self, chunks: Sequence[ChunkId]) -> Sequence[Sequence[int]] | None:
        """The positions in `chunks` (of one array) of those that share an object; None where each has its own."""

    def locate(self, chunks: Sequence[ChunkId]) -> Plan[Sequence[Place | None]]:
        """Where the chunks of one batch lie, None for those that are absent. Raises DecodeError."""

    def unpack(self, chunk: ChunkId, place: Place, body: Body | None) -> Stored:
        """The payload of `chunk` from the bytes of its `place`. Raises DecodeError."""


@runtime_checkable
class SupportsWrite(Protocol):
    """A backend whose chunks can be written."""

    def check_writable(self, chunk: ChunkId) -> Plan[None]:
        """Raise Unsupported or TransportError where the chunk's array cannot be written; nothing is sent before."""

    def parts(self, chunk: ChunkId) -> frozenset[Hashable]:
        """What is held while the chunk is written: the smallest things that are written whole, by name."""

    def write(self, chunk: ChunkId, start: tuple[int, ...], voxels: Array, reach: Reach) -> Plan[None]:
        """Write `voxels` (zyx or czyx) at `start` in the chunk; what is around them stays as it is."""


@dataclass(frozen=True, slots=True)
class MirrorState:
    """One of several places that hold the chunks of the group at path `group`.

    `kind` says how they lie there, `tile_size` is width, height in pixels, `url` is without secrets. `problem` is why
    the place cannot be read, None where it can; `is_read` marks the one that chunks are read from.
    """

    group: str
    id: int | None
    title: str
    position: int
    kind: str
    tile_size: tuple[int, int]
    extension: str
    url: str
    problem: str | None
    is_read: bool


@runtime_checkable
class SupportsMirrors(Protocol):
    """A backend whose chunks are in several places."""

    def mirrors(self) -> Plan[Sequence[MirrorState]]:
        """Every place, each asked for something small. What is wrong with one is told, not raised."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The volume lives elsewhere: `url`, absolute or relative to the volume's own."""

    url: str


class Opener(Protocol):
    """How a backend describes a volume: one plan."""

    def __call__(self, url: str) -> Plan[Backend | Redirect]:
        """The plan that describes the volume at `url`."""
        ...


class Transport(Protocol):
    """Fetches the requests of one volume. Absent objects are None, every other failure raises a TransportError."""

    url: str
    blocking: bool  # True: fetching belongs in a worker thread (files), False: on the event loop (network)
    local: bool  # True: fetching takes the processor's time, and never long (files)
    concurrency: int  # how many requests at a time a bulk read sends

    def fetch(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched in this thread."""

    async def fetch_async(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched on the running event loop."""

    def connect(self, url: str) -> Transport:
        """The transport of another volume with the same options; `url` absolute or relative to this one's."""


@runtime_checkable
class Choosing(Protocol):
    """A backend that chose one of several ways to read, which another process might not."""

    @property
    def chosen(self) -> Mapping[str, str]:
        """The options that make it the same choice."""


@runtime_checkable
class Forgetful(Protocol):
    """A transport that keeps some of what it was answered in memory."""

    def clear(self) -> None:
        """Forget it."""
