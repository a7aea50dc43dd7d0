"""Which mirror is read, who sees which password, and what happens when a mirror fails. Every fault raises."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import storefs
from storefs_codecs.errors import DecodeError
from tests.backends.catmaid import specimen
from tests.backends.catmaid.emulator import TOKEN, Mirror
from tests.backends.catmaid.scene import SHAPE, Scene, Shown
from tests.backends.catmaid.specimen import pyramid, tissue
from tests.backends.catmaid.tile_hosts import TileHost, basic
from tests.backends.dvid.faults import Fault

QUICK = {"retries": 0, "timeout": 5}


class Three:
    """A stack on three hosts whose voxels differ, so that it shows which one was read."""

    def __init__(self, em: Scene, hosts: list[TileHost]) -> None:
        self.em, self.hosts = em, hosts
        self.levels = [pyramid(tissue(SHAPE, seed=seed)) for seed in range(3)]
        self.mirrors = [
            em.mirror(levels, host, title=title, position=position, kind=kind, size=size)
            for levels, host, title, position, kind, size in zip(
                self.levels, hosts, ("alpha", "beta", "gamma"), (5, 6, 9), (4, 5, 1), ((64, 48), (64, 48), (32, 32)),
                strict=True,
            )
        ]  # fmt: skip
        self.shown: Shown = em.stack(tissue(SHAPE), mirrors=self.mirrors)

    def which(self, **options: Any) -> int:
        """Which mirror is read."""
        found = storefs.open_array(self.shown.url, **QUICK, **options)[...]
        return next(n for n, levels in enumerate(self.levels) if np.array_equal(levels[0], found))


@pytest.fixture
def three(em: Scene) -> Iterator[Three]:
    with TileHost() as two, TileHost() as last:
        yield Three(em, [em.host, two, last])


def test_the_first_by_position(three: Three) -> None:
    """Without a word the mirror of lowest position is read, and the others are left alone."""
    three.mirrors.reverse()
    assert three.which() == 0
    assert three.hosts[1].seen == three.hosts[2].seen == []


@pytest.mark.parametrize("choose", ["id", "title", "position"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_mirrors_by_name(three: Three, choose: str, number: int) -> None:
    """A mirror may be asked for by id, title or position."""
    assert three.which(mirror=getattr(three.mirrors[number], choose)) == number
    assert three.which(mirror=str(getattr(three.mirrors[number], choose))) == number


def test_a_mirror_that_there_is_not(three: Three) -> None:
    """An unknown mirror is an error that lists those that there are."""
    with pytest.raises(storefs.StorefsError, match=r"alpha.*beta.*gamma"):
        three.which(mirror="delta")


def test_the_fastest(three: Three) -> None:
    """The race for mirror="fastest" is won by the one whose canary comes first."""
    three.hosts[0].latency, three.hosts[2].latency = 0.8, 0.5
    assert three.which(mirror="fastest") == 1


def test_what_is_fast_and_wrong_does_not_win(three: Three) -> None:
    """An error, a web page and a broken image do not win a race however fast they come."""
    three.hosts[0].page = True
    three.hosts[1].faults = [Fault(status=500, text="quick")]
    three.hosts[2].latency = 0.3
    with pytest.warns(UserWarning, match=r"alpha|beta"):
        assert three.which(mirror="fastest") == 2


def test_a_mirror_whose_canary_is_missing_loses(three: Three) -> None:
    """A host that answers 404 quickly does not win."""
    three.hosts[0].files.clear()
    three.hosts[1].latency = three.hosts[2].latency = 0.3
    three.hosts[2].latency = 0.6
    with pytest.warns(UserWarning, match="alpha"):
        assert three.which(mirror="fastest") == 1


DEADLY = {
    "dead": "refused|connect|no connection|reach",
    "500": "500",
    "page": "web page|HTML|no image|not an image",
    "empty": "empty|no image|0 bytes|bytes",
    "truncated": "cut|truncated|short|broken|length|closed|decode|image|disconnect",
    "login": "401|password|login",
    "404": "404|missing|not there|no canary|canary",
    "slow": "time|seconds",
}


def fail(host: TileHost, how: str) -> None:
    """Make every answer of a host wrong in one way."""
    if how == "dead":
        host.close()
    elif how == "500":
        host.faults = [Fault(status=500, text="out of order")]
    elif how == "page":
        host.page = True
    elif how == "empty":
        host.files = dict.fromkeys(host.files, b"")
    elif how == "truncated":
        host.faults = [Fault(cut=True)]
    elif how == "login":
        host.login = ("u", "p")
    elif how == "404":
        host.files.clear()
    elif how == "slow":
        host.latency = 3


@pytest.mark.parametrize("how", DEADLY)
def test_a_dead_mirror_is_skipped_with_a_warning(three: Three, how: str) -> None:
    """A mirror that does not give its canary is skipped for the next, with a warning that names it and says why."""
    fail(three.hosts[0], how)
    options = {**QUICK, "timeout": 1} if how == "slow" else QUICK
    with pytest.warns(UserWarning, match="alpha") as said:
        found = storefs.open_array(three.shown.url, **options)[...]
    assert np.array_equal(found, three.levels[1][0])
    assert any(word in str(warning.message) for warning in said for word in DEADLY[how].split("|"))


def test_types_that_cannot_be_read_are_skipped(em: Scene) -> None:
    """A mirror of an unknown type is skipped with a warning, and a stack of such mirrors alone is Unsupported."""
    strange = Mirror(f"{em.host.url}/x/", 99, "bin", title="future", position=-1, id=1)
    shown = em.stack(tissue(SHAPE))
    shown.stack.mirrors.insert(0, strange)
    with pytest.warns(UserWarning, match=r"future.*99|99.*future"):
        assert storefs.open_array(shown.url)[1, 2, 3] == shown.finest[1, 2, 3]
    shown.stack.mirrors = [strange]
    with pytest.raises(storefs.StorefsError, match="future"):
        storefs.open(shown.url)


def test_no_mirror_left(three: Three) -> None:
    """When no mirror is left the error lists every one with its reason."""
    three.hosts[0].close()
    three.hosts[1].page = True
    three.hosts[2].faults = [Fault(status=500, text="out of order")]
    warnings.simplefilter("ignore", UserWarning)
    with pytest.raises(storefs.StorefsError) as caught:
        storefs.open(three.shown.url, **QUICK)
    for title in ("alpha", "beta", "gamma", "500"):
        assert title in str(caught.value)
    assert not isinstance(caught.value, FileNotFoundError)


def test_a_stack_without_mirrors(em: Scene) -> None:
    """A stack without mirrors cannot be read, and the error says so."""
    shown = em.stack(mirrors=[])
    with pytest.raises(storefs.StorefsError, match="mirror"):
        storefs.open(shown.url)


def test_a_mirror_that_was_asked_for_is_not_replaced(three: Three) -> None:
    """A mirror named by the caller fails, rather than another being read in its place."""
    three.hosts[1].faults = [Fault(status=500, text="out of order")]
    with pytest.raises(storefs.StorefsError, match=r"beta|500"):
        three.which(mirror="beta")
    assert three.hosts[0].seen == three.hosts[2].seen == []


def test_no_host_is_asked_for_what_another_has(three: Three) -> None:
    """The canary is asked at most once of each host before reading."""
    storefs.open(three.shown.url)
    assert len(three.hosts[0].seen) <= 1


# passwords


def test_each_mirror_has_its_own_password(three: Three) -> None:
    """Basic credentials go to the mirror that they are given for, not to CATMAID, nor to another mirror."""
    for number, host in enumerate(three.hosts):
        host.login = (f"user{number}", f"secret{number}")
    auth = {m.title: (f"user{n}", f"secret{n}") for n, m in enumerate(three.mirrors)}
    for number, mirror in enumerate(three.mirrors):
        assert three.which(mirror=mirror.title, mirror_auth=auth, token=TOKEN, user="a", password="b") == number
    for number, host in enumerate(three.hosts):
        given = {seen.headers.get("authorization") for seen in host.seen} - {None}
        assert given == {basic(f"user{number}", f"secret{number}")}
        assert all("x-authorization" not in seen.headers for seen in host.seen)
    given = {seen.headers.get("authorization") for seen in three.em.server.seen}
    assert given == {basic("a", "b")}


@pytest.mark.parametrize("by", ["id", "title", "host", "all"])
def test_passwords_are_named_by_mirror(three: Three, by: str) -> None:
    """A password may be given for a mirror's id, title or host, or for all mirrors."""
    three.hosts[1].login = ("someone", "secret")
    mirror, host = three.mirrors[1], three.hosts[1].url.removeprefix("http://")
    pair = ("someone", "secret")
    auth = pair if by == "all" else {{"id": mirror.id, "title": "beta", "host": host}[by]: pair}
    assert three.which(mirror="beta", mirror_auth=auth) == 1


def test_headers_of_a_mirror(three: Three) -> None:
    """Headers, such as a token of their own, go to the mirror that they are given for."""
    headers = {"beta": {"Authorization": "Token boss"}}
    assert three.which(mirror="beta", mirror_headers=headers) == 1
    assert three.which(mirror="alpha", mirror_headers=headers) == 0
    assert {seen.headers.get("authorization") for seen in three.hosts[1].seen} == {"Token boss"}
    assert {seen.headers.get("authorization") for seen in three.hosts[0].seen} == {None}


def test_a_mirror_that_wants_a_password(three: Three) -> None:
    """Without the password the error says what to pass; a wrong one is told, and not shown."""
    three.hosts[1].login = ("someone", "s3cr3t")
    with pytest.raises(storefs.StorefsError, match="mirror_auth"):
        three.which(mirror="beta")
    with pytest.raises(storefs.StorefsError) as caught:
        three.which(mirror="beta", mirror_auth={"beta": ("someone", "wr0ng")})
    assert "wr0ng" not in str(caught.value)


def test_a_password_in_the_address_of_a_mirror(em: Scene) -> None:
    """A password that stands in a mirror's address is used for that host, and shown nowhere."""
    shown = em.stack(tissue(SHAPE))
    mirror = shown.stack.mirrors[0]
    mirror.image_base = mirror.image_base.replace("://", "://someone:s3cr3t@")
    em.host.login = ("someone", "s3cr3t")
    group = storefs.open(shown.url, **QUICK)
    assert np.array_equal(group["0"][...], shown.finest)
    texts = [repr(group.attrs.asdict()), repr(group["0"].attrs.asdict()), repr(group.store)]
    with TileHost(dict(em.host.files)) as other:
        em.host.redirect_to = other.url
        assert np.array_equal(storefs.open_array(shown.url, dtype="uint8")[...], shown.finest)
        assert other.seen
        assert not any("authorization" in seen.headers for seen in other.seen)
    em.host.faults = [Fault(status=500, text="out of order")]
    for options in ({}, {"dtype": "uint8"}):
        with pytest.raises(storefs.ServerFault) as caught:
            storefs.open_array(shown.url, **QUICK, **options)[0]
        texts.append("".join(traceback.format_exception(caught.value)))
    assert not any("s3cr3t" in text.replace('"s3cr3t"', "") for text in texts)


def test_a_redirecting_mirror_takes_no_password_along(em: Scene) -> None:
    """A mirror that redirects to another host does not send the password there."""
    shown = em.stack(tissue(SHAPE))
    with TileHost(dict(em.host.files)) as other:
        em.host.login = ("u", "s3cr3t")
        em.host.redirect_to = other.url
        array = storefs.open_array(shown.url, mirror_auth={"main": ("u", "s3cr3t")})
        assert np.array_equal(array[...], shown.finest)
        assert other.seen
        assert not any("authorization" in seen.headers for seen in other.seen)


# faults while reading


def fail_after_opening(em: Scene, shown: Shown, fault: Fault, **options: Any) -> Exception:
    """The error of a read that meets `fault`."""
    array = storefs.open_array(shown.url, **QUICK, **options)
    em.host.faults = [fault]
    with pytest.raises((storefs.StorefsError, DecodeError)) as caught:
        array[1:3]
    assert not isinstance(caught.value, FileNotFoundError)
    return caught.value


@pytest.mark.parametrize("status", [400, 401, 403, 418, 500, 502, 503])
def test_statuses_are_errors(em: Scene, status: int) -> None:
    """Only 404 and 410 mean that a tile is missing; anything else raises, naming the tile."""
    shown = em.stack(tissue(SHAPE), kind=5)
    error = fail_after_opening(em, shown, Fault(status=status, text="no"))
    assert str(status) in str(error)
    assert "/0/1/" in str(error) or "/0/2/" in str(error)


@pytest.mark.parametrize(
    "fault", [Fault(reset=True), Fault(cut=True), Fault(shorten=40)], ids=["reset", "cut", "short"]
)
def test_broken_answers_are_errors(em: Scene, fault: Fault) -> None:
    """Connections that break, and bodies that are cut however they are framed, raise."""
    fail_after_opening(em, em.stack(tissue(SHAPE), kind=5), fault)


def test_a_slow_host_times_out(em: Scene) -> None:
    """A host that does not answer in time raises TimedOut."""
    shown = em.stack(tissue(SHAPE), kind=5)
    array = storefs.open_array(shown.url, retries=0, timeout=0.5)
    em.host.faults = [Fault(delay=2)]
    with pytest.raises(storefs.TimedOut):
        array[1]


def test_lost_tiles_are_asked_for_again(em: Scene) -> None:
    """A connection that breaks now and then costs a second request, not the read."""
    shown = em.stack(tissue(SHAPE), kind=5)
    array = storefs.open_array(shown.url)
    em.host.faults = [Fault(times=3, reset=True)]
    assert np.array_equal(array[...], shown.finest)


def test_403_may_mean_missing(em: Scene) -> None:
    """With forbidden="missing" a 403 is an absent tile, as buckets answer that hide their listing."""
    shown = em.stack(tissue(SHAPE), kind=5)
    em.host.faults = [Fault(lambda asked: "/0/2/1/1" in asked.target, status=403)]
    shown.finest[2, 48:96, 64:128] = 0
    assert np.array_equal(storefs.open_array(shown.url, forbidden="missing")[...], shown.finest)


# going on with another mirror


def same_on_two(em: Scene, other: TileHost) -> Shown:
    levels = pyramid(tissue(SHAPE))
    mirrors = [
        em.mirror(levels, title="one", position=1, kind=5),
        em.mirror(levels, other, title="two", position=2, kind=5),
    ]
    return em.stack(tissue(SHAPE), mirrors=mirrors)


def test_a_host_that_dies_in_the_middle(em: Scene) -> None:
    """With fallback the next mirror takes over in the middle of a read, with a warning, and no voxel is wrong."""
    with TileHost() as other:
        shown = same_on_two(em, other)
        array = storefs.open_array(shown.url, fallback=True, **QUICK)
        em.host.dies_after = 10
        with pytest.warns(UserWarning, match="one"):
            found = array[...]
        assert np.array_equal(found, shown.finest)
        assert other.seen


def test_without_fallback_a_dead_host_is_an_error(em: Scene) -> None:
    """Without fallback a mirror that dies in the middle of a read is an error."""
    with TileHost() as other:
        shown = same_on_two(em, other)
        array = storefs.open_array(shown.url, **QUICK)
        em.host.dies_after = 2
        with pytest.raises(storefs.StorefsError):
            array[...]


def test_missing_tiles_cause_no_fallback(em: Scene) -> None:
    """A tile that is missing on one mirror is missing; it is not looked for on another."""
    with TileHost() as other:
        shown = same_on_two(em, other)
        del em.host.files[next(at for at in em.host.files if at.endswith("0/2/1/1.png"))]
        shown.finest[2, 48:96, 64:128] = 0
        found = storefs.open_array(shown.url, fallback=True)[...]
        assert np.array_equal(found, shown.finest)
        assert not other.seen


# cache and concurrency


def test_the_second_read_asks_nothing(em: Scene) -> None:
    """Tiles that were read are kept, also those that are missing."""
    shown = em.stack(tissue(SHAPE), kind=5)
    array = storefs.open_array(shown.url)
    array[...]
    em.host.forget()
    assert np.array_equal(array[...], shown.finest)
    assert em.host.seen == []


def test_the_cache_is_bounded(em: Scene) -> None:
    """No more is kept than `cache_bytes`; without a cache every read asks again."""
    shown = em.stack(tissue(SHAPE), [(1, 1, 1)], kind=5)
    count = len(em.host.files)
    array = storefs.open_array(shown.url, cache_bytes=0)
    array[...]
    em.host.forget()
    array[...]
    assert len(em.host.seen) == count
    half = sum(len(data) for data in em.host.files.values()) // 2
    array = storefs.open_array(shown.url, cache_bytes=half)
    for depth in range(array.shape[0]):
        array[depth]
    em.host.forget()
    array[-1]
    assert em.host.seen == []
    array[0]
    assert len(em.host.seen) == count // array.shape[0]


def test_another_mirror_is_asked_anew(three: Three) -> None:
    """What was read from one mirror does not answer for another."""
    assert three.which(mirror="alpha") == 0
    assert three.which(mirror="beta") == 1


@pytest.mark.parametrize("limit", [None, 3, 1])
def test_requests_in_flight(em: Scene, limit: int | None) -> None:
    """Never more than `concurrency` tiles are asked for at once, however many threads read; 32 if nothing is said."""
    shown = em.stack(tissue((8, 101, 300)), [(1, 1, 1)], kind=5, size=(32, 32))
    options = {} if limit is None else {"concurrency": limit}
    array = storefs.open_array(shown.url, **options)
    em.host.latency = 0.01
    em.host.forget()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda z: array[z : z + 2], range(0, 8, 2)))
    assert np.array_equal(np.concatenate(parts), shown.finest)
    assert em.host.record.most_at_once <= (limit or 32)
    assert limit == 1 or em.host.record.most_at_once > 1


def test_connections_are_kept(em: Scene) -> None:
    """Many tiles take few connections."""
    shown = em.stack(tissue((8, 101, 300)), [(1, 1, 1)], kind=5, size=(32, 32))
    array = storefs.open_array(shown.url, concurrency=2)
    ports: set[Any] = set()
    handled = em.host._server._httpd.process_request

    def counting(request: Any, address: Any) -> None:
        ports.add(address)
        handled(request, address)

    em.host._server._httpd.process_request = counting  # type: ignore[method-assign]  # counts connections
    array[...]
    assert len(em.host.seen) > 200
    assert len(ports) <= 4


# images


def swapped(em: Scene, data: bytes) -> Shown:
    """A stack of which one tile is `data`."""
    shown = em.stack(tissue(SHAPE), kind=5)
    em.host.files[next(at for at in em.host.files if at.endswith("0/2/1/1.png"))] = data
    return shown


def huge_png(width: int = 60000, height: int = 60000) -> bytes:
    """A PNG whose header promises far more than it holds."""
    import struct
    import zlib

    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", zlib.compress(bytes(100))) + piece(b"IEND", b"")


GARBAGE = {
    "empty": b"",
    "text": b"Internal Server Error",
    "html": b"<!DOCTYPE html><html>log in</html>",
    "cut png": specimen.png(tissue((1, 48, 64))[0])[:200],
    "huge png": huge_png(),
    "16 bit": specimen.png(tissue((1, 48, 64), "uint16")[0]),
    "tiff head": b"II*\0" + bytes(20),
    "gif head": b"GIF89a" + b"\xff" * 40,
    "zeros": bytes(500),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_tile_is_an_error(em: Scene, name: str) -> None:
    """A body that is no image of this stack raises, naming the tile, and the others read on."""
    shown = swapped(em, GARBAGE[name])
    array = storefs.open_array(shown.url, **QUICK)
    with pytest.raises((storefs.StorefsError, DecodeError)) as caught:
        array[2]
    assert "2" in str(caught.value)
    assert np.array_equal(array[:2], shown.finest[:2])


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_bomb_takes_no_memory(em: Scene) -> None:
    """A header that declares 60000 x 60000 pixels is refused before anything is set aside for them."""
    import resource

    shown = swapped(em, huge_png())
    array = storefs.open_array(shown.url, **QUICK)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    # threads take room for their stacks; sixty thousand squared bytes would be 3.6 GB
    resource.setrlimit(resource.RLIMIT_AS, (size + (3 << 30), limits[1]))
    try:
        with pytest.raises((storefs.StorefsError, DecodeError)):
            array[2]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_a_body_without_end_is_cut_off(em: Scene) -> None:
    """A tile of hundreds of megabytes is refused, not read to its end."""
    shown = em.stack(tissue(SHAPE), kind=5)
    array = storefs.open_array(shown.url, **QUICK)
    at = next(at for at in em.host.files if at.endswith("0/2/1/1.png"))
    em.host.files[at] = em.host.files[at] + bytes(300 << 20)
    with pytest.raises(storefs.StorefsError, match=r"longer|bytes"):
        array[2]


def test_a_bomb_at_the_canary(em: Scene) -> None:
    """A canary tile that is a bomb takes no memory either, and spoils no other tile."""
    shown = em.stack(tissue(SHAPE), kind=5)
    em.host.files[next(at for at in em.host.files if at.endswith("0/0/0/0.png"))] = huge_png()
    warnings.simplefilter("ignore", UserWarning)
    array = storefs.open_array(shown.url, **QUICK)
    assert np.array_equal(array[1:], shown.finest[1:])
    with pytest.raises((storefs.StorefsError, DecodeError)):
        array[0]


def test_nothing_is_said_when_all_is_well(em: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A good stack opens and reads without warnings or log lines."""
    caplog.set_level(logging.INFO, "storefs")
    shown = em.stack(tissue(SHAPE))
    storefs.open_array(shown.url)[...]
    assert not caplog.records
