"""S3: a moto server holds a public and a private bucket; a stub stands for what moto does not do."""

from __future__ import annotations

import gzip
import importlib.util
import logging
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import storefs
from tests.http_server import Asked, FolderServer, Reply
from tests.layers import Sharded, voxels, write_layer

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")

VOLUME = voxels((32, 16, 10))
CHUNKS = 2
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
KEY = "AKIAIOSFODNN7EXAMPLE"
LAYERS = {
    "plain": {},
    "gzip": {"wrap": gzip.compress},
    "sharded": {"sharded": Sharded(0, 0, 1)},
    "a b+c/ü": {},
}


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with the layers in bucket "public", readable by all, and in "private"."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )
    for bucket, access in (("public", "public-read"), ("private", "private")):
        client.create_bucket(Bucket=bucket)
        for name, how in LAYERS.items():
            root = tmp_path_factory.mktemp("layer")
            write_layer(root, VOLUME, (16, 16, 10), **how)
            for file in root.rglob("*"):
                if file.is_file():
                    wrapped = {"ContentEncoding": "gzip"} if name == "gzip" and file.name != "info" else {}
                    path = f"{name}/{file.relative_to(root)}"
                    client.put_object(Bucket=bucket, Key=path, Body=file.read_bytes(), ACL=access, **wrapped)
    client.close()
    yield url
    running.stop()


@pytest.fixture
def in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in environment variables."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def in_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials in a profile "lab" of an AWS configuration file."""
    config = tmp_path / "aws-config"
    config.write_text(f"[profile lab]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\nregion=us-east-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))


# reading


@pytest.mark.parametrize("name", LAYERS)
def test_public_layers_need_no_credentials(moto, road, read, name):
    """Plain, gzip-stored and sharded layers of a public bucket give their voxels anonymously."""
    assert np.array_equal(read(f"s3://public/{name}", endpoint_url=moto), VOLUME)


@pytest.mark.parametrize("name", LAYERS)
def test_private_layers_are_read_with_the_environments_credentials(moto, road, read, name, in_environment):
    """A bucket that refuses strangers is read with signed requests."""
    assert np.array_equal(read(f"s3://private/{name}", endpoint_url=moto), VOLUME)


def test_a_profile_is_used(moto, road, read, in_profile):
    """profile= names a profile of the AWS configuration."""
    assert np.array_equal(read("s3://private/plain", endpoint_url=moto, profile="lab"), VOLUME)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_may_come_from_the_environment(moto, road, read, monkeypatch, variable):
    """AWS's variables for another endpoint are heard."""
    monkeypatch.setenv(variable, moto)
    assert np.array_equal(read("s3://public/plain"), VOLUME)


def test_zarr_and_fsspec_open_it(moto):
    """zarr.open by URL, options in the query, and the chained form read the same voxels."""
    for url, options in (
        ("precomputed://s3://public/gzip", {"endpoint_url": moto}),
        (f"precomputed://s3://public/gzip?endpoint_url={moto}", {}),
        ("precomputed::s3://public/gzip", {"s3": {"anon": True, "endpoint_url": moto}}),
        ("precomputed::s3://public/gzip", {"s3": {"anon": True, "client_kwargs": {"endpoint_url": moto}}}),
        ("precomputed::s3://private/gzip", {"s3": {"key": KEY, "secret": SECRET, "endpoint_url": moto}}),
    ):
        group = zarr.open(url, mode="r", storage_options=options)
        assert np.array_equal(group["0"][...], VOLUME), url


def test_an_absent_chunk_of_a_bucket(moto, road, read):
    """404 from S3 is the fill value for a chunk, NoSuchVolume for an info or a bucket."""
    with pytest.raises(storefs.NoSuchVolume, match="s3://public/nothing"):
        read("s3://public/nothing", endpoint_url=moto)
    with pytest.raises(storefs.NoSuchVolume):
        read("s3://no-such-bucket/nothing", endpoint_url=moto)


# refusals


def test_a_refusal_names_what_was_tried(moto, road, read):
    """Without credentials, a private bucket raises Refused: anonymous was tried, and boto3 found nothing."""
    with pytest.raises(storefs.Refused, match="tried: anonymous; boto3 finds no AWS credentials"):
        read("s3://private/plain", endpoint_url=moto)
    with pytest.raises(storefs.Refused, match=r"\(403\); tried: anonymous\."):
        read("s3://private/plain", endpoint_url=moto, anonymous=True)
    with pytest.raises(storefs.Refused, match=r"tried: boto3 cannot supply .*profile \(nobody\)"):
        read("s3://private/plain", endpoint_url=moto, profile="nobody", anonymous=False)


def test_public_data_does_not_look_for_credentials(moto, read, monkeypatch):
    """boto3 is not asked while nothing is refused."""

    def looked(*_: object, **__: object) -> None:
        raise AssertionError("credentials were looked for")

    monkeypatch.setattr(boto3, "Session", looked)
    assert np.array_equal(read("s3://public/plain", endpoint_url=moto), VOLUME)


def without_signature(asked: Asked) -> bool:
    return "authorization" not in asked.headers and "X-Amz-Signature" not in asked.query


DENIED = Reply(403, b"<Error><Code>AccessDenied</Code><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>")


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[FolderServer]:
    """A stand-in for S3 with a layer in bucket "lab" that only signed requests get."""
    write_layer(tmp_path / "lab" / "layer", VOLUME, (16, 16, 10))
    with FolderServer(tmp_path) as running:
        running.reply = lambda asked: DENIED if without_signature(asked) else None
        yield running


def test_the_way_that_is_let_in_is_kept(stub, road, read, in_environment):
    """One refused request in all: from then on the credentials are used at once."""
    assert np.array_equal(read("s3://lab/layer", endpoint_url=stub.url), VOLUME)
    assert sum(map(without_signature, stub.asked)) == 1
    assert len(stub.asked) == 2 + CHUNKS


def test_credentials_that_are_named_go_first(stub, road, read, in_profile):
    """With a profile named, nothing is asked anonymously."""
    assert np.array_equal(read("s3://lab/layer", endpoint_url=stub.url, profile="lab"), VOLUME)
    assert not any(map(without_signature, stub.asked))


def test_credentials_that_do_not_help(stub, road, read, in_environment):
    """If the credentials are refused too, both are named, and no key is told."""
    stub.reply = lambda asked: DENIED
    with pytest.raises(storefs.Refused, match="tried: anonymous; AWS credentials from boto3") as caught:
        read("s3://lab/layer", endpoint_url=stub.url)
    assert "AKIA" not in str(caught.value)


@pytest.mark.parametrize("times", [1, 99])
def test_a_busy_bucket_is_asked_again(stub, road, read, in_environment, times):
    """503 SlowDown passes after a retry, or is raised, but is no absent chunk."""
    left = [times]

    def reply(asked: Asked) -> Reply | None:
        if without_signature(asked):
            return DENIED
        if "16-32" in asked.path and left[0]:
            left[0] -= 1
            return Reply(503, b"<Error><Code>SlowDown</Code></Error>")
        return None

    stub.reply = reply
    if times == 1:
        assert np.array_equal(read("s3://lab/layer", endpoint_url=stub.url), VOLUME)
        return
    with pytest.raises(storefs.ServerFault, match="503"):
        read("s3://lab/layer", endpoint_url=stub.url)


def test_forbidden_may_mean_missing_in_a_bucket(stub, road, read, in_environment):
    """A bucket without the right to list answers 403 for absent chunks; they are not asked for twice."""
    stub.reply = lambda asked: DENIED if "16-32_0-16_0-10" in asked.path else None
    expected = VOLUME.copy()
    expected[:, :, 16:] = 0
    assert np.array_equal(read("s3://lab/layer", endpoint_url=stub.url, forbidden="missing"), expected)
    assert len(stub.asked) == 1 + CHUNKS
    with pytest.raises(storefs.Refused, match='forbidden="missing"'):
        read("s3://lab/layer", endpoint_url=stub.url)


# regions


def region_of(asked: Asked) -> str | None:
    """The region that a request is signed for."""
    signed = asked.headers.get("authorization", "") + asked.query.replace("%2F", "/")
    return signed.partition("/s3/aws4_request")[0].rpartition("/")[2] if "aws4_request" in signed else None


@pytest.mark.parametrize("answer", ["redirect", "malformed"])
def test_the_region_of_a_bucket_is_found(stub, road, read, in_environment, answer):
    """A request signed for the wrong region teaches the right one; everything after that goes there."""

    def reply(asked: Asked) -> Reply | None:
        if asked.method == "HEAD" and asked.path.rstrip("/") == "/lab":
            return Reply(301, headers={"x-amz-bucket-region": "eu-west-1"})
        if without_signature(asked):
            return DENIED
        if region_of(asked) == "eu-west-1":
            return None
        told = {"x-amz-bucket-region": "eu-west-1"}
        body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"
        return Reply(301, b"", told) if answer == "redirect" else Reply(400, body, told)

    stub.reply = reply
    assert np.array_equal(read("s3://lab/layer", endpoint_url=stub.url), VOLUME)
    assert [region_of(asked) for asked in stub.asked].count("us-east-1") == 1


def test_a_region_that_cannot_be_found_is_asked_for(stub, road, read):
    """A redirect that does not tell the region raises an error that says to pass it."""
    stub.reply = lambda asked: Reply(301)
    with pytest.raises(storefs.TransportError, match=r"region|301"):
        read("s3://lab/layer", endpoint_url=stub.url)


# secrets


def test_secrets_show_nowhere(stub, in_environment):
    """Neither repr nor pickle nor error text tell a key or a token, wherever it was given."""
    options = {"endpoint_url": stub.url, "headers": {"X-Token": "t0ken"}, "retries": 0}
    chained = {"s3": {"key": KEY, "secret": SECRET, "token": "t0ken", "endpoint_url": stub.url}}
    array = storefs.open_array("precomputed://s3://lab/layer", **options)
    lazy = zarr.open("precomputed::s3://lab/layer", mode="r", storage_options=chained)["0"]
    store = storefs.open_store("precomputed://s3://lab/layer", target_options=chained["s3"])
    stub.reply = lambda asked: DENIED
    errors = []
    for broken in (array, lazy):
        with pytest.raises(storefs.Refused) as caught:
            broken[...]
        errors.append(f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}")
    shown = [
        repr(array),
        repr(lazy),
        repr(store),
        repr(store.source),
        str(store.source.transport.inner.options),
        *errors,
    ]
    pickled = [pickle.dumps(item) for item in (array, lazy, store)]
    for secret in (SECRET, KEY, "t0ken"):
        assert not any(secret in text for text in shown)
        assert not any(secret.encode() in data for data in pickled)


def test_a_pickled_array_reads_with_the_workers_credentials(moto, in_environment):
    """Credentials stay behind; the endpoint travels along, and the worker looks for its own credentials."""
    array = storefs.open_array("precomputed://s3://private/plain", endpoint_url=moto)
    assert np.array_equal(pickle.loads(pickle.dumps(array))[...], VOLUME)
    chained = {"s3": {"key": KEY, "secret": SECRET, "endpoint_url": moto}}
    lazy = zarr.open("precomputed::s3://private/plain", mode="r", storage_options=chained)["0"]
    assert np.array_equal(pickle.loads(pickle.dumps(lazy))[...], VOLUME)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"requester_pays": True}, "requester_pays"),
        ({"client_kwargs": {"verify": False}}, "verify"),
        ({"tokken": "x"}, "tokken"),
    ],
)
def test_foreign_options_that_mean_nothing_here(given, named):
    """An s3fs option that storefs does not have raises UrlError, naming it and those there are."""
    with pytest.raises(storefs.UrlError, match=rf"{named}.*not understood; understood are"):
        zarr.open("precomputed::s3://public/plain", mode="r", storage_options={"s3": given})


def test_no_stall_without_credentials(moto, monkeypatch):
    """Where nothing is configured, a refusal is told at once: no metadata server is waited for."""
    started = time.monotonic()
    with pytest.raises(storefs.Refused):
        storefs.open_array("precomputed://s3://private/plain", endpoint_url=moto)
    assert time.monotonic() - started < 3


def test_a_stand_in_is_no_filesystem():
    """Opening a bucket itself without s3fs says what to install; with s3fs, it is s3fs."""
    import fsspec

    if importlib.util.find_spec("s3fs"):
        assert fsspec.get_filesystem_class("s3").__module__.startswith("s3fs")
        return
    with pytest.raises(ImportError, match="Install s3fs"):
        fsspec.filesystem("s3")
