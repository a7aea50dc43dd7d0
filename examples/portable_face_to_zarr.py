# /// script
# dependencies = ["storefs"]
# ///
"""Copy a precomputed layer into a plain OME-Zarr folder, which any zarr reader opens without storefs.

The portable face re-encodes every chunk with a codec all readers have; fsspec copies the files. Prints what was
copied and the codecs found in the copy.

    python examples/portable_face_to_zarr.py --url precomputed://gs://bucket/layer --out layer.ome.zarr --scale 4
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fsspec
import zarr

from storefs.sample import write_sample


def main(argv: Sequence[str] | None = None) -> None:
    """Copy and look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a precomputed layer; a sample is made where none is given")
    parser.add_argument("--out", help="folder to write; a temporary one by default")
    parser.add_argument("--scale", default="", help="one scale only, such as 4; all by default")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        copy(
            arguments.url or write_sample(folder).labels.url,
            Path(arguments.out or folder) / arguments.scale / "copy.ome.zarr",
            arguments.scale,
        )


def copy(url: str, target: Path, scale: str) -> None:
    """Copy the layer at `url`, or one scale of it, to `target`."""
    portable = fsspec.filesystem("precomputed", face="portable", codec="zstd")
    portable.get(f"{url}/{scale}".rstrip("/") + "/", f"{target}/", recursive=True)
    files = [path for path in target.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files)} bytes")
    print(zarr.open(target, mode="r"))
    for document in sorted(target.rglob("zarr.json")):
        codecs = [codec["name"] for codec in json.loads(document.read_text()).get("codecs", [])]
        print(f"{document.relative_to(target)}: {', '.join(codecs) or 'group'}")


if __name__ == "__main__":
    main()
