"""Options: by keyword or by query, checked, and kept out of pickles where they are secret."""

from __future__ import annotations

import pytest

import storefs
from storefs.errors import UrlError
from storefs.model import Presentation
from storefs.options import COMMON, boolean, picklable, read_options, split_query, triple
from storefs.registry import parse_url

OWN = {"chunk_size": triple}


def test_defaults():
    """Without options a volume is shown as zarr v3, zyx, as stored, absent chunks filled."""
    read = read_options({}, OWN)
    assert read.presentation == Presentation(zarr_format=3, axes="zyx", face="native", codec="zstd")
    assert read.missing == "fill"
    assert read.transport.anonymous is None
    assert dict(read.own) == {}


def test_text_and_values_are_the_same():
    """Text, as it comes by query, reads as the value it spells."""
    values = {
        "zarr_format": 2,
        "axes": "xyz",
        "face": "portable",
        "codec": "blosc",
        "missing": "error",
        "anonymous": True,
        "timeout": 2.5,
        "retries": 0,
        "chunk_size": (64, 64, 16),
    }
    text = {name: str(value) for name, value in values.items()} | {"chunk_size": "64,64,16"}
    assert read_options(text, OWN) == read_options(values, OWN)
    assert read_options(values, OWN).presentation == Presentation(2, "xyz", "portable", "blosc")
    assert dict(read_options(text, OWN).own) == {"chunk_size": (64, 64, 16)}


def test_none_means_default():
    """An option that is None counts as not given."""
    assert read_options(dict.fromkeys([*COMMON, *OWN]), OWN) == read_options({}, OWN)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"axis": "xyz"}, "did you mean 'axes'"),
        ({"zar_format": 2}, "did you mean 'zarr_format'"),
        ({"chunk_sizes": (1, 1, 1)}, "did you mean 'chunk_size'"),
        ({"annonymous": True}, "did you mean 'anonymous'"),
        ({"colour": "red"}, "unknown option 'colour'"),
    ],
)
def test_typos(given, hint):
    """A misspelt option is named, with a suggestion where one is near."""
    with pytest.raises(UrlError, match=hint):
        read_options(given, OWN)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("zarr_format", 4),
        ("zarr_format", "two"),
        ("axes", "zxy"),
        ("axes", ["z", "y", "x"]),
        ("face", "poker"),
        ("codec", "lz4"),
        ("missing", "ignore"),
        ("anonymous", "perhaps"),
        ("anonymous", 2),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", "soon"),
        ("timeout", float("nan")),
        ("retries", -1),
        ("retries", 1.5),
        ("retries", "many"),
        ("headers", "Authorization: me"),
        ("target_options", 3),
        ("chunk_size", (64, 64)),
        ("chunk_size", "64,64,a"),
        ("chunk_size", (64, 64, 1.5)),
        ("chunk_size", 64),
        ("forbidden", "fruit"),
    ],
)
def test_impossible_values(name, value):
    """A value that makes no sense is refused with the option's name."""
    with pytest.raises(UrlError, match=f"option {name}: "):
        read_options({name: value}, OWN)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("False", False), ("1", True), ("no", False), (True, True)]
)
def test_boolean(text, value):
    """Yes and no in the words that people use."""
    assert boolean(text) is value


def test_query():
    """Options follow the address after a question mark."""
    assert split_query("gs://bucket/a", OWN) == ("gs://bucket/a", {})
    assert split_query("gs://bucket/a?", OWN) == ("gs://bucket/a", {})
    assert split_query("gs://bucket/a?axes=xyz&chunk_size=1,2,3", OWN) == (
        "gs://bucket/a",
        {"axes": "xyz", "chunk_size": "1,2,3"},
    )


def test_query_for_a_web_server():
    """What a web server is to see is passed on; elsewhere, or where it looks like a slip, it is refused."""
    bare, options = split_query("https://host/a?signature=a%2Fb+c&axes=xyz&empty=", OWN)
    assert bare == "https://host/a"
    assert options == {"axes": "xyz", "query": "signature=a%2Fb+c&empty="}
    with pytest.raises(UrlError, match="did you mean 'axes'"):
        split_query("https://host/a?axees=xyz", OWN)
    with pytest.raises(UrlError, match="unknown option 'signature'"):
        split_query("gs://bucket/a?signature=b", OWN)


def test_keywords_win_over_the_query():
    """An option given both ways is the keyword's."""
    store = storefs.open_store("precomputed:///nowhere?axes=xyz&zarr_format=2", axes="zyx")
    assert store.source.presentation.axes == "zyx"
    assert store.source.presentation.zarr_format == 2


@pytest.mark.parametrize(
    "url",
    [
        "precomputed://gs://bucket/path",
        "precomputed://gs://bucket/path/",
        "precomputed::gs://bucket/path",
        "gs://bucket/path/|neuroglancer-precomputed:",
        "gs://bucket/path|neuroglancer-precomputed:",
        " precomputed://gs://bucket/path ",
    ],
)
def test_spellings_of_an_address(url):
    """The ways to write an address all say the same."""
    backend, address, options = parse_url(url)
    assert backend.SCHEME == "precomputed"
    assert address.rstrip("/") == "gs://bucket/path"
    assert options == {}


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("gs://bucket/path", "write precomputed://gs://bucket/path"),
        ("precomputd://gs://bucket/path", "did you mean precomputed://gs://bucket/path"),
        ("gs://bucket/path|neuroglancer-precomputd:", "unknown format 'neuroglancer-precomputd:'"),
        ("bucket/path", "it should look like precomputed://"),
        ("", "it should look like precomputed://"),
    ],
)
def test_unknown_addresses(url, hint):
    """An address that cannot be read is refused with one that can."""
    with pytest.raises(UrlError, match=hint):
        storefs.open_store(url)


@pytest.mark.parametrize("url", ["https://host/a?key=s3cret", "precomputd://https://host/a?key=s3cret"])
def test_errors_keep_secrets(url):
    """What follows a question mark is not repeated in messages."""
    with pytest.raises(UrlError) as caught:
        storefs.open_store(url)
    assert "s3cret" not in str(caught.value)


def test_what_is_pickled():
    """Headers, queries and target options stay at home, save where they only name environment variables."""
    given = {
        "axes": "xyz",
        "headers": {"Authorization": "Bearer s3cret"},
        "query": "signature=s3cret",
        "target_options": {"password": "s3cret"},
    }
    assert picklable(given) == {"axes": "xyz"}
    named = {"headers": {"Authorization": "$TOKEN"}}
    assert picklable(named) == named
    assert picklable({"headers": {"Authorization": "$TOKEN", "X-Key": "s3cret"}}) == {}
