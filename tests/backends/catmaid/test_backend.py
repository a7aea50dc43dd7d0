"""The plans of stacks, driven by hand: which mirror is taken, what is asked, what becomes of the answers."""

from __future__ import annotations

import gzip
import json
import warnings
from typing import Any

import numpy as np
import pytest

from storefs.backends.catmaid import open_source
from storefs.backends.catmaid.backend import describe
from storefs.backends.catmaid.mirrors import SOON, MirrorWarning
from storefs.backends.catmaid.reading import Reading
from storefs.backends.catmaid.url import OPTIONS, mirror_accounts, parse_address, service_headers, split_address
from storefs.errors import NoSuchVolume, Refused, ServerFault, StorefsError, TimedOut, TransportError, UrlError
from storefs.model import ChunkId
from storefs.options import picklable, read_options
from storefs.plans import At, Body, Call, Head, Race
from tests.backends.catmaid.asking_by_hand import GONE, TILE, Answer, Asked, is_image, json_reply, path_of, served
from tests.backends.catmaid.specimen import jpeg, png, tissue
from tests.backends.catmaid.stack_infos import mirror, stack_info

A = mirror(5, "https://a/", id=7, title="alpha", position=1)
B = mirror(5, "https://b/", id=8, title="beta", position=2)
C = mirror(4, "https://c/", id=1, title="7", position=8)
STOCK = Body(jpeg(np.zeros((1024, 1024), np.uint8)))
DEEP = Body(png(tissue((1, 64, 64), "uint16")[0]))


def open_stack(answer: Answer, *mirrors: dict[str, Any], **settings: Any) -> tuple[Any, Asked]:
    """The stack of `mirrors`, described; and what was asked. What is no setting of reading is of the info."""
    known = {name: settings.pop(name) for name in list(settings) if hasattr(Reading(), name)}
    info = stack_info((9, 300, 300), *(mirrors or (A,)), **settings)
    asked = Asked(answer)
    return asked.run(describe(parse_address("https://s/3/7"), Reading(stack_info=info, **known))), asked


def in_use(backend: Any) -> int:
    return int(next(m["id"] for m in backend.hierarchy.attributes["mirrors"] if m["in_use"]))


# which mirror


@pytest.mark.parametrize(
    ("named", "number"), [(None, 7), (8, 8), ("8", 8), ("beta", 8), (2, 8), (7, 7), ("7", 7), (1, 1), ("alpha", 7)]
)
def test_mirrors_by_name(named: int | str | None, number: int):
    """An id goes before a position, a position before a title; without a name the first by position is taken."""
    backend, _ = open_stack(served("https://"), A, B, C, mirror=named)
    assert in_use(backend) == number


def test_no_such_mirror():
    """The error names those that there are."""
    with pytest.raises(UrlError, match=r"no mirror 'gamma'.*id 7, position 1, title 'alpha'"):
        open_stack(served("https://"), A, B, mirror="gamma")


def test_one_tile_is_asked_for():
    """Opening asks the first mirror for the tile of the canary, and no other."""
    backend, asked = open_stack(served("https://"), A, B, canary_location={"x": 70, "y": 200, "z": 4})
    assert asked.paths == ["https://a/0/4/3/1.png"]
    assert backend.hierarchy.arrays[0].dtype == "uint8"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (ServerFault("no connection", url="https://a"), "no connection"),
        (TimedOut("no answer", url="https://a"), "no answer"),
        (Refused("no entry", url="https://a"), "no entry"),
        (Body(b"<html>sign in</html>"), "no image"),
        (Body(b""), "no image"),
        (GONE, "no tile at the canary"),
    ],
)
def test_a_mirror_that_fails_is_skipped(found: Any, said: str):
    """The next is taken, and a warning says which was skipped, and why."""
    with pytest.warns(MirrorWarning, match=rf"mirror 7 'alpha' \(https://a/\) is skipped: .*{said}"):
        backend, _ = open_stack(lambda r: found if path_of(r).startswith("https://a") else TILE, A, B)
    assert in_use(backend) == 8
    assert said in backend.hierarchy.attributes["mirrors"][0]["problem"]


def test_nothing_is_left():
    """The error is of the mirrors' common kind, and names each."""
    with pytest.raises(TimedOut, match=r"mirror 7 'alpha'.*mirror 8 'beta'"):
        open_stack(lambda _: TimedOut("no answer"), A, B)
    mixed = {"https://a": TimedOut("late"), "https://b": Refused("shut")}
    with pytest.raises(TransportError, match=r"late.*shut"):
        open_stack(lambda r: mixed[path_of(r)[:9]], A, B)


def test_a_slow_mirror_is_asked_again():
    """A mirror that is merely slow is taken where no other will do, with all the time that the user gives it."""
    waits: list[float | None] = []

    class Slow(Asked):
        def __call__(self, request: Any) -> Any:
            assert isinstance(request, Race)
            waits.append(request.timeout)
            late = request.timeout == SOON
            return tuple((TimedOut("late") if late else TILE, 1.0) for _ in request.requests)

    reading = Reading(stack_info=stack_info((9, 300, 300), A, B), timeout=60.0)
    backend: Any = Slow(served("")).run(describe(parse_address("https://s/3/7"), reading))
    assert in_use(backend) == 7
    assert waits == [SOON, SOON, 60.0]


def test_other_places():
    """Where no mirror has the canary the centre is asked for, then the centre of the coarsest level."""
    factors = [{"x": f, "y": f, "z": 1} for f in (1, 4)]
    coarse = "https://b/1/4/0/0.png"
    with pytest.warns(MirrorWarning, match="alpha"):
        backend, asked = open_stack(served(coarse), A, B, downsample_factors=factors)
    assert in_use(backend) == 8
    assert asked.paths == [
        "https://a/0/0/0/0.png", "https://b/0/0/0/0.png",
        "https://a/0/4/2/2.png", "https://b/0/4/2/2.png",
        "https://a/1/4/0/0.png", coarse,
    ]  # fmt: skip


def test_a_mirror_without_tiles():
    """One that answers, and has nothing anywhere, is the last resort, with a warning."""
    with pytest.warns(MirrorWarning, match="none of the tiles"):
        backend, _ = open_stack(lambda _: GONE, A)
    assert backend.hierarchy.arrays[0].dtype == "uint8"


def test_the_canary_is_moved_off_broken_slices():
    """The nearest good slice is asked, and a canary outside is moved inside."""
    broken = {str(z): 1 for z in (0, 1, 2)}
    canary = {"x": 10**6, "y": -5, "z": 0}
    _, asked = open_stack(served("https://"), A, broken_slices=broken, canary_location=canary)
    assert asked.paths == ["https://a/0/3/0/4.png"]


def test_the_fastest():
    """Time is measured by the pixel, and only real images count."""
    big = mirror(5, "https://big/", id=9, title="big", side=256)
    seconds = {"https://a": 0.2, "https://b": 0.1, "https://big": 1.0}

    class Race3(Asked):
        def __call__(self, request: Any) -> Any:
            found = []
            for one in request.requests:
                host = path_of(one).partition("/0/")[0]
                found.append((GONE if host == "https://b" else TILE, seconds[host]))
            return tuple(found)

    reading = Reading(stack_info=stack_info((9, 600, 600), A, B, big), mirror="fastest", dtype="uint8")
    with pytest.warns(MirrorWarning, match="beta"):
        backend: Any = Race3(served("")).run(describe(parse_address("https://s/3/7"), reading))
    assert in_use(backend) == 9


def test_a_mirror_and_its_dtype_that_are_known():
    """Where the caller names both nothing is asked."""
    backend, asked = open_stack(served(""), A, B, mirror=8, dtype="uint16")
    assert asked.requests == []
    assert backend.hierarchy.arrays[0].dtype == "uint16"


def test_dtype_of_the_tile():
    """16-bit tiles make a 16-bit array; an option overrides."""
    assert open_stack(lambda _: DEEP)[0].hierarchy.arrays[0].dtype == "uint16"
    assert open_stack(lambda _: DEEP, dtype="uint8")[0].hierarchy.arrays[0].dtype == "uint8"


def test_a_stock_tile_tells_no_dtype():
    """A tile of another size than the mirror's says less of the voxels than one that fits."""
    backend, asked = open_stack(lambda r: STOCK if path_of(r).endswith("/0/0/0.png") else DEEP)
    assert backend.hierarchy.arrays[0].dtype == "uint16"
    assert len(asked.requests) == 2


def test_forbidden_as_missing():
    """With `forbidden="missing"` a 403 at the canary is no refusal."""
    answers = {"https://a/0/0/0/0.png": Refused("403")}
    backend, _ = open_stack(lambda r: answers.get(path_of(r), TILE), A, forbidden_is_missing=True)
    assert in_use(backend) == 7


def test_a_server_may_not_name_files():
    """A mirror on this machine is skipped where the info came from a server."""
    info = stack_info((9, 64, 64), mirror(5, "file:///etc/", title="files"), B)
    asked = Asked(lambda r: json_reply(json.dumps(info)) if isinstance(r, Call) else TILE)
    with pytest.warns(MirrorWarning, match="a server may not"):
        backend: Any = asked.run(describe(parse_address("https://s/3/7"), Reading()))
    assert in_use(backend) == 8
    assert not any("file:" in path for path in asked.paths)


# chunks


def test_a_chunk_is_a_tile():
    """Chunk z, row, column of a level is one tile, as it came; one that is gone is absent."""
    backend, asked = open_stack(served("https://a/0"))
    assert bytes(asked.run(backend.read(ChunkId("0", (3, 1, 2))))) == TILE.data
    assert asked.paths[-1] == "https://a/0/3/1/2.png"
    backend, asked = open_stack(served("https://a/0/0/0/0"))
    assert asked.run(backend.read(ChunkId("0", (3, 1, 2)))) is None


def test_broken_slices_are_not_asked_for():
    """Under "fill" a broken slice is absent without a request, and does not exist."""
    backend, asked = open_stack(served("https://"), broken_slices={"3": 1})
    before = len(asked.requests)
    assert asked.run(backend.read(ChunkId("0", (3, 0, 0)))) is None
    assert asked.run(backend.exists(ChunkId("0", (3, 0, 0)))) is False
    assert len(asked.requests) == before


def test_existence_is_asked_by_head():
    """Files are asked for their existence alone."""
    backend, asked = open_stack(served("https://"))
    assert asked.run(backend.exists(ChunkId("0", (3, 0, 0)))) is True
    assert isinstance(asked.requests[-1], At)
    assert isinstance(asked.requests[-1].request, Head)


def test_compressed_on_the_way():
    """A tile that came gzipped is unpacked, at most to what a tile can be."""
    packed = Body(gzip.compress(TILE.data), "gzip")
    backend, asked = open_stack(lambda _: packed)
    stored = asked.run(backend.read(ChunkId("0", (0, 0, 0))))
    assert bytes(stored()) == TILE.data


@pytest.mark.parametrize("error", [ServerFault("500"), TimedOut("late"), Refused("401")])
def test_failures_raise(error: StorefsError):
    """A failure of the site is no absent tile."""
    backend, asked = open_stack(lambda r: error if is_image(r) and "/0/3/" in path_of(r) else TILE)
    with pytest.raises(type(error)):
        asked.run(backend.read(ChunkId("0", (3, 0, 0))))


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, TILE.data), (404, None), (410, None), (500, ServerFault), (403, Refused)]
)
def test_tiles_from_catmaid(status: int, outcome: Any):
    """Types 3 and 13: the server's status says whether there is a tile; a 404 while reading is no missing volume."""
    answers = [json_reply("", 200), json_reply("", status)]
    answers = [type(a)(a.status, bytes(TILE.data)) for a in answers]
    replies = iter(answers)
    backend, asked = open_stack(lambda _: next(replies), mirror(3, "vol"))
    plan = backend.read(ChunkId("0", (3, 0, 0)))
    if isinstance(outcome, type):
        with pytest.raises(outcome) as caught:
            asked.run(plan)
        assert not isinstance(caught.value, NoSuchVolume)
    else:
        assert asked.run(plan) == outcome


# fallback


def dying(host: str) -> Answer:
    """Tiles behind slice 2 of `host` fail."""
    fault = ServerFault("the connection broke", url=host)
    return lambda r: fault if path_of(r).startswith(host) and "/0/0/0/0" not in path_of(r) else TILE


def test_without_fallback_it_fails():
    """A mirror that dies is an error where nothing else was asked for."""
    backend, asked = open_stack(dying("https://a"), A, B)
    with pytest.raises(ServerFault):
        asked.run(backend.read(ChunkId("0", (3, 0, 0))))


def test_fallback():
    """The next mirror takes over, with a warning, and for good."""
    backend, asked = open_stack(dying("https://a"), A, B, fallback=True)
    with pytest.warns(MirrorWarning, match=r"alpha.*fails.*connection broke.*reading goes on from mirror 8 'beta'"):
        assert asked.run(backend.read(ChunkId("0", (3, 0, 0)))) == TILE.data
    asked.requests.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asked.run(backend.read(ChunkId("0", (4, 0, 0)))) == TILE.data
    assert asked.paths == ["https://b/0/4/0/0.png"]


def test_fallback_needs_the_same_tiles():
    """A mirror of other tiles or voxels cannot take over."""
    other = mirror(5, "https://b/", id=8, side=128, position=2)
    backend, asked = open_stack(dying("https://a"), A, other, fallback=True)
    with pytest.raises(ServerFault):
        asked.run(backend.read(ChunkId("0", (3, 0, 0))))
    dead = dying("https://a")
    backend, asked = open_stack(lambda r: DEEP if path_of(r).startswith("https://b") else dead(r), A, B, fallback=True)
    with pytest.raises(ServerFault):
        asked.run(backend.read(ChunkId("0", (3, 0, 0))))


def test_a_refusal_is_no_death():
    """Credentials that are wrong are told, not worked around."""
    backend, asked = open_stack(lambda r: Refused("401") if "/0/3/" in path_of(r) else TILE, A, B, fallback=True)
    with pytest.raises(Refused):
        asked.run(backend.read(ChunkId("0", (3, 0, 0))))


# what is told


def test_encoding():
    """The codec is told what differs from its defaults."""
    backend, _ = open_stack(served("https://"), channels="rgb", fill_value=7)
    node = backend.hierarchy.arrays[0]
    assert (node.shape, node.chunk_shape) == ((3, 9, 300, 300), (3, 1, 64, 64))
    assert node.dimension_names == ("c", "z", "y", "x")
    assert node.encoding.configuration == {"channels": "rgb", "fill_value": 7}


def test_a_fill_value_that_does_not_fit():
    """A fill value beyond the voxels' type is an error of the option."""
    with pytest.raises(UrlError, match="fill_value: 300 does not fit in uint8"):
        open_stack(served("https://"), fill_value=300)


def test_no_resolution():
    """An axis whose resolution was rounded to 0 has 1, and says so."""
    with pytest.warns(MirrorWarning, match="resolution of 0 along x"):
        backend, _ = open_stack(served("https://"), resolution=(0.0, 4.0, 40.0))
    assert backend.hierarchy.arrays[0].scale_nm == (40.0, 4.0, 1.0)
    assert backend.hierarchy.attributes["unknown_resolution"] == ["x"]


def test_passwords_are_not_shown():
    """A password in a mirror's address is in no attribute and no message."""
    secret = mirror(5, "https://me:secret@a/", id=7)
    backend, asked = open_stack(lambda _: TILE, secret)
    assert "secret" not in repr(backend.hierarchy)
    assert "secret" not in backend.name(ChunkId("0", (0, 0, 0)))
    assert asked.paths[0].startswith("https://me:secret@a/")


def test_mirrors_are_surveyed():
    """Each mirror's type, size, and what is wrong with it."""
    answers = {"https://a": TILE, "https://b": ServerFault("dead"), "https://c": GONE}
    backend, asked = open_stack(lambda r: answers[path_of(r)[:9]], A, B, C, mirror(99, "https://d/", id=4, position=9))
    states = {state.id: state for state in asked.run(backend.mirrors())}
    assert states[7].problem is None
    assert states[7].is_read
    assert states[8].problem == "dead"
    assert "no tile" in states[1].problem
    assert "99" in states[4].problem
    assert states[1].kind == "4 (file-based, a folder per level)"


# addresses and options


@pytest.mark.parametrize(
    ("text", "url", "rest"),
    [
        ("https://h/1/2", "https://h/1/2", ""),
        ("catmaid://http://h:8000/1/2", "http://h:8000/1/2", ""),
        ("h/catmaid/l1/1/2/0/c/3/4/5", "https://h/catmaid/l1/1/2", "0/c/3/4/5"),
        ("https://h/1", "https://h/1", ""),
        ("https://h/1/zarr.json", "https://h/1", "zarr.json"),
        ("https://h/1/stackgroup/4/2/0/zarr.json", "https://h/1/stackgroup/4", "2/0/zarr.json"),
        ("https://h/1/stack/3/info", "https://h/1/3", "info"),
        ("https://h/sub/", "https://h/sub", ""),
        ("https://h/sub/zarr.json", "https://h/sub", "zarr.json"),
        ("tiles", "tiles", ""),
        ("tiles/0/c/1/2/3", "tiles", "0/c/1/2/3"),
    ],
)
def test_addresses(text: str, url: str, rest: str):
    """Ids begin with the first number of the path; what follows them is a key."""
    address, key = split_address(text)
    assert (address.url, key) == (url, rest)


@pytest.mark.parametrize("text", ["https://me:pw@h/1/2", "ftp://h/1/2", "https:///1/2", "https://h/1/2/3/4"])
def test_no_addresses(text: str):
    """What is no address says what one looks like, and shows no password."""
    with pytest.raises(UrlError) as caught:
        parse_address(text)
    assert "pw" not in str(caught.value)


def test_tiles_want_an_info():
    """Without a server there has to be an info."""
    with pytest.raises(UrlError, match="stack_info"):
        open_source("tiles", {})


@pytest.mark.parametrize(
    "options",
    [
        {"channels": "red"},
        {"broken": "above"},
        {"fill_value": -1},
        {"fill_value": 1.5},
        {"dtype": "float32"},
        {"concurrency": 0},
        {"cache_bytes": -1},
        {"mirror": 1.5},
        {"mirror_auth": "secret"},
        {"mirror_auth": {"a": ("u", 5)}},
        {"mirror_headers": "secret"},
        {"stack_info": "{"},
        {"stack_info": "[]"},
        {"pasword": "secret"},
        {"password": "secret"},
    ],
)
def test_bad_options(options: dict[str, Any]):
    """An option that cannot be read is an error that names it, and shows no secret."""
    with pytest.raises(UrlError) as caught:
        open_source("https://h/1/2", options)
    assert "secret" not in str(caught.value)


def test_credentials(monkeypatch: pytest.MonkeyPatch):
    """The token goes into a header of its own, so that HTTP basic fits beside it."""
    monkeypatch.delenv("CATMAID_API_TOKEN", raising=False)
    assert service_headers({}) == {"Accept": "application/json"}
    both = service_headers({"token": "Token abc", "user": "me", "password": "pw"})
    assert both["X-Authorization"] == "Token abc"
    assert both["Authorization"] == "Basic bWU6cHc="
    monkeypatch.setenv("CATMAID_API_TOKEN", "xyz")
    assert service_headers({})["X-Authorization"] == "Token xyz"


def test_accounts():
    """Credentials of mirrors are found by id before title before host; "*" is for all others."""
    given = {"mirror_auth": {7: ("u", "p"), "b": ("v", "q")}, "mirror_headers": {"Authorization": "Token boss"}}
    accounts = mirror_accounts(read_options(given, OPTIONS).own)
    assert accounts["7"] == {"Authorization": "Basic dTpw"}
    assert accounts["*"] == {"Authorization": "Token boss"}
    reading = Reading(accounts=frozenset(accounts))
    backend, _ = open_stack(served("https://"), A, B, C | {"title": "c"})
    assert [reading.account(m) for m in backend.info.mirrors] == ["7", "b", "*"]
    assert Reading().account(backend.info.mirrors[0]) == ""


def test_secrets_are_not_pickled():
    """What may hold a secret travels only where it names the environment."""
    given = {
        "token": "abc", "mirror_auth": {"a": ("$USER", "s$cret")}, "mirror": "a",
        "mirror_headers": {"a": {"Authorization": "Token $BOSS"}},
    }  # fmt: skip
    assert picklable(given) == {"mirror": "a", "mirror_headers": {"a": {"Authorization": "Token $BOSS"}}}
    assert "mirror_headers" not in picklable({"mirror_headers": {"a": {"Authorization": "Token boss"}}})
