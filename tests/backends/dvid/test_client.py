"""The typed client against the emulator: every subject, the traps, and the recorded exchanges where they are."""

from __future__ import annotations

import io
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import storefs
import storefs.dvid
from storefs.backends.dvid import runs
from storefs.backends.dvid.creating import instance_settings
from storefs.backends.dvid.info import parse_instance
from storefs.backends.dvid.planes import read_image
from storefs.errors import NoSuchVolume, ServerFault, TransportError, Unsupported, UrlError
from storefs_codecs.errors import DecodeError
from tests.backends.dvid.emulator import ADMIN_TOKEN, DvidEmulator
from tests.backends.dvid.faults import Fault

GOLDEN = Path(__file__).parents[3] / "../shared/golden/dvid"
TYPES = {
    "uint8blk": "u1",
    "uint16blk": "<u2",
    "uint32blk": "<u4",
    "uint64blk": "<u8",
    "float32blk": "<f4",
}


@pytest.fixture
def server():
    """An emulated server."""
    with DvidEmulator(admin_needed=False) as found:
        yield found


@pytest.fixture
def client(server):
    """A client of it."""
    return storefs.dvid.Client(server.url, user="tester", app="tests", retry_timeout=5)


@pytest.fixture
def uuid(client):
    """The root of a new repository."""
    return client.repos.create("brain", "for tests")


def noise(shape, dtype, seed=0):
    """Random voxels."""
    raw = np.random.default_rng(seed).integers(0, 255, size=(*shape, np.dtype(dtype).itemsize), dtype=np.uint8)
    voxels = raw.view(dtype)[..., 0]
    return np.nan_to_num(voxels) if voxels.dtype.kind == "f" else voxels


def posts(server, word):
    return [seen for seen in server.record.requests if seen.method == "POST" and word in seen.path]


# server, repositories, versions


def test_server(client, uuid):
    """Info, types, note, load and heartbeat come as values."""
    assert client.server.info()["Datastore Version"] == "0.11.0"
    assert "labelmap" in client.server.compiled_types()
    assert client.server.types() == {}
    client.instances.create(uuid, "keyvalue", "kv")
    assert set(client.server.types()) == {"keyvalue"}
    assert client.server.note() == "example server"
    assert client.server.load()["GET requests"] > 0
    assert client.server.heartbeat()


def test_repos_and_versions(client, uuid):
    """A repository grows: log, commit, new version, branch, tag, notes; every one can be read back."""
    assert client.repos.exists(uuid)
    assert not client.repos.exists("f" * 32)
    assert client.repos.info(uuid[:8])["Alias"] == "brain"
    assert set(client.repos.all()) == {uuid}
    client.repos.set_info(uuid, alias="other")
    assert client.repos.info(uuid)["Alias"] == "other"
    client.repos.add_to_log(uuid, ["a line"])
    assert client.repos.log(uuid)[-1].endswith("a line")
    assert not client.versions.is_locked(uuid)
    assert client.versions.commit(uuid, "first") == uuid
    assert client.versions.is_locked(uuid)
    assert client.versions.note(uuid) == "first"
    child = client.versions.new_version(uuid, "second", new_uuid="c" * 32)
    assert child == "c" * 32
    assert client.repos.branch_versions(uuid) == [child, uuid]
    branch = client.versions.branch(uuid, "dev")
    assert client.repos.branch_versions(uuid, "dev")[0] == branch
    client.versions.set_note(child, "changed")
    assert client.versions.note(child) == "changed"
    client.versions.add_to_log(child, ["seen"])
    assert client.versions.log(child)[-1].endswith("seen")
    assert client.versions.tag(uuid, "v1") == "v1"
    assert client.versions.is_locked("v1")


def test_what_is_not_repeatable_is_asked_once(client, server, uuid):
    """A lost answer to a request that makes something is a failure, not a second request."""
    client.versions.commit(uuid)
    client.instances.create(client.versions.new_version(uuid), "labelmap", "seg")
    server.record.forget()
    for ask in (
        lambda: client.versions.branch(uuid, "dev"),
        lambda: client.repos.create("twice"),
        lambda: client.labels.reserve(f"{uuid}:master", "seg", 3),
    ):
        server.faults = [Fault(reset=True, where=lambda asked: asked.method == "POST")]
        before = len(server.record.requests)
        with pytest.raises(TransportError):
            ask()
        assert len(server.record.requests) == before + 1
    server.faults = []


def test_options_go_with_every_request(client, server, uuid):
    """User, application and admin token are sent, and secrets do not show or travel."""
    secret = storefs.dvid.Client(server.url, token="t0ken", admin_token=ADMIN_TOKEN, user="me", app="it")
    secret.server.heartbeat()
    seen = server.record.requests[-1]
    assert "u=me&app=it" in seen.query
    assert f"admintoken={ADMIN_TOKEN}" in seen.query
    assert seen.headers["authorization"] == "Bearer t0ken"
    for shown in (repr(secret), repr(secret.connection), str(pickle.dumps(secret))):
        assert "t0ken" not in shown
        assert ADMIN_TOKEN not in shown
    copy = pickle.loads(pickle.dumps(secret))
    assert copy == secret
    assert copy.server.heartbeat()
    with pytest.raises(UrlError, match="whole server"):
        storefs.dvid.Client(f"{server.url}/{uuid}")


def test_unknown_things_say_so(client, uuid):
    """Unknown versions and instances are NoSuchVolume; other refusals are one line with the server's words."""
    with pytest.raises(NoSuchVolume, match=r"no version '99999999'.*could not find UUID"):
        client.instances.info("99999999", "gray")
    with pytest.raises(NoSuchVolume, match="no data instance 'gray' at version"):
        client.voxels.read(uuid, "gray", ((0, 0, 0), (1, 1, 1)))
    client.instances.create(uuid, "keyvalue", "kv")
    with pytest.raises(Unsupported, match="does not offer this"):
        client.labels.max_label(uuid, "kv")
    with pytest.raises(TransportError, match="already exists") as refusal:
        client.instances.create(uuid, "keyvalue", "kv")
    assert "\n" not in str(refusal.value)
    with pytest.raises(TransportError, match="not supported"):
        client.instances.create(uuid, "uint9blk", "nine")


# instances


def test_create(client, uuid):
    """Settings travel as text; what is read back is what was given."""
    client.instances.create(
        uuid,
        "labelmap",
        "seg",
        block_size=(32, 32, 32),
        voxel_size=(4, 4, 40.5),
        voxel_units="nanometers",
        min_point=(0, 0, 0),
        max_point=(99, 49, 31),
        compression="gzip:6",
        max_downres_level=2,
        indexed_labels=False,
        tags={"kind": "test"},
    )
    info = client.instances.info(uuid, "seg")
    assert info["Extended"]["BlockSize"] == [32, 32, 32]
    assert info["Extended"]["VoxelSize"] == [4, 4, 40.5]
    assert info["Extended"]["MaxDownresLevel"] == 2
    assert info["Extended"]["IndexedLabels"] is False
    assert info["Base"]["Tags"] == {"kind": "test"}
    assert client.instances.names(uuid) == {"seg": "labelmap"}
    assert client.instances.extents(uuid, "seg") == ((0, 0, 0), (99, 49, 31))
    client.instances.set_resolution(uuid, "seg", (5, 5, 50))
    assert client.instances.info(uuid, "seg")["Extended"]["VoxelSize"] == [5, 5, 50]


def test_extents_given_at_creation_outlive_the_first_write(client, uuid):
    """They are posted too, as the server forgets those of the creation at the first POST raw."""
    client.instances.create(uuid, "uint8blk", "gray", min_point=(0, 0, 0), max_point=(99, 49, 19))
    client.voxels.write(uuid, "gray", (0, 0, 0), np.ones((32, 32, 32), np.uint8))
    assert client.instances.extents(uuid, "gray") == ((0, 0, 0), (99, 49, 31))
    client.instances.set_extents(uuid, "gray", (0, 0, 0), (99, 49, 19))
    assert client.instances.extents(uuid, "gray") == ((0, 0, 0), (99, 49, 19))
    with pytest.raises(ValueError, match="lower first"):
        client.instances.set_extents(uuid, "gray", (5, 0, 0), (4, 9, 9))


@pytest.mark.parametrize(
    ("typename", "wrong", "message"),
    [
        ("grayscale8", {}, "uint8blk"),
        ("uint8blk", {"block_size": (32, 32)}, "three numbers"),
        ("labelmap", {"block_size": (40, 32, 32)}, "multiples of 16"),
        ("labelmap", {"compression": "lz4"}, "block by block"),
        ("uint8blk", {"compression": "jpeg:80"}, "quality"),
        ("uint8blk", {"background": 300}, "0 to 255"),
        ("uint8blk", {"min_point": (0, 0, 0)}, "together"),
    ],
)
def test_settings_the_server_would_regret(typename, wrong, message):
    """What a server refuses, or takes and then fails on, is refused before it is asked."""
    with pytest.raises(ValueError, match=message):
        instance_settings(typename, "name", **wrong)
    for name in ("", "a/b", "log"):
        with pytest.raises(ValueError, match="cannot name"):
            instance_settings("uint8blk", name)


def test_metadata(client, uuid):
    """VoxelsMetadata has pydvid's conveniences: stop coordinates, channel first."""
    given = storefs.dvid.VoxelsMetadata.create_default_metadata(
        (1, 100, 50, 20), np.uint16, "cxyz", (4, 4, 40), "nanometers"
    )
    assert given.shape == (1, 100, 50, 20)
    assert given.typename == "uint16blk"
    client.instances.create_from_metadata(uuid, "gray", given)
    empty = client.instances.metadata(uuid, "gray")
    assert empty.shape == (1, None, None, None)
    client.voxels.write(uuid, "gray", (-32, 0, 32), np.ones((32, 32, 64), np.uint16))
    found = client.instances.metadata(uuid, "gray")
    assert found.minindex == (0, 32, 0, -32)
    assert found.shape == (1, 96, 32, 0)
    assert found.dtype == np.uint16
    assert found.axiskeys == "cxyz"
    assert storefs.dvid.VoxelsMetadata.from_json(found.to_json()) == found
    for broken in ("{", "[]", '{"Axes": 5}', '{"Axes": [{"Label": "X", "Size": 1, "Offset": 0}], "Properties": {}}'):
        with pytest.raises(storefs.MetadataError):
            storefs.dvid.VoxelsMetadata.from_json(broken)


# voxels


@pytest.mark.parametrize("typename", TYPES)
def test_voxels_round_trip(client, uuid, typename):
    """Whole blocks are written, any box is read, of every type; what is not stored is 0."""
    client.instances.create(uuid, typename, "gray")
    voxels = noise((32, 64, 32), TYPES[typename])
    client.voxels.write(uuid, "gray", (-32, 0, 64), voxels)
    found = client.voxels.read(uuid, "gray", ((-32, 0, 64), (0, 64, 96)))
    np.testing.assert_array_equal(found, voxels)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    part = client.voxels.read(uuid, "gray", ((-40, 5, 60), (-10, 17, 70)))
    assert not part[:8].any()
    np.testing.assert_array_equal(part[8:, :, 4:], voxels[:22, 5:17, :6])
    across = client.voxels.read(uuid, "gray", ((64, 0, -32), (96, 64, 0)), axes="xyz")
    np.testing.assert_array_equal(across, voxels.T)


def test_rgba_and_transposed_writes(client, uuid):
    """Channels come first; arrays in x, y, z are taken as such."""
    client.instances.create(uuid, "rgba8blk", "colour")
    voxels = noise((4, 32, 32, 64), "u1")
    client.voxels.write(uuid, "colour", (0, 0, 0), voxels)
    np.testing.assert_array_equal(client.voxels.read(uuid, "colour", ((0, 0, 0), (32, 32, 64))), voxels)
    client.voxels.write(uuid, "colour", (64, 0, 0), voxels.T, axes="xyz")
    np.testing.assert_array_equal(client.voxels.read(uuid, "colour", ((0, 0, 64), (32, 32, 128))), voxels)
    plane = client.planes.raw(uuid, "colour", "xy", (20, 10), (3, 4, 5))
    np.testing.assert_array_equal(plane, np.moveaxis(voxels[:, 5, 4:14, 3:23], 0, -1))


@pytest.mark.parametrize("typename", ["labelmap", "labelarray", "labelblk"])
def test_labels_round_trip(client, server, uuid, typename):
    """Labels travel compressed and exactly, also above 2^53; one missing block reads as 0."""
    client.instances.create(uuid, typename, "seg", block_size=(32, 32, 32))
    labels = noise((32, 32, 64), "<u8") | np.uint64(1 << 60)
    client.voxels.write(uuid, "seg", (0, 0, 0), labels)
    np.testing.assert_array_equal(client.voxels.read(uuid, "seg", ((0, 0, 0), (32, 32, 64))), labels)
    assert not client.voxels.read(uuid, "seg", ((64, 64, 64), (96, 96, 96))).any()
    blocks = dict(client.blocks.subvolume(uuid, "seg", ((0, 0, 0), (64, 32, 64))))
    assert sorted(blocks) == [(0, 0, 0), (1, 0, 0)]
    np.testing.assert_array_equal(blocks[1, 0, 0], labels[:, :, 32:])


def test_writes_that_are_refused(client, server, uuid):
    """Boxes of broken blocks, voxels that do not fit and locked versions are refused before a voxel is sent."""
    client.instances.create(uuid, "uint8blk", "gray")
    client.instances.create(uuid, "uint8blk", "shared", versioned=False)
    block = np.ones((32, 32, 32), np.uint8)
    with pytest.raises(ValueError, match="only whole blocks"):
        client.voxels.write(uuid, "gray", (1, 0, 0), block)
    with pytest.raises(ValueError, match="does not fit"):
        client.voxels.write(uuid, "gray", (0, 0, 0), block.astype(np.uint16))
    with pytest.raises(ValueError, match="expected an array zyx"):
        client.voxels.write(uuid, "gray", (0, 0, 0), block[None])
    client.versions.commit(uuid)
    with pytest.raises(TransportError, match=r"locked, so nothing was sent.*new_version"):
        client.voxels.write(uuid, "gray", (0, 0, 0), block)
    assert not posts(server, "raw")
    client.voxels.write(uuid, "shared", (0, 0, 0), block)
    assert len(posts(server, "raw")) == 1
    storefs.dvid.Client(server.url, admin_token=ADMIN_TOKEN).voxels.write(uuid, "gray", (0, 0, 0), block)
    assert client.voxels.read(uuid, "gray", ((0, 0, 0), (1, 1, 1)))[0, 0, 0] == 1


def test_impossible_boxes(client, uuid):
    """Empty boxes, boxes of four numbers and boxes beyond 32 bits or 3 GiB are ValueErrors."""
    client.instances.create(uuid, "uint8blk", "gray")
    for box in (((0, 0, 0), (0, 1, 1)), ((0, 0), (1, 1)), ((1 << 31, 0, 0), ((1 << 31) + 1, 1, 1))):
        with pytest.raises(ValueError, match=r"box|three|bits"):
            client.voxels.read(uuid, "gray", box)
    with pytest.raises(ValueError, match="3 GiB"):
        client.voxels.read(uuid, "gray", ((0, 0, 0), (2048, 2048, 2048)))


def test_streams(client, server, uuid):
    """Bodies may be pieces of bytes, answers may go into a file; a lost answer begins the file anew."""
    client.instances.create(uuid, "uint16blk", "gray")
    voxels = noise((64, 32, 32), "<u2")
    pieces = (voxels[z : z + 8].tobytes() for z in range(0, 64, 8))
    client.voxels.write(uuid, "gray", (0, 0, 0), pieces, shape=voxels.shape)
    assert posts(server, "raw")[-1].headers["transfer-encoding"] == "chunked"
    file = io.BytesIO(b"head")
    file.seek(4)
    server.faults = [Fault(cut=True, times=1, where=lambda asked: "/raw/" in asked.path)]
    assert client.voxels.save(uuid, "gray", ((0, 0, 0), voxels.shape), file) == voxels.nbytes
    assert file.getvalue() == b"head" + voxels.tobytes()


def test_large_bodies_are_sent_in_pieces(client, uuid):
    """A body of many MiB is sent from the array's own memory."""
    client.instances.create(uuid, "uint8blk", "gray", block_size=(64, 64, 64))
    voxels = noise((128, 192, 192), "u1")
    client.voxels.write(uuid, "gray", (0, 0, 0), voxels)
    np.testing.assert_array_equal(client.voxels.read(uuid, "gray", ((0, 0, 0), voxels.shape)), voxels)


@pytest.mark.parametrize("fault", [{"shorten": 100}, {"append": "panic: no more"}], ids=["short", "error text"])
def test_answers_of_another_length(client, server, uuid, fault):
    """A body that is too short, or has an error text behind it, raises and shows the text."""
    client.instances.create(uuid, "uint8blk", "gray")
    server.faults = [Fault(**fault, where=lambda asked: "/raw/" in asked.path)]
    with pytest.raises(ServerFault, match=r"no more|expected 512 bytes, got 412"):
        client.voxels.read(uuid, "gray", ((0, 0, 0), (8, 8, 8)))


def test_busy_servers(client, server, uuid, caplog):
    """Throttled reads wait for a busy server, with a warning, and give up after retry_timeout."""
    client.instances.create(uuid, "uint8blk", "gray")
    box = ((0, 0, 0), (8, 8, 8))
    server.faults = [Fault(status=503, times=3, where=lambda asked: "/raw/" in asked.path)]
    patient = storefs.dvid.Client(server.url, throttle=True, retry_timeout=10, warning_interval=0.01)
    with caplog.at_level(logging.WARNING, logger="storefs"):
        assert not patient.voxels.read(uuid, "gray", box).any()
    assert "is busy" in caplog.text
    assert "throttle=true" in server.record.requests[-1].query
    server.faults = [Fault(status=503, where=lambda asked: "/raw/" in asked.path)]
    with pytest.raises(ServerFault, match="503"):
        storefs.dvid.Client(server.url, retry_timeout=0.2).voxels.read(uuid, "gray", box)


# planes


@pytest.mark.parametrize("typename", TYPES)
@pytest.mark.parametrize("plane", ["xy", "xz", "yz"])
def test_planes(client, uuid, typename, plane):
    """Slices come as rows of the second axis, wide voxels unfolded from their PNG."""
    client.instances.create(uuid, typename, "gray")
    voxels = noise((32, 32, 64), TYPES[typename])
    client.voxels.write(uuid, "gray", (0, 0, 0), voxels)
    expected = {"xy": voxels[7, 6:16, 5:25], "xz": voxels[7:17, 6, 5:25], "yz": voxels[7:17, 6:26, 5]}[plane]
    found = client.planes.raw(uuid, "gray", plane, (20, 10), (5, 6, 7))
    assert found.dtype == voxels.dtype
    np.testing.assert_array_equal(found, expected)


def test_lossy_and_oblique_planes(client, uuid):
    """JPEG of planes and volumes, isotropic and oblique slices are decoded too."""
    client.instances.create(uuid, "uint8blk", "gray", voxel_size=(10, 10, 20))
    z, y, x = np.mgrid[:32, :32, :64]
    voxels = (x + y + z).astype(np.uint8)
    client.voxels.write(uuid, "gray", (0, 0, 0), voxels)
    near = client.planes.raw(uuid, "gray", "xy", (64, 32), (0, 0, 3), image_format="jpg:95")
    assert np.abs(near.astype(int) - voxels[3]).max() < 12
    volume = client.voxels.read_jpeg(uuid, "gray", ((0, 0, 0), (32, 32, 64)))
    assert np.abs(volume.astype(int) - voxels).mean() < 3
    assert client.planes.isotropic(uuid, "gray", "xz", (64, 64), (0, 0, 0)).shape == (64, 64)
    plane = client.planes.arb(uuid, "gray", (0, 0, 0), (300, 0, 0), (0, 300, 0), 10)
    np.testing.assert_array_equal(plane, voxels[0, :31, :31])
    for wrong in ({"plane": "zz"}, {"size": (0, 5)}, {"image_format": "gif"}):
        with pytest.raises(ValueError, match=r"expected"):
            client.planes.raw(uuid, "gray", **{"plane": "xy", "size": (4, 4), "offset_xyz": (0, 0, 0)} | wrong)


@given(st.binary(max_size=200), st.sampled_from(["uint8blk", "uint32blk", "uint64blk", "rgba8blk"]))
@settings(max_examples=60, deadline=None)
def test_hostile_images(data, typename):
    """Any bytes are an image of the right size or a DecodeError."""
    instance = parse_instance(described(typename), "")
    for head in (b"", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"\xff\xd8\xff"):
        with pytest.raises(DecodeError):
            read_image(head + data, instance, 8, 8)


def described(typename):
    values = [{"DataType": "uint8"}] * (4 if typename == "rgba8blk" else 1)
    extended = {"BlockSize": [32, 32, 32], "Values": values}
    return {"Base": {"TypeName": typename, "Name": "x", "Compression": "LZ4"}, "Extended": extended}


# blocks


@pytest.mark.parametrize("compression", ["lz4", "gzip", "snappy", "none"])
def test_image_blocks(client, uuid, compression):
    """Stored blocks come one by one, whatever their storage; a row is filled with the background."""
    client.instances.create(uuid, "uint16blk", "gray", compression=compression, background=3)
    voxels = noise((32, 32, 64), "<u2")
    client.voxels.write(uuid, "gray", (0, 0, -32), voxels)
    wanted = [(-1, 0, 0), (0, 0, 0), (5, 5, 5), (-1, 0, 0)]
    found = dict(client.blocks.specific(uuid, "gray", wanted))
    assert sorted(found) == [(-1, 0, 0), (0, 0, 0)]
    np.testing.assert_array_equal(found[-1, 0, 0], voxels[:, :, :32])
    assert len(list(client.blocks.subvolume(uuid, "gray", ((-32, -32, -64), (32, 32, 64))))) == 2
    row = client.blocks.row(uuid, "gray", (-1, 0, 0), 3)
    assert [at for at, _ in row] == [(-1, 0, 0), (0, 0, 0), (1, 0, 0)]
    np.testing.assert_array_equal(row[0][1], voxels[:, :, :32])
    assert (row[2][1] == 0x0303).all()
    with pytest.raises(ValueError, match="whole blocks"):
        next(client.blocks.subvolume(uuid, "gray", ((0, 0, 0), (32, 32, 33))))


def test_long_questions_are_cut(client, server, uuid, monkeypatch):
    """Many blocks become several requests, whose answers together are the same."""
    client.instances.create(uuid, "uint8blk", "gray")
    voxels = noise((96, 96, 160), "u1")
    client.voxels.write(uuid, "gray", (0, 0, 0), voxels)
    monkeypatch.setattr("storefs.backends.dvid.block_streams.BLOCKS_PER_REQUEST", 7)
    server.record.forget()
    found = dict(client.blocks.subvolume(uuid, "gray", ((0, 0, 0), voxels.shape)))
    assert len(found) == 45
    assert len([seen for seen in server.record.requests if "subvolblocks" in seen.path]) == 9
    for (x, y, z), block in found.items():
        expected = voxels[32 * z : 32 * z + 32, 32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
        np.testing.assert_array_equal(block, expected)
    again = dict(client.blocks.specific(uuid, "gray", found))
    assert set(again) == set(found)


def test_writing_rows_of_blocks(client, server, uuid):
    """uint8 rows are written and grow the extents; wider types, which the server would break, are refused."""
    client.instances.create(uuid, "uint8blk", "gray")
    client.instances.create(uuid, "uint16blk", "wide")
    blocks = [noise((32, 32, 32), "u1", seed) for seed in (1, 2)]
    client.blocks.write_row(uuid, "gray", (1, 0, -1), blocks)
    client.blocks.write_row(uuid, "gray", (0, 1, 0), blocks[:1])
    assert client.instances.extents(uuid, "gray") == ((0, 0, -32), (95, 63, 31))
    found = client.voxels.read(uuid, "gray", ((-32, 0, 32), (0, 32, 96)))
    np.testing.assert_array_equal(found, np.concatenate(blocks, axis=2))
    with pytest.raises(Unsupported, match=r"would break them; use voxels\.write"):
        client.blocks.write_row(uuid, "wide", (0, 0, 0), [np.zeros((32, 32, 32), np.uint16)])
    assert not posts(server, "wide")


def test_writing_blocks_of_labels(client, server, uuid):
    """New blocks of labels are written, lower scales made; stored ones would be counted twice, and are refused."""
    client.instances.create(uuid, "labelmap", "seg", block_size=(32, 32, 32), max_downres_level=1)
    labels = np.full((32, 32, 32), 7, np.uint64)
    labels[:16] = 1 << 60
    client.blocks.write_labels(uuid, "seg", [((0, 0, 0), labels), ((1, 0, 0), labels)], downres=True)
    np.testing.assert_array_equal(client.voxels.read(uuid, "seg", ((0, 0, 32), (32, 32, 64))), labels)
    assert client.voxels.read(uuid, "seg", ((0, 0, 0), (16, 16, 16)), scale=1)[0, 0, 0] == 1 << 60
    assert client.labels.size(uuid, "seg", 7) == 32768
    with pytest.raises(Unsupported, match=r"block \(1, 0, 0\) is stored already"):
        client.blocks.write_labels(uuid, "seg", [((1, 0, 0), labels)])
    assert client.labels.size(uuid, "seg", 7) == 32768
    with pytest.raises(ValueError, match="expected blocks of labels"):
        client.blocks.write_labels(uuid, "seg", [((2, 0, 0), labels[:16])])
    client.instances.create(uuid, "labelmap", "plain", block_size=(32, 32, 32), indexed_labels=False)
    for _ in range(2):
        client.blocks.write_labels(uuid, "plain", [((0, 0, 0), labels)])


# labels


@pytest.fixture
def seg(client, uuid):
    """A labelmap of two bodies: 5 of 32^3 voxels, and one above 2^53 of the same size."""
    client.instances.create(uuid, "labelmap", "seg", block_size=(32, 32, 32))
    labels = np.full((32, 32, 64), 5, np.uint64)
    labels[:, :, 32:] = (1 << 60) + 1
    client.voxels.write(uuid, "seg", (0, 0, 0), labels)
    return uuid, "seg"


BIG = (1 << 60) + 1


def test_label_queries(client, seg):
    """Points, sizes, supervoxels, the highest and the next label, all exact."""
    assert client.labels.label_at(*seg, (40, 0, 0)) == BIG
    np.testing.assert_array_equal(client.labels.at(*seg, [(0, 0, 0), (40, 1, 2), (99, 0, 0)]), [5, BIG, 0])
    np.testing.assert_array_equal(client.labels.sizes(*seg, [5, BIG, 6]), [32768, 32768, 0])
    assert client.labels.size(*seg, BIG) == 32768
    assert client.labels.size(*seg, 6) == 0
    assert client.labels.supervoxels(*seg, 5) == [5]
    assert client.labels.supervoxels(*seg, 6) == []
    assert client.labels.max_label(*seg) == BIG
    assert client.labels.next_label(*seg) == BIG + 1
    assert client.labels.reserve(*seg, 3) == range(BIG + 1, BIG + 4)
    with pytest.raises(Unsupported, match="negative"):
        client.labels.at(*seg, [(0, -1, 0)])
    with pytest.raises(ValueError, match="64 bits"):
        client.labels.size(*seg, 1 << 64)


def test_merge_and_cleave(client, server, seg):
    """Merged bodies read as one; a cleaved supervoxel is a body of its own. Neither is asked twice."""
    client.labels.merge(*seg, 5, [BIG])
    np.testing.assert_array_equal(client.labels.mapping(*seg, [5, BIG, 6]), [5, 5, 0])
    assert client.labels.mappings(*seg)[BIG] == 5
    assert client.labels.size(*seg, 5) == 65536
    assert client.labels.size(*seg, BIG, supervoxels=True) == 32768
    assert sorted(client.labels.supervoxels(*seg, 5)) == [5, BIG]
    assert client.voxels.read(*seg, ((0, 0, 40), (1, 1, 41)))[0, 0, 0] == 5
    assert client.voxels.read(*seg, ((0, 0, 40), (1, 1, 41)), supervoxels=True)[0, 0, 0] == BIG
    fresh = client.labels.cleave(*seg, 5, [BIG])
    assert client.labels.size(*seg, fresh) == 32768
    server.faults = [Fault(reset=True, times=1, where=lambda asked: asked.path.endswith("/merge"))]
    server.record.forget()
    with pytest.raises(TransportError):
        client.labels.merge(*seg, 5, [fresh])
    assert len(posts(server, "merge")) == 1


def test_a_repeated_write_counts_once(client, server, seg):
    """When the answer to a write of labels is lost, it is sent again, and sizes stay right."""
    labels = np.full((32, 32, 32), 9, np.uint64)
    lost = Fault(cut=True, times=1, where=lambda asked: "/raw/" in asked.path and asked.method == "POST")
    for fault in (lost, Fault(status=500, times=1, where=lost.where), Fault(status=503, times=2, where=lost.where)):
        server.faults = [fault]
        client.voxels.write(*seg, (0, 0, 0), labels)
        server.faults = []
        client.voxels.write(*seg, (0, 0, 0), labels)
    assert client.labels.size(*seg, 9) == 32768
    assert client.labels.size(*seg, 5) == 0


def test_without_an_index(client, uuid):
    """Sizes of an instance that keeps none are an error, not 0."""
    client.instances.create(uuid, "labelmap", "plain", indexed_labels=False)
    with pytest.raises(Unsupported, match="index"):
        client.labels.size(uuid, "plain", 5)
    with pytest.raises(Unsupported, match="index"):
        client.sparse.runs(uuid, "plain", 5)


# sparse volumes


@pytest.mark.parametrize("form", ["blocks", "rles", "srles"])
@pytest.mark.parametrize("offset", [(0, 0, 0), (-32, -32, -32)], ids=["positive", "negative"])
def test_sparse_volumes(client, server, uuid, form, offset):
    """Shapes of labels are the same in every form, also where the server's own runs would end it."""
    client.instances.create(uuid, "labelmap", "seg", block_size=(32, 32, 32))
    labels = np.random.default_rng(1).integers(1, 4, (64, 32, 64)).astype(np.uint64)
    labels[:32, :, 32:] = 2
    client.voxels.write(uuid, "seg", offset, labels)
    expected = np.argwhere(labels == 2) + offset
    found = client.sparse.coordinates(uuid, "seg", 2, sparse_format=form)
    np.testing.assert_array_equal(found, expected)
    lengths = client.sparse.runs(uuid, "seg", 2, sparse_format=form)[:, 3]
    assert lengths.sum() == len(expected)
    box = ((3, 2, 1), (40, 31, 50))
    inside = ((expected >= box[0]) & (expected < box[1])).all(axis=1)
    part = client.sparse.coordinates(uuid, "seg", 2, box=box, sparse_format=form)
    np.testing.assert_array_equal(part, expected[inside])
    size = client.sparse.size(uuid, "seg", 2)
    assert size.voxels == len(expected)
    assert size.min_voxel_xyz == offset[::-1]
    coarse = client.sparse.coarse(uuid, "seg", 2)
    assert coarse[:, 3].sum() == size.blocks
    assert client.sparse.exists(uuid, "seg", 2)
    assert not client.sparse.exists(uuid, "seg", 99)
    assert client.sparse.size(uuid, "seg", 99) is None
    assert client.sparse.runs(uuid, "seg", 99).shape == (0, 4)
    assert not server.dead


@given(st.binary(max_size=400), st.sampled_from([runs.plain_runs, runs.runs_with_header]))
@settings(max_examples=60, deadline=None)
def test_hostile_runs(data, read):
    """Any bytes are runs or a DecodeError."""
    for head in (b"", b"\x00\x03\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"):
        try:
            assert read(head + data).shape[1] == 4
        except DecodeError:
            continue


@given(st.binary(max_size=400), st.sampled_from([(16, 16, 16), (64, 64, 64)]))
@settings(max_examples=60, deadline=None)
def test_hostile_binary_blocks(data, block):
    """Any bytes are runs of the block size or a DecodeError."""
    head = np.array([n // 8 for n in block], "<u4").tobytes() + bytes(8)
    for start in (b"", head, head + bytes(12) + b"\x02", head + bytes(12) + b"\x01"):
        try:
            assert runs.runs_of_blocks(start + data, block).shape[1] == 4
        except DecodeError:
            continue


# against the recorded exchanges


@pytest.fixture(scope="module")
def recorded():
    """A client of a server that replays recorded exchanges, and what each answer must decode to."""
    if not GOLDEN.exists():
        pytest.skip("../shared/golden/dvid not found")
    from tests.backends.dvid.any_client import ForgivingReplay

    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    with ForgivingReplay(GOLDEN) as server:
        yield storefs.dvid.Client(server.url), manifest, server


def expected_box(manifest, item):
    """The array of a manifest entry, cut to the box that it names."""
    about = manifest["arrays"][item["array"]]
    with np.load(GOLDEN / about["file"]) as file:
        data = file[about["key"]]
    low, high, origin = np.array(item["start_zyx"]), np.array(item["stop_zyx"]), np.array(about["origin_zyx"])
    out = np.full((*(high - low), *data.shape[3:]), item.get("fill", 0), data.dtype)
    first, last = np.maximum(low, origin), np.minimum(high, origin + data.shape[:3])
    if (first < last).all():
        target = tuple(slice(a, b) for a, b in zip(first - low, last - low, strict=True))
        source = tuple(slice(a, b) for a, b in zip(first - origin, last - origin, strict=True))
        out[target] = data[source]
    return out


def know(client, server, uuid, name):
    """Let the client know an instance also by version names at which its info was not recorded."""
    path = next(
        record["path"]
        for record in server.by_id.values()
        if record["path"].endswith(f"/{name}/info") and record["status"] == 200 and record["method"] == "GET"
    )
    document = client.instances.info(path.split("/")[3], name)
    client.connection.instances[uuid, name] = parse_instance(document, "")


def exchanges(manifest, server, kind):
    return [
        (item, server.by_id[item["id"]])
        for item in manifest["exchanges"]
        if item["kind"] == kind and item["id"].startswith("read") and item.get("side") != "request"
    ]


def test_recorded_planes(recorded):
    """Every recorded plane, of every type, decodes to the array it shows."""
    client, manifest, server = recorded
    count = 0
    for item, record in exchanges(manifest, server, "image2d"):
        parts = record["path"].strip("/").split("/")[2:]
        image_format = parts[6] if len(parts) > 6 else "png"
        if (
            "tiles" in parts[1]
            or parts[2] != "raw"
            or image_format.partition(":")[0] in ("tif", "bmp")
            or record["query"]
        ):
            continue
        plane = {"0_1": "xy", "0_2": "xz", "1_2": "yz"}.get(parts[3], parts[3])
        size, offset = ([int(n) for n in part.split("_")] for part in parts[4:6])
        know(client, server, parts[0], parts[1])
        found = client.planes.raw(parts[0], parts[1], plane, size, offset, image_format=image_format)
        expected = expected_box(manifest, item).squeeze({"xy": 0, "xz": 1, "yz": 2}[plane])
        if "tolerance" in item:
            assert np.abs(found.astype(int) - expected).max() <= item["tolerance"]["max_abs"], item["id"]
        else:
            np.testing.assert_array_equal(found, expected, err_msg=item["id"])
        count += 1
    assert count > 20


def test_recorded_sparse_volumes(recorded):
    """Every recorded sparse volume gives the voxels of its label."""
    client, manifest, server = recorded
    count = 0
    for item, record in exchanges(manifest, server, "sparsevol"):
        parts = record["path"].strip("/").split("/")[2:]
        if item["encoding"] != "none" or "exact" in record["query"] or "scale" in record["query"]:
            continue
        data = server.body(record)
        know(client, server, parts[0], parts[1])
        block = client.connection.instances[parts[0], parts[1]].block_size
        read = {"rles": runs.runs_with_header, "srles": runs.plain_runs}.get(item["format"])
        found_runs = read(data) if read else runs.runs_of_blocks(data, block)
        about = manifest["arrays"][item["array"]]
        with np.load(GOLDEN / about["file"]) as file:
            voxels = np.argwhere(file[about["key"]] == np.uint64(item["label"])) + about["origin_zyx"]
        found = runs.coordinates(runs.joined(found_runs))
        if "bounds_xyz" in item:
            bounds = np.array(item["bounds_xyz"])
            low, high = bounds.T[:, ::-1]
            voxels = voxels[((voxels >= low) & (voxels <= high)).all(axis=1)]
            found = found[((found >= low) & (found <= high)).all(axis=1)]
        np.testing.assert_array_equal(found, voxels, err_msg=item["id"])
        count += 1
    assert count > 5


def test_recorded_boxes(recorded):
    """Recorded boxes of images, read through the client, are the arrays they were cut from."""
    client, manifest, server = recorded
    count = 0
    for item, record in exchanges(manifest, server, "raw"):
        parts = record["path"].strip("/").split("/")[2:]
        if item["encoding"] != "none" or record["query"] or "seg" in parts[1] or parts[3] != "0_1_2" or len(parts) > 6:
            continue
        if parts[1] in ("roi_body", "roi_body64", "zoo") or parts[2] != "raw":
            continue
        know(client, server, parts[0], parts[1])
        found = client.voxels.read(parts[0], parts[1], (item["start_zyx"], item["stop_zyx"]))
        expected = expected_box(manifest, item)
        expected = np.moveaxis(expected, -1, 0) if expected.ndim == 4 else expected
        np.testing.assert_array_equal(found, expected, err_msg=item["id"])
        count += 1
    assert count > 50


def test_recorded_points(recorded):
    """Recorded answers about points and labels, asked with a body on GET, are the values of the arrays."""
    client, manifest, server = recorded
    count = 0
    for item, record in exchanges(manifest, server, "points"):
        parts = record["path"].strip("/").split("/")[2:]
        if parts[2] != "labels" or record["query"] or "points_xyz" not in item or np.min(item["points_xyz"]) < 0:
            continue
        know(client, server, parts[0], parts[1])
        found = client.labels.at(parts[0], parts[1], item["points_xyz"])
        assert found.tolist() == json.loads(server.body(record))
        for (x, y, z), label in zip(item["points_xyz"], found, strict=True):
            box = {**item, "start_zyx": [z, y, x], "stop_zyx": [z + 1, y + 1, x + 1]}
            assert expected_box(manifest, box)[0, 0, 0] == label
        count += 1
    assert count > 0


@pytest.mark.parametrize("answer", ["{}", "[]", "5", '{"Locked": 3, "maxlabel": "x", "log": {}, "voxels": []}', "no"])
def test_hostile_answers(client, server, seg, answer):
    """Answers that are not what they should be are a MetadataError, whatever is asked."""
    server.faults = [Fault(status=200, text=answer)]
    for ask in (
        lambda: client.versions.is_locked(seg[0]),
        lambda: client.versions.log(seg[0]),
        lambda: client.versions.new_version(seg[0]),
        lambda: client.labels.max_label(*seg),
        lambda: client.labels.at(*seg, [(0, 0, 0)]),
        lambda: client.labels.merge(*seg, 1, [2]),
        lambda: client.labels.reserve(*seg, 2),
        lambda: client.sparse.size(*seg, 5),
        lambda: client.instances.metadata(*seg),
        lambda: client.instances.extents(*seg),
        lambda: client.rois.contains(*seg, [(0, 0, 0)]),
    ):
        with pytest.raises(storefs.MetadataError):
            ask()


def test_regions_of_another_block_size(client, uuid):
    """A roi masks what it should only where its blocks are those of the image; others are refused."""
    client.instances.create(uuid, "uint8blk", "gray", block_size=(16, 16, 16))
    client.voxels.write(uuid, "gray", (0, 0, 0), np.ones((16, 16, 32), np.uint8))
    client.instances.create(uuid, "roi", "same", block_size=(16, 16, 16))
    client.instances.create(uuid, "roi", "other")
    client.rois.set_spans(uuid, "same", [[0, 0, 1, 1]])
    box = ((0, 0, 0), (16, 16, 32))
    found = client.voxels.read(uuid, "gray", box, roi="same")
    assert not found[..., :16].any()
    assert found[..., 16:].all()
    with pytest.raises(Unsupported, match="wrong region"):
        client.voxels.read(uuid, "gray", box, roi="other")
