"""Stacks opened from their info, without a server."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr

import storefs
from storefs.catmaid import Stack, open_tiles
from tests.backends.catmaid.emulator import Json, info
from tests.backends.catmaid.scene import SHAPE, Scene, Shown
from tests.backends.catmaid.specimen import tissue


@pytest.fixture
def shown(em: Scene) -> Shown:
    return em.stack(tissue(SHAPE))


@pytest.fixture
def document(em: Scene, shown: Shown) -> Json:
    """The stack's info."""
    return info(em.project, em.project.links[-1])


@pytest.mark.parametrize("form", ["dictionary", "text", "file"])
def test_from_an_info(em: Scene, shown: Shown, document: Json, form: str, tmp_path: Path) -> None:
    """A dictionary, its JSON or a file of it opens the stack, and no CATMAID server is asked."""
    text = json.dumps(document)
    (tmp_path / "info.json").write_text(text)
    group = open_tiles({"dictionary": document, "text": text, "file": tmp_path / "info.json"}[form])
    for number, level in enumerate(shown.levels):
        assert np.array_equal(group[str(number)][...], level)
    assert em.server.seen == []


def test_unknown_keys_are_ignored(shown: Shown, document: Json) -> None:
    """Keys that nobody knows, of the stack or of a mirror, do no harm."""
    document["new"] = {"a": [1]}
    document["mirrors"][0]["new"] = True
    assert np.array_equal(open_tiles(document)["0"][1], shown.finest[1])


@pytest.mark.parametrize("key", ["dimension", "resolution", "mirrors"])
@pytest.mark.parametrize("value", ["text", [1], {"x": 1}, None, -1])
def test_broken_infos(document: Json, key: str, value: object) -> None:
    """An info with a broken part is a MetadataError that names the key."""
    document[key] = value
    with pytest.raises(storefs.MetadataError, match=key):
        open_tiles(document)


def test_arrays_pickle(shown: Shown, document: Json) -> None:
    """An array opened from an info may be sent to another process."""
    array = pickle.loads(pickle.dumps(open_tiles(document)["0"]))
    assert isinstance(array, zarr.Array)
    assert np.array_equal(array[2], shown.finest[2])


def test_tiles_on_this_machine(em: Scene, shown: Shown, document: Json, tmp_path: Path) -> None:
    """Tiles may be files, where the caller says so; a missing file is a missing tile."""
    for at, data in em.host.files.items():
        (tmp_path / at).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / at).write_bytes(data)
    document["mirrors"][0]["image_base"] = f"file://{tmp_path}/em1/"
    (tmp_path / "em1/2/0/1_1.png").unlink()
    shown.finest[2, 48:96, 64:128] = 0
    assert np.array_equal(open_tiles(document)["0"][...], shown.finest)
    assert em.host.seen == []


def test_a_server_may_name_no_files(em: Scene, shown: Shown, tmp_path: Path) -> None:
    """A stack that came from a server does not lead to files of this machine."""
    shown.stack.mirrors[0].image_base = f"file://{tmp_path}/"
    with pytest.raises(storefs.StorefsError, match="files of this machine"):
        storefs.open(shown.url)


@pytest.mark.parametrize("space", ["project", "stack", "scaled"])
@pytest.mark.parametrize("orientation", [0, 1, 2])
def test_boxes_in_every_space(em: Scene, orientation: int, space: str) -> None:
    """A box in project, stack or scaled coordinates reads the same voxels, whichever way the stack lies."""
    resolution, translation = (4.0, 5.0, 40.0), (100.0, -200.0, 3000.0)
    facts = {"resolution": resolution}
    shown = em.stack(tissue(SHAPE), orientation=orientation, translation=translation, facts=facts)
    inside = np.array([[30.0, 20.0, 1.0], [90.0, 80.0, 4.0]])  # x y z of level 0
    roi = inside
    if space == "scaled":
        roi = inside / (2, 2, 1)
    if space == "project":
        along = {0: [0, 1, 2], 1: [0, 2, 1], 2: [2, 1, 0]}[orientation]
        roi = (inside * resolution)[:, along] + translation
    found = Stack(shown.url).read(roi, space=space, level=1, order="xyz")
    assert np.array_equal(found, shown.levels[1][1:4, 10:40, 15:45].T)


def test_boxes_reach_beyond_the_stack(em: Scene, shown: Shown) -> None:
    """Outside of the stack there is the fill value, and nothing is asked for."""
    stack = Stack(shown.url, fill_value=9)
    em.host.forget()
    found = stack.read([[-2, -3, -4], [2, 10, 20]])
    assert (found[:2] == 9).all()
    assert (found[:, :3] == 9).all()
    assert np.array_equal(found[2:, 3:, 4:], shown.finest[:2, :10, :20])
    asked = len(em.host.asked)
    assert (stack.read([[100, 0, 0], [101, 5, 5]]) == 9).all()
    assert len(em.host.asked) == asked


def test_a_read_tells_how_far_it_is(shown: Shown) -> None:
    """`progress` is called with what is done of what there is to do, from nothing to all."""
    told: list[tuple[int, int]] = []
    Stack(shown.url).read([[0, 0, 0], SHAPE], progress=lambda done, total: told.append((done, total)))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] > 0
    assert told == sorted(told)
