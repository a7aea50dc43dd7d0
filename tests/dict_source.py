"""A dictionary in place of a Source, for suites that write."""

from __future__ import annotations

from collections.abc import AsyncIterator

from storefs.source import Seen


class DictSource:
    """Keys and bytes from `values`, which may change."""

    seen = Seen({}, {})

    def __init__(self, url: str, values: dict[str, bytes]) -> None:
        self.url = url
        self.values = values

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def exists(self, key: str) -> bool:
        return key in self.values

    async def is_leaf(self, key: str) -> bool:
        return key in self.values

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        for key in list(self.values):
            if key.startswith(prefix):
                yield key

    async def list_dir(self, folder: str) -> list[str]:
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        return sorted({key[len(prefix) :].split("/")[0] for key in self.values if key.startswith(prefix)})
