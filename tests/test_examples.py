"""The examples: each runs on the sample volume, prints what it promises, and is short enough to read."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from storefs.sample import write_sample

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
LONGEST = 60
PRINTS = {
    "codec_in_any_zarr": ("labels", r"labels.zarr: \d+ -> \d+ bytes, 1:\d+, largest change 0\n"),
    "dask_histogram": ("labels", r"\d+ labels in 122880 voxels\n +7205759406\d{8} +\d+ voxels"),
    "open_with_zarr": ("image", r"scale 2: \(\d+, \d+, \d+\) uint8, voxels of \[80.0, 32.0, 32.0\] nm"),
    "portable_face_to_zarr": ("labels", r"0/zarr.json: bytes, zstd\n"),
    "xarray_slice": ("image", r"\* z +\(z\) float64 .*\n(.*\n)* +storefs:"),
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A small sample, 24 x 64 x 80 voxels."""
    return write_sample(tmp_path_factory.mktemp("sample"), (24, 64, 80))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_what_it_promises(path, sample, capsys):
    """The example runs on a given layer and prints as expected."""
    layer, expected = PRINTS[path.stem]
    load(path).main(["--url", getattr(sample, layer).url])
    printed = capsys.readouterr().out
    assert re.search(expected, printed), printed


def test_an_example_without_address_makes_its_own_sample(monkeypatch, capsys):
    """`python examples/open_with_zarr.py` needs nothing."""
    example = load(FOLDER / "open_with_zarr.py")
    monkeypatch.setattr(example, "write_sample", lambda folder: write_sample(folder, (24, 64, 80)))
    example.main([])
    assert "scale 0: (24, 64, 80) uint8" in capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_explained(path):
    """An example has at most 60 lines, says what it needs, how it is called and that it prints."""
    text = path.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert len(text.splitlines()) <= LONGEST
    assert text.startswith("# /// script\n# dependencies = [")
    assert "Prints" in docstring
    assert f"python examples/{path.name}" in docstring
