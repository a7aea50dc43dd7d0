"""What a format brings, and what reaches it: the protocols between a Source and the rest."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from storefs.model import ChunkId, Hierarchy
from storefs.plan import Plan
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
class SupportsRegion(Protocol):
    """A backend that can read less than a chunk."""

    def read_box(self, chunk: ChunkId, start: tuple[int, ...], stop: tuple[int, ...]) -> Plan[Array] | None:
        """Just the voxels from `start` to `stop` in the chunk; None where the chunk as a whole is as cheap."""


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

    def fetch(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched in this thread."""

    async def fetch_async(self, request: Any) -> Any:  # noqa: ANN401  # each transport has its requests
        """The answer, fetched on the running event loop."""

    def connect(self, url: str) -> Transport:
        """The transport of another volume with the same options; `url` absolute or relative to this one's."""
