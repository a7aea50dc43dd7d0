"""The emulated CATMAID and the tile hosts, against recorded answers and against what the formats say."""

from __future__ import annotations

import gzip
import http.client
import json
import struct
from collections.abc import Iterator

import imagecodecs
import numpy as np
import pytest

from tests.backends.catmaid import specimen
from tests.backends.catmaid.emulator import TOKEN, CatmaidEmulator, Link, Mirror, Project, Stack
from tests.backends.catmaid.recorded import ABSENT, GOLDEN, NOT_COMPARED, Exchange, exchanges, same_projects
from tests.backends.catmaid.tile_hosts import TileHost, basic, dead_host
from tests.backends.dvid.asking import Answer

TOLD = ("Content-Type", "Vary", "Location", "WWW-Authenticate", "Allow")


def ask(server: str, target: str, method: str = "GET", **headers: str) -> Answer:
    """One request over a connection of its own; status None where the server hung up."""
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, target, headers={name.replace("_", "-"): text for name, text in headers.items()})
        reply = connection.getresponse()
        return Answer(reply.status, reply.read(), {name.lower(): text for name, text in reply.getheaders()})
    except (http.client.HTTPException, ConnectionError) as error:
        return Answer(None, repr(error).encode(), {})
    finally:
        connection.close()


@pytest.fixture(scope="module")
def recorded() -> Iterator[CatmaidEmulator]:
    if not GOLDEN.is_dir():
        pytest.skip(ABSENT)
    with same_projects() as server:
        yield server


COMPARED = [exchange for exchange in exchanges() if exchange.name not in NOT_COMPARED]


@pytest.mark.parametrize("exchange", COMPARED or [pytest.param(None, marks=pytest.mark.skip(ABSENT))], ids=str)
def test_answers_as_recorded(recorded: CatmaidEmulator, exchange: Exchange) -> None:
    """Status, headers and body are the recorded ones, byte for byte."""
    answer = ask(recorded.url, exchange.path, exchange.method, **exchange.headers)
    assert answer.status == exchange.status
    assert answer.words == exchange.body
    told = {name: answer.headers[name.lower()] for name in TOLD if name.lower() in answer.headers}
    assert told == exchange.answer_headers


OLDER = {"info_2016": 2016, "info_2017": 2017, "error200_bare_2016": 2016}
DIFFERENT = {
    "info_2016": {"num_zoom_levels"},  # a number that was typed in, then
    "error200_missing_stack": {"error", "type", "detail"},  # the words of an older Django
    "error200_permission": {"detail"},  # shortened in another way
}


@pytest.mark.parametrize("name", ["error200_missing_stack", "error200_permission", *OLDER])
def test_older_servers(recorded: CatmaidEmulator, name: str) -> None:
    """Old servers answer errors with 200, and leave keys out of info, as in the constructed answers."""
    exchange = next(exchange for exchange in exchanges("server_constructed") if exchange.name == name)
    recorded.age = OLDER.get(name)
    recorded.errors_with_200 = name.startswith("error200")
    try:
        answer = ask(recorded.url, exchange.path, **exchange.headers)
    finally:
        recorded.age, recorded.errors_with_200 = None, False
    assert answer.status == exchange.status == 200
    assert answer.json.keys() == exchange.json.keys()
    assert {key for key in answer.json if answer.json[key] != exchange.json[key]} == DIFFERENT.get(name, set())


def a_stack(*mirrors: Mirror) -> Stack:
    return Stack(7, "em", (100, 60, 3), list(mirrors), broken_slices=(10, 2))


def test_the_prefix_is_part_of_every_address() -> None:
    """A server below a folder answers there and nowhere else."""
    with CatmaidEmulator(Project(1, "p", [Link(a_stack())]), prefix="/catmaid/l1") as server:
        host = server.url.removesuffix("/catmaid/l1")
        assert ask(host, "/catmaid/l1/1/stack/7/info").json["stitle"] == "em"
        assert ask(host, "/1/stack/7/info").status == 404
        assert server.asked == ["/1/stack/7/info", "/1/stack/7/info"]


def test_broken_slices_come_in_numeric_order() -> None:
    """Keys are ordered as numbers on the wire."""
    with CatmaidEmulator(Project(1, "p", [Link(a_stack())])) as server:
        assert list(ask(server.url, "/1/stack/7/info").json["broken_slices"]) == ["2", "10"]


def test_a_login_in_front_and_a_token() -> None:
    """Basic credentials of the web server and the token of CATMAID go together, in two headers."""
    with CatmaidEmulator(Project(1, "p", public=False)) as server:
        server.login = ("someone", "secret")
        assert ask(server.url, "/1/stacks").status == 401
        assert ask(server.url, "/1/stacks", Authorization=basic("someone", "secret")).status == 403
        both = {"Authorization": basic("someone", "secret"), "X_Authorization": f"Token {TOKEN}"}
        assert ask(server.url, "/1/stacks", **both).json == []


def test_rendered_tiles() -> None:
    """The `tile` endpoint renders a PNG of the size asked for, whatever the extension; of nothing a black one."""
    voxels = specimen.tissue((2, 50, 70))
    with CatmaidEmulator(Project(1, "p", [Link(a_stack())])) as server:
        query = (
            "x=64&y=0&width=64&height=48&row=y&col=x&scale={}&z={}&file_extension=jpg&basename={}&format={}&type=all"
        )

        def tile(scale: str, z: int, name: str, form: str = "hdf5") -> Answer:
            return ask(server.url, f"/1/stack/7/tile?{query.format(scale, z, name, form)}")

        assert tile("1", 0, "vol").status == 500
        server.hdf5, server.cloudvolume = {"vol": {1: voxels}}, {"vol": [voxels]}
        pixels = imagecodecs.png_decode(tile("1", 1, "vol").body)
        assert pixels.shape == (48, 64)
        assert np.array_equal(pixels[:, :6], voxels[1, :48, 64:])
        assert not pixels[:, 6:].any()
        for nothing in (tile("0.5", 1, "vol"), tile("1", 9, "vol"), tile("1", 1, "other")):
            assert not imagecodecs.png_decode(nothing.body).any()
        assert tile("1", 0, "vol", "cloudvolume").status == 500  # "JPG" is no Pillow format


def test_a_login_page() -> None:
    """A proxy that wants a login answers with a page and 200."""
    with CatmaidEmulator() as server:
        server.page = True
        answer = ask(server.url, "/projects/")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


# specimens


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=ABSENT)
def test_names_are_those_of_the_front_end() -> None:
    """Tile names are those that CATMAID's own classes make."""
    told = json.loads((GOLDEN / "tile_urls.json").read_text())["tiles"]
    compared = set()
    for tile in told:
        kind, size = tile["tile_source_type"], (tile["tile_width"], tile["tile_height"])
        if kind in (3, 6, 8, 11, 13, 14):
            continue
        found = specimen.name(
            kind, tile["level"], tile["depth"], tile["row"], tile["col"],
            size=size, extension=tile["file_extension"], orientation=tile["orientation"],
        )  # fmt: skip
        expected = tile["url"]
        if kind == 2:
            base, _, query = expected.partition("?")
            expected = f"{base}?{'&'.join(sorted(query.split('&')))}"
        if kind == 10:  # the size is part of the base there
            found = found.replace(f"{size[0]}_{size[1]}", "512_512")
        assert expected.endswith(found), tile
        compared.add(kind)
    assert compared == {1, 2, 4, 5, 7, 9, 10, 12}


@pytest.mark.parametrize("extension", ["png", "webp", "gif", "tif"])
def test_lossless_images(extension: str) -> None:
    """Encoded images decode to the pixels that went in."""
    pixels = specimen.tissue((1, 48, 64))[0]
    data = specimen.ENCODERS[extension](pixels)
    if extension == "tif":  # read back by hand: the strip is what stands behind the directory
        assert data[:4] == b"II*\0"
        (at,) = struct.unpack_from("<I", data, 10 + 5 * 12 + 8)
        assert data[at:] == pixels.tobytes()
        return
    decode = {"png": imagecodecs.png_decode, "webp": imagecodecs.webp_decode, "gif": imagecodecs.gif_decode}[extension]
    found = decode(data)
    assert np.array_equal(found if found.ndim == 2 else found[..., 0], pixels)


def test_tiles_cover_every_level() -> None:
    """Tiles put together again are the level; the rest is padding, or the tile is short."""
    level = specimen.tissue((2, 50, 70))
    for short in (False, True):
        whole = np.full((48 * 2, 64 * 2), 9, np.uint8)
        for row, column, part in specimen.cut(level[1], (64, 48), short=short, padding=9):
            assert short or part.shape == (48, 64)
            whole[row * 48 : row * 48 + part.shape[0], column * 64 : column * 64 + part.shape[1]] = part
        assert np.array_equal(whole[:50, :70], level[1])
        assert (whole[50:] == 9).all()


@pytest.mark.parametrize("dimensions", ["0_1_2", "2_1_0", "1_2_0"])
def test_n5_blocks(dimensions: str) -> None:
    """Blocks lie at the inverse permutation of their place, with a head in N5's order, and are big-endian."""
    volume = specimen.tissue((3, 5, 8), "uint16")
    files = specimen.n5([volume], (4, 3, 2), dimensions)
    attributes = json.loads(files["vol/s0/attributes.json"])
    n5_of_stack = [int(number) for number in dimensions.split("_")]
    assert [attributes["dimensions"][n] for n in n5_of_stack] == [8, 5, 3]
    assert [attributes["blockSize"][n] for n in n5_of_stack] == [4, 3, 2]
    index = [0, 0, 0]
    for axis, block in enumerate((1, 1, 0)):  # x, y, z
        index[n5_of_stack[axis]] = block
    block = files["vol/s0/" + "/".join(map(str, index))]
    assert struct.unpack_from(">HH", block) == (0, 3)
    first = volume[0, 3, 4]
    assert int.from_bytes(block[16:18], "big") == first


# hosts


def test_hosts_good_and_bad() -> None:
    """A host serves, blackens, refuses, lies and dies as it is told, and remembers what it was asked."""
    with TileHost() as host:
        host.put("em", {"0/0_0_0.png": b"tile", "?y=1&x=2": b"asked"})
        assert ask(host.url, "/em/0/0_0_0.png")[:2] == (200, b"tile")
        assert ask(host.url, "/em?x=2&y=1").body == b"asked"  # their order means nothing
        assert ask(host.url, "/em/1/0_0_0.png").status == 404
        host.black = b"black"
        assert ask(host.url, "/em/99/-1_0_0.png")[:2] == (200, b"black")
        host.login = ("u", "p")
        assert ask(host.url, "/em/0/0_0_0.png").status == 401
        assert ask(host.url, "/em/0/0_0_0.png", Authorization=basic("u", "p")).body == b"tile"
        host.login, host.gzipped = None, True
        assert gzip.decompress(ask(host.url, "/em/0/0_0_0.png").body) == b"tile"
        host.redirect_to = "http://elsewhere"
        assert ask(host.url, "/em/0").headers["location"] == "http://elsewhere/em/0"
        host.dies_after = 1
        assert ask(host.url, "/em/0").status == 302
        assert ask(host.url, "/em/0").status is None
        assert host.asked[:2] == ["em/0/0_0_0.png", "em?x=2&y=1"]
    with dead_host() as url:
        assert b"Refused" in ask(url, "/").body
