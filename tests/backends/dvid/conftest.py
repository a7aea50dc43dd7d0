"""With DVID_TEST_SERVER=http://host:port the tests that ask an emulated server ask that one as well, marked `live`."""

from __future__ import annotations

import pytest

from tests.backends.dvid.live import LIVE_NOT, SERVER, TOKEN_VARIABLE, LiveServer

ASKING = {"lab", "gray", "labels", "server", "client", "uuid", "place", "url", "fs", "tiles", "seg"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test twice, where there is a server and the test asks one."""
    of_emulator = metafunc.module.__name__.rpartition(".")[2].startswith("test_emulator")
    if SERVER and not of_emulator and hasattr(metafunc.module, "DvidEmulator") and ASKING & set(metafunc.fixturenames):
        real = pytest.param("live", marks=pytest.mark.live)
        metafunc.parametrize("asked_server", ["emulated", real], indirect=True)


@pytest.fixture(autouse=True)
def asked_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the real server in the emulator's place."""
    if getattr(request, "param", "emulated") == "live":
        if reason := LIVE_NOT.get(request.node.originalname):
            pytest.skip(reason)
        monkeypatch.setattr(request.module, "DvidEmulator", LiveServer)
        monkeypatch.delenv(TOKEN_VARIABLE, raising=False)  # it would unlock every version
