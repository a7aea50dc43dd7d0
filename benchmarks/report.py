"""Results as text for the terminal. A ratio above 1 is a loss and is marked so; a goal missed is said, too."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.goals import DEFAULT, OURS, PEERS, limit, outcomes
from benchmarks.results import Results, Row
from benchmarks.timing import Measured

MIB = 1 << 20
SMALL, SLOW = 100_000, 0.01  # bytes, GB/s


def case_lines(row: Row) -> Iterator[str]:
    """A case: a line for every reader, then the ratios."""
    yield row.case.name
    for reader, found in row.measured.items():
        if found.seconds is None:
            yield f"    {reader:13} failed: {found.failed}"
            continue
        yield (
            f"    {reader:13} {duration(found.seconds):>9}  ±{found.spread / 2:4.0%}  "
            f"{throughput(found):>10}  "
            f"peak {found.peak_mib:5.0f} MiB for {found.nbytes / MIB:.0f}"
        )
    for ours in (OURS, DEFAULT):
        cells = [cell for peer in PEERS if (cell := _cell(row, ours, peer))]
        if cells:
            yield f"    {ours:13} / " + ", / ".join(cells)


def _cell(row: Row, ours: str, peer: str) -> str | None:
    ratio = row.ratio(ours, peer)
    if ratio is None:
        return None
    most = limit(row.case, ours, peer)
    goal = "" if most is None else f" (goal {most:g}{'' if ratio <= most else ', missed'})"
    return f"{peer} = {ratio:.2f}{' SLOWER' if ratio > 1 else ''}{goal}"


def summary(results: Results) -> Iterator[str]:
    """Wins, losses and goals over all cases."""
    for ours in (OURS, DEFAULT):
        for peer in PEERS:
            ratios = [ratio for row in results.rows.values() if (ratio := row.ratio(ours, peer)) is not None]
            if ratios:
                lost = sum(ratio > 1 for ratio in ratios)
                yield f"{ours} against {peer}: faster in {len(ratios) - lost} cases, slower in {lost}"
    goals = list(outcomes(results))
    missed = [goal for goal in goals if not goal.reached]
    yield f"goals: {len(goals) - len(missed)} of {len(goals)} reached"
    for goal in missed:
        yield f"    missed  {goal.what} = {goal.found:.2f}, at most {goal.limit:g}"


def throughput(found: Measured) -> str:
    """Bytes a second; nothing for reads too small or too slow for that to mean anything."""
    rate = found.nbytes / found.seconds / 1e9 if found.seconds else 0.0
    return f"{rate:.2f} GB/s" if found.nbytes >= SMALL and rate >= SLOW else ""


def duration(seconds: float) -> str:
    """Seconds, in the unit that suits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"
