"""Options of a volume: given by keyword, by storage_options or in the address; read and checked here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from storefs.errors import UrlError
from storefs.model import Presentation
from storefs.transport.options import TransportOptions

Reader = Callable[[Any], Any]

_HARMLESS = frozenset(
    ("anon", "profile", "endpoint_url", "region_name", "project", "fo", "target_protocol", "cache_storage")
)
SECRET = ("headers", "query", "target_options", "token", "admin_token", "password")


@dataclass(frozen=True, slots=True)
class Options:
    """Checked options: how the volume is shown, how it is reached, what an absent chunk means, the backend's own."""

    presentation: Presentation
    transport: TransportOptions
    missing: str
    own: Mapping[str, Any]


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
    own_values = {name: values.pop(name) for name in own if name in values}
    return Options(Presentation(**shown), TransportOptions(**values), missing, own_values)


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
    return isinstance(value, Mapping) and all("$" in str(item) for item in value.values())


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


COMMON: dict[str, Reader] = {
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
