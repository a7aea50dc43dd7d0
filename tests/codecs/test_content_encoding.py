"""Content encodings: what is read, what is refused, and how much memory that takes."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storefs_codecs import DecodeError
from storefs_codecs.content_encoding import inflate, sniff


def bare_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def zstd_without_size(data: bytes) -> bytes:
    """A frame of stored blocks that does not tell its content size."""
    blocks = b"".join(
        (len(data[at : at + 65536]) << 3).to_bytes(3, "little") + data[at : at + 65536]
        for at in range(0, len(data), 65536)
    )
    return b"\x28\xb5\x2f\xfd\x00\x58" + blocks + b"\x01\0\0"


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data, 1),
    "zlib": zlib.compress,
    "deflate": zlib.compress,
    "br": lambda data: bytes(imagecodecs.brotli_encode(data)),
    "zstd": lambda data: bytes(imagecodecs.zstd_encode(data)),
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "bzip2": bz2.compress,
}
CHECKED = {"gzip": gzip.compress, "zlib": zlib.compress, "xz": lzma.compress, "bz2": bz2.compress}
TEXT = b"".join(b"%d " % (n * n) for n in range(2000))


@pytest.fixture(params=ENCODERS, ids=str)
def encoding(request):
    return request.param


@given(st.binary(max_size=3000), st.sampled_from(sorted(ENCODERS)))
def test_round_trip(data, encoding):
    """Whatever went in comes out, with a limit of exactly its length."""
    assert inflate(ENCODERS[encoding](data), encoding, limit=len(data)) == data


def test_limit(encoding):
    """One byte more than the limit is too much; a generous limit changes nothing."""
    payload = ENCODERS[encoding](TEXT)
    assert inflate(memoryview(payload), encoding.upper(), limit=10**9) == TEXT
    for limit in (len(TEXT) - 1, 1, 0):
        with pytest.raises(DecodeError, match=f"at most {limit} bytes"):
            inflate(payload, encoding, limit=limit)


def test_truncated(encoding):
    """A payload without its end raises DecodeError wherever it is cut."""
    payload = ENCODERS[encoding](TEXT)
    for length in {0, 1, 2, 5, 10, 18, len(payload) // 2, len(payload) - 9, len(payload) - 1}:
        with pytest.raises(DecodeError):
            inflate(payload[:length], encoding, limit=len(TEXT))


def test_garbage(encoding):
    """Bytes of another kind raise DecodeError."""
    for garbage in (
        b"\0" * 50,
        b"<html></html>",
        bytes(range(256)),
        b"\x1f\x8b\x08garbage",
        b"\x28\xb5\x2f\xfd!!!",
    ):
        with pytest.raises(DecodeError):
            inflate(garbage, encoding, limit=10**6)


@pytest.mark.parametrize("name", CHECKED)
def test_garbage_behind_the_end(name):
    """Behind the end only zero bytes and further streams may follow."""
    payload = CHECKED[name](TEXT)
    assert inflate(payload + bytes(300), name, limit=len(TEXT)) == TEXT
    assert inflate(payload * 3, name, limit=3 * len(TEXT)) == TEXT * 3
    assert inflate(payload + CHECKED[name](b"") + payload, name, limit=2 * len(TEXT)) == TEXT * 2
    with pytest.raises(DecodeError):
        inflate(payload + b"garbage", name, limit=10 * len(TEXT))
    with pytest.raises(DecodeError):
        inflate(payload * 2, name, limit=len(TEXT))


@pytest.mark.parametrize("name", CHECKED)
def test_checksums(name):
    """A change in the compressed bytes or the trailer raises DecodeError or changes nothing."""
    payload = CHECKED[name](TEXT)
    for at in range(0, len(payload), max(1, len(payload) // 200)):
        broken = bytearray(payload)
        broken[at] ^= 0x10
        try:
            assert inflate(bytes(broken), name, limit=2 * len(TEXT)) == TEXT
        except DecodeError:
            continue


def test_wrong_gzip_trailer():
    """A gzip member whose length or checksum is wrong raises DecodeError."""
    payload = gzip.compress(TEXT)
    for at in (-1, -4, -5, -8):
        broken = bytearray(payload)
        broken[at] ^= 1
        with pytest.raises(DecodeError):
            inflate(broken, "gzip", limit=2 * len(TEXT))


def test_gzip_members_that_look_alike():
    """Two equal members are two members, also where the last trailer fits the first."""
    payload = gzip.compress(b"abc", mtime=0)
    assert inflate(payload + payload, "gzip", limit=6) == b"abcabc"


def test_damaged_second_member():
    """A second member whose head is damaged raises DecodeError, also where the last trailer fits the first."""
    payload = gzip.compress(TEXT, mtime=0)
    for flags in (0x20, 0x40, 0x80, 0xFF):
        second = bytearray(payload)
        second[3] = flags
        with pytest.raises(DecodeError):
            inflate(payload + second, "gzip", limit=2 * len(TEXT))


@pytest.mark.parametrize("level", range(10))
def test_zlib_streams_called_gzip(level):
    """Streams of zlib are read where gzip is declared, as some writers of shards store them."""
    assert inflate(zlib.compress(TEXT, level), "gzip", limit=len(TEXT)) == TEXT


def test_bare_deflate():
    """Deflate without the zlib wrapping is read too."""
    assert inflate(bare_deflate(TEXT), "deflate", limit=len(TEXT)) == TEXT


@pytest.mark.parametrize("data", [b"", b"x", TEXT, TEXT * 20])
def test_zstd_without_content_size(data):
    """Frames that do not tell their length are bounded like all others."""
    payload = zstd_without_size(data)
    assert inflate(payload, "zstd", limit=len(data)) == data
    if data:
        with pytest.raises(DecodeError):
            inflate(payload, "zstd", limit=len(data) - 1)


def test_several_encodings():
    """Encodings are undone from the last to the first; aws-chunked and identity change nothing."""
    assert inflate(TEXT, "", limit=len(TEXT)) == TEXT
    assert inflate(TEXT, "identity", limit=len(TEXT)) == TEXT
    assert inflate(gzip.compress(TEXT), "aws-chunked,gzip", limit=len(TEXT)) == TEXT
    assert inflate(gzip.compress(TEXT), "gzip, aws-chunked", limit=len(TEXT)) == TEXT
    assert inflate(ENCODERS["br"](gzip.compress(TEXT)), "gzip, br", limit=len(TEXT)) == TEXT
    assert inflate(gzip.compress(gzip.compress(b"\0\1")), "gzip,gzip", limit=2) == b"\0\1"
    with pytest.raises(DecodeError, match="holds more"):
        inflate(TEXT, "identity", limit=len(TEXT) - 1)
    with pytest.raises(DecodeError, match="unknown content encoding"):
        inflate(TEXT, "compress", limit=len(TEXT))


def test_sniff():
    """Encodings with magic bytes are recognised, others are not."""
    assert [sniff(ENCODERS[name](TEXT)) for name in ("gzip", "zstd", "bz2", "xz")] == [
        "gzip",
        "zstd",
        "bz2",
        "xz",
    ]
    for other in (b"", b"\x1f", TEXT, ENCODERS["br"](TEXT), zlib.compress(TEXT)):
        assert sniff(other) is None
    assert sniff(memoryview(gzip.compress(TEXT))) == "gzip"


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd", "xz", "bz2", "gzip, gzip"])
def test_bombs(name):
    """A payload that holds far more than expected is refused within a few megabytes."""
    payload = bytes(40_000_000)
    for part in name.split(", "):
        payload = ENCODERS[part](payload)
    assert len(payload) < 60_000
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            inflate(payload, name, limit=4096)
        # xz reserves the 8 MiB dictionary that its header declares
        assert tracemalloc.get_traced_memory()[1] < (10_000_000 if name == "xz" else 2_000_000)
    finally:
        tracemalloc.stop()


def test_many_empty_members():
    """Members without content cost no more than their bytes."""
    payload = gzip.compress(b"") * 20_000
    assert inflate(payload, "gzip", limit=10) == b""


def test_declared_length_is_not_believed():
    """A gzip trailer or a zstd header that claims gigabytes allocates nothing like it."""
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            inflate(gzip.compress(TEXT)[:-4] + b"\xff\xff\xff\x7f", "gzip", limit=10_000)
        with pytest.raises(DecodeError):
            inflate(b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 7 + b"\0" + b"\x01\0\0", "zstd", limit=10_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_xz_dictionary_is_bounded():
    """A dictionary larger than any preset asks for is refused; the largest preset is read."""
    assert inflate(lzma.compress(TEXT, preset=9), "xz", limit=len(TEXT)) == TEXT
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    with pytest.raises(DecodeError):
        inflate(lzma.compress(b"x", filters=filters), "xz", limit=10)


def test_threads():
    """Many threads inflate at once."""
    payloads = [(name, encode(TEXT)) for name, encode in ENCODERS.items()] * 5
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda item: inflate(item[1], item[0], limit=len(TEXT)), payloads))
    assert all(data == TEXT for data in found)


@given(st.binary(max_size=200), st.sampled_from(sorted(ENCODERS)))
def test_random_bytes(data, encoding):
    """Random bytes give some bytes within the limit or DecodeError, nothing else."""
    with contextlib.suppress(DecodeError):
        assert len(inflate(data, encoding, limit=500)) <= 500
