"""From the bytes of an info file to a volume: the plan, and any bytes at all."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs.backend import Redirect
from storefs.backends.precomputed.backend import PrecomputedBackend, describe
from storefs.backends.precomputed.document import parse_json
from storefs.backends.precomputed.info import Info, parse_info
from storefs.errors import MetadataError, NoSuchVolume, TooLong
from storefs.metadata import documents
from storefs.model import Presentation
from storefs.plans import Body, Get
from tests.backends.precomputed.infos import SHARDING, URL, info


def test_describing_is_one_request():
    """Describing asks for the info, once, and returns the volume."""
    plan = describe(URL)
    request = next(plan)
    assert isinstance(request, Get)
    assert (request.path, request.start) == ("info", None)
    assert request.limit is not None
    with pytest.raises(StopIteration) as stop:
        plan.send(Body(json.dumps(info()).encode()))
    backend = stop.value.value
    assert isinstance(backend, PrecomputedBackend)
    (node,) = backend.hierarchy.arrays
    assert (node.shape, node.chunk_shape, node.dtype) == ((70, 90, 100), (32, 64, 64), "uint8")
    assert node.scale_nm == (40.0, 8.0, 8.0)
    assert node.translation_nm == (20.0, 44.0, -76.0)
    assert node.voxel_offset_xyz == (-10, 5, 0)
    assert backend.hierarchy.attributes["info"] == info()


def described(data: bytes | None, error: Exception | None = None) -> Any:
    plan = describe(URL)
    next(plan)
    with pytest.raises(StopIteration) as stop:
        plan.throw(error) if error else plan.send(None if data is None else Body(data))
    return stop.value.value


def test_describing_faults():
    """No info is NoSuchVolume; one too long, or gzip that is none, is a MetadataError; gzip that is one is read."""
    with pytest.raises(NoSuchVolume, match="no info file"):
        described(None)
    with pytest.raises(MetadataError, match="too long to be"):
        described(None, TooLong("too long to be"))
    with pytest.raises(MetadataError, match="cannot be unpacked"):
        described(b"\x1f\x8b garbage")
    packed = gzip.compress(json.dumps(info()).encode())
    assert described(packed).hierarchy == described(json.dumps(info()).encode()).hierarchy


def test_describing_redirects():
    """An info that redirects says where to; a redirect that is no address is refused."""
    assert described(b'{"redirect": "gs://bucket/there"}') == Redirect("gs://bucket/there")
    for text in (b'{"redirect": 3}', b'{"redirect": ""}', b'{"redirect": ["a"]}'):
        with pytest.raises(MetadataError, match="info: redirect: expected an address"):
            described(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.sampled_from([[8, 8, 8], "raw", "uint8", "uint64", "identity"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
PATHS = (
    [(key,) for key in info()]
    + [("scales", 0, key) for key in info()["scales"][0]]
    + [("scales", 0, "sharding", key) for key in [*SHARDING, "data_encoding"]]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(PATHS), JSON), max_size=3), st.booleans())
def test_any_json(changes, sharded):
    """Any JSON in any place gives a volume whose documents can be written, or MetadataError."""
    document = info(sharding=dict(SHARDING)) if sharded else info()
    for path, value in changes:
        part: Any = document
        try:
            for step in path[:-1]:
                part = part[step]
            part[path[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change took the place away
    outcome = outcome_of(json.dumps(document).encode())
    if isinstance(outcome, Info):
        backend = PrecomputedBackend(URL, outcome)
        for shown in (Presentation(), Presentation(zarr_format=2, axes="xyz")):
            for text in documents(backend.hierarchy, shown).values():
                json.loads(text, parse_constant=pytest.fail)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(data):
    """Any bytes give an info or MetadataError."""
    outcome_of(data)


def outcome_of(data: bytes) -> Info | MetadataError:
    """The info in `data`, or the one error that is allowed, which says where it struck, shortly."""
    try:
        return parse_info(parse_json(data, URL), URL)
    except MetadataError as error:
        outcome = error
    assert str(outcome).startswith("info")
    assert str(outcome).endswith(f"[{URL}]")
    assert len(str(outcome)) < 600
    return outcome
