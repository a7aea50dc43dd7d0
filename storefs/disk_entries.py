"""Answers of a transport as entries of the cache on disk, and back."""

from __future__ import annotations

import json
from typing import Any

from storefs.disk_cache import Entry
from storefs.plans import Body, Get, Reply

_SUCCESS = (200, 206)


def entry_of(answer: Any) -> Entry | None:  # noqa: ANN401  # answers differ by request
    """`answer` as it is kept, None where it is not."""
    match answer:
        case None:
            return Entry("absent")
        case Body(data, encoding):
            return Entry("body", data, {"encoding": encoding})
        case frozenset():
            return Entry("names", json.dumps(sorted(answer)).encode())
        case Reply(status, data, content_type, content_range) if status in _SUCCESS:
            return Entry("reply", data, {"status": status, "type": content_type, "range": content_range})
    return None


def answer_of(entry: Entry) -> Any:  # noqa: ANN401  # answers differ by request
    """What was kept as `entry`."""
    facts = entry.facts
    match entry.kind:
        case "body":
            return Body(entry.data, facts["encoding"])
        case "names":
            return frozenset(json.loads(bytes(entry.data)))
        case "reply":
            return Reply(facts["status"], bytes(entry.data), facts["type"], facts["range"])
    return None


def split(request: Get, answer: Body | None) -> list[Body | None]:
    """The answers to the parts of `request`."""
    first = request.start or 0
    if answer is None:
        return [None] * len(request.parts)
    view = memoryview(answer.data)
    return [Body(view[start - first : stop - first], answer.content_encoding) for start, stop in request.parts]


def joined(request: Get, entries: list[Entry]) -> tuple[bool, Body | None]:
    """One answer of those to the parts; what lies between them is 0. Not where one of them is short."""
    first, last = request.start or 0, max(stop for _, stop in request.parts)
    if all(entry.kind == "absent" for entry in entries):
        return True, None
    whole = bytearray(last - first)
    for entry, (start, stop) in zip(entries, request.parts, strict=True):
        if len(entry.data) != stop - start:
            return False, None
        whole[start - first : stop - first] = entry.data
    return True, Body(memoryview(whole).toreadonly(), entries[0].facts.get("encoding"))
