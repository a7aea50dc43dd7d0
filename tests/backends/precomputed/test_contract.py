"""The precomputed backend keeps the contract of all backends, for every way in which chunks are stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from storefs.testing import BackendContract
from tests.http_server import Faults, FolderServer
from tests.layers import Sharded, voxels, write_layer
from tests.small_volume import Volume, volume


class ServesFolder(BackendContract):
    """Shows the same folder on a web server whose chunks fail."""

    @pytest.fixture
    def faulty_url(self, url) -> Iterator[str]:
        server = FolderServer(Path(url.removeprefix("precomputed://file://")))
        server.faults = Faults(where=lambda path: not path.endswith("/info"), status=500)
        yield f"precomputed://{server.url}?retries=0"
        server.close()


class TestRaw(ServesFolder):
    """Unsharded, uncompressed, at a negative offset."""

    @pytest.fixture
    def layer(self, tmp_path) -> Volume:
        return volume((11, 9, 13), (5, 4, 6), "uint64").write(tmp_path)

    @pytest.fixture
    def url(self, layer):
        return layer.url

    @pytest.fixture
    def expected(self, layer):
        return {str(level): array for level, array in enumerate(layer.arrays)}


class TestPng(TestRaw):
    """Encoded, so that clipped chunks are framed."""

    @pytest.fixture
    def layer(self, tmp_path) -> Volume:
        return volume((11, 9, 13), (5, 4, 6), "uint16", encoding="png").write(tmp_path)


class TestChannels(TestRaw):
    """Several channels."""

    @pytest.fixture
    def layer(self, tmp_path) -> Volume:
        made = volume((2, 7, 9, 8), (5, 4, 6), "float32", absent=((0, 0, 0),))
        return made.write(tmp_path)


class TestSharded(ServesFolder):
    """Sharded, with compressed indexes and data, and a chunk that is in no index."""

    size, chunk, absent = (13, 9, 11), (5, 4, 6), (1, 1, 0)

    @pytest.fixture
    def url(self, tmp_path, expected):
        sharded = Sharded(preshift_bits=1, minishard_bits=1, shard_bits=1, index_gzip=True, data_gzip=True)
        write_layer(tmp_path / "layer", expected["0"], self.chunk, leave_out=[self.absent], sharded=sharded)
        return f"precomputed://file://{tmp_path}/layer"

    @pytest.fixture
    def expected(self):
        array = voxels(self.size, "uint32")
        x, y, z = (slice(i * c, (i + 1) * c) for i, c in zip(self.absent, self.chunk, strict=True))
        array[z, y, x] = 0
        return {"0": np.asarray(array)}


class TestOnTheWeb(TestRaw):
    """Read from a web server."""

    @pytest.fixture
    def url(self, layer) -> Iterator[str]:
        server = FolderServer(layer.folder)
        yield f"precomputed://{server.url}"
        server.close()

    @pytest.fixture
    def faulty_url(self, layer) -> Iterator[str]:
        server = FolderServer(layer.folder)
        server.faults = Faults(where=lambda path: not path.endswith("/info"), cut_body=True)
        yield f"precomputed://{server.url}?retries=0"
        server.close()
