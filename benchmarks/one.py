"""`python -m benchmarks.one '{…}'`: times one reader in this process, which has done nothing else; prints JSON.

Opens the layer, reads once to warm up, then times passes over the selections until there is enough to go by. Results
are compared with the expected voxels after everything was timed and weighed.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ENOUGH_SECONDS = 0.3
MOST_PASSES = 20
WARM_UP = 1_000_000  # added to the seed: other places than those timed
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """What to time: `reader` is `module:name` in READERS there, `expected` an npy file of all voxels.

    `compare` says whether to look at what was read, which may differ by `tolerance` grey levels.
    """

    reader: str
    url: str
    kind: str
    expected: str
    seed: int
    cores: int
    compare: bool = False
    tolerance: int = 0


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of one read, its bytes, and the memory it took beyond what the opened library held before."""

    seconds: float
    nbytes: float
    peak_mib: float


def run(job: Job) -> Timed:
    """Time `job` here. Raises ValueError where voxels are not those expected."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.cores])
    import numpy as np  # only now: libraries count the cores when they start

    from benchmarks.selections import draw, voxels_in

    expected = np.load(job.expected, mmap_mode="r")
    module, _, name = job.reader.partition(":")
    opened = importlib.import_module(f"benchmarks.{module}").READERS[name](job.url, job.cores)
    held = _resident()
    warm_up = opened.read(draw(job.kind, expected.shape, job.seed + WARM_UP)[0])
    del warm_up
    selections = draw(job.kind, expected.shape, job.seed)
    passes: list[float] = []
    while len(passes) < MOST_PASSES and sum(passes) < ENOUGH_SECONDS:
        spent = 0.0
        for selection in selections:
            start = time.perf_counter()
            result = opened.read(selection)
            spent += time.perf_counter() - start
            del result
        passes.append(spent)
    peak = _peak() - held
    if job.compare:
        for selection in selections:
            _compare(opened.read(selection), expected, selection, job)
    nbytes = sum(map(voxels_in, selections)) * expected.itemsize
    return Timed(statistics.median(passes) / len(selections), nbytes / len(selections), peak / MIB)


def _compare(found: Any, expected: Any, selection: Any, job: Job) -> None:
    import numpy as np

    from benchmarks.selections import Points

    here = (selection.z, selection.y, selection.x) if isinstance(selection, Points) else selection
    wanted = expected[here]
    found = np.asarray(found)
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise ValueError(f"{job.reader} gave {found.dtype} {found.shape}, not {wanted.dtype} {wanted.shape}")
    if np.array_equal(found, wanted):
        return
    worst = int(np.abs(found.astype(np.int64) - wanted.astype(np.int64)).max())
    if worst > job.tolerance:
        raise ValueError(f"{job.reader} reads {job.kind} of {job.url} differently by {worst}")


def _resident() -> int:
    return _status("VmRSS") if Path("/proc/self/status").exists() else _peak()


def _peak() -> int:
    """Bytes. Linux keeps in ru_maxrss what the parent had at the fork: its own record is of this program alone."""
    if Path("/proc/self/status").exists():
        return _status("VmHWM")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    print(json.dumps(asdict(run(Job(**json.loads(sys.argv[1]))))))
