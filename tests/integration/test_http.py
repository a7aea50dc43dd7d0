"""Web servers that misbehave: the data are right or an error is raised; no fault becomes a zero."""

from __future__ import annotations

import gzip
import threading
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

import storefs
from storefs.transport import objects
from storefs_codecs.errors import DecodeError
from tests.http_server import Faults, FolderServer, Reply
from tests.layers import Sharded, name_of, voxels, write_layer

CHUNK_PATH = "/1_1_1/16-32_0-16_0-16"
RETRIED = (408, 425, 429, 500, 502, 503, 504, 520)
FINAL = (400, 402, 405, 409, 412, 418, 501, 505)


def chunks(path: str) -> bool:
    return "1_1_1" in path


def one_chunk(path: str) -> bool:
    return path == CHUNK_PATH


def info(path: str) -> bool:
    return path == "/info"


def test_a_healthy_server_gives_the_voxels(server, layer, read, road):
    """Every voxel arrives, and gzip is accepted for whole objects."""
    assert np.array_equal(read(server.url), layer.volume)
    assert {headers["accept-encoding"] for headers in server.headers} == {"gzip"}


# statuses


@pytest.mark.parametrize("status", RETRIED)
def test_a_passing_fault_is_retried(server, layer, read, road, status):
    """A server that fails once for every way of failing is asked again and the data are whole."""
    server.faults = Faults(one_chunk, status=status, times=1)
    assert np.array_equal(read(server.url), layer.volume)
    assert server.requests[CHUNK_PATH] == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_lasting_fault_is_raised_after_the_retries(server, read, road, status):
    """A server that always fails is asked 1 + retries times, then a ServerFault names chunk, address and status."""
    server.faults = Faults(one_chunk, status=status)
    with pytest.raises(storefs.ServerFault, match=str(status)) as caught:
        read(server.url)
    assert server.requests[CHUNK_PATH] == 3 + (road == "obstore" and status in (429, 503))
    assert caught.value.chunk == CHUNK_PATH[1:]
    assert caught.value.url == server.url + CHUNK_PATH
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("status", FINAL)
def test_a_status_that_will_not_pass_is_raised_at_once(server, read, road, status):
    """What asking again cannot mend is not asked again."""
    server.faults = Faults(one_chunk, status=status)
    with pytest.raises(storefs.ServerFault, match=str(status)):
        read(server.url)
    assert server.requests[CHUNK_PATH] == 1


@pytest.mark.parametrize("status", [404, 410])
def test_an_absent_chunk_is_the_fill_value(server, layer, read, road, status):
    """404 and 410 for a chunk mean that it is not stored: its voxels are 0, all others as stored."""
    server.faults = Faults(one_chunk, status=status)
    expected = layer.volume.copy()
    expected[:16, :16, 16:32] = 0
    assert np.array_equal(read(server.url), expected)
    with pytest.raises(storefs.MissingChunk, match="16-32_0-16_0-16"):
        read(server.url, missing="error")


@pytest.mark.parametrize("status", [404, 410])
def test_an_absent_info_is_no_volume(server, read, road, status):
    """404 for the info raises NoSuchVolume, with the address."""
    server.faults = Faults(info, status=status)
    with pytest.raises(storefs.NoSuchVolume, match=server.url):
        read(server.url)


@pytest.mark.parametrize("status", RETRIED[2:5])
def test_a_failing_info_is_no_absent_volume(server, read, road, status):
    """A server that fails on the info raises ServerFault, no FileNotFoundError, also through zarr."""
    import zarr

    server.faults = Faults(info, status=status)
    with pytest.raises(storefs.ServerFault, match=str(status)):
        read(server.url)
    with pytest.raises(storefs.ServerFault, match=str(status)):
        zarr.open(f"precomputed://{server.url}", storage_options={"retries": 0})


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_refusal_says_what_was_tried(server, read, road, status):
    """401 and 403 raise Refused, which names the status, what was tried, and the way out."""
    server.faults = Faults(chunks, status=status)
    with pytest.raises(storefs.Refused, match=rf"\({status}\); tried: no credentials") as caught:
        read(server.url)
    assert 'forbidden="missing"' in str(caught.value)
    assert isinstance(caught.value, PermissionError)
    server.faults = Faults(info, status=status)
    with pytest.raises(storefs.Refused):
        read(server.url)


def test_a_forbidden_chunk_may_mean_missing(server, layer, read, road):
    """forbidden="missing" reads 403 as absent, but only 403, and only from a server that let us in before."""
    server.faults = Faults(one_chunk, status=403)
    expected = layer.volume.copy()
    expected[:16, :16, 16:32] = 0
    assert np.array_equal(read(server.url, forbidden="missing"), expected)
    server.faults = Faults(one_chunk, status=401)
    with pytest.raises(storefs.Refused):
        read(server.url, forbidden="missing")
    server.faults = Faults(info, status=403)
    with pytest.raises(storefs.Refused):
        read(server.url, forbidden="missing")


# waiting


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(server, layer, read, road, as_date, monkeypatch):
    """A server that asks for a pause, in seconds or as a date, is not asked again before the pause is over."""
    monkeypatch.setattr(objects, "_SLOW_DOWN_WAIT", 1.0)
    server.faults = Faults(one_chunk, status=429, times=2, retry_after=2.0 if as_date else 1.2, retry_as_date=as_date)
    assert np.array_equal(read(server.url, retries=3), layer.volume)
    times = [asked.at for asked in server.asked if asked.path == CHUNK_PATH]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.99
    assert times[2] - times[1] >= 0.99


def test_only_the_busy_server_slows_down(server, layer, read, road):
    """Chunks that were not refused do not wait for the one that was."""
    server.faults = Faults(one_chunk, status=503, times=2, retry_after=1.0)
    started = time.monotonic()
    assert np.array_equal(read(server.url), layer.volume)
    assert 0.9 < time.monotonic() - started < 4
    others = [asked.at for asked in server.asked if asked.path != CHUNK_PATH]
    assert max(others) - min(others) < 0.9


def test_retry_after_without_sense_is_no_obstacle(server, layer, read, road):
    """A Retry-After that is neither a number nor a date is passed over."""
    refusals = iter([Reply(503, headers={"Retry-After": "soon"}), Reply(429, headers={"Retry-After": "-7"})])
    server.reply = lambda asked: next(refusals, None) if asked.path == CHUNK_PATH else None
    assert np.array_equal(read(server.url, retries=3), layer.volume)


@pytest.mark.parametrize("fault", [{"delay": 1.2}, {"stall": 1.2}])
def test_a_slow_server_times_out(server, read, road, fault):
    """No byte for `timeout` seconds raises TimedOut, after as many retries as were allowed."""
    server.faults = Faults(one_chunk, **fault)
    with pytest.raises(storefs.TimedOut, match=r"0\.4 s") as caught:
        read(server.url, timeout=0.4, retries=1)
    assert isinstance(caught.value, TimeoutError)
    assert server.requests[CHUNK_PATH] == 2


def test_timeouts_are_retried_twice_at_most(server, read, road):
    """Each time-out costs its whole time, so not all the retries are spent on them."""
    server.faults = Faults(one_chunk, delay=0.6)
    with pytest.raises(storefs.TimedOut):
        read(server.url, timeout=0.2, retries=9)
    assert server.requests[CHUNK_PATH] == 3


def test_a_slow_answer_in_time_is_read(server, layer, read, road):
    """Slowness below the time-out costs nothing but time."""
    server.faults = Faults(chunks, delay=0.2, stall=0.1)
    assert np.array_equal(read(server.url, timeout=2), layer.volume)


# broken connections and bodies


@pytest.mark.parametrize("fault", [{"reset": True}, {"cut_body": True}, {"lie_length": 10}])
def test_a_broken_connection_is_retried_then_raised(server, layer, read, road, fault):
    """A connection that breaks before or within the body is tried again; if it always breaks, ServerFault."""
    server.faults = Faults(one_chunk, times=1, **fault)
    assert np.array_equal(read(server.url), layer.volume)
    server.faults = Faults(one_chunk, **fault)
    with pytest.raises(storefs.ServerFault, match="16-32_0-16_0-16"):
        read(server.url)


def test_a_length_that_is_too_small_is_noticed(server, read, road):
    """A Content-Length below the truth cuts the chunk short, which is an error, never zeros."""
    server.faults = Faults(one_chunk, lie_length=-10)
    with pytest.raises((DecodeError, storefs.ServerFault), match="16-32_0-16_0-16"):
        read(server.url)


def test_a_server_that_is_gone_is_named(layer, read, road):
    """Nobody listening raises ServerFault with the address, for the info and later."""
    with FolderServer(layer.root) as running:
        url = running.url
        array = storefs.open_array(f"precomputed://{url}", retries=1)
    with pytest.raises(storefs.ServerFault, match=url):
        array[...]
    with pytest.raises(storefs.ServerFault, match="refused"):
        read(url)


def test_a_host_that_does_not_exist_is_an_error(read, road):
    """A name that cannot be resolved raises ServerFault, not NoSuchVolume."""
    with pytest.raises(storefs.ServerFault):
        read("http://no-such-host.invalid/layer", retries=0)


# wrong answers with status 200


def test_a_web_page_is_no_info(server, read, road):
    """A log-in page in place of the info raises MetadataError that says so."""
    server.faults = Faults(info, html=True)
    with pytest.raises(storefs.MetadataError, match="web page"):
        read(server.url)


def test_a_web_page_is_no_chunk(server, read, road):
    """A log-in page in place of a chunk raises, naming the chunk."""
    server.faults = Faults(one_chunk, html=True)
    with pytest.raises((DecodeError, storefs.ServerFault), match="16-32_0-16_0-16"):
        read(server.url)


def test_an_oversize_object_is_refused_before_it_is_read(server, read, road):
    """An object that is said to be far longer than its chunk can be is refused, and not asked for again."""
    server.faults = Faults(one_chunk, lie_length=1 << 40)
    with pytest.raises((DecodeError, storefs.ServerFault), match=r"1099511631872"):
        read(server.url)
    assert server.requests[CHUNK_PATH] == 1


def test_an_endless_body_is_refused(server, layer, read, road):
    """Without a length, reading stops as soon as the object is longer than its chunk can be."""
    (layer.root / CHUNK_PATH[1:]).write_bytes(bytes(64 << 20))
    server.chunked = True
    with pytest.raises((DecodeError, storefs.ServerFault), match="longer than"):
        read(server.url)


# encodings


def test_answers_without_length_are_read(server, layer, read, road):
    """Chunked answers carry no Content-Length; they are read, and obstore is not asked in vain for long."""
    server.chunked = True
    assert np.array_equal(read(server.url), layer.volume)
    wasted = sum(server.requests.values()) - 13
    assert wasted <= (13 if road == "obstore" else 0)  # info, and all that were under way when it was learnt


@pytest.mark.parametrize("chunked", [False, True])
def test_gzip_stored_objects_are_unpacked(server, layer, read, road, chunked):
    """Info and chunks stored with Content-Encoding gzip read as if stored plainly."""
    server.gzip_stored = lambda path: True
    server.chunked = chunked
    assert np.array_equal(read(server.url), layer.volume)


def test_objects_unpacked_on_the_way_are_read(server, layer, read, road):
    """A server that unpacks stored gzip for those who do not accept it sees that we do."""
    server.gzip_stored = chunks
    server.transcode = True
    assert np.array_equal(read(server.url), layer.volume)
    assert all("gzip" in asked.headers["accept-encoding"] for asked in server.asked)


@pytest.mark.parametrize("declared", [True, False])
def test_brotli_and_undeclared_gzip(tmp_path: Path, read, road, declared):
    """Brotli is undone where declared; gzip that nobody declares is recognised."""
    volume = voxels((20, 20, 20))
    encode = (lambda data: bytes(imagecodecs.brotli_encode(data))) if declared else gzip.compress
    write_layer(tmp_path / "wrapped", volume, (16, 16, 16), wrap=encode)
    with FolderServer(
        tmp_path / "wrapped", encoding=lambda path: "br" if declared and chunks(path) else None
    ) as running:
        assert np.array_equal(read(running.url), volume)


def test_gzip_that_is_cut_is_no_chunk(server, read, road):
    """Half a gzip stream raises, naming the chunk."""
    data = gzip.compress(bytes(4096))
    server.reply = lambda asked: (
        Reply(200, data[: len(data) // 2], {"Content-Encoding": "gzip"}) if asked.path == CHUNK_PATH else None
    )
    with pytest.raises((DecodeError, storefs.ServerFault), match="16-32_0-16_0-16"):
        read(server.url)


# ranges


@pytest.fixture
def sharded(tmp_path: Path):
    volume = voxels((40, 40, 40))
    root = tmp_path / "sharded"
    write_layer(root, volume, (8, 8, 8), sharded=Sharded(shard_bits=1))
    with FolderServer(root) as running:
        yield running, volume


def shards(path: str) -> bool:
    return path.endswith(".shard")


def test_a_server_that_ignores_ranges_is_read(sharded, read, road):
    """The whole file in answer to a range: the part asked for is cut out."""
    server, volume = sharded
    server.faults = Faults(shards, ignore_range=True)
    assert np.array_equal(read(server.url), volume)


@pytest.mark.parametrize(
    "fault", [{"cut_body": True}, {"lie_length": -3}, {"html": True}, {"status": 416}, {"status": 500}]
)
def test_a_fault_in_a_range_is_no_absent_chunk(sharded, read, road, fault):
    """Faults of shard reads raise: index or data cut short, web pages, ranges refused."""
    server, _ = sharded
    server.faults = Faults(shards, **fault)
    with pytest.raises((DecodeError, storefs.ServerFault)):
        read(server.url, retries=1)


def test_blanks_are_no_empty_minishard(sharded, read, road):
    """A page whose blanks would read as "minishard 0 is empty" is recognised as a page."""
    server, _ = sharded
    page = Reply(200, b" " * 1000 + b"<html>", {"Content-Type": "text/html"})
    server.reply = lambda asked: page if shards(asked.path) else None
    with pytest.raises((DecodeError, storefs.ServerFault)):
        read(server.url, retries=0)


def test_the_wrong_range_is_noticed(sharded, read, road):
    """An answer that declares other bytes than those asked for raises."""
    server, _ = sharded
    wrong = Reply(206, bytes(64), {"Content-Range": "bytes 64-127/100000"})
    server.reply = lambda asked: wrong if shards(asked.path) else None
    with pytest.raises((DecodeError, storefs.ServerFault)):
        read(server.url, retries=0)


def test_a_range_not_satisfiable_for_a_whole_object_is_an_error(server, read, road):
    """416 in answer to no range at all is a fault, not an empty object."""
    server.faults = Faults(one_chunk, status=416)
    with pytest.raises(storefs.ServerFault, match="416"):
        read(server.url)


def test_a_part_is_no_whole(server, read, road):
    """206 in answer to no range at all raises: the chunk would be incomplete."""
    part = Reply(206, bytes(100), {"Content-Range": "bytes 0-99/4096"})
    server.reply = lambda asked: part if asked.path == CHUNK_PATH else None
    with pytest.raises((DecodeError, storefs.ServerFault)):
        read(server.url, retries=0)


# redirects


def test_redirects_are_followed(server, layer, read, road):
    """Another port serves what the first redirects to."""
    with FolderServer(layer.root) as other:
        server.faults = Faults(lambda path: True, redirect_to=other.url)
        assert np.array_equal(read(server.url), layer.volume)
        assert sum(other.requests.values()) == 13


def test_secrets_stay_with_their_host(server, layer, read, road):
    """Headers given go to the server named and to no other it redirects to."""
    given = {"Authorization": "Bearer s3cret", "X-Token": "s3cret"}
    with FolderServer(layer.root) as other:
        server.faults = Faults(chunks, redirect_to=other.url)
        assert np.array_equal(read(server.url, headers=given), layer.volume)
        assert all(headers["x-token"] == "s3cret" for headers in server.headers)
        assert all(headers["authorization"] == "Bearer s3cret" for headers in server.headers)
        assert not any("s3cret" in str(headers) for headers in other.headers)


def test_headers_follow_a_redirect_within_the_host(server, layer, read, road):
    """A redirect to another path of the same server keeps the headers."""
    server.reply = lambda asked: (
        Reply(302, headers={"Location": asked.path.removeprefix("/old")}) if asked.path.startswith("/old") else None
    )
    assert np.array_equal(read(f"{server.url}/old", headers={"X-Token": "s3cret"}), layer.volume)
    assert all(headers["x-token"] == "s3cret" for headers in server.headers)


def test_the_query_goes_with_every_request(server, layer, read, road, monkeypatch):
    """What storefs does not know in a web address's query is the server's; variables are filled in late."""
    monkeypatch.setenv("LAYER_TOKEN", "s3cret")
    assert np.array_equal(read(f"{server.url}?sig=$LAYER_TOKEN"), layer.volume)
    assert {asked.query for asked in server.asked} == {"sig=s3cret"}


def test_a_secret_query_shows_nowhere(server, read, road):
    """Errors do not tell the query."""
    server.faults = Faults(one_chunk, status=500)
    with pytest.raises(storefs.ServerFault) as caught:
        read(f"{server.url}?sig=s3cret")
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not any("s3cret" in str(error) for error in chain)


def test_endless_redirects_end(server, read, road):
    """A server that redirects to itself raises ServerFault without retries."""
    server.faults = Faults(info, redirect_to=server.url)
    with pytest.raises(storefs.ServerFault, match="redirect"):
        read(server.url)
    assert server.requests["/info"] < 15


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:1"])
def test_redirects_lead_to_web_servers_only(server, read, road, target):
    """A redirect to a file, to another protocol or to nobody is a ServerFault."""
    server.faults = Faults(one_chunk, redirect_to=target)
    with pytest.raises(storefs.ServerFault):
        read(server.url, retries=0)


def test_a_redirect_without_target_is_an_error(server, read, road):
    """301 without Location is no absent chunk."""
    server.faults = Faults(one_chunk, status=301)
    with pytest.raises(storefs.TransportError):
        read(server.url)


# addresses


@pytest.mark.parametrize("folder", ["we ird", "a%20b", "a+b", "ü", "a#b", "x:y@z", "q?r"])
def test_unusual_names_are_escaped(tmp_path: Path, read, road, folder):
    """Folders whose names need escaping are found, on both roads by the same address."""
    from urllib.parse import quote

    volume = voxels((8, 8, 8))
    write_layer(tmp_path / folder, volume, (8, 8, 8), key=f"k {folder}")
    with FolderServer(tmp_path) as running:
        assert np.array_equal(read(f"{running.url}/{quote(folder)}"), volume)
        assert name_of((0, 0, 0), (8, 8, 8), (8, 8, 8)) in running.asked[-1].path


def test_two_slashes_in_an_address(tmp_path: Path, layer, read, road):
    """An address that obstore cannot express is asked for all the same."""
    write_layer(tmp_path / "a" / "b", layer.volume, (16, 16, 16))
    with FolderServer(tmp_path) as running:
        assert np.array_equal(read(f"{running.url}/a//b"), layer.volume)
        assert all(asked.path.startswith("/a//b/") for asked in running.asked)


def test_opening_within_a_running_event_loop(server, layer, road):
    """storefs.open_array works where an event loop is running in this thread, as in a notebook."""
    import asyncio

    async def notebook() -> bool:
        return np.array_equal(storefs.open_array(f"precomputed://{server.url}")[...], layer.volume)

    assert asyncio.run(notebook())


def test_many_threads_share_one_array(server, layer, road):
    """Threads reading one array at once all get the voxels."""
    array = storefs.open_array(f"precomputed://{server.url}")
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(np.array_equal(array[...], layer.volume))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


@pytest.mark.parametrize(
    "target", ["zip://layer::file:///tmp/x.zip", "simplecache::file:///etc", "memory://x", "reference://"]
)
def test_an_info_does_not_lead_into_the_reader(server, read, road, target):
    """An info on the network that redirects to what may be a local file, in whatever disguise, raises UrlError."""
    server.reply = lambda asked: Reply(200, f'{{"redirect": "{target}"}}'.encode(), {"ETag": '"x"'})
    with pytest.raises(storefs.UrlError, match="redirect"):
        read(server.url)
