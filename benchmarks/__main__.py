"""`python -m benchmarks [--repeats 7] [--cases raw,jpeg] [--json FILE]`: medians and ratios, one row a case."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.layers import CHUNK, LAYERS, write
from benchmarks.readers import READERS, Box
from benchmarks.server import serving

SHAPES = {"raw": (512, 512, 512), "jpeg": (512, 512, 512), "compressed_segmentation": (256, 512, 512)}
SINGLE_CHUNKS = 20


def main() -> None:
    """Write the layers, time every reader on them in turn, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cases", default=",".join(LAYERS))
    parser.add_argument("--places", default="file,http")
    parser.add_argument("--sharded", action="store_true", help="also the sharded layers")
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as web:
        origin = write(Path(folder))
        packages = ("storefs", "zarr", "tensorstore", "cloud-volume")
        print(f"data: {origin}; " + ", ".join(f"{name} {version(name)}" for name in packages))
        bases = {"file": f"file://{folder}", "http": web}
        rows = []
        names = [
            f"{case}{suffix}"
            for case in options.cases.split(",")
            for suffix in (["", "_sharded"] if options.sharded else [""])
        ]
        for name in names:
            for place in options.places.split(","):
                rows += measure(f"{bases[place]}/{name}", name, place, options.readers.split(","), options.repeats)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))


def measure(url: str, name: str, place: str, readers: list[str], repeats: int) -> list[dict[str, object]]:
    """Time whole-volume and single-chunk reads of one layer with every reader, interleaved."""
    shape = SHAPES[name.removesuffix("_sharded")]
    whole: Box = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    rows = []
    for what, boxes in (("whole", [whole]), ("chunk", list(_random_chunks(shape)))):
        times: dict[str, list[float]] = {reader: [] for reader in readers}
        reference: np.ndarray | None = None
        for repeat in range(repeats + 1):
            for reader in readers:
                read = READERS[reader](url)
                start = time.perf_counter()
                for box in boxes:
                    voxels = read(box)
                seconds = (time.perf_counter() - start) / len(boxes)
                if repeat == 0:  # warm-up, and the check that all read the same
                    reference = voxels if reference is None else reference
                    worst = np.abs(voxels.astype(np.int64) - reference.astype(np.int64)).max()
                    if worst > (1 if "jpeg" in name else 0):
                        sys.exit(f"{reader} reads {url} differently by {worst}")
                else:
                    times[reader].append(seconds)
        medians = {reader: statistics.median(found) for reader, found in times.items()}
        row = {"layer": name, "place": place, "what": what, "seconds": medians}
        rows.append(row)
        size = voxels.nbytes
        cells = [
            f"{reader} {seconds * 1e3:9.2f} ms {size / seconds / 1e9:5.2f} GB/s" for reader, seconds in medians.items()
        ]
        ratios = [
            f"{ours} / {peer} = {medians[ours] / medians[peer]:.2f}"
            for ours in medians
            if ours.startswith("storefs")
            for peer in ("tensorstore", "cloud-volume")
            if peer in medians
        ]
        print(f"{name} {place} {what}\n    " + "\n    ".join(cells) + "\n    " + "; ".join(ratios), flush=True)
    return rows


def _random_chunks(shape: tuple[int, ...]) -> Iterator[Box]:
    rng = np.random.default_rng(1)
    for _ in range(SINGLE_CHUNKS):
        z, y, x = (int(rng.integers(0, n // CHUNK)) * CHUNK for n in shape)
        yield slice(z, z + CHUNK), slice(y, y + CHUNK), slice(x, x + CHUNK)


if __name__ == "__main__":
    main()
