"""Copying the voxels of chunks into larger arrays, compiled and not."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from storefs_codecs.kernels import library, voxel_copy
from storefs_codecs.kernels.voxel_copy import copy_voxels


@pytest.fixture(params=["kernel", "python"])
def way(request, monkeypatch):
    """With the kernel, however few voxels there are, and without."""
    monkeypatch.setattr(voxel_copy, "SHORT", 0)
    monkeypatch.setenv("STOREFS_NO_KERNELS", "1" if request.param == "python" else "0")
    if request.param == "kernel" and library("voxel_copy") is None:
        pytest.skip("the kernel was not built")


@st.composite
def views(draw, shape, dtype):
    """An array of `shape` inside a larger one, its axes in any order, forwards or backwards, in any steps."""
    order = draw(st.permutations(range(len(shape))))
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, -1, -2]), min_size=len(shape), max_size=len(shape)))
    margins = draw(st.lists(st.integers(0, 3), min_size=len(shape), max_size=len(shape)))
    lengths = [shape[axis] * abs(steps[axis]) + margins[axis] for axis in order]
    whole = np.full(lengths, 99, dtype)
    view = whole.transpose(np.argsort(order))
    for axis, (length, step, margin) in enumerate(zip(shape, steps, margins, strict=True)):
        here = [slice(None)] * len(shape)
        stop = margin + length * abs(step)
        here[axis] = slice(margin, stop, step) if step > 0 else slice(stop - 1, margin - 1 if margin else None, step)
        view = view[tuple(here)]
    return whole, view


@pytest.mark.usefixtures("way")
@given(st.data())
def test_as_numpy_copies(data):
    """All voxels arrive, and nothing beside them changes, whatever the axes and the strides."""
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=9))
    dtype = data.draw(st.sampled_from(["u1", "<u2", "<i4", "<u8", "<f4", "<f8", ">u4", "?"]))
    _, voxels = data.draw(views(shape, dtype))
    voxels[...] = np.arange(voxels.size).reshape(shape) % 97
    whole, out = data.draw(views(shape, dtype))
    copy_voxels(voxels, out)
    np.testing.assert_array_equal(out, voxels)
    out[...] = 99
    assert (whole == np.full_like(whole, 99)).all()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("row", [1, 63, 64, 65, 512])
def test_rows_of_chunks(row):
    """Chunks side by side fill the array."""
    rng = np.random.default_rng(row)
    whole = rng.integers(0, 255, (6, 8, 2 * row), np.uint8)
    out = np.zeros_like(whole)
    for start in (0, row):
        copy_voxels(np.ascontiguousarray(whole[..., start : start + row]), out[..., start : start + row])
    np.testing.assert_array_equal(out, whole)


@pytest.mark.usefixtures("way")
def test_what_numpy_says():
    """Other types are converted, fewer axes repeated; what does not fit, or may not be written, is refused."""
    out = np.zeros((4, 5), np.float32)
    copy_voxels(np.arange(5, dtype=np.uint8), out)
    np.testing.assert_array_equal(out, np.broadcast_to(np.arange(5), (4, 5)))
    with pytest.raises(ValueError, match="broadcast"):
        copy_voxels(np.zeros((3, 5), np.float32), out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        copy_voxels(np.zeros((4, 5), np.float32), out)


def test_other_libraries_are_not_used(monkeypatch):
    """A library without our functions leaves the copying to numpy."""
    monkeypatch.setattr(voxel_copy, "SHORT", 0)
    monkeypatch.setattr(voxel_copy, "library", lambda _: ctypes.CDLL(None))
    out = np.zeros(3, np.uint8)
    copy_voxels(np.arange(3, dtype=np.uint8), out)
    assert out.tolist() == [0, 1, 2]
