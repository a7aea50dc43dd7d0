"""Neighbours: boxes of volumes of other formats, opened by their addresses."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import numpy as np
import pytest

from storefs.errors import MetadataError, NoSuchVolume, UrlError
from storefs.model import Hierarchy
from storefs.neighbours import Neighbours
from storefs.plans import Get, Volume, VolumeBox
from storefs_codecs import DecodeError
from tests.layers import voxels, write_layer

SIZE, CHUNK = (25, 18, 20), (10, 8, 6)


class Transport:
    """A transport that answers with what it was asked."""

    blocking, local, concurrency = True, False, 32

    def __init__(self, url="https://catmaid.example.org/1/2"):
        self.url = url

    def fetch(self, request):
        return request

    async def fetch_async(self, request):
        return request

    def connect(self, url):
        return Transport(url)


@pytest.fixture
def layer(tmp_path: Path):
    """A layer with an absent chunk, its address and its voxels."""
    volume = voxels(SIZE)
    write_layer(tmp_path, volume, CHUNK, leave_out=[(1, 1, 1)])
    volume[6:12, 8:16, 10:20] = 0
    return f"precomputed://file://{tmp_path}", volume


@pytest.fixture(params=["thread", "loop"])
def ask(request):
    """Asks neighbours of a local volume, in a thread and on an event loop."""
    neighbours = Neighbours(Transport(), {}, local_volumes=True)
    if request.param == "thread":
        return neighbours.fetch
    return lambda asked: asyncio.run(neighbours.fetch_async(asked))


def test_other_requests_go_to_the_transport(ask):
    """What is no question about another volume is the transport's."""
    assert ask(Get("a/b")) == Get("a/b")


def test_describes(ask, layer):
    """A volume is described by its format's own backend."""
    found = ask(Volume(layer[0]))
    assert isinstance(found, Hierarchy)
    assert found.array("0").shape == SIZE[::-1]


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        ((0, 0, 0), SIZE[::-1]),
        ((0, 0, 0), CHUNK[::-1]),
        ((6, 8, 10), (12, 16, 25)),
        ((3, 5, 7), (4, 6, 8)),
        ((-4, -3, -2), (5, 7, 9)),
        ((13, 11, 17), (30, 31, 32)),
        ((-10, -10, -10), (40, 40, 40)),
        ((18, 16, 20), (20, 18, 25)),
    ],
)
def test_boxes(ask, layer, start, stop):
    """Any box comes, also beyond the edges; what is absent is the fill value asked for."""
    url, volume = layer
    padded = np.pad(volume, 50)
    expected = padded[tuple(slice(a + 50, b + 50) for a, b in zip(start, stop, strict=True))]
    np.testing.assert_array_equal(ask(VolumeBox(url, "0", start, stop)), expected)
    filled = ask(VolumeBox(url, "0", start, stop, fill_value=7))
    np.testing.assert_array_equal(filled, np.where(expected == 0, 7, expected))


@pytest.mark.parametrize(
    ("start", "stop"),
    [((6, 8, 10), (12, 16, 20)), ((7, 9, 11), (8, 10, 12)), ((-5, 0, 0), (0, 1, 1)), ((0, 0, 25), (5, 5, 30))],
)
def test_nothing_at_all(ask, layer, start, stop):
    """A box of absent chunks, or outside, is None."""
    assert ask(VolumeBox(layer[0], "0", start, stop)) is None


def test_a_chunk_is_decoded_once_for_many_parts(ask, layer, tmp_path):
    """Parts of one chunk come from memory after the first."""
    url, volume = layer
    assert ask(VolumeBox(url, "0", (0, 0, 0), (1, 8, 10))).shape == (1, 8, 10)
    (tmp_path / "1_1_1" / "0-10_0-8_0-6").unlink()
    np.testing.assert_array_equal(ask(VolumeBox(url, "0", (3, 0, 0), (6, 8, 10))), volume[3:6, :8, :10])


def test_channels(ask, tmp_path):
    """Channels are an axis of the box."""
    from tests.small_volume import volume

    made = volume((3, 20, 18, 25), dtype="uint8").write(tmp_path)
    box = VolumeBox(made.url, "0", (0, 3, 4, 5), (3, 15, 16, 17))
    np.testing.assert_array_equal(ask(box), made.arrays[0][:, 3:15, 4:16, 5:17])


def test_failures_name_the_other_volume(ask, layer, tmp_path):
    """No volume, no such array, broken bytes: each says where."""
    url, _ = layer
    with pytest.raises(NoSuchVolume, match="nothing-here"):
        ask(Volume(f"{url}/nothing-here"))
    with pytest.raises(MetadataError, match="no array '7'"):
        ask(VolumeBox(url, "7", (0, 0, 0), (1, 1, 1)))
    with pytest.raises(MetadataError, match="4 axes"):
        ask(VolumeBox(url, "0", (0, 0, 0, 0), (1, 1, 1, 1)))
    (tmp_path / "1_1_1" / "0-10_0-8_0-6").write_bytes(gzip.compress(b"short"))
    with pytest.raises(DecodeError, match="0-10_0-8_0-6 of file://"):
        ask(VolumeBox(url, "0", (0, 0, 0), (6, 8, 10)))


@pytest.mark.parametrize(
    "url",
    [
        "precomputed://file:///etc",
        "precomputed:///etc",
        "precomputed://memory://x",
        "precomputed://zip://x::https://example.org/a.zip",
        "precomputed://https://example.org/a::file:///etc",
        "dvid://localhost:8000/a/b",
        "file:///etc",
        "zip://https://example.org",
        "nonsense://https://example.org",
        "https://example.org",
    ],
)
def test_network_leads_to_no_files(url):
    """A description from the network opens volumes of the network only."""
    with pytest.raises(UrlError, match="leads to"):
        Neighbours(Transport(), {}, local_volumes=False).fetch(Volume(url))


def test_options_go_along():
    """Only the options said to be for other volumes reach them."""
    neighbours = Neighbours(Transport(), {"timeout": 7, "retries": 1}, local_volumes=False)
    for url in ("precomputed://https://example.org/a", "dvid://http://example.org/ab/c"):
        options = neighbours.source(url).transport.inner.options
        assert (options.timeout, options.retries, options.headers) == (7, 1, {})
    other = neighbours.connect("https://elsewhere.example.org")
    assert other.url == "https://elsewhere.example.org"
    assert other.options == neighbours.options
