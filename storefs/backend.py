"""What a format brings, and what reaches it: the protocols between a Source and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from storefs.model import ChunkId, Hierarchy
from storefs.plan import Plan

Payload = bytes | memoryview


class Backend(Protocol):
    """A described volume: pure, no I/O."""

    @property
    def hierarchy(self) -> Hierarchy:
        """What the volume looks like."""

    def name(self, chunk: ChunkId) -> str:
        """What the source calls `chunk`, for messages."""

    def read(self, chunk: ChunkId) -> Plan[Payload | None]:
        """The chunk's payload as its codec reads it, None where the source has no such chunk."""

    def exists(self, chunk: ChunkId) -> Plan[bool]:
        """Whether the source has the chunk."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The volume lives elsewhere: `url`, absolute or relative to the volume's own."""

    url: str


class Opener(Protocol):
    """How a backend describes a volume: one plan."""

    def __call__(self, url: str) -> Plan[Backend | Redirect]: ...


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
