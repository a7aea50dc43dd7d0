"""Puts the tables of a results file between the markers of README.md, so that no number is copied by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.cases import CORES, ENCODINGS, KINDS, PARTS, PLACES, Case
from benchmarks.goals import DEFAULT, OURS, PEERS, outcomes
from benchmarks.report import MIB, duration, throughput
from benchmarks.results import Results, Row

PLACE_NAMES = {"file": "file", "http": "HTTP", "http30": "HTTP + 30 ms"}
KIND_NAMES = {
    "whole": "whole",
    "box": "256³ box",
    "slice_z": "z plane",
    "slice_y": "y plane",
    "slice_x": "x plane",
    "chunk": "64³ chunk",
    "points": "10 000 points",
}


def write(results: Results, file: Path) -> None:
    """Renew every table of `file` that `results` can fill. Raises ValueError where it has no such marker."""
    text = file.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        lines = list(table(results))
        pattern = re.compile(rf"(<!-- results: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{file} has no marker for {name}")
        if lines:
            content = "\n".join(lines)
            text = pattern.sub(lambda found, content=content: found[1] + content + found[2], text)
    file.write_text(text, encoding="utf-8")


def _about(results: Results) -> Iterator[str]:
    if about := results.about:
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        days = sorted({row.day for row in results.rows.values()} | {about["day"]})
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        yield (
            f"Measured {when}: {about['cores']} cores, {about['machine']}, Python {about['python']}, {versions}; "
            f"{about['data']}, chunks of 64³. The web server alone ({about['server']})."
        )


def _ratios(ours: str) -> Callable[[Results], Iterator[str]]:
    def table(results: Results) -> Iterator[str]:
        yield from _table(["", *KIND_NAMES.values()], _ratio_rows(results, ours))

    return table


def _ratio_rows(results: Results, ours: str) -> Iterator[list[str]]:
    for title, cases in _lines():
        rows = [results.rows.get(case.name) for case in cases]
        if any(rows):
            yield [title, *(_pair(row, ours) for row in rows)]


def _lines() -> Iterator[tuple[str, list[Case]]]:
    for place in PLACES:
        for encoding in ENCODINGS:
            for sharded in (False, True):
                title = f"{encoding}{', sharded' if sharded else ''}, {PLACE_NAMES[place]}"
                yield title, [Case(encoding, sharded, place, kind) for kind in KINDS]


def _pair(row: Row | None, ours: str) -> str:
    return " / ".join(_mark(row.ratio(ours, peer)) for peer in PEERS) if row else ""


def _mark(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"**{ratio:.2f}**" if ratio > 1 else f"{ratio:.2f}"


def _medians(results: Results) -> Iterator[str]:
    yield from _table(["", *_readers(results)], _median_rows(results))


def _median_rows(results: Results) -> Iterator[list[str]]:
    for title, cases in _lines():
        for case in cases:
            if row := results.rows.get(case.name):
                cells = [
                    ", ".join(filter(None, (duration(found.seconds), throughput(found))))
                    if (found := row.measured.get(reader)) and found.seconds
                    else "failed"
                    if found
                    else ""
                    for reader in _readers(results)
                ]
                yield [f"{title}, {KIND_NAMES[case.kind]}", *cells]


def _memory(results: Results) -> Iterator[str]:
    rows = []
    for title, cases in _lines():
        row = results.rows.get(cases[0].name)
        if row and any(found.seconds for found in row.measured.values()):
            output = max(found.nbytes for found in row.measured.values()) / MIB
            found_of = [row.measured.get(reader) for reader in _readers(results)]
            cells = [f"{found.peak_mib:.0f}" if found and found.seconds else "" for found in found_of]
            rows.append([title, f"{output:.0f}", *cells])
    yield from _table(["MiB", "output", *_readers(results)], rows)


def _scaling(results: Results) -> Iterator[str]:
    rows = []
    for encoding in ENCODINGS:
        for cores in (1, CORES):
            of_kind = [
                results.rows.get(Case(encoding, sharded=False, place="file", kind=kind, cores=cores).name)
                for kind in (*PARTS, "whole")
            ]
            for reader in _readers(results):
                cells = [
                    duration(found.seconds) if row and (found := row.measured.get(reader)) and found.seconds else ""
                    for row in of_kind
                ]
                if any(cells[:-1]):
                    rows.append([f"{encoding}, {cores} {'core' if cores == 1 else 'cores'}", reader, *cells])
    yield from _table(["file", "", "1/8", "1/4", "1/2", "whole"], rows)


def _goals(results: Results) -> Iterator[str]:
    found = list(outcomes(results))
    missed = [goal for goal in found if not goal.reached]
    if found:
        yield f"{len(found) - len(missed)} of {len(found)} goals are reached{':' if missed else '.'}"
        if missed:
            yield ""
            yield from _table(
                ["missed", "at most", "found"],
                ([goal.what, f"{goal.limit:g}", f"{goal.found:.2f}"] for goal in missed),
            )


def _tiles(results: Results) -> Iterator[str]:
    tiles = results.tiles
    if tiles:
        yield f"Measured {tiles['day']}, {tiles['cores']} cores: {tiles['what']}."
        yield ""
        rows = [
            [row["what"], duration(row["seconds"]) if row["seconds"] else f"failed: {row['failed']}"]
            for row in tiles["readers"]
        ]
        yield from _table(["", "median"], rows)
        yield ""
        yield from _table(
            ["ratio", "found", "goal"],
            ([row["what"], f"{row['found']:.2f}", row["goal"]] for row in tiles["ratios"]),
        )


def _readers(results: Results) -> list[str]:
    return list(dict.fromkeys(reader for row in results.rows.values() for reader in row.measured))


def _table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    body = list(rows)
    if body:
        yield "| " + " | ".join(head) + " |"
        yield "|" + "---|" * len(head)
        yield from ("| " + " | ".join(cells) + " |" for cells in body)


TABLES: dict[str, Callable[[Results], Iterator[str]]] = {
    "about": _about,
    "storefs.open": _ratios(OURS),
    "zarr.open": _ratios(DEFAULT),
    "goals": _goals,
    "medians": _medians,
    "memory": _memory,
    "scaling": _scaling,
    "tiles": _tiles,
}
