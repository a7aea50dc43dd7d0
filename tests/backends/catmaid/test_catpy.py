"""Boxes of stacks against catpy's ImageFetcher, which many scripts use."""

from __future__ import annotations

import importlib
import json
import logging
import urllib.request
import warnings
from typing import Any

import numpy as np
import pytest

from storefs.catmaid import Stack
from tests.backends.catmaid.scene import Scene, Shown
from tests.backends.catmaid.specimen import HALVES, Array, pyramid, tissue

SHAPE = (6, 140, 190)
RESOLUTION, TRANSLATION = (4.0, 5.0, 35.0), (1000.0, -200.0, 70.0)
BROKEN = (4,)


@pytest.fixture
def catpy() -> Any:
    """The images part of catpy, where it is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pytest.importorskip("catpy", reason="catpy (extra peers) is not installed")
        image, stacks = importlib.import_module("catpy.image"), importlib.import_module("catpy.stacks")
    return image, stacks


@pytest.fixture(params=[(1, "png"), (4, "png"), (5, "png"), (5, "jpg")], ids=str)
def shown(em: Scene, request: pytest.FixtureRequest) -> Shown:
    """A stack that lies somewhere, in tiles that are not square; a slice is broken, a tile missing."""
    kind, extension = request.param
    levels = pyramid(tissue(SHAPE), HALVES)
    mirror = em.mirror(levels, kind=kind, extension=extension)
    missing = {1: "3/1_2_0.", 4: "3/0/1_2.", 5: "0/3/1/2."}[kind]
    del em.host.files[next(at for at in em.host.files if f"/{missing}" in at)]
    facts = {"resolution": RESOLUTION, "broken_slices": BROKEN}
    return em.stack(tissue(SHAPE), HALVES, mirrors=[mirror], translation=TRANSLATION, facts=facts)


def told(shown: Shown) -> dict[str, Any]:
    """The stack's info as CATMAID sends it."""
    server, project, stack = shown.url.removeprefix("catmaid://").rsplit("/", 2)
    with urllib.request.urlopen(f"{server}/{project}/stack/{stack}/info") as answer:
        info: dict[str, Any] = json.load(answer)
        return info


def rois(space: str, level: int) -> list[Array]:
    """Boxes inside the stack (zyx), with corners that are no whole numbers."""
    random = np.random.default_rng([level, *map(ord, space)])
    found = []
    for _ in range(6):
        corners = np.sort(random.uniform(0, 1, (2, 3)), axis=0) * (np.array(SHAPE) - (0, 8, 8))
        if space == "scaled":
            corners /= (1, 2**level, 2**level)
        if space == "project":
            corners = corners * RESOLUTION[::-1] + TRANSLATION[::-1]
        found.append(corners)
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # catpy is of 2020
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it closes no session
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("space", ["stack", "scaled", "project"])
def test_boxes_as_catpy_reads_them(
    shown: Shown, catpy: Any, space: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Boxes in project, stack and scaled space have catpy's shape and voxels, at every level."""
    caplog.set_level(logging.CRITICAL)  # catpy logs what is missing
    image, stacks = catpy
    stack = stacks.ProjectStack.from_stack_info(told(shown))
    fetcher = image.ImageFetcher(stack, preferred_mirror=stack.mirrors[0], cval=7, timeout=30)
    own = Stack(shown.url, fill_value=7)
    for roi in rois(space, level):
        theirs = fetcher.get(roi, roi_mode=space, zoom_level=level)
        ours = own.read(roi, space=space, level=level)
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        off = np.abs(ours.astype(int) - theirs.astype(int))
        assert off.max(initial=0) <= 1  # JPEG decoders differ by one


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # catpy is of 2020
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it closes no session
def test_into_the_callers_array(shown: Shown, catpy: Any) -> None:
    """`out=` is filled and given back, as catpy does."""
    image, stacks = catpy
    stack = stacks.ProjectStack.from_stack_info(told(shown))
    fetcher = image.ImageFetcher(stack, preferred_mirror=stack.mirrors[0], timeout=30)
    roi = np.array([[1.0, 10.0, 20.0], [3.0, 60.0, 100.0]])
    theirs, ours = np.zeros((2, 50, 80), np.uint8), np.ones((2, 50, 80), np.uint8)
    fetcher.get(roi, out=theirs)
    assert Stack(shown.url).read(roi, out=ours) is ours
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
