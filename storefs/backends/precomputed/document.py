"""The text of an info file as a dictionary: JSON, and nothing that could not be written as JSON again."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from storefs.errors import MetadataError

Json = dict[str, Any]

MAX_DEPTH = 64  # of unknown keys, which are handed on and written as JSON again
MAX_SHOWN = 80


def parse_json(data: bytes | memoryview, url: str) -> Json:
    """The info file at `url` as a dictionary. Raises MetadataError."""
    try:
        text = bytes(data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MetadataError(f"info is not UTF-8 text: {error.reason} at byte {error.start}", url=url) from error
    if text.lstrip()[:1] == "<":
        raise MetadataError("info is a web page (HTML or XML), not JSON: is the address right?", url=url)
    try:
        document = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as error:
        raise MetadataError("info is nested too deeply", url=url) from error
    except ValueError as error:
        raise MetadataError(f"info is not JSON: {error}" if text.strip() else "info is empty", url=url) from error
    if _depth(document) > MAX_DEPTH:
        raise MetadataError(f"info is nested more than {MAX_DEPTH} deep", url=url)
    if not isinstance(document, dict):
        raise MetadataError(f"info must be a JSON object, got {shown(document)}", url=url)
    return document


def shown(value: object) -> str:
    """`value` as JSON, short enough for a message."""
    return clipped(json.dumps(value, default=str), MAX_SHOWN)


def clipped(text: str, most: int) -> str:
    """`text`, cut to at most `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too big a number")
    return number


def _depth(document: object) -> int:
    """How deep lists and objects are nested in `document`, without recursion."""
    depth = 0
    level = [document]
    while level:
        depth += 1
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [child for children in inner for child in children]
    return depth
