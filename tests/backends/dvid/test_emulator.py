"""The stateful emulator against exchanges recorded from a real server, and by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.backends.dvid import label_block
from tests.backends.dvid.asking import Answer, Asker, Lab, one_record
from tests.backends.dvid.comparing import difference, left_out
from tests.backends.dvid.emulator import ADMIN_TOKEN, DvidEmulator
from tests.backends.dvid.replay import Exchange, load
from tests.backends.dvid.wire import gzip_member, lz4_compress, parse_records

GOLDEN = Path(__file__).parents[3] / "../shared/golden/dvid"
LEVELS = {str(n): {"Resolution": [10.0 * 2**n] * 3, "TileSize": [64.0] * 3} for n in range(2)}
COMPARED = {"setup": 150, "read": 795, "error": 187, "throttle": 12, "write": 227, "crash": 37}


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An emulator with one repository."""
    with DvidEmulator() as server:
        lab = Lab(server)
        yield lab
        lab.ask.close()


def ask_again(ask: Asker, exchange: Exchange) -> Answer:
    sent = dict(exchange.data["request_headers"])
    chunked = sent.pop("Transfer-Encoding", None) is not None
    sent.pop("Content-Length", None)
    body = exchange.request_body or (b"" if exchange.data["method"] == "POST" else None)
    return ask(exchange.data["method"], exchange.target, body, chunked=chunked, **sent)


def prepare(server: DvidEmulator, exchange: Exchange) -> None:
    """What the recorder did besides sending requests."""
    if str(exchange) == "read-0151":
        for name in ("tiles_png", "tiles_jpg"):
            server.generate_tiles("5f2c9a", name, LEVELS)
    if exchange.data["group"] == "crash" and "/api/repos" in exchange.target:
        server.api.repos.clear()
    if exchange.target.endswith("/newversion") and exchange.status == 200:
        server.api.fresh_uuid = lambda: str(exchange.body.decode().split('"')[3])


def test_says_what_a_real_server_said() -> None:
    """Replayed from an empty server, every recorded exchange that is compared gets the same status and content."""
    if not GOLDEN.is_dir():
        pytest.skip("../shared/golden/dvid not found")
    agreed: Counter[str] = Counter()
    wrong = []
    with DvidEmulator() as server, Asker(server.port) as ask:
        for exchange in load(GOLDEN):
            prepare(server, exchange)
            if exchange.status == 503:
                with server.busy():
                    answer = ask_again(ask, exchange)
            else:
                answer = ask_again(ask, exchange)
            server.revive()
            found = None if left_out(exchange) else difference(exchange, answer.status, answer.body)
            if found:
                wrong.append(f"{exchange} {exchange.target[-100:]}: {found}")
            elif not left_out(exchange):
                agreed[exchange.data["group"]] += 1
    assert not wrong, "\n".join(wrong)
    assert agreed == COMPARED


def test_repositories_need_the_token_unless_the_server_is_old() -> None:
    """Creating a repository is refused without the admin token, but not by servers before June 2026."""
    with DvidEmulator() as server, Asker(server.port) as ask:
        refused = ask("POST", "/api/repos", {"alias": "a"})
        assert (refused.status, "admin" in refused.words) == (400, True)
    with DvidEmulator(admin_needed=False) as server, Asker(server.port) as ask:
        assert ask("POST", "/api/repos", {"alias": "a"}).status == 200


def test_versions_copy_on_write(lab: Lab) -> None:
    """A child reads its parent's blocks until it writes its own, and the parent keeps what it had."""
    lab.make("gray", "uint8blk", BlockSize="16,16,16")
    path = "gray/raw/0_1_2/32_16_16/0_0_0"
    lab.post(path, bytes([1]) * 8192)
    child = lab.commit()
    assert set(lab.get(path, child).body) == {1}
    lab.post("gray/raw/0_1_2/16_16_16/16_0_0", bytes([2]) * 4096, child)
    assert set(lab.get(path).body) == {1}
    assert lab.voxels(path, (16, 16, 32), node=f"{lab.root[:6]}:master")[0, 0, [0, 31]].tolist() == [1, 2]
    assert set(lab.get(path, f"{lab.root}:master~1").body) == {1}


def test_extents_are_by_version_for_images_and_shared_for_labelmaps(lab: Lab) -> None:
    """An image's child inherits and grows its own box; a labelmap's box takes in what another branch wrote."""
    lab.make("gray", "uint8blk", BlockSize="16,16,16")
    lab.make("seg", "labelmap", BlockSize="16,16,16")
    child = lab.commit()
    side = lab.post("branch", {"branch": "side"}).json["child"]
    for name, size in (("gray", 1), ("seg", 8)):
        lab.post(f"{name}/raw/0_1_2/16_16_16/0_0_0", bytes([1]) * 4096 * size, child)
        lab.post(f"{name}/raw/0_1_2/16_16_16/64_0_0", bytes([1]) * 4096 * size, side)
    boxes = {name: lab.get(f"{name}/info", side).json["Extended"]["MinPoint"] for name in ("gray", "seg")}
    assert boxes == {"gray": [64, 0, 0], "seg": [0, 0, 0]}


def test_creation_extents_vanish_and_posted_ones_stay(lab: Lab) -> None:
    """Extents given at creation are replaced by the first posted box; those posted to `extents` only grow."""
    for name in ("made", "posted"):
        lab.make(name, "uint8blk", BlockSize="16,16,16", MinPoint="0,0,0", MaxPoint="99,49,9")
    lab.post("posted/extents", {"MinPoint": [0, 0, 0], "MaxPoint": [99, 49, 9]})
    for name in ("made", "posted"):
        lab.post(f"{name}/raw/0_1_2/16_16_16/16_0_0", bytes(4096))
    found = {name: lab.get(f"{name}/info").json["Extended"]["MaxPoint"] for name in ("made", "posted")}
    assert found == {"made": [31, 15, 15], "posted": [99, 49, 15]}


def test_locked_versions_refuse_writes(lab: Lab) -> None:
    """A committed version refuses writes, but for unversioned instances and with the admin token."""
    lab.make("kv", "keyvalue")
    lab.make("loose", "keyvalue", versioned="false")
    lab.commit()
    refused = lab.post("kv/key/a", b"1")
    assert (refused.status, "locked node" in refused.words) == (400, True)
    assert lab.post("loose/key/a", b"1").status == 200
    assert lab.post(f"kv/key/a?admintoken={ADMIN_TOKEN}", b"1").status == 200


def test_missing_data_reads_three_ways(lab: Lab) -> None:
    """Missing blocks are 0 from raw, the Background byte from blocks, and left out of specificblocks."""
    lab.make("deep", "uint16blk", BlockSize="16,16,16", Background="3")
    assert not any(lab.get("deep/raw/0_1_2/16_16_16/0_0_0").body)
    assert (lab.voxels("deep/blocks/0_0_0/1", (16, 16, 16), "<u2") == 0x0303).all()
    assert lab.get("deep/specificblocks?blocks=0,0,0").body == b""


def test_wide_voxels_posted_as_blocks_end_the_server(lab: Lab) -> None:
    """POST blocks of uint16 stores half blocks with status 200; the next raw read ends the server for everybody."""
    lab.make("deep", "uint16blk", BlockSize="16,16,16")
    raw = "deep/raw/0_1_2/16_16_16/0_0_0"
    assert lab.post("deep/blocks/0_0_0/1", bytes(8192)).status == 200
    assert lab.get(raw).status is None
    assert lab.server.dead
    assert lab.ask("GET", "/api/heartbeat").status is None
    lab.server.revive()
    lab.post(raw, bytes([7]) * 8192)
    assert set(lab.get(raw).body) == {7}


def test_a_single_missing_label_block_fails(lab: Lab) -> None:
    """Labelmap raw of exactly one missing block is 500, or 400 with a compression, and zeros on old servers."""
    lab.make("seg", "labelmap", BlockSize="16,16,16")
    raw = "seg/raw/0_1_2/16_16_16/16_0_0"
    assert [lab.get(raw + query).status for query in ("", "?compression=lz4")] == [500, 400]
    assert lab.get("seg/raw/0_1_2/16_16_17/16_0_0").status == 200
    lab.server.single_missing_block_fails = False
    assert lab.get(raw).status == 200


def test_label_counts_double_unless_mutated(lab: Lab) -> None:
    """Only raw with mutate=true keeps sizes right when data are written twice; the voxels are right always."""
    lab.make("seg", "labelmap", BlockSize="16,16,16")
    labels = np.full((16, 16, 16), 5, "<u8")
    raw, sizes = "seg/raw/0_1_2/16_16_16/0_0_0", []
    block = one_record((0, 0, 0), gzip_member(label_block.encode(labels)))
    for path, body in (
        (f"{raw}?mutate=true", labels.tobytes()),
        (f"{raw}?mutate=true&compression=lz4", lz4_compress(labels.tobytes())),
        (raw, labels.tobytes()),
        ("seg/blocks", block),
        (f"{raw}?mutate=true", (labels + 1).tobytes()),
    ):
        assert lab.post(path, body).status == 200
        sizes.append(lab.get("seg/size/5").body)
    assert sizes == [b'{"voxels": %d}' % (4096 * n) for n in (1, 1, 2, 3, 2)]
    assert (lab.voxels(raw, (16, 16, 16), "<u8") == 6).all()


def test_a_bad_record_leaves_the_blocks_before_it(lab: Lab) -> None:
    """A stream that breaks off is refused, yet its first blocks are stored, without extents and index."""
    lab.make("seg", "labelmap", BlockSize="16,16,16")
    good = one_record((0, 0, 0), gzip_member(label_block.encode(np.full((16, 16, 16), 5, np.uint64))))
    assert lab.post("seg/blocks", good + one_record((1, 0, 0), b"no gzip")).status == 400
    assert set(lab.voxels("seg/raw/0_1_2/16_16_16/0_0_0", (4096,), "<u8")) == {5}
    assert (lab.get("seg/size/5").status, lab.get("seg/info").json["Extents"]["MinPoint"]) == (404, None)


def test_bodies_are_read_and_supervoxels_written(lab: Lab) -> None:
    """After a merge labels read as their body, unless supervoxels are asked for."""
    lab.make("seg", "labelmap", BlockSize="16,16,16", MaxDownresLevel="1")
    labels = np.repeat(np.array([10, 20], "<u8"), 8) * np.ones((16, 16, 1), "<u8")
    raw = "seg/raw/0_1_2/16_16_16/0_0_0"
    lab.post(f"{raw}?mutate=true", labels.tobytes())
    assert lab.post("seg/merge", [10, 20]).status == 200
    assert set(lab.voxels(raw, (16, 16, 16), "<u8").flat) == {10}
    assert (lab.voxels(f"{raw}?supervoxels=true", (16, 16, 16), "<u8") == labels).all()
    halved = lab.voxels("seg/raw/0_1_2/8_8_8/0_0_0?scale=1&supervoxels=true", (8, 8, 8), "<u8")
    assert halved[0, 0].tolist() == [10] * 4 + [20] * 4
    (member,) = parse_records(lab.get("seg/specificblocks?blocks=0,0,0").body).values()
    assert member[:2] == b"\x1f\x8b"


def test_keys_end_at_a_slash(lab: Lab) -> None:
    """Keys are one path segment, an empty value is there for HEAD and not for GET, ranges depend on the release."""
    lab.make("kv", "keyvalue")
    lab.post("kv/key/c/0/1", b"one")
    lab.post("kv/key/c%2F2", b"0123456789")
    assert lab.get("kv/keys").json == ["c"]
    part = lab.get("kv/key/c", Range="bytes=2-4")
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    lab.server.honours_ranges = False
    assert lab.get("kv/key/c", Range="bytes=2-4").status == 200
    lab.post("kv/key/void", b"")
    head = lab.ask("HEAD", lab.at("kv/key/void"))
    assert (head.status, "content-length" in head.headers, lab.get("kv/key/void").status) == (200, False, 404)


def test_runs_of_labels_at_negative_y_end_the_server(lab: Lab) -> None:
    """Sparsevol as runs is right at negative x and fatal at negative y; binary blocks are right at both."""
    lab.make("seg", "labelmap", BlockSize="16,16,16")
    lab.post("seg/raw/0_1_2/16_16_16/-16_0_0?mutate=true", np.full(4096, 5, "<u8").tobytes())
    lab.post("seg/raw/0_1_2/16_16_16/0_-16_0?mutate=true", np.full(4096, 6, "<u8").tobytes())
    assert len(lab.get("seg/sparsevol/5").body) == 12 + 256 * 16
    assert lab.get("seg/sparsevol/6?format=blocks").status == 200
    assert lab.get("seg/sparsevol/6").status is None


def test_masks_compare_block_indices_without_scaling(lab: Lab) -> None:
    """A roi of 32-blocks masks an image of 16-blocks by index, so in the wrong place."""
    lab.make("gray", "uint8blk", BlockSize="16,16,16", Background="9")
    lab.make("part", "roi")
    lab.post("gray/raw/0_1_2/32_16_16/0_0_0", bytes([1]) * 8192)
    lab.post("part/roi", [[0, 0, 0, 0]])
    row = lab.voxels("gray/raw/0_1_2/32_1_1/0_0_0?roi=part", (32,))
    assert row.tolist() == [1] * 16 + [9] * 16
    assert lab.voxels("part/mask/0_1_2/32_1_1/0_0_0", (32,)).all()


def test_parallel_writes_all_count(lab: Lab) -> None:
    """Disjoint boxes posted at the same time are all there, and the extents hold them all."""
    lab.make("gray", "uint8blk", BlockSize="16,16,16")

    def write(number: int) -> int | None:
        path = lab.at(f"gray/raw/0_1_2/16_16_16/{16 * number}_0_0")
        with Asker(lab.server.port) as ask:
            return ask("POST", path, bytes([number + 1]) * 4096).status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(16))) == {200}
    row = lab.voxels("gray/raw/0_1_2/256_1_1/0_0_0", (256,))
    assert row.tolist() == [n // 16 + 1 for n in range(256)]
    assert lab.get("gray/info").json["Extents"] == {"MinPoint": [0, 0, 0], "MaxPoint": [255, 15, 15]}
