"""Google buckets: an emulator, and a stand-in that unpacks stored gzip on the way as Google's servers do."""

from __future__ import annotations

import gzip
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import storefs
from tests.http_server import Asked, FolderServer, Reply
from tests.layers import Sharded, voxels, write_layer

VOLUME = voxels((32, 16, 10))
CHUNK = (16, 16, 10)
TOKEN = "ya29.secret-token"


# an emulator


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an emulator whose bucket "lab" holds a plain, a gzip-stored and a sharded layer."""
    emulation = pytest.importorskip("gcp_storage_emulator.server")
    storage = pytest.importorskip("google.cloud.storage")
    from google.auth.credentials import AnonymousCredentials

    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    running = emulation.create_server("127.0.0.1", 0, in_memory=True, default_bucket="lab")
    running.start()
    url = f"http://127.0.0.1:{running._api._httpd.server_address[1]}"
    client = storage.Client(project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})
    bucket = client.bucket("lab")
    for name, how in {"plain": {}, "gzip": {"wrap": gzip.compress}, "sharded": {"sharded": Sharded(0, 1, 0)}}.items():
        root = tmp_path_factory.mktemp("layer")
        write_layer(root, VOLUME, CHUNK, **how)
        for file in root.rglob("*"):
            if file.is_file():
                blob = bucket.blob(f"{name}/{file.relative_to(root)}")
                if name == "gzip" and file.name != "info":
                    blob.content_encoding = "gzip"
                blob.upload_from_string(file.read_bytes(), content_type="application/octet-stream")
    client.close()
    yield url
    running.stop()


@pytest.mark.parametrize("name", ["plain", "gzip", "sharded"])
def test_layers_of_an_emulator(emulator, road, read, name):
    """Plain, gzip-stored and sharded layers of the emulator's bucket give their voxels."""
    assert np.array_equal(read(f"gs://lab/{name}", endpoint_url=emulator), VOLUME)


@pytest.mark.parametrize("with_scheme", [True, False])
def test_the_emulator_may_come_from_the_environment(emulator, read, monkeypatch, with_scheme):
    """STORAGE_EMULATOR_HOST is heard, with and without http://."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator if with_scheme else emulator.removeprefix("http://"))
    assert np.array_equal(read("gs://lab/gzip"), VOLUME)


def test_an_absent_layer_of_an_emulator(emulator, road, read):
    """404 for the info is no volume."""
    with pytest.raises(storefs.NoSuchVolume, match="gs://lab/nothing"):
        read("gs://lab/nothing", endpoint_url=emulator)


# a stand-in for Google's servers


@pytest.fixture
def google(tmp_path: Path) -> Iterator[FolderServer]:
    """A bucket "lab" with a layer stored as gzip, which is unpacked, without length, for those who do not accept it."""
    write_layer(tmp_path / "bucket" / "lab" / "layer", VOLUME, CHUNK)
    with FolderServer(tmp_path / "bucket", gzip_stored=lambda path: True, transcode=True) as running:
        yield running


def test_gzip_stored_objects_come_as_they_are(google, road, read):
    """Accept-Encoding: gzip is sent, so nothing is unpacked on the way and each object takes one request."""
    assert np.array_equal(read("gs://lab/layer", endpoint_url=google.url), VOLUME)
    assert len(google.asked) == 3
    assert all(asked.headers["accept-encoding"] == "gzip" for asked in google.asked)


def test_objects_unpacked_on_the_way(google, road, read):
    """Answers that were unpacked all the same, without a length, are read too."""
    google.transcode = False
    google.gzip_stored = lambda path: False
    google.chunked = True
    assert np.array_equal(read("gs://lab/layer", endpoint_url=google.url), VOLUME)


def test_the_chained_form_with_gcsfs_words(google):
    """storage_options={"gs": {"token": "anon"}} means anonymous, as with gcsfs."""
    options = {"gs": {"token": "anon", "endpoint_url": google.url}}
    group = zarr.open("precomputed::gs://lab/layer", mode="r", storage_options=options)
    assert np.array_equal(group["0"][...], VOLUME)


def test_both_names_of_the_scheme(google, read):
    """gcs:// is gs://."""
    assert np.array_equal(read("gcs://lab/layer", endpoint_url=google.url), VOLUME)


# credentials


def service_account(folder: Path, token_uri: str) -> Path:
    """A service account's key file, with a key made for the occasion."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    document = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "reader@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    file = folder / "key.json"
    file.write_text(json.dumps(document))
    return file


def let_in_only_with_token(asked: Asked) -> Reply | None:
    if asked.path == "/token":
        answer = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        return Reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
    if asked.headers.get("authorization") != f"Bearer {TOKEN}":
        return Reply(401 if "authorization" in asked.headers else 403, b"<Error><Code>AccessDenied</Code></Error>")
    return None


@pytest.fixture
def private(google: FolderServer) -> FolderServer:
    """The bucket, for those with a token, which is given out at /token."""
    google.reply = let_in_only_with_token
    return google


def test_a_service_account_of_the_environment(private, road, read, tmp_path, monkeypatch):
    """Refused anonymously, the layer is read with the key file that GOOGLE_APPLICATION_CREDENTIALS names."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, f"{private.url}/token")))
    assert np.array_equal(read("gs://lab/layer", endpoint_url=private.url), VOLUME)
    anonymous = [asked for asked in private.asked if "authorization" not in asked.headers and asked.method == "GET"]
    assert len(anonymous) == 1
    assert private.requests["/token"] <= 2


def test_a_key_file_in_gcsfs_words(private, road, tmp_path):
    """storage_options={"gs": {"token": path}} reads with that key file, and asks nothing anonymously."""
    key = service_account(tmp_path, f"{private.url}/token")
    options = {"gs": {"token": str(key), "endpoint_url": private.url}}
    group = zarr.open("precomputed::gs://lab/layer", mode="r", storage_options=options)
    assert np.array_equal(group["0"][...], VOLUME)
    assert all("authorization" in asked.headers for asked in private.asked if asked.method == "GET")
    assert TOKEN not in repr(group)


def test_a_token_that_is_not_given(private, road, read, tmp_path, monkeypatch):
    """A token server that fails raises Refused or a fault that says so, never zeros, and tells no token."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, f"{private.url}/token")))
    told = {"error": "invalid_grant", "error_description": "no such account"}
    private.reply = lambda asked: Reply(400, json.dumps(told).encode()) if asked.path == "/token" else Reply(403)
    with pytest.raises(storefs.TransportError) as caught:
        read("gs://lab/layer", endpoint_url=private.url, retries=0)
    assert "invalid_grant" in str(caught.value)


def test_a_refusal_names_what_was_tried(private, road, read, tmp_path, monkeypatch):
    """Without credentials: anonymous was tried, and where credentials would have been found. A broken file is named."""
    with pytest.raises(storefs.Refused, match=r"\(403\); tried: anonymous; no Google credentials found"):
        read("gs://lab/layer", endpoint_url=private.url)
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(broken))
    with pytest.raises(storefs.Refused, match="google-auth cannot supply credentials"):
        read("gs://lab/layer", endpoint_url=private.url)


def test_no_stall_without_credentials(private, google, read, monkeypatch):
    """Where nothing is configured no metadata server is waited for: public data and refusals come at once."""

    def asked_metadata(*_: object, **__: object) -> None:
        raise AssertionError("google-auth was asked")

    auth = pytest.importorskip("google.auth")
    monkeypatch.setattr(auth, "default", asked_metadata)
    started = time.monotonic()
    with pytest.raises(storefs.Refused):
        read("gs://lab/layer", endpoint_url=private.url)
    google.reply = lambda asked: None
    assert np.array_equal(read("gs://lab/layer", endpoint_url=google.url), VOLUME)
    assert time.monotonic() - started < 3


def test_public_data_in_spite_of_broken_credentials(google, road, read, tmp_path, monkeypatch):
    """Credentials that cannot be read do not stand in the way of public data."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nowhere.json"))
    assert np.array_equal(read("gs://lab/layer", endpoint_url=google.url), VOLUME)
