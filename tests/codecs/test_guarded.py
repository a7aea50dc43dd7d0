"""Child processes that take the crashes: what a caller sees of them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from storefs_codecs import guarded
from storefs_codecs.guarded import GuardedError, run_guarded

WORKER = f"""
import ctypes, os, runpy, sys, time
worker = runpy.run_path({str(guarded.WORKER_SCRIPT)!r})

def os_echo(library, payload, request): print("noise"); return payload
def os_pid(library, payload, request): return str(os.getpid()).encode()
def os_crash(library, payload, request): ctypes.string_at(0)
def os_exit(library, payload, request): os._exit(3)
def os_hang(library, payload, request): time.sleep(60)
def os_hog(library, payload, request): return bytes(1 << 40)
def os_raise(library, payload, request): raise KeyError("odd")
def absent_task(library, payload, request): return b""

worker["TASKS"].update({{name: task for name, task in globals().items() if "_" in name and callable(task)}})
worker["serve"]()
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A worker with tasks that misbehave, alone in its pool."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(guarded, "WORKER_SCRIPT", script)
    monkeypatch.setattr(guarded.os, "cpu_count", lambda: 1)
    guarded._pool.cache_clear()
    yield
    guarded._pool.cache_clear()


def run(task, payload=b"", size=1 << 20):
    return bytes(run_guarded(task, memoryview(payload), size, {}))


def test_kept_alive(worker):
    """Requests go to one process, whatever their size and whatever a library prints."""
    payload = os.urandom(1 << 20)
    assert run("os_echo", payload) == payload
    assert run("os_echo") == b""
    assert run("os_pid") == run("os_pid") != str(os.getpid()).encode()


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ("os_crash", "crashed"),
        ("os_exit", r"crashed .*exit code 3"),
        ("os_raise", "KeyError: 'odd'"),
        ("absent_task", "ModuleNotFoundError"),
        pytest.param("os_hog", "MemoryError", marks=pytest.mark.skipif(sys.platform != "linux", reason="no limit")),
    ],
)
def test_failure(worker, task, problem):
    """Whatever goes wrong raises GuardedError, and the next request is answered by another process."""
    before = run("os_pid")
    with pytest.raises(GuardedError, match=problem):
        run(task)
    assert run("os_pid") != before


def test_hang(worker, monkeypatch):
    """A task that takes too long ends."""
    monkeypatch.setattr(guarded, "BASE_SECONDS", 0.2)
    with pytest.raises(GuardedError, match="out of time"):
        run("os_hang", size=10)


def test_result_too_large(worker):
    """No answer is longer than asked for."""
    assert run("os_echo", b"12345", size=5) == b"12345"
    with pytest.raises(GuardedError, match="too large"):
        run("os_echo", b"123456", size=5)


def test_dead_worker(worker):
    """A worker that died between requests is replaced."""
    os.kill(int(run("os_pid")), 9)
    assert run("os_echo", b"still here") == b"still here"


def test_threads(worker, monkeypatch):
    """Threads share workers and get their own answers."""
    payloads = [bytes([n]) * (n * 1000) for n in range(50)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda payload: run("os_echo", payload), payloads)) == payloads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_fork(worker, tmp_path):
    """A fork starts a worker of its own, and parent and fork both end."""
    script = tmp_path / "forking.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, pathlib, warnings
        from storefs_codecs import guarded
        warnings.simplefilter("ignore")
        guarded.WORKER_SCRIPT = pathlib.Path({str(guarded.WORKER_SCRIPT)!r})
        def pid(): return bytes(guarded.run_guarded("os_pid", memoryview(b""), 100, {{}}))
        before = pid()
        child = os.fork()
        if child == 0:
            os._exit(pid() == before)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pid() == before
        """)
    )
    subprocess.run([sys.executable, script], check=True, timeout=60)
