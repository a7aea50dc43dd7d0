"""storefs.catmaid: stacks opened from their tiles alone, and boxes read in project, stack and scaled coordinates."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import storefs
import storefs.catmaid
from tests.backends.catmaid.emulator import CatmaidEmulator, Link, Mirror, Project
from tests.backends.catmaid.emulator import Stack as EmulatedStack
from tests.backends.catmaid.specimen import STEPS_OF_Z, colours, image_base, pyramid, tiles, tissue
from tests.backends.catmaid.stack_infos import mirror, stack_info
from tests.backends.catmaid.tile_hosts import TileHost

SIZE = (9, 130, 150)
SPACES = ("project", "stack", "scaled")


def written(folder: Path, files: dict[str, bytes]) -> str:
    """`files` below `folder`, as an image base."""
    for name, data in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return f"file://{folder}/"


@pytest.fixture(scope="module")
def levels():
    """A pyramid with factors of z."""
    return pyramid(tissue(SIZE), STEPS_OF_Z)


@pytest.fixture(scope="module")
def files(levels):
    """Its tiles of 32 x 32."""
    return tiles(levels, 5, (32, 32))


@pytest.fixture(scope="module")
def info(tmp_path_factory, files):
    """The stack of these levels, as tiles in files."""
    base = written(tmp_path_factory.mktemp("tiles"), files)
    return stack_info(
        SIZE,
        mirror(5, base, side=32),
        factors=STEPS_OF_Z,
        resolution=(4.0, 5.0, 40.0),
        translation=(1000.0, -200.0, 80.0),
    )


def cut(volume: np.ndarray, start, stop, fill=0) -> np.ndarray:
    """A box of a volume (zyx behind channels), which may reach outside."""
    margin = 300
    width = [(0, 0)] * (volume.ndim - 3) + [(margin, margin)] * 3
    box = tuple(slice(a + margin, b + margin) for a, b in zip(start, stop, strict=True))
    return np.pad(volume, width, constant_values=fill)[(..., *box)]


@pytest.mark.parametrize("how", ["dictionary", "text", "path", "path text"])
def test_opens_a_stack_info(info, levels, tmp_path, how):
    """A dictionary, JSON text or a file tell all that is needed; the group is an ordinary multiscale."""
    (tmp_path / "info.json").write_text(json.dumps(info))
    given = {
        "dictionary": info,
        "text": json.dumps(info),
        "path": tmp_path / "info.json",
        "path text": str(tmp_path / "info.json"),
    }[how]
    group = storefs.catmaid.open_tiles(given)
    assert sorted(group.array_keys()) == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(group["1"][:], levels[1])
    stack = storefs.catmaid.Stack(given)
    assert stack.info.title == "specimen"
    assert "specimen" in repr(stack)
    np.testing.assert_array_equal(stack.read([[0, 0, 0], levels[2].shape], "scaled", 2), levels[2])


def test_what_is_no_stack_info(tmp_path, info):
    """Missing files, other JSON and errors from a server say what was expected."""
    with pytest.raises(storefs.UrlError, match="path of a JSON file"):
        storefs.catmaid.open_tiles(tmp_path / "nothing.json")
    with pytest.raises(storefs.MetadataError, match="not JSON"):
        storefs.catmaid.open_tiles("{")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(storefs.MetadataError, match="expected an object"):
        storefs.catmaid.open_tiles(tmp_path / "list.json")
    with pytest.raises(storefs.MetadataError, match="dimension"):
        storefs.catmaid.open_tiles({name: value for name, value in info.items() if name != "dimension"})
    with pytest.raises(storefs.UrlError, match="did you mean 'mirror'"):
        storefs.catmaid.open_tiles(info, miror=1)


def test_space_from_attributes(info):
    """The attributes of a group and of each array tell the stack's space."""
    stack = storefs.catmaid.Stack(info | {"orientation": 2})
    for attributes in (stack.group.attrs, stack.group["2"].attrs, stack.group["0"].attrs["storefs"]):
        assert storefs.catmaid.Space.from_attributes(attributes) == stack.space
    with pytest.raises(ValueError, match="attributes of a stack"):
        storefs.catmaid.Space.from_attributes({})


def test_pickles(info, levels):
    """A group without a server travels."""
    again = pickle.loads(pickle.dumps(storefs.catmaid.open_tiles(info)))
    np.testing.assert_array_equal(again["2"][:], levels[2])
    stack = pickle.loads(pickle.dumps(storefs.catmaid.Stack(info)))
    np.testing.assert_array_equal(stack.read([[0, 0, 0], [3, 4, 5]]), levels[0][:3, :4, :5])


BOXES = [
    ([0, 0, 0], [9, 130, 150]),
    ([3, 40, 50], [7, 90, 120]),
    ([-2, -40, -7], [4, 20, 30]),
    ([7, 100, 140], [14, 170, 200]),
    ([-3, -5, -9], [20, 200, 250]),
    ([4, 64, 64], [5, 96, 96]),
]


@pytest.mark.parametrize(("lower", "upper"), BOXES)
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_stack_coordinates(info, levels, lower, upper, level):
    """A box in voxels of level 0 is that of the level which touches it, filled outside of the stack."""
    stack = storefs.catmaid.Stack(info)
    factors = np.array(STEPS_OF_Z[level][::-1])
    start, stop = np.floor(lower / factors).astype(int), np.ceil(upper / factors).astype(int)
    expected = cut(levels[level], start, stop)
    found = stack.read([lower, upper], "stack", level)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(stack.read(np.array([lower, upper], float), level=level), expected)
    flipped = stack.read([lower[::-1], upper[::-1]], "stack", level, order="xyz")
    np.testing.assert_array_equal(flipped, expected.T)


@pytest.mark.parametrize("level", [0, 2])
def test_scaled_coordinates(info, levels, level):
    """A box in voxels of a level is a slice of its array; broken numbers are rounded outwards."""
    stack = storefs.catmaid.Stack(info)
    np.testing.assert_array_equal(
        stack.read([[0.5, 3, 4], [2.2, 20, 30]], "scaled", level), levels[level][0:3, 3:20, 4:30]
    )
    with pytest.raises(IndexError, match="levels"):
        stack.read([[0, 0, 0], [1, 1, 1]], "scaled", 4)
    with pytest.raises(IndexError, match="levels"):
        stack.read([[0, 0, 0], [1, 1, 1]], "scaled", -1)


@pytest.mark.parametrize(("orientation", "stack_axes"), [(0, (0, 1, 2)), (1, (0, 2, 1)), (2, (2, 1, 0))])
def test_project_coordinates(info, levels, orientation, stack_axes):
    """A box in nm lies where the translation and the orientation put the stack."""
    stack = storefs.catmaid.Stack(info | {"orientation": orientation})
    resolution, translation = np.array([4.0, 5.0, 40.0]), np.array([1000.0, -200.0, 80.0])
    lower, upper = np.array([20, 30, 2]), np.array([90, 70, 6])  # stack voxels, x y z
    nm = np.empty((2, 3))
    for along, axis in enumerate(stack_axes):
        nm[:, axis] = np.array([lower[along], upper[along]]) * resolution[along] + translation[axis]
    expected = levels[1][2:6, 15:35, 10:45]
    np.testing.assert_array_equal(stack.read(nm, "project", 1, order="xyz"), expected.T)
    np.testing.assert_array_equal(stack.read(nm[:, ::-1], "project", 1), expected)


@pytest.mark.parametrize("options", [{}, {"axes": "xyz"}, {"zarr_format": 2}, {"zarr_format": 2, "axes": "xyz"}])
@pytest.mark.parametrize("fill_value", [0, 7])
def test_presentations(info, levels, options, fill_value):
    """However the group is shown, boxes are z, y, x, and what is outside is the fill value."""
    stack = storefs.catmaid.Stack(info, fill_value=fill_value, **options)
    expected = cut(levels[1], (-1, 60, -5), (3, 80, 90), fill_value)
    np.testing.assert_array_equal(stack.read([[-1, 60, -5], [3, 80, 90]], "scaled", 1), expected)
    np.testing.assert_array_equal(stack.read([[1, 2, 3], [3, 8, 9]], "scaled", 1), levels[1][1:3, 2:8, 3:9])


def test_into_an_array(info, levels):
    """`out` of any type and memory order is written and given back; another shape is an error."""
    stack = storefs.catmaid.Stack(info)
    roi = [[-1, 60, -5], [3, 80, 90]]
    expected = cut(levels[1], *roi)
    for out in (
        np.full(expected.shape, 9, np.uint8),
        np.full(expected.shape, 9, np.float32, order="F"),
        np.full((8, *expected.shape[1:]), 9, np.uint8)[::2],
    ):
        assert stack.read(roi, "scaled", 1, out=out) is out
        np.testing.assert_array_equal(out, expected)
    out = np.full(expected.shape[::-1], 9, np.uint8)
    flipped = [corner[::-1] for corner in roi]
    assert stack.read(flipped, "scaled", 1, out=out, order="xyz") is out
    np.testing.assert_array_equal(out, expected.T)
    with pytest.raises(ValueError, match=r"out must be of shape \(4, 20, 95\) \(zyx\)"):
        stack.read(roi, "scaled", 1, out=np.empty((4, 20, 94), np.uint8))


@pytest.mark.parametrize("dtype", ["int8", "bool"])
def test_into_an_array_too_small_for_the_voxels(info, dtype):
    """An `out` whose dtype cannot hold every voxel is an error: nothing is wrapped or cut off."""
    with pytest.raises(ValueError, match=f"out must be able to hold uint8, got an array of {dtype}"):
        storefs.catmaid.Stack(info).read([[0, 0, 0], [1, 4, 4]], out=np.empty((1, 4, 4), dtype))


def test_into_a_zarr_array(info, levels, tmp_path):
    """Whatever takes slices can be `out`."""
    import zarr

    stack = storefs.catmaid.Stack(info)
    out = zarr.create_array(tmp_path / "out.zarr", shape=(4, 20, 95), dtype="uint8", chunks=(4, 20, 20))
    assert stack.read([[-1, 60, -5], [3, 80, 90]], "scaled", 1, out=out) is out
    np.testing.assert_array_equal(out[:], cut(levels[1], (-1, 60, -5), (3, 80, 90)))


@pytest.fixture
def host(files):
    """The tiles of the levels on a web server, and the stack's info."""
    with TileHost() as host:
        host.put("em", files)
        yield host, stack_info(SIZE, mirror(5, image_base(5, host.url, "em", (32, 32)), side=32), factors=STEPS_OF_Z)


@pytest.mark.parametrize(
    ("roi", "shape"),
    [
        ([[3, 5, 5], [3, 9, 9]], (0, 4, 4)),
        ([[3, 5, 5], [3, 5, 5]], (0, 0, 0)),
        ([[-9, 5, 5], [-2, 9, 9]], (7, 4, 4)),
        ([[1, 130, 5], [2, 140, 9]], (1, 10, 4)),
        ([[1, 5, -40], [2, 9, 0]], (1, 4, 40)),
    ],
)
def test_nothing_is_asked_for_in_vain(host, roi, shape):
    """An empty box and one outside of the stack cost no request, also where tiles would have negative numbers."""
    server, info = host
    stack = storefs.catmaid.Stack(info, fill_value=3)
    server.forget()
    found = stack.read(roi)
    assert found.shape == shape
    assert (found == 3).all()
    assert not server.asked


def test_only_what_is_touched_is_asked_for(host, levels):
    """A box costs the tiles that it touches."""
    server, info = host
    stack = storefs.catmaid.Stack(info)
    server.forget()
    np.testing.assert_array_equal(stack.read([[2, 31, 64], [4, 33, 96]]), levels[0][2:4, 31:33, 64:96])
    assert sorted(server.asked) == [f"em/0/{z}/{row}/2.png" for z in (2, 3) for row in (0, 1)]


def test_colours(tmp_path):
    """A colour stack has its channels in front, in either order; without `rgb` it is grey."""
    volume = colours((3, 40, 50))
    base = written(tmp_path, tiles(pyramid(volume, [(1, 1, 1)]), 1, (32, 32)))
    info = stack_info((3, 40, 50), mirror(1, base, side=32))
    stack = storefs.catmaid.Stack(info, channels="rgb")
    roi = [[-1, 10, 20], [2, 45, 50]]
    expected = cut(volume, *roi)
    np.testing.assert_array_equal(stack.read(roi), expected)
    np.testing.assert_array_equal(stack.read([c[::-1] for c in roi], order="xyz"), expected.transpose(0, 3, 2, 1))
    out = np.zeros(expected.shape, np.uint8)
    stack.read(roi, out=out)
    np.testing.assert_array_equal(out, expected)
    assert stack.read(np.array(roi, float)).shape == (3, 3, 35, 30)
    assert storefs.catmaid.Stack(info).read(roi).shape == (3, 35, 30)


def test_progress(host, levels, monkeypatch):
    """A long read tells how many bytes are done, and gives the same."""
    monkeypatch.setattr(storefs.catmaid, "CHUNKS_AT_ONCE", 10)
    _, info = host
    told = []
    roi = [[-1, 3, 4], [9, 130, 150]]
    found = storefs.catmaid.Stack(info).read(roi, progress=lambda done, total: told.append((done, total)))
    np.testing.assert_array_equal(found, cut(levels[0], *roi))
    total = 9 * 127 * 146
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert len(told) > 9
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_server_s_stack(levels):
    """An address opens as a stack too; that of a project is none."""
    with TileHost() as host:
        host.put("em", tiles(levels, 4, (64, 64)))
        place = Mirror(image_base(4, host.url, "em", (64, 64)), 4)
        stack = EmulatedStack(2, "specimen", SIZE[::-1], [place], factors=list(STEPS_OF_Z))
        with CatmaidEmulator(Project(1, "project", [Link(stack, translation=(8.0, 12.0, 400.0))])) as server:
            found = storefs.catmaid.Stack(f"catmaid://{server.url}/1/2")
            np.testing.assert_array_equal(
                found.read([[400, 12, 8], [480, 92, 88]], space="project", level=1), levels[1][:2, :10, :10]
            )
            assert found.space.translation_xyz == (8.0, 12.0, 400.0)
            with pytest.raises(storefs.UrlError, match="a stack's id"):
                storefs.catmaid.Stack(f"catmaid://{server.url}/1")


def test_levels_worked_out(tmp_path):
    """Where the server leaves the levels open, group and space have the same."""
    volume = tissue((2, 70, 90))
    levels = pyramid(volume)
    base = written(tmp_path, tiles(levels, 4, (32, 32)))
    stack = storefs.catmaid.Stack(stack_info((2, 70, 90), mirror(4, base, side=32), factors=None))
    assert stack.space.factors_xyz == ((1, 1, 1), (2, 2, 1), (4, 4, 1))
    np.testing.assert_array_equal(stack.read([[0, 0, 0], [2, 68, 88]], level=2), levels[2])


def test_as_catpy(host, levels):
    """Boxes of an xy stack are those of catpy, in all its modes."""
    catpy_image = pytest.importorskip("catpy.image")
    catpy_stacks = pytest.importorskip("catpy.stacks")
    _, info = host
    info = info | {"translation": {"x": 30.0, "y": 20.0, "z": -80.0}}
    fetcher = catpy_image.ImageFetcher(catpy_stacks.ProjectStack.from_stack_info(info), preferred_mirror=0)
    stack = storefs.catmaid.Stack(info)
    for mode, roi in (
        ("scaled", [[1, 3, 4], [3, 40, 50]]),
        ("stack", [[1.0, 3.5, 4.5], [3.0, 41.2, 70.9]]),
        ("project", [[0.0, 100.0, 100.0], [81.0, 300.0, 333.0]]),
    ):
        theirs = fetcher.get(np.array(roi), getattr(catpy_image.ROIMode, mode.upper()), zoom_level=1)
        np.testing.assert_array_equal(stack.read(roi, mode, 1), theirs)
