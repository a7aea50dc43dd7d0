"""Compiled kernels: plain C, called through ctypes, which releases the GIL.

They are built with the package where a C compiler is found, and everything works without them, only slower.
`STOREFS_NO_KERNELS=1` in the environment leaves them unused.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

SUFFIX = ".dll" if sys.platform == "win32" else ".so"


def library(name: str, folder: Path = Path(__file__).parent) -> ctypes.CDLL | None:
    """The compiled library of the kernel `name`; None where it was not built or is not wanted."""
    return None if os.environ.get("STOREFS_NO_KERNELS") == "1" else _load(folder, name)


def holding(compiled: ctypes.CDLL) -> ctypes.PyDLL:
    """The same library for calls that keep the GIL, as they are over sooner than another thread gives it back."""
    return ctypes.PyDLL(compiled._name, handle=compiled._handle)  # noqa: SLF001  # ctypes has no other names for them


@cache
def _load(folder: Path, name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(folder / f"lib{name}{SUFFIX}"))
    except OSError:  # not built, or built for another machine
        return None
