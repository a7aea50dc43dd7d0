"""The keyvalue type: keys of one path segment, ranges, key ranges, batches as JSON, tar and protobuf.

Emulated traps: a key ends at its first slash; an empty value answers HEAD with 200 and GET with 404; HEAD has no
length; batch JSON puts values in verbatim, and with `check=true` appends an error text to a 200 answer.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable

from tests.backends.dvid.answers import Refusal, Reply, as_json, go_json, json_fault, octets
from tests.backends.dvid.instance import Call, Instance, Settings
from tests.backends.dvid.protobuf import bytes_field, fields
from tests.backends.dvid.versions import Node, Versioned

Pair = tuple[str, bytes | None]
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class KeyValue(Instance):
    """Bytes by key."""

    verbs = ("GET", "POST", "DELETE", "HEAD", "PUT")

    def __init__(self, name: str, typename: str, node: Node, settings: Settings) -> None:
        super().__init__(name, typename, node, settings)
        self._values: Versioned[str, bytes] = Versioned()
        self.endpoints |= {
            "key": self.key,
            "keys": self.keys,
            "keyrange": self.key_range,
            "keyrangevalues": self.key_range_values,
            "keyvalues": self.key_values,
            "tags": self.tags_endpoint,
        }

    def key(self, call: Call) -> Reply:
        """GET, HEAD, POST and DELETE `key/{key}`."""
        if not call.rest or not call.rest[0]:
            raise Refusal("expect key string to follow 'key' endpoint")
        if call.method == "PUT":
            raise Refusal('key endpoint does not support "put" HTTP verb')
        key, line = call.rest[0], self.line(call)
        if call.method == "POST":
            self._values.put(key, line, call.body)
            return Reply()
        if call.method == "DELETE":
            self._values.delete(key, line)
            return Reply()
        value, ranges = self._values.get(key, line), {"Accept-Ranges": "bytes"} if call.honours_ranges else {}
        if call.method == "HEAD":
            return Reply(404) if value is None else Reply(headers=ranges)
        if not value:
            raise Refusal(f'Key "{key}" not found\n', 404, bare=True)
        part = _asked_range(call, len(value)) if call.honours_ranges else None
        if part is None:
            return octets(value, **ranges)
        reply = octets(value[part[0] : part[1] + 1], **ranges)
        reply.status = 206
        reply.headers["Content-Range"] = f"bytes {part[0]}-{part[1]}/{len(value)}"
        return reply

    def _sorted(self, call: Call, first: str = "", last: str | None = None) -> list[tuple[str, bytes]]:
        low, high = first.encode(), None if last is None else last.encode()
        found = ((key.encode(), value) for key, value in self._values.items(self.line(call)))
        return [(k.decode(), v) for k, v in sorted(found) if k >= low and (high is None or k <= high)]

    def keys(self, call: Call) -> Reply:
        """GET `keys`: all, in order of bytes."""
        return as_json([key for key, _ in self._sorted(call)])

    def key_range(self, call: Call) -> Reply:
        """GET `keyrange/a/b`: inclusive."""
        if len(call.rest) < 2:
            raise Refusal("expect beginning and end keys to follow 'keyrange' endpoint")
        return as_json([key for key, _ in self._sorted(call, *call.rest[:2])])

    def key_range_values(self, call: Call) -> Reply:
        """GET `keyrangevalues/a/b` as protobuf, JSON or tar."""
        if len(call.rest) < 2:
            raise Refusal("expect beginning and end keys to follow 'keyrangevalues' endpoint")
        return self._batch(call, list(self._sorted(call, *call.rest[:2])))

    def key_values(self, call: Call) -> Reply:
        """GET `keyvalues` of the keys in the body; POST protobuf."""
        line = self.line(call)
        if call.method == "POST":
            for _, pair in fields(call.body):
                parts = dict(fields(bytes(pair)))
                self._values.put(bytes(parts[1]).decode(), line, bytes(parts.get(2, b"")))
            return Reply()
        try:
            wanted = _wanted(call)
        except Refusal as refusal:
            raise Refusal(f'GET /keyvalues on 0 keys, data "{self.name}": {refusal.text}') from None
        pairs: list[Pair] = []
        for key, first, last in wanted:
            value = self._values.get(key, line)
            pairs.append((key, value if value is None or last is None else value[first : last + 1]))
        return self._batch(call, pairs)

    def _batch(self, call: Call, pairs: Iterable[Pair]) -> Reply:
        pairs = list(pairs)
        if call.flag("tar") or call.flag("jsontar"):
            return Reply(body=_tar(pairs), headers={"Content-Type": "application/tar"})
        if not call.flag("json"):
            return octets(b"".join(bytes_field(1, _protobuf_pair(*pair)) for pair in pairs))
        out = b"{"
        for number, (key, found) in enumerate(pairs):
            value = found or b"{}"
            if call.flag("check") and not _is_json(value):
                why = f'GET /keyvalues on {len(pairs)} keys, data "{self.name}": bad JSON for key "{key}"'
                out += f"{why} ({call.asked.path}).\n".encode()
                return Reply(body=out, headers={"Content-Type": "application/json"})
            out += go_json(key).encode() + b":" + value + (b"," if number + 1 < len(pairs) else b"")
        return Reply(body=out + b"}", headers={"Content-Type": "application/json"})


def _asked_range(call: Call, total: int) -> tuple[int, int] | None:
    found = RANGE.fullmatch(call.asked.headers.get("range", ""))
    if not found or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        return max(0, total - int(last)), total - 1
    if int(first) >= total:
        text = f"Range start {first} is outside value with {total} bytes\n"
        refusal = Refusal(text, 416, bare=True)
        refusal.headers["Content-Range"] = f"bytes */{total}"
        raise refusal
    stop = min(int(last or total - 1), total - 1)
    return (int(first), stop) if stop >= int(first) else None


def _wanted(call: Call) -> list[tuple[str, int, int | None]]:
    """Keys asked for, with first and last byte of those wanted in part."""
    if call.flag("json") or call.flag("tar") or call.flag("jsontar"):
        try:
            given = json.loads(call.body)
        except ValueError:
            raise Refusal(json_fault(call.body)) from None
        if not isinstance(given, list):
            raise Refusal("json: cannot unmarshal object into Go value of type []keyvalue.jsonKeyReadRequest")
        return [
            (item, 0, None) if isinstance(item, str) else (item["key"], item["byte_start"], item["byte_end"])
            for item in given
        ]
    found: list[tuple[str, int, int | None]] = []
    for number, value in fields(call.body):
        if number == 1:
            found.append((bytes(value).decode(), 0, None))
        else:
            parts = dict(fields(bytes(value)))
            found.append((bytes(parts[1]).decode(), int(parts.get(2, 0)), int(parts.get(3, 0))))
    return found


def _protobuf_pair(key: str, value: bytes | None) -> bytes:
    return bytes_field(1, key.encode()) + (bytes_field(2, value) if value else b"")


def _is_json(value: bytes) -> bool:
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def _tar(pairs: Iterable[Pair]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for key, value in pairs:
            entry = tarfile.TarInfo(key)
            entry.size, entry.mode = len(value or b""), 0o755
            archive.addfile(entry, io.BytesIO(value or b""))
    return out.getvalue()
