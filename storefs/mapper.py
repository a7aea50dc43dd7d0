"""VolumeMap: a volume as a mapping from keys to bytes, the form in which zarr 2 reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsspec.mapping import FSMap

from storefs.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Sequence


class VolumeMap(FSMap):  # type: ignore[misc]  # fsspec is untyped
    """An fsspec mapping in which only an absent key is a KeyError.

    zarr 2 takes every OSError for an absent key and leaves the memory of such a chunk as it was. So here failures to
    reach a key are raised, never returned in place of a value, and as a RuntimeError.
    """

    def getitems(self, keys: Sequence[str], on_error: str = "raise") -> dict[str, Any]:
        """Values by key; with `on_error` "omit" or "return" absent keys are left out or a KeyError."""
        found: dict[str, Any] = super().getitems(keys, on_error="return")
        for value in found.values():
            if isinstance(value, BaseException) and (on_error == "raise" or not isinstance(value, KeyError)):
                raise _told(value)
        if on_error == "omit":
            return {key: value for key, value in found.items() if not isinstance(value, KeyError)}
        return found

    def __getitem__(self, key: str, default: Any = None) -> Any:  # noqa: ANN401  # the signature is fsspec's
        try:
            return super().__getitem__(key, default)
        except TransportError as error:
            raise _told(error) from error

    def __contains__(self, key: object) -> bool:
        try:
            self[str(key)]
        except KeyError:
            return False
        return True


def _told(error: BaseException) -> BaseException:
    return RuntimeError(str(error)) if isinstance(error, TransportError) else error
