"""Ways into a bucket or web server, in the order in which they are tried.

Public data opens anonymously, without looking for credentials. Only a refusal makes storefs look for the
environment's. A profile or keys that were named by the caller go first.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions

_WHOLE_REQUEST = timedelta(days=1)


@dataclass(frozen=True)
class Access:
    """One way in, for obstore and for a plain HTTP client.

    `make_store` builds the obstore store, which a forked process must not. `sign(method, path)` gives URL and headers;
    `signs_slowly` where that may read files or ask servers. `bucket_url` is the address of an S3 bucket.
    """

    label: str
    make_store: Callable[[], Any] = field(repr=False)
    sign: Callable[[str, str], tuple[str, dict[str, str]]] = field(repr=False)
    signs_slowly: bool = False
    bucket_url: str | None = None

    @cached_property
    def store(self) -> Any:  # noqa: ANN401  # three kinds of store
        """The obstore store."""
        _WITH_STORES.add(self)
        return self.make_store()


_WITH_STORES: weakref.WeakSet[Access] = weakref.WeakSet()  # a fork looks through it


def _hold_in_child() -> None:
    """Never drop the parent's clients in a fork: they share its sockets, and their locks may be held for ever."""
    for access in list(_WITH_STORES):
        store = vars(access).get("store")
        if store is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(store))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hold_in_child)


def accesses(location: Location, options: TransportOptions) -> Iterator[Access | str]:
    """The ways into `location`, best first; text instead of a way says why there is none. Raises UrlError."""
    if location.scheme == "s3":
        from storefs.transport import s3 as bucket  # noqa: PLC0415  # only the scheme at hand
    elif location.scheme == "gs":
        from storefs.transport import gcs as bucket  # type: ignore[no-redef]  # noqa: PLC0415  # only the scheme at hand
    else:
        yield _web(location, options)
        return
    ways = [bucket.anonymous, bucket.found]
    if options.anonymous is not None:
        ways = ways[:1] if options.anonymous else ways[1:]
    elif options.profile or options.secrets:
        ways.reverse()
    for way in ways:
        yield way(location, options)


def expanded(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers` with `$NAME` replaced by the environment's values."""
    return {name: os.path.expandvars(value) for name, value in headers.items()}


def make_store(kind: Any, *args: Any, options: TransportOptions, **config: Any) -> Any:  # noqa: ANN401  # three kinds of store
    """An obstore store that leaves retries and unpacking to us."""
    wait = timedelta(seconds=options.timeout)
    client = {
        "allow_http": True,
        "timeout": _WHOLE_REQUEST,
        "connect_timeout": wait,
        "read_timeout": wait,
        # stored gzip must come as it is: an answer unpacked on the way has no length
        "default_headers": {"Accept-Encoding": "gzip"},
    }
    return kind(*args, client_options=client, retry_config={"max_retries": 0}, **config)


def escaped(path: str) -> str:
    """`path` as part of a URL."""
    return quote(path, safe="/:@!$&'()*,;=~")


def _web(location: Location, options: TransportOptions) -> Access:
    base = f"{location.scheme}://{location.root}"
    query = f"?{os.path.expandvars(options.query)}" if options.query else ""
    given = [f"the header{'s' * (len(options.headers) > 1)} {', '.join(options.headers)}"] if options.headers else []
    given += ["the query given"] if query else []

    def store() -> Any:  # noqa: ANN401  # obstore is loaded late
        from obstore.store import HTTPStore  # noqa: PLC0415  # not in a forked process

        return make_store(HTTPStore, base, options=options)

    return Access(
        " and ".join(given) or "no credentials",
        store,
        lambda _method, path: (f"{base}/{escaped(path)}{query}", {}),
    )
