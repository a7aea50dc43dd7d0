"""Chunks stored one object each: names, suffixes, and what objects are wrapped in."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs.backends.precomputed.chunks import chunk_name, object_exists, payload_limit, read_object, unwrap
from storefs.backends.precomputed.info import Scale
from storefs.errors import ServerFault, TooLong
from storefs.model import Encoding
from storefs.plans import Body, Get, Head, Names, Request, drive
from storefs_codecs.errors import DecodeError
from tests.backends.precomputed.golden import VECTORS

EXTENT = (4, 4, 4)
NAME = "0-4_0-4_0-4"
PLAIN = bytes(range(64))

WRAPPINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "br": imagecodecs.brotli_encode,
    "zstd": imagecodecs.zstd_encode,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}
SUFFIXES = {".gz": "gzip", ".br": "br", ".zstd": "zstd", ".zst": "zstd", ".xz": "xz", ".bz2": "bz2"}


def scale(**changes: Any) -> Scale:
    facts: dict[str, Any] = {
        "key": "s0",
        "size_xyz": (16, 16, 16),
        "resolution_xyz": (8.0, 8.0, 8.0),
        "voxel_offset_xyz": (0, 0, 0),
        "chunk_size_xyz": (4, 4, 4),
        "chunk_sizes": ((4, 4, 4),),
        "encoding": Encoding("raw"),
        "sharding": None,
        "unsupported": None,
    }
    return Scale(**facts | changes)


RAW = scale()
LABELS = scale(encoding=Encoding("compressed_segmentation", {"block_size": [4, 4, 4]}))


class Objects:
    """Answers requests out of a dictionary and remembers them; lists folders only where it is a local one."""

    def __init__(self, *, local: bool = True, **objects: Body) -> None:
        self.objects = objects
        self.local = local
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Any:
        self.asked.append(request)
        if isinstance(request, Names):
            below = [path[len(request.path) + 1 :] for path in self.objects if path.startswith(f"{request.path}/")]
            return frozenset(name.split("/")[0] for name in below) if self.local else None
        if isinstance(request, Head):
            return Body(b"") if request.path in self.objects else None
        assert isinstance(request, Get)
        return self.objects.get(request.path)


def stored(path: str, data: bytes, encoding: str | None = None, *, local: bool = True) -> Objects:
    return Objects(local=local, **{path: Body(data, encoding)})


def read(objects: Objects, of: Scale = RAW) -> bytes | None:
    stored = drive(read_object(of, NAME, EXTENT, "uint8"), objects)
    payload = stored() if callable(stored) else stored
    return None if payload is None else bytes(payload)


# names


def test_names_by_hand():
    """A name gives start and stop along x, y, z, in absolute voxels, clipped at the volume's end."""
    image = scale(size_xyz=(100, 90, 70), chunk_size_xyz=(64, 64, 32))
    assert chunk_name(image, (0, 0, 0)) == "0-64_0-64_0-32"
    assert chunk_name(image, (1, 1, 2)) == "64-100_64-90_64-70"
    moved = scale(size_xyz=(40, 40, 40), chunk_size_xyz=(16, 16, 16), voxel_offset_xyz=(-10, 5, -40))
    assert chunk_name(moved, (0, 0, 0)) == "-10-6_5-21_-40--24"
    assert chunk_name(moved, (2, 2, 2)) == "22-30_37-45_-8-0"
    far = scale(voxel_offset_xyz=(1 << 60, 3_000_000_000, 0))
    assert chunk_name(far, (0, 0, 0)) == "1152921504606846976-1152921504606846980_3000000000-3000000004_0-4"


def test_name_vectors():
    """Names are those of two other implementations."""
    if not VECTORS.exists():
        pytest.skip("../shared/golden/codecs/vectors.json not found")
    rows = json.loads(VECTORS.read_text())["chunk_names"]
    assert len(rows) > 5
    for row in rows:
        image = scale(
            size_xyz=tuple(row["size"]),
            chunk_size_xyz=tuple(row["chunk_size"]),
            voxel_offset_xyz=tuple(row["voxel_offset"]),
        )
        assert chunk_name(image, tuple(row["cell"])) == row["name"]


# finding


def test_plain_object_is_one_request():
    """A chunk under its own name is one request, with a bound on its length."""
    objects = stored(f"s0/{NAME}", PLAIN)
    assert read(objects) == PLAIN
    (request,) = objects.asked
    assert isinstance(request, Get)
    assert request.path == f"s0/{NAME}"
    assert request.limit is not None
    assert 64 <= request.limit < 8192


def test_volume_itself_as_folder():
    """With an empty key the chunks lie beside the info."""
    assert read(stored(NAME, PLAIN), scale(key="")) == PLAIN


@pytest.mark.parametrize(("suffix", "encoding"), SUFFIXES.items())
def test_suffixes(suffix, encoding):
    """In a local folder a compressed chunk is found under its suffix, and exists."""
    wrapped = WRAPPINGS[encoding](PLAIN)
    assert read(stored(f"s0/{NAME}{suffix}", wrapped)) == PLAIN
    assert read(stored(f"s0/0-4/0-4/0-4{suffix}", wrapped)) == PLAIN
    for path in (f"s0/{NAME}{suffix}", f"s0/0-4/0-4/0-4{suffix}"):
        assert drive(object_exists(RAW, NAME), stored(path, wrapped)) is True


def test_nested_folders():
    """In a local folder a chunk may lie in folders of x and y."""
    assert read(stored("s0/0-4/0-4/0-4", PLAIN)) == PLAIN
    assert read(stored("s0/0-4/0-4/4-8", PLAIN)) is None
    assert read(stored("s0/0-4/4-8/0-4", PLAIN)) is None


def test_plain_name_wins():
    """Where a chunk is stored twice, its plain name counts."""
    objects = Objects(**{f"s0/{NAME}": Body(PLAIN), f"s0/{NAME}.gz": Body(gzip.compress(bytes(64), mtime=0))})
    assert read(objects) == PLAIN


def test_remote_sources_are_not_probed():
    """Where folders cannot be listed, a chunk is its one name: an absent chunk costs one request."""
    objects = stored(f"s0/{NAME}.gz", gzip.compress(PLAIN, mtime=0), local=False)
    assert read(objects) is None
    assert [type(request) for request in objects.asked] == [Get, Names]
    assert drive(object_exists(RAW, NAME), objects) is False


@pytest.mark.parametrize("objects", [Objects(), stored(f"s0/{NAME}", b""), stored(f"s0/{NAME}.gz", b"")])
def test_absent(objects):
    """No object, or one of no bytes, is an absent chunk."""
    assert read(objects) is None


def test_existing():
    """A chunk exists under its name without being read."""
    objects = stored(f"s0/{NAME}", PLAIN)
    assert drive(object_exists(RAW, NAME), objects) is True
    assert objects.asked == [Head(f"s0/{NAME}")]
    assert drive(object_exists(RAW, NAME), Objects()) is False


# wrapping


@pytest.mark.parametrize("encoding", WRAPPINGS)
def test_declared_wrapping(encoding):
    """What the source declares is undone."""
    assert read(stored(f"s0/{NAME}", WRAPPINGS[encoding](PLAIN), encoding, local=False)) == PLAIN


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "xz", "bz2"])
def test_undeclared_wrapping(encoding):
    """What begins like a compressed chunk and has not the length of a plain one is unwrapped."""
    wrapped = WRAPPINGS[encoding](PLAIN)
    assert len(wrapped) != len(PLAIN)
    assert read(stored(f"s0/{NAME}", wrapped, local=False)) == PLAIN


@pytest.mark.parametrize("declared", ["gzip", "zstd", None])
def test_unwrapped_on_the_way(declared):
    """Where a proxy has unwrapped what the header still declares, the length of a raw chunk tells."""
    assert read(stored(f"s0/{NAME}", PLAIN, declared, local=False)) == PLAIN


def test_zlib_under_the_name_of_gzip():
    """A zlib stream declared as gzip is unwrapped."""
    assert read(stored(f"s0/{NAME}", zlib.compress(PLAIN), "gzip", local=False)) == PLAIN


def test_wrapped_twice():
    """Several wrappings are undone from the last on."""
    wrapped = gzip.compress(imagecodecs.brotli_encode(PLAIN), mtime=0)
    assert read(stored(f"s0/{NAME}", wrapped, "br, gzip", local=False)) == PLAIN


@pytest.mark.parametrize(
    "start", [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0", b"\x78\x9c", b"storefs"]
)
@pytest.mark.parametrize("declared", [None, "gzip"])
def test_raw_chunk_that_looks_wrapped(start, declared):
    """A raw chunk of exactly the right length is plain, whatever its first voxels resemble."""
    payload = start + bytes(64 - len(start))
    assert read(stored(f"s0/{NAME}", payload, declared, local=False)) == payload


@settings(deadline=None)
@given(st.binary(min_size=64, max_size=64))
def test_any_raw_chunk(payload):
    """Every raw chunk comes back as it is, declared wrapped or not."""
    for declared in (None, "gzip", "br", "zstd"):
        assert unwrap(Body(payload, declared), RAW, EXTENT, "uint8") == payload


@settings(deadline=None)
@given(st.binary(max_size=100), st.sampled_from([None, "gzip", "br", "zstd", "deflate", "xz", "identity", "rot13"]))
def test_any_object(data, declared):
    """Any object gives a payload no longer than a chunk can need, itself, or DecodeError."""
    for image in (RAW, LABELS):
        try:
            found = unwrap(Body(data, declared), image, EXTENT, "uint32")
            found = found() if callable(found) else found
        except DecodeError:
            continue
        assert bytes(found) == data or len(found) <= payload_limit(image, EXTENT, "uint32")


@pytest.mark.parametrize("encoding", WRAPPINGS)
def test_bombs(encoding):
    """A chunk that would inflate beyond its size is refused."""
    bomb = WRAPPINGS[encoding](bytes(1 << 20))
    with pytest.raises(DecodeError):
        read(stored(f"s0/{NAME}", bomb, encoding, local=False))


def test_labels_that_look_wrapped():
    """Compressed segmentation that begins with its number of channels is plain."""
    payload = b"\x01\0\0\0" + bytes(40)
    for declared in (None, "gzip", "br"):
        assert read(stored(f"s0/{NAME}", payload, declared, local=False), LABELS) == payload
    assert read(stored(f"s0/{NAME}", gzip.compress(payload, mtime=0), None, local=False), LABELS) == payload


def test_objects_too_long():
    """An object too long to be a chunk, which a transport refuses to read, is a DecodeError; other faults remain."""

    def refuse(fault: Exception) -> Callable[[Request], Any]:
        def answer(request: Request) -> Any:
            raise fault

        return answer

    with pytest.raises(DecodeError, match=r"has 9 GB.*expected at most"):
        drive(read_object(RAW, NAME, EXTENT, "uint8"), refuse(TooLong("has 9 GB")))
    with pytest.raises(ServerFault, match="fell over"):
        drive(read_object(RAW, NAME, EXTENT, "uint8"), refuse(ServerFault("fell over")))


@pytest.mark.parametrize(
    ("of", "extent", "dtype", "least", "most"),
    [
        (RAW, (4, 4, 4), "uint8", 64, 64),
        (RAW, (3, 4, 4, 2), "uint64", 768, 768),
        (scale(encoding=Encoding("jpeg")), (64, 64, 64), "uint8", 1 << 18, 1 << 22),
        # one block of 64 labels of 8 bytes, 64 indexes of 32 bits, one header, one channel word
        (LABELS, (4, 4, 4), "uint64", 4 + 8 + 256 + 512, 8192),
        # blocks far bigger than the chunk still have an index for each of their places
        (
            scale(encoding=Encoding("compressed_segmentation", {"block_size": [64, 64, 64]})),
            (4, 4, 4),
            "uint64",
            1 << 20,
            2 << 20,
        ),
    ],
)
def test_payload_limits(of, extent, dtype, least, most):
    """The bound on a payload allows every valid chunk and little more."""
    assert least <= payload_limit(of, extent, dtype) <= most
