"""Keys of a keyvalue instance, whose server cuts a key at its first slash without a word.

A path with slashes is kept under a key in which `/` is `~1` and `~` is `~0` (as JSON Pointer has it, RFC 6901). The
names `.` and `..`, which no address can hold, become `~2` and `~2~2`.
"""

from __future__ import annotations

_DOTS = {".": "~2", "..": "~2~2"}
LAST = "\U0010ffff"


def escape(path: str) -> str:
    """The key of `path`, each path its own. Raises ValueError for an empty path."""
    if not path:
        raise ValueError("a key is not empty")
    return _DOTS.get(path) or path.replace("~", "~0").replace("/", "~1")


def unescape(key: str) -> str | None:
    """The path whose key is `key`, None where `escape` makes no such key."""
    for path, name in _DOTS.items():
        if key == name:
            return path
    path = key.replace("~1", "/").replace("~0", "~")
    return path if path and escape(path) == key else None


def file_key(path: str) -> str:
    """The key of `path` where plain keys stay as they are: escaped only if it holds a slash, or is `.` or `..`."""
    return escape(path) if "/" in path or path in _DOTS else check_key(path)


def file_path(key: str) -> str:
    """The path at which `file_key` finds `key`."""
    path = unescape(key)
    return path if path is not None and ("/" in path or path in _DOTS) else key


def check_key(key: str) -> str:
    """`key` itself. Raises ValueError for one that would be cut or lost."""
    if not key or "/" in key or key in _DOTS:
        raise ValueError(f"{key!r} cannot be a key of a DVID server: not empty, no slash, not . or .. (see escape)")
    return key
