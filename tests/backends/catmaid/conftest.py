"""A scene for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.catmaid.scene import Scene, scene


@pytest.fixture
def em(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A server, a tile host, and no token in the environment."""
    monkeypatch.delenv("CATMAID_API_TOKEN", raising=False)
    with scene() as made:
        yield made
