"""Results as a picture: SVG written by hand, one panel a layer and place, one bar a reader, as long as it is fast."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from benchmarks.cases import ENCODINGS, PLACES, Case
from benchmarks.readme import PLACE_NAMES
from benchmarks.results import Results, Row

COLOURS = {
    "storefs.open": "#0b6e4f",
    "zarr.open": "#6fb98f",
    "tensorstore": "#5b7db1",
    "cloud-volume": "#c98b4a",
}
LABELS = {"zarr.open": "zarr.open, storefs", "tensorstore": "TensorStore"}
PANEL, GAP, LEFT, TOP = 220, 28, 190, 74
BAR, BAR_GAP, ROOM = 13, 4, 62  # ROOM for the number beside the longest bar
FONT = "font-family='system-ui, sans-serif'"


def draw(results: Results, file: Path) -> None:
    """Write the whole-volume throughput of unsharded layers to `file`; the scale is each panel's own."""
    places = [place for place in PLACES if any(_row(results, encoding, place) for encoding in ENCODINGS)]
    encodings = [encoding for encoding in ENCODINGS if any(_row(results, encoding, place) for place in places)]
    height = len(COLOURS) * (BAR + BAR_GAP) + GAP
    width, total = LEFT + len(places) * (PANEL + GAP), TOP + len(encodings) * height + 10
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{total}' {FONT}>",
        f"<rect width='{width}' height='{total}' fill='white'/>",
        _text(16, 24, _title(results), 15, weight="bold"),
        *_legend(),
        *(_text(LEFT + i * (PANEL + GAP), TOP - 8, PLACE_NAMES[place], 13) for i, place in enumerate(places)),
    ]
    for line, encoding in enumerate(encodings):
        y = TOP + line * height
        lines.append(_text(16, y + 2 * BAR + BAR_GAP, encoding.replace("_", " "), 12))
        for column, place in enumerate(places):
            if row := _row(results, encoding, place):
                lines += _bars(row, LEFT + column * (PANEL + GAP), y)
    file.write_text("\n".join([*lines, "</svg>"]) + "\n", encoding="utf-8")


def _row(results: Results, encoding: str, place: str) -> Row | None:
    return results.rows.get(Case(encoding, sharded=False, place=place, kind="whole").name)


def _title(results: Results) -> str:
    about = results.about
    return f"Reading a whole volume of {about.get('size', '?')}³ voxels on {about.get('cores', '?')} cores: GB/s"


def _legend() -> Iterator[str]:
    x = 16
    for reader, colour in COLOURS.items():
        label = LABELS.get(reader, reader)
        yield f"<rect x='{x}' y='34' width='12' height='12' fill='{colour}'/>"
        yield _text(x + 17, 44, label, 12)
        x += 34 + 7 * len(label)


def _bars(row: Row, x: int, y: int) -> Iterator[str]:
    speeds = {reader: found.nbytes / found.seconds / 1e9 for reader, found in row.measured.items() if found.seconds}
    fastest = max(speeds.values(), default=1.0)
    for reader, colour in COLOURS.items():
        if reader in speeds:
            length = (PANEL - ROOM) * speeds[reader] / fastest
            yield f"<rect x='{x}' y='{y}' width='{length:.1f}' height='{BAR}' fill='{colour}'/>"
            yield _text(x + length + 5, y + BAR - 2, f"{speeds[reader]:.2f}", 11)
        elif reader in row.measured:
            yield _text(x + 5, y + BAR - 2, "failed", 11)
        y += BAR + BAR_GAP


def _text(x: float, y: float, text: str, size: int, weight: str = "normal") -> str:
    return f"<text x='{x:.1f}' y='{y}' font-size='{size}' font-weight='{weight}' fill='#222'>{escape(text)}</text>"
