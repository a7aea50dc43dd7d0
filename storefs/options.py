"""Options of a volume: given by keyword, by storage_options or in the address; read and checked here."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from storefs.disk_cache import usual_folder
from storefs.errors import UrlError
from storefs.model import Presentation
from storefs.transport.options import TransportOptions

Reader = Callable[[Any], Any]

DEFAULT_CACHE_SIZE = 10 * 1000**3
DEFAULT_CACHE_ABSENT = 86400.0

_HARMLESS = frozenset(
    ("anon", "profile", "endpoint_url", "region_name", "project", "fo", "target_protocol", "cache_storage")
)
SECRET = (
    "headers",
    "query",
    "target_options",
    "token",
    "admin_token",
    "password",
    "mirror_auth",
    "mirror_headers",
)


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept of a volume, and who is told of long reads.

    `memory_cache`: bytes of decoded chunks. `cache`: the folder where answers are kept, None for none, up to
    `cache_size` bytes; that something is absent is believed for `cache_absent` seconds. `offline` asks nobody else.
    `identity` tells apart what the same address gives with other options; no secrets.
    """

    memory_cache: int = 0
    cache: str | None = None
    cache_size: int = DEFAULT_CACHE_SIZE
    cache_absent: float = DEFAULT_CACHE_ABSENT
    offline: bool = False
    progress: Any = False
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options: how a volume is shown, reached and kept, what an absent chunk means, the backend's own."""

    presentation: Presentation
    transport: TransportOptions
    missing: str
    own: Mapping[str, Any]
    keeping: Keeping = Keeping()


def read_options(given: Mapping[str, Any], own: Mapping[str, Reader]) -> Options:
    """`given` checked; `own` are the readers of the backend's own options. Raises UrlError, with a suggestion."""
    readers = COMMON | dict(own)
    values = {}
    for name, value in given.items():
        if name not in readers:
            raise UrlError(f"unknown option {name!r}{_suggestion(name, readers)}")
        if value is not None:
            values[name] = _read(name, value, readers[name])
    shown = {name: values.pop(name) for name in ("zarr_format", "axes", "face", "codec") if name in values}
    missing = values.pop("missing", "fill")
    kept = {name: values.pop(name) for name in KEEPING if name in values}
    own_values = {name: values.pop(name) for name in own if name in values}
    keeping = Keeping(**kept, identity=_identity(values))
    if keeping.offline and keeping.cache is None:
        raise UrlError('offline=True reads from a cache alone: name it with cache="folder", or cache=True')
    return Options(Presentation(**shown), TransportOptions(**values), missing, own_values, keeping)


def _identity(values: Mapping[str, Any]) -> str:
    """What of the options bears on what an address gives, without secrets."""
    telling = {name: values[name] for name in ("endpoint_url", "profile", "region", "forbidden") if name in values}
    telling["target_options"] = _harmless(values.get("target_options") or {})
    if values.get("query"):
        telling["query"] = hashlib.sha256(values["query"].encode()).hexdigest()
    return json.dumps(telling, sort_keys=True, default=str)


def split_query(address: str, own: Mapping[str, Reader]) -> tuple[str, dict[str, Any]]:
    """`address` without its query, and the options in it; what a web server is to see becomes option "query".

    Raises UrlError for unknown options.
    """
    bare, _, query = address.partition("?")
    if not query:
        return bare, {}
    readers = COMMON | dict(own)
    options: dict[str, Any] = {}
    rest = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in readers:
            options[name] = value
        elif bare.startswith(("http://", "https://")) and not _suggestion(name, readers):
            rest.append((name, value))
        else:
            raise UrlError(f"unknown option {name!r}{_suggestion(name, readers)}", url=bare)
    if rest:
        options["query"] = urlencode(rest, safe="${}")
    return bare, options


def picklable(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` without what may hold secrets, save where it only names environment variables."""
    kept = {name: value for name, value in given.items() if name not in SECRET or _names_environment(value)}
    if not isinstance(kept.get("progress", ""), bool | str):
        del kept["progress"]  # a hook belongs to the process that made it
    harmless = _harmless(given.get("target_options") or {})
    return kept | {"target_options": harmless} if harmless else kept


def _harmless(given: Mapping[str, Any]) -> dict[str, Any]:
    """What of another filesystem's options says where to look and holds no secret."""
    kept = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            kept[name] = _harmless(value)
        elif name in _HARMLESS or "$" in str(value):
            kept[name] = value
    return {name: value for name, value in kept.items() if value != {}}


def _names_environment(value: Any) -> bool:  # noqa: ANN401  # any option
    if isinstance(value, str):
        return all("$" in item for _, item in parse_qsl(value, keep_blank_values=True))
    return isinstance(value, Mapping) and all(
        _names_environment(item) if isinstance(item, Mapping) else isinstance(item, str) and "$" in item
        for item in value.values()
    )


def _read(name: str, value: Any, reader: Reader) -> Any:  # noqa: ANN401  # any option
    try:
        return reader(value)
    except (ValueError, TypeError) as error:
        raise UrlError(f"option {name}: {error}") from error


def _suggestion(name: str, readers: Mapping[str, Reader]) -> str:
    near = difflib.get_close_matches(name, readers, 1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_of(*choices: Any) -> Reader:  # noqa: ANN401  # text or numbers
    """A reader that accepts `choices`, also as text."""

    def read(value: Any) -> Any:  # noqa: ANN401  # text or numbers
        for choice in choices:
            if value == choice or str(value) == str(choice):
                return choice
        raise ValueError(f"expected one of {', '.join(repr(c) for c in choices)}, got {value!r}")

    return read


def boolean(value: Any) -> bool:  # noqa: ANN401  # text or bool
    """True or False, also as text."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in words:
        raise ValueError(f"expected true or false, got {value!r}")
    return words[str(value).lower()]


def triple(value: Any) -> tuple[int, int, int]:  # noqa: ANN401  # text or numbers
    """Three whole numbers, also as text with commas."""
    items = value.split(",") if isinstance(value, str) else list(value)
    if len(items) != 3:  # noqa: PLR2004  # x, y and z
        raise ValueError(f"expected x,y,z, got {value!r}")
    x, y, z = (_whole(item) for item in items)
    return x, y, z


def _whole(value: Any) -> int:  # noqa: ANN401  # text or numbers
    number = int(value)
    if isinstance(value, float) and value != number:
        raise ValueError(f"expected a whole number, got {value!r}")
    return number


def _mapping(value: Any) -> dict[str, Any]:  # noqa: ANN401  # any option
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a dictionary, got {value!r}")
    return dict(value)


def _positive(value: Any) -> float:  # noqa: ANN401  # text or numbers
    number = float(value)
    if not number > 0:
        raise ValueError(f"expected a number above 0, got {value!r}")
    return number


def _count(value: Any) -> int:  # noqa: ANN401  # text or numbers
    number = _whole(value)
    if number < 0:
        raise ValueError(f"expected 0 or more, got {value!r}")
    return number


def size(value: Any) -> int:  # noqa: ANN401  # text or number
    """A number of bytes, also as text such as "500 MB" or "2 GiB"."""
    found = _SIZE.fullmatch(str(value).strip())
    if found is None or isinstance(value, bool):
        raise ValueError(f'expected a size such as "500 MB", got {value!r}')
    return int(float(found[1]) * _BYTES[found[2].lower()])


def _some_size(value: Any) -> int:  # noqa: ANN401  # text or number
    found = size(value)
    if not found:
        raise ValueError("expected a size above 0")
    return found


def _seconds(value: Any) -> float:  # noqa: ANN401  # text or number
    if str(value).lower() == "forever":
        return math.inf
    found = _DURATION.fullmatch(str(value).strip())
    if found is None or isinstance(value, bool):
        raise ValueError(f'expected seconds, a time such as "2 h" or "7 d", or "forever", got {value!r}')
    return float(found[1]) * _UNITS[found[2].lower()]


def cache_folder(value: Any) -> str | None:  # noqa: ANN401  # text, a path or bool
    """A folder, as an absolute path; the usual one for True, None for False."""
    if isinstance(value, bool) or str(value).lower() in ("true", "false"):
        return usual_folder() if boolean(value) else None
    if not str(value):
        raise ValueError("expected a folder, or True for the usual one")
    return os.path.abspath(os.path.expanduser(str(value)))  # noqa: PTH100, PTH111  # text in, text out


def _progress(value: Any) -> Any:  # noqa: ANN401  # a hook, or whether
    return value if callable(value) or hasattr(value, "advance") else boolean(value)


_SIZE = re.compile(r"(\d+(?:\.\d*)?(?:e\d+)?)\s*([kmgt]i?b?|b?)", re.IGNORECASE)
_BYTES = {"": 1, "b": 1} | {
    f"{letter}{unit}": (1024 if "i" in unit else 1000) ** (power + 1)
    for power, letter in enumerate("kmgt")
    for unit in ("", "b", "i", "ib")
}
_DURATION = re.compile(r"(\d+(?:\.\d*)?)\s*(s|min|h|d|)", re.IGNORECASE)
_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}

KEEPING: dict[str, Reader] = {
    "memory_cache": size,
    "cache": cache_folder,
    "cache_size": _some_size,
    "cache_absent": _seconds,
    "offline": boolean,
    "progress": _progress,
}

COMMON: dict[str, Reader] = KEEPING | {
    "zarr_format": one_of(2, 3),
    "axes": one_of("zyx", "xyz"),
    "face": one_of("native", "portable"),
    "codec": one_of("raw", "zstd", "gzip", "blosc"),
    "missing": one_of("fill", "error"),
    "anonymous": boolean,
    "profile": str,
    "region": str,
    "endpoint_url": str,
    "headers": _mapping,
    "query": str,
    "timeout": _positive,
    "retries": _count,
    "forbidden": one_of("error", "missing"),
    "target_options": _mapping,
}
