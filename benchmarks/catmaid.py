"""`python -m benchmarks.catmaid`: a box of JPEG tiles from a local tile server, against catpy and bare decoding."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import layers, readme, results, tiles
from benchmarks.cases import CORES
from benchmarks.one import Job
from benchmarks.report import duration
from benchmarks.selections import Shape
from benchmarks.server import serving, spare_cores
from benchmarks.timing import Measured, side_by_side

HERE = Path(__file__).parent
LATENCY = 0.02
ROUNDING = 2  # grey levels by which decoders may differ
WITHOUT, WITH = "without latency", "20 ms added"
RUNS = {
    WITHOUT: ("storefs.open", "zarr.open", "catpy", "from memory"),
    WITH: ("storefs.open", "zarr.open", "catpy", "one by one"),
}


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of medians that shall be at most, or at least, `bound`."""

    what: str
    run: str
    over: str
    under: str
    bound: float
    at_least: bool = False

    @property
    def text(self) -> str:
        """The bound in words."""
        return f"at {'least' if self.at_least else 'most'} {self.bound:g}"


GOALS = [
    Goal("storefs.open / catpy", WITHOUT, "storefs.open", "catpy", 0.6),
    Goal("storefs.open / decoding from memory", WITHOUT, "storefs.open", "from memory", 1.5),
    Goal("one by one / storefs.open, 20 ms added", WITH, "one by one", "storefs.open", 8, at_least=True),
    Goal("zarr.open / catpy", WITHOUT, "zarr.open", "catpy", 1.0),
    Goal("storefs.open / catpy, 20 ms added", WITH, "storefs.open", "catpy", 0.6),
]


def main(arguments: list[str] | None = None) -> None:
    """Write the tiles, time all ways of reading them, print a table, keep it in the results file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catmaid", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="fresh processes a reader (7)")
    parser.add_argument("--type", type=int, default=4, choices=tiles.PATHS, help="CATMAID's tile source type (4)")
    parser.add_argument("--shape", default="16,2048,2048", help="z,y,x, whole tiles of 512 (16,2048,2048)")
    parser.add_argument("--readers", help="by comma (all)")
    parser.add_argument("--json", type=Path, default=HERE / "results.json")
    parser.add_argument("--data", type=Path, help="folder for the tiles (~/.cache/storefs-benchmarks)")
    parser.add_argument("--write-readme", action="store_true", help="put the results into benchmarks/README.md")
    options = parser.parse_args(arguments)
    z, y, x = map(int, options.shape.split(","))
    folder = (options.data or layers.cache_folder()) / f"tiles-{options.type}-{z}x{y}x{x}"
    origin = tiles.build(folder, options.type, (z, y, x))
    wanted = options.readers.split(",") if options.readers else [reader for run in RUNS.values() for reader in run]
    count = len(tiles.every((z, y, x)))
    what = f"{x} x {y} x {z} in {count} JPEG tiles of {tiles.TILE}, type {options.type}, {origin}"
    print(what)
    measured = {
        run: _measure(folder, latency, [reader for reader in RUNS[run] if reader in wanted], options)
        for run, latency in ((WITHOUT, 0.0), (WITH, LATENCY))
    }
    found = _table(measured, what)
    _print(found)
    kept = results.load(options.json)
    kept.tiles = found
    results.save(kept, options.json)
    if options.write_readme:
        readme.write(kept, HERE / "README.md")


def _measure(folder: Path, latency: float, readers: list[str], options: argparse.Namespace) -> dict[str, Measured]:
    z, y, x = map(int, options.shape.split(","))
    shape: Shape = (z, y, x)
    with serving(folder, latency, cores=spare_cores(CORES)) as url:
        tiles.describe(folder, url, options.type, shape)
        jobs = {
            reader: Job(
                reader=f"tile_readers:{reader}",
                url=url,
                kind="whole",
                expected=str(folder / "tiles.npy"),
                seed=0,
                cores=CORES,
                tolerance=ROUNDING,
            )
            for reader in readers
        }
        return side_by_side(jobs, options.repeats) if jobs else {}


def _table(measured: dict[str, dict[str, Measured]], what: str) -> dict[str, Any]:
    """As JSON holds it."""
    about = results.surroundings()
    rows = [
        {"what": f"{reader}, {run}", "seconds": found.seconds, "peak_mib": found.peak_mib, "failed": found.failed}
        for run, readers in measured.items()
        for reader, found in readers.items()
    ]
    ratios = []
    for goal in GOALS:
        over, under = (measured[goal.run].get(reader, Measured()).seconds for reader in (goal.over, goal.under))
        if over and under:
            ratio = over / under
            reached = ratio >= goal.bound if goal.at_least else ratio <= goal.bound
            ratios.append({"what": goal.what, "found": ratio, "goal": goal.text + ("" if reached else ", **missed**")})
    return {"day": about["day"], "cores": about["cores"], "what": what, "readers": rows, "ratios": ratios}


def _print(found: dict[str, Any]) -> None:
    for row in found["readers"]:
        took = duration(row["seconds"]) if row["seconds"] else f"failed: {row['failed']}"
        print(f"    {row['what']:32} {took:>9}  peak {row['peak_mib']:.0f} MiB")
    for row in found["ratios"]:
        print(f"    {row['what']} = {row['found']:.2f} ({row['goal'].replace('*', '')})")


if __name__ == "__main__":
    main()
