"""Volumes: which volume a path lies in, and what is left of the path as a zarr key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from storefs.errors import MetadataError, NoSuchVolume, Refused

if TYPE_CHECKING:
    from storefs.errors import StorefsError
    from storefs.source import Source

DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_DOCUMENT = "|".join(re.escape(name) for name in DOCUMENTS)
# what may follow a volume's address: a document, or an array and in it a document or (part of) a chunk key
_KEY = re.compile(rf"(?:{_DOCUMENT})?|\d+(?:/(?:{_DOCUMENT}))?|\d+(?:/c)?(?:/\d+)*")
_DEEPEST_KEY = 8
# pickles are to be small
_MOST_TOLD = 4


class Volumes:
    """The volumes found so far; others are looked for, and described once however many ask."""

    def __init__(
        self,
        open_source: Callable[[str], Source],
        split: Callable[[str], Iterable[tuple[str, str]]] | None = None,
    ) -> None:
        self._open_source = open_source
        self._split = split or _splits  # the ways to read a path as address and key
        self._sources: dict[str, Source] = {}
        self._opening: dict[str, Source] = {}
        self._expected: dict[str, Mapping[str, str]] = {}

    @property
    def layouts(self) -> dict[str, Mapping[str, str]]:
        """Layouts of the arrays of some volumes found so far, or expected; for `expect` in another process."""
        found = {root: source.seen.layouts for root, source in list(self._sources.items())[:_MOST_TOLD]}
        return self._expected | {root: layouts for root, layouts in found.items() if layouts}

    def expect(self, layouts: Mapping[str, Mapping[str, str]]) -> None:
        """Layouts that another process has seen; a volume that looks different now is an error."""
        self._expected |= layouts

    async def resolve(self, address: str) -> tuple[Source, str]:
        """The volume that `address` lies in, and the zarr key. Raises NoSuchVolume, MetadataError, TransportError."""
        candidates = list(self._split(address))
        for root, key in candidates:
            if root in self._sources:
                return self._sources[root], key
        failures: list[StorefsError] = []
        for root, key in candidates:
            # shared by all that come while it is being opened
            source = self._sources.get(root) or self._opening.get(root) or self._open_source(root)
            source.expected = source.expected or self._expected.get(root, {})
            self._opening.setdefault(root, source)
            try:
                await source.open_async()
            except (NoSuchVolume, MetadataError, Refused) as error:
                failures.append(error)  # such as the folder above, or a bucket's root
                continue
            finally:
                self._opening.pop(root, None)
            return self._sources.setdefault(root, source), key
        for known, source in self._sources.items():
            if address.startswith(f"{known}/"):
                return source, address[len(known) + 1 :]  # a name that means nothing in that volume
        telling = [error for error in failures if not isinstance(error, NoSuchVolume)]
        raise (telling + failures + [NoSuchVolume("this names no volume", url=address)])[0]


def _splits(address: str) -> Iterator[tuple[str, str]]:
    """Every way to read `address` as a volume followed by a key, the longest key first."""
    scheme, found, rest = address.rpartition("://")
    parts = rest.split("/")
    for length in range(min(_DEEPEST_KEY, len(parts) - 1), -1, -1):
        key = "/".join(parts[len(parts) - length :])
        root = scheme + found + "/".join(parts[: len(parts) - length])
        if _KEY.fullmatch(key) and root and not root.endswith(DOCUMENTS):
            yield root, key
