"""The options of caches and progress: sizes, times and folders in words."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from storefs.errors import UrlError
from storefs.options import Keeping, cache_folder, picklable, read_options, size, split_query


def keeping(**given: object) -> Keeping:
    return read_options(given, {}).keeping


def test_nothing_is_kept_by_default():
    """Without options there is no cache and nobody is told."""
    found = keeping()
    assert (found.memory_cache, found.cache, found.offline, found.progress) == (0, None, False, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0),
        (4096, 4096),
        (1e6, 1_000_000),
        ("500 MB", 500_000_000),
        ("500mb", 500_000_000),
        ("1.5 GiB", 3 << 29),
        ("2G", 2_000_000_000),
        ("2 Ki", 2048),
        ("10 TB", 10_000_000_000_000),
        ("77 b", 77),
        (" 12 ", 12),
    ],
)
def test_sizes(text, expected):
    """A size is a number of bytes, or text with a decimal or binary unit."""
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 PB", "1,5 GB", "1 M B", True, None, float("nan"), float("inf")])
def test_no_sizes(text):
    """Anything else is refused."""
    with pytest.raises(ValueError, match="expected a size"):
        size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0),
        ("30", 30),
        (1.5, 1.5),
        ("30 s", 30),
        ("5min", 300),
        ("2 h", 7200),
        ("7 d", 604800),
        ("forever", math.inf),
    ],
)
def test_times(text, expected):
    """A time is a number of seconds, or text with a unit."""
    assert keeping(cache_absent=text).cache_absent == expected


def test_folders(monkeypatch, tmp_path):
    """A folder becomes absolute, of a home too; True is the system's, False none, also as text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("here") == str(tmp_path / "here")
    assert cache_folder(Path("here")) == str(tmp_path / "here")
    assert cache_folder("~/there") == os.path.expanduser("~/there")  # noqa: PTH111  # what it should do
    for yes, no in ((True, False), ("true", "False")):
        assert cache_folder(yes).endswith("storefs")
        assert cache_folder(no) is None
    with pytest.raises(UrlError, match="option cache"):
        keeping(cache="")


def test_in_an_address():
    """All of them can stand in an address."""
    _, options = split_query("x?cache=%2Ftmp%2Fc&cache_size=1GB&offline=true&progress=true&memory_cache=5MB", {})
    found = keeping(**options)
    assert (found.cache, found.cache_size, found.offline) == (str(Path("/tmp/c").absolute()), 10**9, True)
    assert (found.progress, found.memory_cache) == (True, 5_000_000)


def test_pickles():
    """Options of caches travel; a hook for progress does not."""
    given = {"cache": "/c", "memory_cache": "1 MB", "offline": True, "progress": True}
    assert picklable(given) == given
    assert picklable({"progress": print, "cache": "/c"}) == {"cache": "/c"}
    assert picklable({"progress": "true"}) == {"progress": "true"}


def test_identity():
    """Options that bear on what an address gives tell caches apart; those that only say how to get it do not."""
    plain = keeping().identity
    for same in ({"timeout": 3}, {"retries": 1}, {"headers": {"A": "b"}}, {"anonymous": True}, {"axes": "xyz"}):
        assert keeping(**same).identity == plain
    others = [
        {"endpoint_url": "http://a"},
        {"endpoint_url": "http://b"},
        {"forbidden": "missing"},
        {"query": "generation=1"},
        {"query": "generation=2"},
        {"target_options": {"fo": "a.zip"}},
    ]
    assert len({plain, *(keeping(**other).identity for other in others)}) == len(others) + 1
    assert "hunter2" not in keeping(query="key=hunter2", target_options={"key": "hunter2"}).identity
