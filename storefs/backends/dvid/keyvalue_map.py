"""A keyvalue instance as a mapping."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from storefs.backends.dvid.client import Client
from storefs.backends.dvid.url import parse_address
from storefs.errors import UrlError


class KeyValue(MutableMapping[str, bytes]):
    """The keys and values at `dvid://host/uuid/instance`; `options` as for `Client`.

    Keys are the server's own: not empty, no slash, not "." or "..". Raises UrlError.
    """

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401  # the client's
        self.url = url
        self._options = options
        self._client, self._uuid, self._name = connect(url, options)

    def __repr__(self) -> str:
        return f"KeyValue({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, (type(self), self.url, kept(self._options))

    def __getitem__(self, key: str) -> bytes:
        return self._client.keyvalues.get(self._uuid, self._name, key)

    def __setitem__(self, key: str, value: bytes) -> None:
        self._client.keyvalues.put(self._uuid, self._name, key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._client.keyvalues.delete(self._uuid, self._name, key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._client.keyvalues.exists(self._uuid, self._name, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._client.keyvalues.keys(self._uuid, self._name))

    def __len__(self) -> int:
        return len(self._client.keyvalues.keys(self._uuid, self._name))

    def get_many(self, *keys: str) -> dict[str, bytes]:
        """The values of those `keys` that have one, in one request for many."""
        return self._client.keyvalues.get_many(self._uuid, self._name, keys)


def connect(url: str, options: dict[str, Any]) -> tuple[Client, str, str]:
    """Client, version and instance that `url` names. Raises UrlError."""
    place = parse_address(url)
    if not place.instance or place.key:
        raise UrlError("expected dvid://host/uuid/instance", url=place.url)
    return Client(place.server, **options), place.version, place.instance


def kept(options: dict[str, Any]) -> dict[str, Any]:
    """`options` as they may travel in a pickle: no secrets."""
    return {name: value for name, value in options.items() if name not in ("token", "admin_token")}


def restore(kind: Any, url: str, options: dict[str, Any]) -> Any:  # noqa: ANN401  # any of the classes here
    """What was pickled."""
    return kind(url, **options)
