"""Stand-ins for s3fs and gcsfs in chained addresses, for fsspec's entry points "s3", "s3a", "gs" and "gcs".

fsspec loads the class of every link of `precomputed::s3://bucket/path`, though storefs reads the bucket by itself.
Where the real filesystem is installed, its name here is that filesystem; where it is not, a stand-in that knows
addresses and says what to install when somebody opens it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

from fsspec import AbstractFileSystem

_REAL = {"S3": ("s3fs", "S3FileSystem"), "GCS": ("gcsfs", "GCSFileSystem")}


class _StandIn(AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Addresses of buckets; no access."""

    package: ClassVar[str]

    def __init__(self, *_: Any, **__: Any) -> None:  # noqa: ANN401  # as the real one
        raise ImportError(f"Install {self.package} to access {self.protocol[0]}:// without precomputed::")


class _S3(_StandIn):
    protocol = ("s3", "s3a")
    package = "s3fs"


class _GCS(_StandIn):
    protocol = ("gs", "gcs")
    package = "gcsfs"


def __getattr__(name: str) -> Any:  # noqa: ANN401  # classes
    if name not in _REAL:
        raise AttributeError(name)
    module, real = _REAL[name]
    try:
        return getattr(import_module(module), real)
    except ImportError:
        return _S3 if name == "S3" else _GCS
