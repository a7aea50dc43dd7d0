"""VolumeMap: a volume as a mapping from keys to bytes, the form in which zarr 2 reads."""

from __future__ import annotations

from typing import Any

from fsspec.mapping import FSMap

from storefs.errors import TransportError


class VolumeMap(FSMap):  # type: ignore[misc]  # fsspec is untyped
    """An fsspec mapping that tells an absent key from one that cannot be reached.

    zarr 2 takes every OSError for an absent key, so a failure to reach one is raised as a RuntimeError.
    """

    def __getitem__(self, key: str, default: Any = None) -> Any:  # noqa: ANN401  # the signature is fsspec's
        try:
            return super().__getitem__(key, default)
        except TransportError as error:
            raise RuntimeError(str(error)) from error

    def __contains__(self, key: object) -> bool:
        try:
            self[str(key)]
        except KeyError:
            return False
        return True
