"""The script of a child process that runs decoders which damaged bytes can crash; see guarded.py.

A crash, a hang or too large an allocation ends this process; the parent starts another.

Wire format, both ways over pipes, native byte order: a request is two lengths, a JSON object and the payload;
an answer is a status, a length and a body (the result, or a message). This file imports nothing from its
package, whose modules `crackle` and `fpzip` would hide the libraries.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import mmap
import os
import signal
import struct
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import numpy.typing as npt

Body = bytes | memoryview

REQUEST = struct.Struct("=QQ")
ANSWER = struct.Struct("=BQ")
DONE, FAILED = range(2)
SPARE_MEMORY = 256 << 20
MESSAGE_BYTES = 1000


def crackle_decode(crackle: ModuleType, payload: bytes, request: dict[str, Any]) -> Body:
    """The voxels, C order (z, y, x)."""
    labels = crackle.decompress(payload, parallel=1)
    return _checked(labels.T, request)


def fpzip_decode(fpzip: ModuleType, payload: bytes, request: dict[str, Any]) -> Body:
    """The values, C order (c, z, y, x).

    The decoder runs past the end of a truncated stream. Decoded values are monotone in the bytes that follow,
    so where the lowest and the highest continuation agree, no other could differ: the values are right.
    """
    # no value takes more than four times its own width
    room = 4 * request["result_bytes"] + 4096
    lowest, highest = (_checked(fpzip.decompress(payload + fill * room), request) for fill in (b"\0", b"\xff"))
    if lowest != highest:
        raise ValueError("the stream is cut short")
    return lowest


def fpzip_encode(fpzip: ModuleType, payload: bytes, request: dict[str, Any]) -> Body:
    """The stream of values that come as C order (c, z, y, x) bytes."""
    values = np.frombuffer(payload, request["dtype"]).reshape(request["shape"]).copy()
    stream: bytes = bytes(fpzip.compress(values, precision=request["precision"]))
    # beyond its first buffer the package writes into memory that is not its own
    if len(stream) > values.nbytes + 24 * values.itemsize:
        raise ValueError("the values do not compress")
    return stream


TASKS: dict[str, Callable[[ModuleType, bytes, dict[str, Any]], Body]] = {
    task.__name__: task for task in (crackle_decode, fpzip_decode, fpzip_encode)
}


def _checked(array: npt.NDArray[Any], request: dict[str, Any]) -> memoryview:
    """The bytes of `array`, C order, if it has the requested shape and dtype."""
    if array.shape != tuple(request["shape"]) or array.dtype != np.dtype(request["dtype"]):
        raise ValueError(f"decoded to {array.shape} {array.dtype}")
    return np.ascontiguousarray(array).data.cast("B")


def _limit_memory(spare: int) -> None:
    """Let this process grow by `spare` bytes and no more, and die without a core file; on Linux."""
    if sys.platform == "linux":
        import resource  # noqa: PLC0415 does not exist on Windows

        with open("/proc/self/statm") as file:  # noqa: PTH123 opened for every single request
            used = int(file.read().split()[0]) * mmap.PAGESIZE
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = used + spare if most == resource.RLIM_INFINITY else min(used + spare, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run(payload: bytes, request: dict[str, Any]) -> tuple[int, Body]:
    """The status and body of one answer. Ends the process where the task takes too long."""
    task = TASKS[request["task"]]
    faulthandler.dump_traceback_later(request["seconds"], exit=True)
    try:
        library = importlib.import_module(task.__name__.partition("_")[0])
        _limit_memory(SPARE_MEMORY + 16 * (len(payload) + request["result_bytes"]))
        body = task(library, payload, request)
    except Exception as error:  # noqa: BLE001 libraries raise whatever they like
        return FAILED, f"{type(error).__name__}: {error}".encode()[:MESSAGE_BYTES]
    finally:
        faulthandler.cancel_dump_traceback_later()
    if len(body) > request["result_bytes"]:
        return FAILED, b"the result is too large"
    return DONE, body


def serve() -> None:
    """Answer requests from standard input on standard output until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    while len(lengths := source.read(REQUEST.size)) == REQUEST.size:
        request_length, payload_length = REQUEST.unpack(lengths)
        request = json.loads(source.read(request_length))
        status, body = _run(source.read(payload_length), request)
        answers.write(ANSWER.pack(status, len(body)))
        answers.write(body)
        answers.flush()


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])
    serve()
