"""The results file: JSON, written after every case, so that a run which was cut goes on where it was."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.timing import Measured

PACKAGES = ("storefs", "zarr", "numpy", "obstore", "tensorstore", "cloud-volume", "catpy", "simplejpeg")


@dataclass(frozen=True, slots=True)
class Row:
    """A case, what every reader took for it, the day, and how many seconds one process lasted."""

    case: Case
    measured: Mapping[str, Measured]
    day: str
    took: float

    def ratio(self, ours: str, peer: str) -> float | None:
        """Time of `ours` divided by that of `peer`; None where one of them has none."""
        times = [self.measured[reader].seconds if reader in self.measured else None for reader in (ours, peer)]
        return times[0] / times[1] if times[0] is not None and times[1] is not None else None


@dataclass(slots=True)
class Results:
    """All rows of a file, and where and with what they were measured. `tiles` are those of `benchmarks.catmaid`."""

    about: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    tiles: dict[str, Any] = field(default_factory=dict)

    def has(self, case: Case, readers: list[str], repeats: int) -> bool:
        """Whether `case` was measured with all `readers`, as often as asked for."""
        row = self.rows.get(case.name)
        return row is not None and all(
            reader in row.measured and (row.measured[reader].repeats >= repeats or row.measured[reader].failed)
            for reader in readers
        )

    def add(self, case: Case, measured: Mapping[str, Measured], took: float) -> Row:
        """Put a case in, in place of an earlier measurement of it."""
        self.rows[case.name] = Row(case, measured, today(), took)
        return self.rows[case.name]


def load(file: Path) -> Results:
    """What `file` holds; nothing where it does not exist."""
    if not file.is_file():
        return Results()
    document = json.loads(file.read_text())
    rows = {}
    for entry in document["rows"]:
        case = Case(**entry["case"])
        measured = {reader: Measured(**found) for reader, found in entry["measured"].items()}
        rows[case.name] = Row(case, measured, entry["day"], entry["took"])
    return Results(document["about"], rows, document.get("tiles", {}))


def save(results: Results, file: Path) -> None:
    """Write all of it, at once or not at all."""
    document = {
        "about": results.about,
        "rows": [asdict(row) for row in results.rows.values()],
        "tiles": results.tiles,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".new")
    beside.write_text(json.dumps(document, indent=1))
    beside.replace(file)


def surroundings(**more: Any) -> dict[str, Any]:
    """The machine's class and the versions of what is compared."""
    return {
        "day": today(),
        "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        **more,
    }


def today() -> str:
    """The date in UTC."""
    return datetime.now(UTC).date().isoformat()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
