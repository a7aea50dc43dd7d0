"""keyvalue instances: through the client, as a mapping, as files, and as a zarr store that passes zarr's own suite."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.buffer import Buffer, cpu
from zarr.testing.store import StoreTests

import storefs.dvid
from storefs.backends.dvid.keys import file_key, file_path
from storefs.backends.dvid.keyvalue_store import KeyValueStore
from storefs.errors import ServerFault, TransportError, Unsupported, UrlError
from tests.backends.dvid.emulator import DvidEmulator
from tests.backends.dvid.faults import Fault

GOLDEN = Path(__file__).parents[3] / "../shared/golden/dvid"
ODD_KEYS = [
    ".zarray",
    "0.0.0",
    "a b",
    "a+b",
    "100%",
    "a%2Fb",
    "é漢",
    "?",
    "#x",
    "a:b;c&d",
    "back\\slash",
    "t\tab",
    "~",
    "...",
]


@pytest.fixture(params=[True, False], ids=["ranges", "no ranges"])
def server(request):
    """An emulated server, of today or of a release that knows no ranges."""
    with DvidEmulator(admin_needed=False) as found:
        found.honours_ranges = request.param
        yield found


@pytest.fixture
def client(server):
    return storefs.dvid.Client(server.url)


@pytest.fixture
def place(client):
    """Version and name of a new keyvalue instance."""
    uuid = client.repos.create("brain")
    client.instances.create(uuid, "keyvalue", "kv")
    return uuid, "kv"


@pytest.fixture
def url(server, place):
    return f"dvid://{server.url}/{'/'.join(place)}"


def silent(*pieces):
    yield from pieces


# through the client


def test_values(client, place):
    """Values are stored, read in whole or in part, measured, listed and forgotten."""
    kv = client.keyvalues
    kv.put(*place, "a", b"0123456789")
    assert kv.get(*place, "a") == b"0123456789"
    assert kv.size(*place, "a") == 10
    assert kv.exists(*place, "a")
    assert kv.keys(*place) == ["a"]
    kv.delete(*place, "a")
    kv.delete(*place, "a")
    assert not kv.exists(*place, "a")
    for ask in (kv.get, kv.size):
        with pytest.raises(KeyError):
            ask(*place, "a")
    with pytest.raises(KeyError):
        kv.save(*place, "a", io.BytesIO())


@pytest.mark.parametrize("start", [None, 0, 3, 9, 10, 12, -1, -4, -20])
@pytest.mark.parametrize("stop", [None, 0, 3, 5, 10, 12, -1, -4, -20])
def test_parts(client, place, start, stop):
    """Parts are what slices are, whether or not the server knows ranges."""
    client.keyvalues.put(*place, "a", b"0123456789")
    assert client.keyvalues.get(*place, "a", start, stop) == b"0123456789"[start:stop]


def test_empty_values(client, place):
    """An empty value is one, though the server says 404 to a question for it."""
    kv = client.keyvalues
    kv.put(*place, "none", b"")
    kv.put(*place, "some", b"x")
    assert kv.get(*place, "none") == b""
    assert kv.get(*place, "none", 2, 5) == b""
    assert kv.size(*place, "none") == 0
    assert kv.get_many(*place, ["some", "absent", "none"]) == {"some": b"x", "none": b""}
    file = io.BytesIO()
    assert kv.save(*place, "none", file) == 0


def test_odd_keys(client, place):
    """Every key that a server can hold is kept; those it would cut or lose are refused."""
    for number, key in enumerate(ODD_KEYS):
        client.keyvalues.put(*place, key, str(number).encode())
    for number, key in enumerate(ODD_KEYS):
        assert client.keyvalues.get(*place, key) == str(number).encode()
        assert client.keyvalues.keys(*place, key[:1])
    assert client.keyvalues.keys(*place) == sorted(ODD_KEYS, key=str.encode)
    assert set(client.keyvalues.get_many(*place, ODD_KEYS)) == set(ODD_KEYS)
    for key in ("", "a/b", ".", ".."):
        with pytest.raises(ValueError, match="cannot be a key"):
            client.keyvalues.put(*place, key, b"x")


def test_prefixes_and_ranges_of_keys(client, place):
    """Keys are found by prefix and by range, which includes its end."""
    client.keyvalues.put_many(*place, dict.fromkeys(("a", "ab", "b", "c", ".z"), b"x"))
    assert client.keyvalues.keys(*place, "a") == ["a", "ab"]
    assert client.keyvalues.keys(*place, ".") == [".z"]
    assert client.keyvalues.keys(*place, "x") == []
    assert client.keyvalues.key_range(*place, "ab", "c") == ["ab", "b", "c"]


def test_streams(client, server, place):
    """Values may be files or pieces on their way in, and files on their way out."""
    value = np.random.default_rng(0).bytes(3 << 20)
    kv = client.keyvalues
    kv.put(*place, "file", io.BytesIO(value))
    kv.put(*place, "pieces", silent(value[: 1 << 20], value[1 << 20 :]))
    kv.put(*place, "bytes", value)
    for key in ("file", "pieces", "bytes"):
        file = io.BytesIO()
        assert kv.save(*place, key, file) == len(value)
        assert file.getvalue() == value
    server.faults = [Fault(cut=True, times=1, where=lambda asked: asked.path.endswith("/bytes"))]
    file = io.BytesIO()
    kv.save(*place, "bytes", file)
    assert file.getvalue() == value


def test_pieces_are_not_sent_twice(client, server, place):
    """A write of pieces whose answer is lost fails; bytes are sent again."""
    server.faults = [Fault(reset=True, times=1, where=lambda asked: asked.method == "POST")]
    with pytest.raises(TransportError):
        client.keyvalues.put(*place, "a", silent(b"x"))
    server.faults = [Fault(reset=True, times=1, where=lambda asked: asked.method == "POST")]
    client.keyvalues.put(*place, "a", b"x")
    assert client.keyvalues.get(*place, "a") == b"x"


def test_mistakes_of_the_caller(client, place):
    """What the maker of pieces raises is raised, and nothing is stored."""

    def broken():
        yield b"x"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.keyvalues.put(*place, "a", broken())
    assert not client.keyvalues.exists(*place, "a")


def test_locked_versions(client, server, place):
    """A locked version refuses; a long value is not even sent."""
    client.versions.commit(place[0])
    server.record.forget()
    with pytest.raises(TransportError, match="locked node"):
        client.keyvalues.put(*place, "a", b"x")
    for value in (bytes(2 << 20), silent(b"x")):
        with pytest.raises(TransportError, match="nothing was sent"):
            client.keyvalues.put(*place, "a", value)
    assert sum(seen.method == "POST" for seen in server.record.requests) == 1


def test_broken_batches(client, server, place):
    """A batch that is cut short, or no tar, is a ServerFault."""
    client.keyvalues.put(*place, "a", b"x" * 2000)
    for fault in ({"shorten": 9000}, {"status": 200, "text": "no tar"}):
        server.faults = [Fault(**fault, where=lambda asked: "keyvalues" in asked.path)]
        with pytest.raises(ServerFault, match="keyvalues"):
            client.keyvalues.get_many(*place, ["a", "b"])


# keys


@given(st.text(min_size=1), st.text(min_size=1))
@settings(max_examples=200)
def test_every_path_has_its_key(one, other):
    """Paths and escaped keys correspond one to one, and no key is one that a server cuts."""
    for path in (one, other, one + "/" + other):
        key = storefs.dvid.escape(path)
        assert "/" not in key
        assert key not in (".", "..")
        assert storefs.dvid.unescape(key) == path
        assert file_path(file_key(path)) == path
    assert (storefs.dvid.escape(one) == storefs.dvid.escape(other)) == (one == other)
    assert (file_key(one) == file_key(other)) == (one == other) or "~" in one + other


# as a mapping


def test_mapping(url, client, place):
    """A KeyValue is a MutableMapping of the server's own keys."""
    kv = storefs.dvid.KeyValue(url)
    kv["a b"] = b"1"
    kv["c"] = b""
    assert dict(kv) == {"a b": b"1", "c": b""}
    assert len(kv) == 2
    assert "c" in kv
    assert 5 not in kv
    assert kv.pop("c") == b""
    assert kv.get("c") is None
    with pytest.raises(KeyError):
        del kv["c"]
    assert kv.get_many("a b", "c") == {"a b": b"1"}
    assert pickle.loads(pickle.dumps(kv))["a b"] == b"1"
    kv.clear()
    assert not kv
    for wrong in (url.rpartition("/")[0], url + "/key"):
        with pytest.raises(UrlError):
            storefs.dvid.KeyValue(wrong)


# as files


@pytest.fixture
def fs(server):
    """The filesystem that fsspec has for dvid."""
    return fsspec.filesystem("dvid", skip_instance_cache=True)


def test_files(fs, url, client, place):
    """Values are files: written, read in part, listed, measured, copied and removed."""
    with fsspec.open(f"{url}/some key", "wb") as file:
        file.write(b"0123")
        file.write(b"456789")
    assert client.keyvalues.get(*place, "some key") == b"0123456789"
    with fsspec.open(f"{url}/some key", "rb") as file:
        file.seek(4)
        assert file.read(3) == b"456"
        assert file.size == 10
    assert fs.cat_file(f"{url}/some key", start=-3) == b"789"
    assert fs.cat_ranges([f"{url}/some key"] * 2, [0, 5], [2, 7]) == [b"01", b"56"]
    assert fs.info(f"{url}/some key")["size"] == 10
    assert fs.exists(f"{url}/some key")
    fs.pipe({f"{url}/b": b"x", f"{url}/empty": b""})
    assert fs.cat([f"{url}/b", f"{url}/empty"]) == {
        fs._strip_protocol(f"{url}/{k}"): v for k, v in (("b", b"x"), ("empty", b""))
    }
    fs.cp_file(f"{url}/b", f"{url}/c")
    assert [name.rpartition("/")[2] for name in fs.ls(url, detail=False)] == ["b", "c", "empty", "some key"]
    fs.rm(f"{url}/c")
    assert not fs.exists(f"{url}/c")
    for ask in (fs.cat_file, fs.info, fs.rm, fs.ls):
        with pytest.raises(FileNotFoundError):
            ask(f"{url}/c")
    with pytest.raises(Unsupported, match="read or replaced"):
        fs.open(f"{url}/b", "ab")
    fs.touch(f"{url}/touched")
    assert fs.cat_file(f"{url}/touched") == b""


def test_folders(fs, url, client, place, tmp_path):
    """Paths with slashes are kept under escaped keys and seen as folders; other clients' keys stay as they are."""
    client.keyvalues.put(*place, "x~y", b"theirs")
    fs.pipe({f"{url}/d/one": b"1", f"{url}/d/e/two": b"22", f"{url}/d/x~y": b"3"})
    assert client.keyvalues.keys(*place) == ["d~1e~1two", "d~1one", "d~1x~0y", "x~y"]
    root = fs._strip_protocol(url)
    assert sorted(fs.find(url)) == [f"{root}/{name}" for name in ("d/e/two", "d/one", "d/x~y", "x~y")]
    assert fs.isdir(f"{url}/d")
    assert not fs.isdir(f"{url}/x~y")
    assert [entry["type"] for entry in fs.ls(f"{url}/d")] == ["directory", "file", "file"]
    assert fs.glob(f"{url}/d/*e*") == [f"{root}/d/e", f"{root}/d/one"]
    assert fs.cat_file(f"{url}/x~y") == b"theirs"
    assert fs.du(url) == 10
    fs.get(f"{url}/d", str(tmp_path / "d"), recursive=True)
    assert (tmp_path / "d" / "e" / "two").read_bytes() == b"22"
    fs.put(str(tmp_path / "d"), f"{url}/back", recursive=True)
    assert fs.cat_file(f"{url}/back/e/two") == b"22"
    fs.rm(f"{url}/d", recursive=True)
    fs.rm(f"{url}/back", recursive=True)
    assert client.keyvalues.keys(*place) == ["x~y"]
    mapper = fs.get_mapper(url)
    mapper["m/n"] = b"5"
    assert dict(mapper) == {"m/n": b"5", "x~y": b"theirs"}


def test_addresses_without_a_scheme(fs, server, place):
    """A host without http:// means http://."""
    address = f"dvid://{server.url.removeprefix('http://')}/{'/'.join(place)}/k"
    fs.pipe_file(address, b"v")
    with fsspec.open(address) as file:
        assert file.read() == b"v"


def test_other_instances_are_no_folders_of_values(fs, client, place, url):
    """Voxel instances of the same server are what they were: volumes, in which no values are kept."""
    client.instances.create(place[0], "uint8blk", "gray")
    gray = url.replace("/kv", "/gray")
    assert "zarr.json" in {name.rpartition("/")[2] for name in fs.ls(gray, detail=False)}
    with pytest.raises(Unsupported):
        fs.pipe_file(f"{gray}/x", b"")
    assert not fs.exists(url.replace("/kv", "/nothing"))


def test_zarr_through_fsspec(url, client, place):
    """zarr.open writes and reads arrays below a keyvalue instance."""
    voxels = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    group = zarr.open_group(f"{url}/my.zarr", mode="w")
    group.create_array("a/b", data=voxels, chunks=(2, 2, 2))
    np.testing.assert_array_equal(zarr.open_array(f"{url}/my.zarr/a/b", mode="r")[:], voxels)
    assert "my.zarr~1a~1b~1zarr.json" in client.keyvalues.keys(*place)


# as a zarr store


class TestKeyValueStore(StoreTests[KeyValueStore, cpu.Buffer]):
    """zarr's suite, complete and unchanged."""

    store_cls = KeyValueStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, url):
        return {"url": url, "read_only": False}

    async def set(self, store: KeyValueStore, key: str, value: Buffer) -> None:
        storefs.dvid.KeyValue(store.url)[storefs.dvid.escape(key)] = value.to_bytes()

    async def get(self, store: KeyValueStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(storefs.dvid.KeyValue(store.url)[storefs.dvid.escape(key)])

    def test_store_repr(self, store: KeyValueStore) -> None:
        assert repr(store) == f"KeyValueStore({store.url!r})"

    def test_store_supports_writes(self, store: KeyValueStore) -> None:
        assert store.supports_writes
        assert store.supports_deletes

    def test_store_supports_listing(self, store: KeyValueStore) -> None:
        assert store.supports_listing


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_arrays(url, zarr_format):
    """Groups, arrays and attributes live in a keyvalue instance, several trees side by side."""
    voxels = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    for path in ("one", "below/here"):
        store = storefs.dvid.KeyValueStore(url, path=path)
        group = zarr.open_group(store, mode="w", zarr_format=zarr_format)
        group.attrs["who"] = path
        group.create_array("x~y/z", data=voxels, chunks=(1, 3, 2))
        assert pickle.loads(pickle.dumps(store)) == store
    for path in ("one", "below/here"):
        store = storefs.dvid.KeyValueStore(url, path=path, read_only=True)
        group = zarr.open_group(store, mode="r", zarr_format=zarr_format)
        np.testing.assert_array_equal(group["x~y/z"][:], voxels)
        assert group.attrs["who"] == path
        assert "x~y" in set(group.keys())


async def test_the_store_of_no_instance(url):
    """An unknown instance is an error, not an absent key."""
    store = storefs.dvid.KeyValueStore(f"{url}x")
    with pytest.raises(TransportError, match="no data instance") as failure:
        await store.get("zarr.json")
    assert not isinstance(failure.value, FileNotFoundError)


async def test_the_store_sends_no_secrets_around(url):
    """Pickles hold no token, and a store that is read only says so."""
    store = storefs.dvid.KeyValueStore(url, token="s3cret")
    assert b"s3cret" not in pickle.dumps(store)
    with pytest.raises(ValueError, match="read-only"):
        await store.with_read_only(True).set("a", cpu.Buffer.from_bytes(b"x"))  # noqa: FBT003  # the signature is zarr's


# against the recorded exchanges


def test_recorded_values():
    """Recorded reads of a real server, ranges and odd keys included, give the values that were put there."""
    if not GOLDEN.exists():
        pytest.skip("../shared/golden/dvid not found")
    from urllib.parse import unquote

    from tests.backends.dvid.any_client import ForgivingReplay

    count = 0
    with ForgivingReplay(GOLDEN) as server:
        client = storefs.dvid.Client(server.url)
        for record in server.by_id.values():
            parts = record["path"].strip("/").split("/")
            if record["group"] != "read" or parts[4:5] != ["key"] or record["method"] != "GET" or len(parts) != 6:
                continue
            if "Range" in record["request_headers"] or record["status"] != 200:
                continue
            uuid, name, key = parts[2], unquote(parts[3]), unquote(parts[5])
            assert client.keyvalues.get(uuid, name, key) == server.body(record)
            count += 1
        root = "5f2c9a4e7b1d4f0c8e6a3d92b07c1e54"
        whole = client.keyvalues.get(root, "kv", "big")
        assert whole[:16] == b"0123456789abcdef"
        keys = client.keyvalues.keys(root, "kv")
        assert {"meta.json", "empty", "big"} <= set(keys)
    assert count > 10
