"""The ways into a source, looked for only as far as needed, and what has been learnt about each."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import aiohttp
from obstore.exceptions import BaseError

from storefs.transport.credentials import accesses, expanded
from storefs.transport.http import HttpClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storefs.transport.credentials import Access
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions


class Way:
    """One way in: `plain_http` where obstore does not do, `proven` once it was let in."""

    def __init__(self, access: Access, options: TransportOptions) -> None:
        self.access = access
        self.plain_http = False
        self.proven = False
        self.misfits = 0
        self.note = ""
        self.http = HttpClient(access, options, expanded(options.headers))

    def store(self) -> Any:  # noqa: ANN401  # three kinds of store
        """The obstore store, None where obstore cannot make one of what it finds in the environment."""
        try:
            return self.access.store
        except BaseError:
            self.plain_http = True
            return None

    @property
    def label(self) -> str:
        """What this way is called in messages."""
        return f"{self.access.label} ({self.note})" if self.note else self.access.label


class Ways:
    """The ways in, best first; `current` is the first that was not refused.

    `store` is its obstore store, None where it has not been let in yet, or obstore does not do.
    """

    def __init__(self, location: Location, options: TransportOptions) -> None:
        self.current = 0
        self.store: Any = None  # of three kinds
        self.region = options.region
        self._options = options
        self._untried: Iterator[Access | str] = accesses(location, options)
        self._lock = threading.Lock()
        self._found: list[Way] = []
        self._notes: list[str] = []
        self._exhausted = False

    async def at(self, position: int) -> Way | None:
        """The way at `position`, None behind the last."""
        if position < len(self._found):
            return self._found[position]
        if position == 0:
            return self._look(position)
        # libraries that look for credentials read files and ask servers
        return None if self._exhausted else await asyncio.to_thread(self._look, position)

    def let_in(self, position: int) -> None:
        """The way at `position` was let in, and is the current one from now on."""
        way = self._found[position]
        way.proven = True
        self.current = position
        self.store = None if way.plain_http else way.store()

    def give_up_store(self, way: Way) -> None:
        """Obstore does not do for `way`."""
        way.plain_http = True
        self.store = None

    def _look(self, position: int) -> Way | None:
        with self._lock:
            while len(self._found) <= position:
                item = next(self._untried, None)
                if item is None:
                    self._exhausted = True
                    return None
                if isinstance(item, str):
                    self._notes.append(item)
                else:
                    self._found.append(Way(item, self._options))
            return self._found[position]

    def tried(self) -> str:
        """What was tried, for a message."""
        return "; ".join([*(way.label for way in self._found), *self._notes])

    async def bucket_region(self) -> str | None:
        """The region that the S3 server says the bucket is in, None where it does not say."""
        for way in self._found:
            if way.access.bucket_url is None:
                continue
            try:
                return await way.http.bucket_region(way.access.bucket_url)
            except (aiohttp.ClientError, TimeoutError):
                return None
        return None
