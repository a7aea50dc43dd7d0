"""Values by key, as plans and as the client's part.

A value may be empty: the server then says 404 to a question for it and 200 to a HEAD. Servers before June 2026 know
no ranges and send everything, which is noticed by the status.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from storefs.backends.dvid import calls
from storefs.backends.dvid.info import parse_json
from storefs.backends.dvid.keys import LAST, check_key
from storefs.backends.dvid.part import Part, ask, asked
from storefs.backends.dvid.sinks import FileSink
from storefs.errors import MetadataError, ServerFault
from storefs.plans import Call

if TYPE_CHECKING:
    from storefs.plans import Plan

Value = bytes | memoryview | Iterable[bytes] | IO[bytes]

KEYS_PER_REQUEST = 1000
CHECKED_BYTES = 1 << 20
_PARTIAL, _ABSENT, _BEYOND = 206, 404, 416
_RANGE = re.compile(r"bytes (?:\d+-\d+|\*)/(\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """A keyvalue instance at a version of the server `url`."""

    url: str
    uuid: str
    name: str

    def path(self, *rest: str) -> tuple[str, ...]:
        """Path of something of the instance."""
        return calls.node(self.uuid, self.name, *rest)


def get_value(place: Place, key: str, start: int | None = None, stop: int | None = None) -> Plan[bytes | None]:
    """The value, or bytes `start` to `stop` of it as a slice gives them; None where there is none."""
    path = place.path("key", check_key(key))
    if start == stop == 0 or (start is not None and stop is not None and 0 <= stop <= start):
        return (yield from _empty_or_absent(place, key))
    wanted = _range(start, stop)
    headers = (("Range", f"bytes={wanted}"),) if wanted else ()
    reply = yield from ask(Call(path, headers=headers), place.url, {calls.OK, _PARTIAL, _ABSENT, _BEYOND})
    if reply.status == _ABSENT:
        return (yield from _empty_or_absent(place, key))
    if reply.status == _BEYOND:
        return b""
    if reply.status == calls.OK:
        return reply.data[start:stop]
    # the end of a mixed slice, such as [2:-3], is left to us
    return reply.data[: stop - (start or 0)] if stop is not None and stop >= 0 and (start or 0) >= 0 else reply.data


def _range(start: int | None, stop: int | None) -> str:
    """What to ask for; "" where all of the value is needed to know."""
    if start is not None and start < 0:
        return f"{start}" if stop is None else ""
    if stop is not None and stop < 0:
        return ""
    if start is None and stop is None:
        return ""
    return f"{start or 0}-{'' if stop is None else stop - 1}"


def _empty_or_absent(place: Place, key: str) -> Plan[bytes | None]:
    return b"" if (yield from has_key(place, key)) else None


def has_key(place: Place, key: str) -> Plan[bool]:
    """Whether the key has a value, be it empty."""
    call = Call(place.path("key", check_key(key)), method="HEAD")
    reply = yield from ask(call, place.url, {calls.OK, _ABSENT})
    return reply.status == calls.OK


def get_size(place: Place, key: str) -> Plan[int | None]:
    """Bytes of a value, None where there is none; servers without ranges send the value for it."""
    call = Call(place.path("key", check_key(key)), headers=(("Range", "bytes=0-0"),))
    reply = yield from ask(call, place.url, {calls.OK, _PARTIAL, _ABSENT})
    if reply.status == _ABSENT:
        empty = yield from _empty_or_absent(place, key)
        return None if empty is None else 0
    if reply.status == calls.OK:
        return len(reply.data)
    found = _RANGE.fullmatch(reply.content_range)
    if not found:
        raise ServerFault(f"{key!r}: a partial answer without its size: {reply.content_range!r}", url=place.url)
    return int(found.group(1))


def put_value(place: Place, key: str, value: bytes | memoryview | Iterable[bytes]) -> Plan[None]:
    """Store a value; pieces of bytes are sent as they come, and not twice. Raises TransportError."""
    call = Call(place.path("key", check_key(key)), method="POST", body=value)
    yield from ask(call, place.url)


def delete_key(place: Place, key: str) -> Plan[None]:
    """Forget a value; nothing happens where there is none."""
    yield from ask(Call(place.path("key", check_key(key)), method="DELETE"), place.url)


def list_keys(place: Place, prefix: str = "") -> Plan[list[str]]:
    """Keys that begin with `prefix`, in order of their bytes."""
    if not prefix or prefix.startswith(".") or "/" in prefix:  # an address cannot end a range with these
        found = yield from _keys(place, place.path("keys"))
    else:
        found = yield from key_range(place, prefix, prefix + LAST)
    return [key for key in found if key.startswith(prefix)]


def key_range(place: Place, first: str, last: str) -> Plan[list[str]]:
    """Keys from `first` to `last`, both included, in order of their bytes."""
    return (yield from _keys(place, place.path("keyrange", check_key(first), check_key(last))))


def _keys(place: Place, path: tuple[str, ...]) -> Plan[list[str]]:
    reply = yield from ask(Call(path), place.url)
    found = parse_json(reply.data, "/".join(path), place.url)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(key, str) for key in found):
        raise MetadataError(f"{'/'.join(path)}: expected a list of keys", url=place.url)
    return found


def get_values(place: Place, keys: Sequence[str]) -> Plan[dict[str, bytes]]:
    """The values of those `keys` that have one, many a request."""
    found: dict[str, bytes] = {}
    for at in range(0, len(keys), KEYS_PER_REQUEST):
        batch = list(dict.fromkeys(keys[at : at + KEYS_PER_REQUEST]))
        call = Call(place.path("keyvalues"), (("tar", "true"),), body=calls.to_json(batch))
        reply = yield from ask(call, place.url)
        for key, value in zip(batch, _untar(reply.data, batch, place.url), strict=True):
            if value or (yield from has_key(place, key)):
                found[key] = value  # noqa: PERF403  # a comprehension cannot ask
    return found


def _untar(data: bytes, keys: Sequence[str], url: str) -> Iterator[bytes]:
    """The entries of a tar, in the order of `keys`. Raises ServerFault."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            members = archive.getmembers()
            if [member.name for member in members] != list(keys):
                raise ServerFault(f"keyvalues: asked for {len(keys)} keys, got others: {len(members)}", url=url)
            for member in members:
                content = archive.extractfile(member)
                yield content.read() if content else b""
    except (tarfile.TarError, OSError, ValueError) as error:
        if isinstance(error, ServerFault):
            raise
        raise ServerFault(f"keyvalues: the answer is no tar archive: {error}", url=url) from error


class KeyValues(Part):
    """keyvalue instances. Keys are not empty, hold no slash and are not "." or ".." (see `storefs.dvid.escape`)."""

    @asked
    def get(self, uuid: str, name: str, key: str, start: int | None = None, stop: int | None = None) -> Plan[bytes]:
        """The value, or bytes `start` to `stop` of it as a slice gives them. Raises KeyError."""
        value = yield from get_value(self._place(uuid, name), key, start, stop)
        if value is None:
            raise KeyError(key)
        return value

    @asked
    def save(self, uuid: str, name: str, key: str, file: IO[bytes]) -> Plan[int]:
        """Write the value to `file`, piece by piece; gives the number of bytes. Raises KeyError."""
        place, sink = self._place(uuid, name), FileSink(file)
        reply = yield from self._ask(Call(place.path("key", check_key(key)), into=sink), {calls.OK, _ABSENT})
        if reply.status == _ABSENT and not (yield from has_key(place, key)):
            raise KeyError(key)
        return sink.length

    @asked
    def put(self, uuid: str, name: str, key: str, value: Value) -> Plan[None]:
        """Store a value: bytes, an open file, or pieces of bytes, which are sent as they come.

        Raises TransportError for a locked version, before a long value is sent.
        """
        yield from self.put_plan(uuid, name, key, value)

    def put_plan(self, uuid: str, name: str, key: str, value: Value) -> Plan[None]:
        """What `put` asks for."""
        body = value if isinstance(value, bytes | memoryview) else _pieces(value)
        if not isinstance(body, bytes | memoryview) or memoryview(body).nbytes > CHECKED_BYTES:
            yield from self._check_open(uuid, name)
        yield from put_value(self._place(uuid, name), key, body)

    @asked
    def delete(self, uuid: str, name: str, key: str) -> Plan[None]:
        """Forget a value; nothing happens where there is none."""
        yield from delete_key(self._place(uuid, name), key)

    @asked
    def exists(self, uuid: str, name: str, key: str) -> Plan[bool]:
        """Whether the key has a value."""
        return (yield from has_key(self._place(uuid, name), key))

    @asked
    def size(self, uuid: str, name: str, key: str) -> Plan[int]:
        """Bytes of a value. Raises KeyError."""
        size = yield from get_size(self._place(uuid, name), key)
        if size is None:
            raise KeyError(key)
        return size

    @asked
    def keys(self, uuid: str, name: str, prefix: str = "") -> Plan[list[str]]:
        """Keys that begin with `prefix`, in order of their bytes."""
        return (yield from list_keys(self._place(uuid, name), prefix))

    @asked
    def key_range(self, uuid: str, name: str, first: str, last: str) -> Plan[list[str]]:
        """Keys from `first` to `last`, both included, in order of their bytes."""
        return (yield from key_range(self._place(uuid, name), first, last))

    @asked
    def get_many(self, uuid: str, name: str, keys: Sequence[str]) -> Plan[dict[str, bytes]]:
        """The values of those `keys` that have one, many a request."""
        return (yield from get_values(self._place(uuid, name), keys))

    @asked
    def put_many(self, uuid: str, name: str, values: Mapping[str, bytes]) -> Plan[None]:
        """Store values one after the other; a failure leaves the rest unwritten."""
        for key, value in values.items():
            yield from put_value(self._place(uuid, name), key, value)

    def _place(self, uuid: str, name: str) -> Place:
        return Place(self._connection.url, uuid, name)


def _pieces(value: Iterable[bytes] | IO[bytes]) -> Iterable[bytes]:
    """What is to be sent: an open file by pieces of some size, not by lines."""
    read = getattr(value, "read", None)
    return value if read is None else iter(lambda: read(CHECKED_BYTES), b"")
