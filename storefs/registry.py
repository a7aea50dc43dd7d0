"""From a URL to a Source. Knows the backends by the names of their folders and imports one when it is needed."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import storefs.backends
from storefs.errors import Unsupported, UrlError
from storefs.options import split_query

if TYPE_CHECKING:
    from types import ModuleType

    from storefs.model import NewVolume
    from storefs.source import Source

EXAMPLE = "precomputed://gs://bucket/path"


def schemes() -> list[str]:
    """The formats that can be opened, which are also URL schemes."""
    return sorted(module.name for module in pkgutil.iter_modules(storefs.backends.__path__))


def open_source(url: str, options: Mapping[str, Any] | None = None) -> Source:
    """The Source of the volume at `url`; options in the URL's query yield to those given. No I/O.

    Raises UrlError, with a suggestion.
    """
    backend, address, in_query = parse_url(url)
    source: Source = backend.open_source(address, {**in_query, **(options or {})})
    return source


def create_volume(url: str, volume: NewVolume, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make `volume` at `url`; gives the options it is to be opened with beside these.

    Raises Unsupported where the format cannot, UrlError, and what the backend raises.
    """
    backend, address, in_query = parse_url(url)
    if not hasattr(backend, "create_volume"):
        able = [f"{s}://" for s in schemes() if hasattr(import_module(f"storefs.backends.{s}"), "create_volume")]
        message = f"{backend.SCHEME} volumes cannot be created; offered for: {', '.join(able)}"
        raise Unsupported(message, url=url.partition("?")[0])
    needed: dict[str, Any] = backend.create_volume(address, {**in_query, **(options or {})}, volume)
    return needed


def parse_url(url: str) -> tuple[ModuleType, str, dict[str, Any]]:
    """Backend, address without the format's scheme, and options in the query. Raises UrlError."""
    text = url.strip()
    text, pipe, pipeline = text.partition("|")
    for scheme in schemes():
        if not text.startswith((f"{scheme}://", f"{scheme}::", f"{scheme}:/")) and not pipe:
            continue
        backend = import_module(f"storefs.backends.{scheme}")
        if pipe and pipeline.rstrip("/:") != backend.PIPELINE:
            continue
        address = text.removeprefix(f"{scheme}://").removeprefix(f"{scheme}::").removeprefix(f"{scheme}:")
        address, options = split_query(address, backend.OPTIONS)
        return backend, address if address.endswith("://") else address.rstrip("/") or address[:1], options
    raise _unknown(url.partition("?")[0], pipeline)  # a query may hold secrets


def _unknown(url: str, pipeline: str) -> UrlError:
    offered = schemes()
    if pipeline:
        known = [import_module(f"storefs.backends.{scheme}").PIPELINE for scheme in offered]
        return UrlError(f"unknown format {pipeline!r} after |; offered: {', '.join(known)}", url=url)
    scheme, found, rest = url.partition("://")
    near = difflib.get_close_matches(scheme.lower(), offered, 1)
    if found and near:
        return UrlError(f"unknown scheme {scheme}://; did you mean {near[0]}://{rest}?", url=url)
    if found and scheme in ("gs", "s3", "http", "https", "file", "memory", "gcs"):
        return UrlError(f"this says where, not what: for a precomputed volume write precomputed://{url}", url=url)
    return UrlError(f"this is no address of a volume; it should look like {EXAMPLE}", url=url)
