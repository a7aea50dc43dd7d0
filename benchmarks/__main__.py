"""`python -m benchmarks`: storefs against TensorStore and cloud-volume on the same layers; tables, JSON, a plot."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import ceiling, layers, readme, results
from benchmarks.cases import CORES, LATENCY, Case, chosen
from benchmarks.one import Job
from benchmarks.plot import draw
from benchmarks.readers import READERS
from benchmarks.report import case_lines, summary
from benchmarks.server import nginx, serving, spare_cores
from benchmarks.timing import side_by_side

HERE = Path(__file__).parent
GUESS = 2.5  # seconds that a fresh process takes, where no earlier run says it


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="fresh processes a reader and case (7)")
    parser.add_argument("--quick", action="store_true", help="whole volume and single chunks, file and HTTP alone")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD,-WORD,…",
        help="cases whose names have all of the words and none of those with a minus: raw, jpeg, png, "
        "compressed_segmentation; sharded, unsharded; file, http, http30; whole, box, slice_z, slice_y, slice_x, "
        "chunk, points, half, quarter, eighth; 1core. May be given several times",
    )
    parser.add_argument("--readers", default=",".join(READERS), help="which to time, by comma (all)")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", help="results; cases it has are left out")
    parser.add_argument("--again", action="store_true", help="measure cases anew that the results have")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the results")
    parser.add_argument("--write-readme", action="store_true", help="put the results into benchmarks/README.md")
    parser.add_argument("--list", action="store_true", help="name the cases, measure nothing")
    parser.add_argument("--no-run", action="store_true", help="only report, plot and write what the results have")
    parser.add_argument("--data", type=Path, help="folder for the layers (~/.cache/storefs-benchmarks)")
    parser.add_argument("--size", type=int, default=layers.SIZE, help="side of the volumes (512)")
    parser.add_argument("--nginx", action="store_true", help="serve with nginx where no latency is added")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Build what is missing, measure what is missing, report all."""
    options = parse(arguments)
    found = results.load(options.json)
    if found.about.get("size", options.size) != options.size:
        sys.exit(f"{options.json} is of volumes of {found.about['size']}³: name another --json")
    readers = options.readers.split(",")
    if strange := set(readers) - set(READERS):
        sys.exit(f"no reader {', '.join(strange)}; there are {', '.join(READERS)}")
    try:
        wanted = chosen(options.only, quick=options.quick)
    except ValueError as error:
        sys.exit(f"--only: {error}")
    cases = [case for case in wanted if options.again or not found.has(case, readers, options.repeats)]
    if options.list:
        print("\n".join(case.name for case in cases))
        return
    if cases and not options.no_run:
        _measure_all(cases, found, readers, options)
    print("\n".join(summary(found)))
    if options.plot:
        draw(found, options.plot)
    if options.write_readme:
        readme.write(found, HERE / "README.md")


def _measure_all(cases: list[Case], found: results.Results, readers: list[str], options: argparse.Namespace) -> None:
    folder = (options.data or layers.cache_folder()) / f"layers-{options.size}"
    origin = layers.build(folder, options.size)
    server = ceiling.measure(with_nginx=options.nginx)
    found.about = results.surroundings(
        data=f"{origin} to {options.size}³",
        size=options.size,
        server=f"{'nginx' if options.nginx else 'own'}: {server}",
    )
    versions = ", ".join(f"{name} {version}" for name, version in found.about["versions"].items())
    print(f"{found.about['data']}; {versions}\nserver alone: {server}")
    with _places(folder, with_nginx=options.nginx) as places:
        for done, case in enumerate(cases):
            minutes = _estimate(cases[done:], found, len(readers) * options.repeats) / 60
            print(f"[{done + 1} of {len(cases)}, about {minutes:.0f} min left]", end=" ", flush=True)
            layers.into_memory(folder / case.layer)
            started = time.monotonic()
            jobs = {reader: _job(case, reader, places[case.place], folder) for reader in readers}
            measured = side_by_side(jobs, options.repeats)
            row = found.add(case, measured, (time.monotonic() - started) / (len(readers) * options.repeats))
            results.save(found, options.json)
            print("\n".join(case_lines(row)), flush=True)


def _job(case: Case, reader: str, base: str, folder: Path) -> Job:
    return Job(
        reader=f"readers:{reader}",
        url=f"{base}/{case.layer}",
        kind=case.kind,
        expected=str(layers.expected(folder, case.encoding)),
        seed=0,
        cores=case.cores,
        tolerance=1 if case.encoding == "jpeg" else 0,  # decoders may round differently
    )


@contextmanager
def _places(folder: Path, *, with_nginx: bool) -> Iterator[dict[str, str]]:
    """The base URL of every place, with its server running."""
    spare = spare_cores(CORES)
    with ExitStack() as stack:
        places = {"file": f"file://{folder}"}
        for place, latency in LATENCY.items():
            if place != "file":
                plain = with_nginx and not latency
                places[place] = stack.enter_context(nginx(folder) if plain else serving(folder, latency, cores=spare))
        yield places


def _estimate(cases: list[Case], found: results.Results, processes: int) -> float:
    """Seconds, from what such cases took before."""
    known: dict[str, list[float]] = {}
    for row in found.rows.values():
        known.setdefault(row.case.kind, []).append(row.took)
    return processes * sum(statistics.mean(known.get(case.kind, [GUESS])) for case in cases)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ncut; the same command goes on from here")
