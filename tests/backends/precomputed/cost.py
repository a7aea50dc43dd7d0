"""What reading hostile bytes may take: seconds, and memory at its peak where the system tells."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PEAK_RSS = Path("/proc/self/clear_refs")
MAX_RSS_BYTES = 48 << 20  # libraries that are loaded meanwhile included
MAX_CPU_SECONDS = 1.0
MAX_SECONDS = 20.0  # a busy machine's seconds are long


@dataclass
class Cost:
    """What a case took: growth of the process at its peak (0 where the system does not tell), seconds."""

    rss: int = 0
    cpu: float = 0
    wall: float = 0


def rss_peak() -> int:
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) << 10


@contextmanager
def bounded() -> Iterator[None]:
    """Fails where the block takes much memory or time."""
    linux = PEAK_RSS.exists()
    if linux:
        PEAK_RSS.write_text("5")  # forgets the peak so far
        before = rss_peak()
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        yield
    finally:
        cost = Cost(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall)
    if linux:
        cost.rss = rss_peak() - before
    assert cost.rss < MAX_RSS_BYTES, cost
    assert cost.cpu < MAX_CPU_SECONDS, cost
    assert cost.wall < MAX_SECONDS, cost
