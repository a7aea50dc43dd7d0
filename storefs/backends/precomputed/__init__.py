"""Neuroglancer precomputed volumes: `open_source` and the fsspec `FileSystem`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from storefs.backends.precomputed.backend import describe
from storefs.backends.precomputed.url import OPTIONS, PIPELINE, SCHEME
from storefs.filesystem import VirtualFileSystem
from storefs.options import Reader, read_options
from storefs.source import Source
from storefs.transport import connect

__all__ = ["OPTIONS", "PIPELINE", "SCHEME", "FileSystem", "open_source"]


def open_source(address: str, options: Mapping[str, Any]) -> Source:
    """The Source of the precomputed volume at `address` (without "precomputed://"). Raises UrlError; no I/O."""
    read = read_options(options, OPTIONS)
    opener = partial(describe, chunk_size_xyz=read.own.get("chunk_size"))
    return Source(
        connect(address, read.transport), opener, read.presentation, missing=read.missing, keeping=read.keeping
    )


class FileSystem(VirtualFileSystem):
    """fsspec filesystem "precomputed"."""

    protocol = SCHEME
    own_options: ClassVar[Mapping[str, Reader]] = OPTIONS

    def open_source(self, address: str, options: Mapping[str, Any]) -> Source:
        """The Source of the volume at `address`."""
        return open_source(address, options)
