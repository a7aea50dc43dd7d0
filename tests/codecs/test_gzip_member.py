"""Finding where a gzip member may begin, compiled and not."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storefs_codecs.kernels import gzip_member, library
from storefs_codecs.kernels.gzip_member import GZIP, begins


@pytest.fixture(params=["kernel", "kernel, holding the GIL", "python"])
def way(request, monkeypatch):
    """With the kernel in both ways, however few bytes there are, and without."""
    monkeypatch.setattr(gzip_member, "SHORT", 0)
    monkeypatch.setattr(gzip_member, "LONG", 0 if request.param == "kernel" else 1 << 20)
    monkeypatch.setenv("STOREFS_NO_KERNELS", "1" if request.param == "python" else "0")
    if request.param != "python" and library("gzip_member") is None:
        pytest.skip("the kernel was not built")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("length", [3, 4, 31, 64, 4095, 4096, 4097, 4098, 4099, 10000])
def test_it_is_found_anywhere(length):
    """At the beginning, at the end, and across any seam; not where it is cut off."""
    for at in {0, 1, length // 2, length - 4, length - 3, *range(4090, 4102)}:
        if 0 <= at <= length - len(GZIP):
            data = bytearray(length)
            data[at : at + len(GZIP)] = GZIP
            assert begins(bytes(data))
            assert begins(memoryview(data))
            assert not begins(memoryview(data)[: at + 2])
            assert not begins(memoryview(data)[at + 1 :])


@pytest.mark.usefixtures("way")
@given(st.lists(st.sampled_from([0x1F, 0x8B, 0x08, 0]), max_size=200).map(bytes))
def test_it_is_what_python_finds(data):
    """Among bytes that often begin alike."""
    assert begins(data) == (GZIP in data)
    assert not begins(np.zeros(50, np.uint8).data)


def test_other_libraries_are_not_used(monkeypatch):
    """A library without our functions leaves the search to Python."""
    monkeypatch.setattr(gzip_member, "LONG", 0)
    monkeypatch.setattr(gzip_member, "library", lambda _: ctypes.CDLL(None))
    assert begins(b"ab" + GZIP)
