"""What the benchmark must show: ratios of medians, peak memory, growth with size; and whether a run shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.cases import CORES, Case
from benchmarks.results import Results

OURS, DEFAULT = "storefs.open", "zarr.open"
PEERS = ("tensorstore", "cloud-volume")
MIB = 1 << 20

WHOLE = {  # (encoding, place): at most this part of the time of each of PEERS
    ("raw", "file"): (0.9, 0.7),
    ("raw", "http"): (0.9, 0.2),
    ("jpeg", "file"): (0.8, 0.5),
    ("jpeg", "http"): (0.85, 0.25),
    ("compressed_segmentation", "file"): (0.5, 0.5),
    ("compressed_segmentation", "http"): (0.5, 0.25),
}
WHOLE_30_MS = (0.8, 0.5)
CHUNK_FILE = (0.3, 0.8)
DEFAULT_ANY = (1.2, 1.0)
MEMORY_MIB = 200.0
GROWTH = 0.1
PART = {"half": 2, "quarter": 4, "eighth": 8}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal: what it is about, the most that is allowed, what was found."""

    what: str
    limit: float
    found: float

    @property
    def reached(self) -> bool:
        """Whether it was found so."""
        return self.found <= self.limit


def limit(case: Case, reader: str, peer: str) -> float | None:
    """The largest ratio that `case` allows; None where there is no goal."""
    if case.cores != CORES:
        return None
    column = PEERS.index(peer)
    if reader == DEFAULT:
        return DEFAULT_ANY[column]
    if case.kind == "chunk" and case.place == "file":
        return CHUNK_FILE[column]
    if case.kind != "whole":
        return None
    if case.place == "http30":
        return WHOLE_30_MS[column]
    goal = WHOLE.get((case.encoding, case.place))
    return goal and goal[column]


def outcomes(results: Results) -> Iterator[Outcome]:
    """All goals that `results` can speak to."""
    for row in results.rows.values():
        for reader in (OURS, DEFAULT):
            for peer in PEERS:
                most, found = limit(row.case, reader, peer), row.ratio(reader, peer)
                if most is not None and found is not None:
                    yield Outcome(f"{row.case.name}: {reader} / {peer}", most, found)
        yield from _memory(results, row.case)
        yield from _growth(results, row.case)


def _memory(results: Results, case: Case) -> Iterator[Outcome]:
    measured = results.rows[case.name].measured.get(OURS)
    if case.kind == "whole" and measured and measured.seconds is not None:
        beyond = measured.peak_mib - measured.nbytes / MIB
        yield Outcome(f"{case.name}: MiB of memory beyond the output", MEMORY_MIB, beyond)


def _growth(results: Results, case: Case) -> Iterator[Outcome]:
    """How far the time of a part is from its part of the time of the whole."""
    whole = results.rows.get(Case(case.encoding, case.sharded, case.place, "whole", case.cores).name)
    if case.kind not in PART or whole is None:
        return
    part, all_of_it = (found.measured.get(OURS) for found in (results.rows[case.name], whole))
    if part and part.seconds and all_of_it and all_of_it.seconds:
        ratio = all_of_it.seconds / (PART[case.kind] * part.seconds)
        yield Outcome(f"{case.name}: whole, over {PART[case.kind]} times this", 1 + GROWTH, ratio)
