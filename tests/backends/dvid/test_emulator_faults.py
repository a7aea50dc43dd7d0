"""Faults, throttling, transport and the record of the emulator; the replay server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.backends.dvid.asking import Asker, Lab
from tests.backends.dvid.emulator import DvidEmulator
from tests.backends.dvid.faults import Fault
from tests.backends.dvid.replay import ReplayServer, load

GOLDEN = Path(__file__).parents[3] / "../shared/golden/dvid"
RAW = "gray/raw/0_1_2/16_16_16/0_0_0"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An emulator with one image of one block."""
    with DvidEmulator() as server:
        found = Lab(server)
        found.make("gray", "uint8blk", BlockSize="16,16,16")
        found.post(RAW, bytes([3]) * 4096)
        server.record.forget()
        yield found
        found.ask.close()


def test_busy_for_a_while(lab: Lab) -> None:
    """A fault with `times` answers so often and then lets the server speak."""
    lab.server.faults = [Fault(status=503, times=2)]
    assert [lab.get(RAW).status for _ in range(3)] == [503, 503, 200]


def test_faults_choose_their_requests(lab: Lab) -> None:
    """A fault touches only what `where` accepts."""
    lab.server.faults = [Fault(where=lambda asked: "raw" in asked.path, status=500, text="oh")]
    assert (lab.get(RAW).words, lab.get("gray/info").status) == ("oh", 200)


def test_bodies_can_be_spoilt(lab: Lab) -> None:
    """Cut bodies break the connection; shortened ones and those with a text behind look well to HTTP."""
    lab.server.faults = [Fault(cut=True, times=1), Fault(shorten=10, times=1), Fault(append="broken (x).\n", times=1)]
    assert "Incomplete" in lab.get(RAW).words
    assert len(lab.get(RAW).body) == 4086
    appended = lab.get(RAW)
    assert (appended.status, appended.body[4096:]) == (200, b"broken (x).\n")


def test_connections_can_be_reset(lab: Lab) -> None:
    """A reset ends the connection before any answer."""
    lab.server.faults = [Fault(reset=True, times=1)]
    assert lab.get(RAW).status is None
    assert lab.get(RAW).status == 200


def test_slow_answers(lab: Lab) -> None:
    """A delay passes before the answer."""
    lab.server.faults = [Fault(delay=0.2, times=1)]
    start = time.monotonic()
    lab.get(RAW)
    assert time.monotonic() - start >= 0.2


def test_throttled_requests_are_refused_while_others_run(lab: Lab) -> None:
    """Throttled volumes are refused while all slots are taken; planes, blocks and unflagged requests are not."""
    with lab.server.busy():
        refused = lab.get(f"{RAW}?throttle=on")
        assert (refused.status, refused.words) == (503, "Server already running 1 throttled operations (max = 1)\n\n")
        assert "retry-after" not in refused.headers
        others = [RAW, "gray/raw/0_1/16_16/0_0_0?throttle=on", "gray/blocks/0_0_0/1?throttle=on"]
        assert [lab.get(path).status for path in others] == [200] * 3
    assert lab.get(f"{RAW}?throttle=on").status == 200
    assert lab.get(f"{RAW}?throttle=on").status == 200


def test_remembers_what_it_was_asked(lab: Lab) -> None:
    """Requests, bytes both ways and the most at once are counted until forgotten."""
    lab.get(RAW, X_Test="yes")
    lab.post(RAW, bytes(4096))
    record = lab.server.record
    assert record.counts == {("GET", lab.at(RAW)): 1, ("POST", lab.at(RAW)): 1}
    assert (record.bytes_in, record.bytes_out, record.most_at_once) == (4096, 4096, 1)
    assert (record.requests[0].headers["x-test"], record.requests[1].status) == ("yes", 200)
    lab.server.latency = 0.1
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: heartbeat(lab), range(4)))
    assert record.most_at_once >= 2
    record.forget()
    assert record.requests == []


def heartbeat(lab: Lab) -> int | None:
    with Asker(lab.server.port) as ask:
        return ask("GET", "/api/heartbeat").status


def test_transport(lab: Lab) -> None:
    """Large bodies have no length, small ones have; requests may be chunked; long addresses pass."""
    assert "content-length" not in lab.get(RAW).headers
    assert lab.ask("GET", "/api/heartbeat").headers["content-length"] == "2"
    assert lab.ask("POST", lab.at(RAW), bytes([9]) * 4096, chunked=True).status == 200
    assert set(lab.get(RAW).body) == {9}
    wanted = ",".join(f"{n},7,7" for n in range(20_000))
    assert lab.get(f"gray/specificblocks?blocks={wanted}").status == 200
    assert lab.get("gray/info?x=" + "y" * (1 << 20)).status == 431
    moved = lab.ask("GET", "/api//heartbeat")
    assert (moved.status, moved.headers["location"]) == (301, "/api/heartbeat")


def test_what_is_not_emulated_says_so(lab: Lab) -> None:
    """Things DVID has and the emulator has not answer 501."""
    lab.make("seg", "labelmap", BlockSize="16,16,16")
    assert lab.get("seg/raw/0_1_2/16_16_8/0_0_0?compression=google").status == 501


def recorded(folder: Path) -> Path:
    """Two exchanges, made up."""
    (folder / "a.bin").write_bytes(b"first")
    (folder / "b.bin").write_bytes(b"second")
    common: dict[str, object] = {"method": "GET", "query": "q=1", "request_headers": {}, "request_body_file": None}
    common |= {"status": 200, "response_headers": {"Content-Type": "text/x", "Transfer-Encoding": "chunked"}}
    lines = [
        {**common, "id": "1", "group": "read", "path": "/one", "response_body_file": "a.bin"},
        {**common, "id": "2", "group": "write", "path": "/two", "response_body_file": "b.bin"},
    ]
    (folder / "exchanges.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def test_replays_lookups_and_sequences(tmp_path: Path) -> None:
    """Reads are answered in any order, queued groups only in theirs; the rest is 501 and remembered."""
    with ReplayServer(recorded(tmp_path), "read") as server, Asker(server.port) as ask:
        found = ask("GET", "/one?q=1")
        assert (found.body, found.headers["content-type"], found.headers["content-length"]) == (b"first", "text/x", "5")
        assert ask("GET", "/two?q=1").status == 501
        server.play("write")
        assert ask("GET", "/two?q=1").body == b"second"
        assert server.waiting == []
        assert [asked.target for asked in server.missed] == ["/two?q=1"]


def test_replays_recorded_exchanges_byte_for_byte() -> None:
    """Every recorded read and error comes back with its status, body and content type."""
    if not GOLDEN.is_dir():
        pytest.skip("../shared/golden/dvid not found")
    with ReplayServer(GOLDEN) as server, Asker(server.port) as ask:
        for exchange in load(GOLDEN, "read", "error"):
            sent = {k: v for k, v in exchange.data["request_headers"].items() if k != "Content-Length"}
            found = ask(exchange.data["method"], exchange.target, exchange.request_body or None, **sent)
            assert found.status == exchange.status, exchange
            if not exchange.data.get("volatile") and exchange.data["method"] != "HEAD":
                assert found.body == exchange.body, exchange
                assert found.headers.get("content-type") == exchange.data["response_headers"].get("Content-Type")
    assert server.missed == []
