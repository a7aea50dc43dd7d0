"""Addresses and options of precomputed volumes.

precomputed://gs://bucket/path            precomputed:///local/path
gs://bucket/path/|neuroglancer-precomputed:
"""

from __future__ import annotations

from storefs.options import Reader, triple

SCHEME = "precomputed"
PIPELINE = "neuroglancer-precomputed"
OPTIONS: dict[str, Reader] = {"chunk_size": triple}
