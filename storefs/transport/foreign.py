"""Options as other filesystems spell them (s3fs, gcsfs, fsspec's http), for chained addresses with storage_options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from storefs.errors import UrlError

if TYPE_CHECKING:
    from storefs.transport.location import Location
    from storefs.transport.options import TransportOptions

Given = Mapping[str, Any]
Changes = dict[str, Any]

_TUNING = frozenset(
    {
        *("asynchronous", "loop", "batch_size", "skip_instance_cache", "use_listings_cache", "listings_expiry_time"),
        *("max_paths", "default_block_size", "default_cache_type", "default_fill_cache", "block_size", "cache_type"),
        *("cache_options", "max_concurrency", "project", "access", "consistency", "check_connection", "auto_mkdir"),
        *("simple_links", "same_scheme", "encoded", "use_ssl", "version_aware", "cache_regions", "config_kwargs"),
    }
)


def understood(location: Location, options: TransportOptions) -> TransportOptions:
    """`options` with `target_options` in our own words. Raises UrlError for words that mean nothing here."""
    given = {name: value for name, value in options.target_options.items() if name not in _TUNING}
    if not given:
        return replace(options, target_options={})
    words = _WORDS.get(location.scheme, {})
    changes: Changes = {"target_options": {}}
    for name, value in given.items():
        if name not in words:
            offered = f"; understood are {', '.join(words)}" if words else ""
            raise UrlError(f"option {name!r} for {location.scheme}:// is not understood{offered}", url=location.url)
        if value is not None:
            for changed, to in words[name](value).items():
                both = changed in ("secrets", "headers")
                changes[changed] = {**changes.get(changed, getattr(options, changed)), **to} if both else to
    return replace(options, **changes)


def _option(name: str) -> Callable[[Any], Changes]:
    return lambda value: {name: value}


def _secret(name: str) -> Callable[[Any], Changes]:
    return lambda value: {"secrets": {name: value}}


def _anonymous(value: Any) -> Changes:  # noqa: ANN401  # any option
    # s3fs's False is its default: credentials where there are any
    return {"anonymous": True} if value else {}


def _client(value: Given) -> Changes:
    words = {
        "region_name": _option("region"),
        "endpoint_url": _option("endpoint_url"),
        "headers": _option("headers"),
        "aws_access_key_id": _secret("key"),
        "aws_secret_access_key": _secret("secret"),
        "aws_session_token": _secret("token"),
    }
    changes: Changes = {}
    for name, item in value.items():
        if name not in words:
            raise UrlError(f"option {name!r} in client_kwargs is not understood; understood are {', '.join(words)}")
        for changed, to in words[name](item).items():
            changes[changed] = {**changes.get(changed, {}), **to} if isinstance(to, dict) else to
    return changes


def _google_token(value: Any) -> Changes:  # noqa: ANN401  # text or a dictionary
    if value == "anon":
        return {"anonymous": True}
    if value in ("google_default", "cloud"):
        return {"anonymous": False}
    return {"secrets": {"token": value}}


_WORDS: dict[str, dict[str, Callable[[Any], Changes]]] = {
    "s3": {
        "anon": _anonymous,
        "key": _secret("key"),
        "secret": _secret("secret"),
        "token": _secret("token"),
        "profile": _option("profile"),
        "endpoint_url": _option("endpoint_url"),
        "client_kwargs": _client,
    },
    "gs": {"token": _google_token, "endpoint_url": _option("endpoint_url")},
    "http": {"headers": _option("headers"), "client_kwargs": _client},
    "https": {"headers": _option("headers"), "client_kwargs": _client},
}
