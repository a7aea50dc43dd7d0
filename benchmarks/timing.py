"""Times readers side by side: one fresh process a reader and repeat, all readers in turn, medians of the repeats."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.one import Job, Timed

ROOT = Path(__file__).parents[1]
LONGEST = 600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One reader's repeats: medians, the spread (quartiles apart, of the median), or what went wrong."""

    seconds: float | None = None
    spread: float = 0.0
    nbytes: float = 0.0
    peak_mib: float = 0.0
    repeats: int = 0
    failed: str | None = None


def side_by_side(jobs: Mapping[str, Job], repeats: int) -> dict[str, Measured]:
    """Time the job of each reader `repeats` times, in turn, each in a fresh process.

    All readers read the same places in the same repeat. The first repeat compares voxels too. A reader that fails is
    not asked again.
    """
    found: dict[str, list[Timed]] = {reader: [] for reader in jobs}
    failed: dict[str, str] = {}
    for repeat in range(repeats):
        for reader in _rotated(list(jobs), repeat):
            if reader in failed:
                continue
            outcome = _run(replace(jobs[reader], seed=repeat, compare=repeat == 0))
            if isinstance(outcome, Timed):
                found[reader].append(outcome)
            else:
                failed[reader] = outcome
    return {reader: _summary(found[reader], failed.get(reader)) for reader in jobs}


def _rotated(readers: list[str], by: int) -> list[str]:
    """No reader always comes after the same other one's heat."""
    by %= len(readers)
    return readers[by:] + readers[:by]


def _run(job: Job) -> Timed | str:
    command = [sys.executable, "-m", "benchmarks.one", json.dumps(asdict(job))]
    started = time.monotonic()
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired:
        return f"took more than {time.monotonic() - started:.0f} s"
    if ended.returncode:
        last = ended.stderr.strip().splitlines() or ["no message"]
        return f"exit code {ended.returncode}: {last[-1]}"
    return Timed(**json.loads(ended.stdout.strip().splitlines()[-1]))


def _summary(times: list[Timed], failed: str | None) -> Measured:
    if failed or not times:
        return Measured(failed=failed or "not run")
    seconds = [timed.seconds for timed in times]
    median = statistics.median(seconds)
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (median, median, median)
    return Measured(
        seconds=median,
        spread=(high - low) / median,
        nbytes=statistics.median(timed.nbytes for timed in times),
        peak_mib=statistics.median(timed.peak_mib for timed in times),
        repeats=len(times),
    )
