"""What a caller may say about how to reach a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

DEFAULT_TIMEOUT = 60.0
DEFAULT_RETRIES = 5


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How to reach a source.

    `anonymous` None tries without credentials first and then with the environment's; True and False insist.
    `profile`, `region` and `endpoint_url` are those of S3, `endpoint_url` also that of a GCS emulator; a profile that
    is named goes first. `headers` go with every HTTP request, `query` with every address; `$NAME` in them stands for
    an environment variable. `timeout` (seconds without a byte) and `retries` hold for one request.
    `forbidden="missing"` reads a 403 as "not there" once the source has let us in, as buckets answer that hide their
    listing. `target_options` go to another fsspec filesystem; for s3, gs and http they may be spelt as s3fs, gcsfs and
    fsspec's http filesystem do, and `secrets` are the keys among them.
    """

    anonymous: bool | None = None
    profile: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: str = field(default="", repr=False)
    timeout: float = DEFAULT_TIMEOUT
    retries: int = DEFAULT_RETRIES
    forbidden: Literal["error", "missing"] = "error"
    target_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)
