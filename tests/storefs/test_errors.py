"""The tree of failures: what is what, what messages say, and that they survive travel."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import numpy as np
import pytest
import zarr

import storefs
from storefs import errors
from storefs.errors import StorefsError
from storefs_codecs.errors import DecodeError
from tests.layers import voxels, write_layer

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StorefsError)]


def test_tree():
    """Every failure can be caught as what Python calls it."""
    parents = {
        errors.UrlError: ValueError,
        errors.MetadataError: ValueError,
        errors.Unsupported: NotImplementedError,
        errors.Changing: errors.Unsupported,
        errors.TransportError: OSError,
        errors.TimedOut: TimeoutError,
        errors.Refused: PermissionError,
        errors.NoSuchVolume: FileNotFoundError,
        errors.MissingChunk: OSError,
        errors.NotCached: OSError,
        errors.ServerFault: OSError,
        errors.TooLong: errors.ServerFault,
    }
    assert set(parents) == set(KINDS) - {StorefsError}
    for kind, parent in parents.items():
        assert issubclass(kind, parent)
    assert issubclass(errors.Unsupported, errors.MetadataError)
    assert issubclass(errors.Refused, errors.TransportError)
    missing = [kind for kind in KINDS if issubclass(kind, FileNotFoundError)]
    assert missing == [errors.NoSuchVolume]


@pytest.mark.parametrize("kind", KINDS)
def test_message(kind):
    """A message is one paragraph that ends in chunk and address, said once."""
    assert str(kind("it broke")) == "it broke"
    assert str(kind("it broke", url="gs://b/l")) == "it broke [gs://b/l]"
    assert str(kind("it broke", chunk="0-8")) == "it broke [chunk 0-8]"
    assert str(kind("it broke", url="gs://b/l", chunk="0-8")) == "it broke [chunk 0-8 of gs://b/l]"
    assert str(kind("gs://b/l broke", url="gs://b/l")) == "gs://b/l broke"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_travel(kind, travel):
    """A failure arrives in another process as what it was."""
    error = kind("it broke", url="gs://b/l", chunk="0-8")
    arrived = travel(error)
    assert type(arrived) is kind
    assert (arrived.message, arrived.url, arrived.chunk) == ("it broke", "gs://b/l", "0-8")
    assert str(arrived) == str(error)
    assert len(pickle.dumps(error)) < 300


@pytest.mark.parametrize("kind", KINDS)
def test_naming_the_chunk(kind):
    """A chunk's name is added once; a failure raised from its named self is not its own cause."""
    error = kind("it broke", url="gs://b/l")
    named = error.at_chunk("0-8")
    assert type(named) is kind
    assert named.chunk == "0-8"
    assert error.chunk is None
    again = named.at_chunk("8-16")
    assert again.chunk == "0-8"
    assert again is not named


def test_decode_error_travels():
    """A DecodeError keeps codec, problem, expected, found and where."""
    error = DecodeError("storefs.raw", "wrong length", 8, 7).located("chunk 0-8 of gs://b/l")
    arrived = pickle.loads(pickle.dumps(error))
    assert isinstance(arrived, DecodeError)
    assert str(arrived) == str(error) == "storefs.raw: wrong length (expected 8, found 7) [chunk 0-8 of gs://b/l]"
    assert str(arrived.located("elsewhere")) == str(error)


@pytest.fixture
def layer(tmp_path):
    """A small layer of eight chunks."""
    volume = voxels((20, 20, 20))
    write_layer(tmp_path, volume, (16, 16, 16), key="s0")
    return tmp_path, volume


@pytest.mark.parametrize("face", ["native", "portable"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_broken_chunk_is_named(layer, face, zarr_format):
    """A chunk cut short raises with its name and the layer's address, through whatever it is read."""
    root, volume = layer
    (root / "s0/16-20_0-16_0-16").write_bytes(b"short")
    array = storefs.open_array(f"precomputed://{root}", face=face, zarr_format=zarr_format)
    with pytest.raises(DecodeError, match="found 5") as caught:
        array[...]
    assert f"[chunk s0/16-20_0-16_0-16 of file://{root}]" in str(caught.value)
    np.testing.assert_array_equal(array[16:, 16:, :], volume[16:, 16:, :])


def test_unreadable_chunk_is_named(layer):
    """A chunk file that is no plain file, or cannot be opened, is an error or absent, never something else."""
    root, _ = layer
    path = root / "s0/16-20_0-16_0-16"
    path.unlink()
    path.symlink_to(path)  # a link to itself
    array = storefs.open_array(f"precomputed://{root}")
    with pytest.raises(storefs.TransportError, match="cannot read this file") as caught:
        array[:16, :16, 16:]
    assert caught.value.chunk == "s0/16-20_0-16_0-16"
    assert not isinstance(caught.value, FileNotFoundError)


def test_object_too_long_is_named(layer):
    """A file far longer than a chunk can be is a DecodeError before it is read."""
    root, _ = layer
    with (root / "s0/16-20_0-16_0-16").open("wb") as file:
        file.truncate(1 << 40)
    array = storefs.open_array(f"precomputed://{root}")
    with pytest.raises(DecodeError, match=r"1099511627776 bytes.*\[chunk s0/16-20_0-16_0-16 of file://"):
        array[:16, :16, 16:]


@pytest.mark.parametrize("limit", ["file", "text"])
def test_info_too_long(layer, limit):
    """An info of gigabytes is a MetadataError before it is read."""
    root, _ = layer
    with (root / "info").open("wb") as file:
        file.truncate((1 << 30) if limit == "file" else 8 << 20)
    with pytest.raises(storefs.MetadataError, match="info"):
        storefs.open(f"precomputed://{root}")


def vanish(root):
    (root / "info").unlink()


def redirect_into_nothing(root):
    (root / "info").write_text(json.dumps({"redirect": "nowhere"}))


@pytest.mark.parametrize("fault", [vanish, redirect_into_nothing])
def test_nothing_is_missing_after_opening(layer, fault):
    """A volume that goes away after it was opened still reads, or raises; chunks of its own that vanish are absent."""
    root, volume = layer
    array = storefs.open_array(f"precomputed://{root}")
    np.testing.assert_array_equal(array[:3, :3, :3], volume[:3, :3, :3])
    fault(root)
    np.testing.assert_array_equal(array[...], volume)
    again = pickle.loads(pickle.dumps(array))
    with pytest.raises(storefs.TransportError) as caught:
        again[...]
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("opened", [storefs.open, storefs.open_array])
def test_no_such_volume(tmp_path, opened):
    """Where there is no info, opening is NoSuchVolume; zarr is told by an error that it does not swallow."""
    with pytest.raises(storefs.NoSuchVolume, match=f"no info file.*{tmp_path}"):
        opened(f"precomputed://{tmp_path}/nothing")
    for target in (f"precomputed://{tmp_path}/nothing", storefs.open_store(f"precomputed://{tmp_path}/nothing")):
        with pytest.raises(storefs.TransportError, match="no info file") as caught:
            zarr.open(target, mode="r")
        assert not isinstance(caught.value, FileNotFoundError)


async def test_no_such_volume_inside_a_running_loop(tmp_path):
    """Opening works, and fails, the same inside a running event loop, as in a notebook."""
    write_layer(tmp_path / "layer", voxels((8, 8, 8)), (8, 8, 8))
    assert storefs.open_array(f"precomputed://{tmp_path}/layer").shape == (8, 8, 8)
    with pytest.raises(storefs.NoSuchVolume):
        storefs.open(f"precomputed://{tmp_path}/nothing")


@pytest.mark.parametrize("scale", [-1, 1, 99])
def test_no_such_scale(layer, scale):
    """A scale that is not there is an IndexError that says which are."""
    with pytest.raises(IndexError, match="it has 0"):
        storefs.open_array(f"precomputed://{layer[0]}", scale)


def test_traceback_ends(layer):
    """Causes of a failure form a chain without a circle."""
    root, _ = layer
    (root / "s0/16-20_0-16_0-16").write_bytes(b"short")
    with pytest.raises(DecodeError) as caught:
        storefs.open_array(f"precomputed://{root}")[...]
    seen = set()
    error: BaseException | None = caught.value
    while error is not None:
        assert id(error) not in seen
        seen.add(id(error))
        error = error.__cause__
    assert "found 5" in "".join(traceback.format_exception(caught.value))
