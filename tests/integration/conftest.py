"""A small layer, a web server over it, and the two roads by which storefs may ask that server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import storefs
from storefs.transport import objects, retry
from tests.http_server import FolderServer
from tests.layers import voxels, write_layer

CHUNK = (16, 16, 16)
SIZE = (40, 24, 20)
CREDENTIAL_VARIABLES = ("AWS_", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST")


@dataclass(frozen=True)
class Layer:
    """A layer on disk: 3 x 2 x 2 chunks of noise without a zero."""

    root: Path
    volume: npt.NDArray[np.generic]


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test finds credentials, proxies or servers that it has not set up."""
    for name in list(os.environ):
        if name.startswith(CREDENTIAL_VARIABLES) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "no-gcloud"))


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is tested where it is the point."""
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(objects, "_SLOW_DOWN_WAIT", 0.05)


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    volume = voxels(SIZE)
    root = tmp_path / "layer"
    write_layer(root, volume, CHUNK)
    return Layer(root, volume)


@pytest.fixture
def server(layer: Layer) -> Iterator[FolderServer]:
    with FolderServer(layer.root) as running:
        yield running


@pytest.fixture(params=["obstore", "aiohttp"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The client that asks: obstore, or aiohttp as in a forked process."""
    if request.param == "aiohttp":
        monkeypatch.setattr(objects, "_IMPORTED_IN", -1)
    return str(request.param)


@pytest.fixture
def read() -> Callable[..., npt.NDArray[np.generic]]:
    """Read the finest scale of the volume at an address, with little patience."""

    def whole(url: str, **options: Any) -> npt.NDArray[np.generic]:
        array = storefs.open_array(f"precomputed://{url}", **{"retries": 2, "timeout": 5, **options})
        return np.asarray(array[...])

    return whole
