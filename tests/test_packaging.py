"""The project as a package: versions agree, every entry point loads, imports point downwards."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import storefs
from storefs.registry import schemes
from storefs.sample import write_sample

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = [
    (group, name, target)
    for group, entries in PROJECT["project"]["entry-points"].items()
    for name, target in entries.items()
] + [("console_scripts", name, target) for name, target in PROJECT["project"]["scripts"].items()]


def test_version_is_the_changelogs_newest():
    """pyproject, the package and the newest entry of the changelog name one version."""
    newest = re.search(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert PROJECT["project"]["version"] == storefs.__version__ == newest[1]


@pytest.mark.parametrize(("group", "name", "target"), DECLARED, ids=lambda value: str(value).rpartition(".")[2])
def test_entry_point_loads(group, name, target):
    """What the project declares is installed and can be imported."""
    found = [entry for entry in entry_points(group=group, name=name) if entry.value == target]
    if not found:
        pytest.skip(f"{name} was declared after this environment was installed")
    assert callable(found[0].load())


def test_every_codec_has_both_faces_under_its_own_name():
    """A codec is declared to numcodecs and to zarr by the id it carries."""
    numcodecs = PROJECT["project"]["entry-points"]["numcodecs.codecs"]
    assert numcodecs.keys() == PROJECT["project"]["entry-points"]["zarr.codecs"].keys()
    for name, target in numcodecs.items():
        module, _, attribute = target.partition(":")
        assert getattr(importlib.import_module(module), attribute).codec_id == name


def test_every_codec_is_in_the_table():
    """codecs/README.md has a row for every codec."""
    text = (ROOT / "codecs/README.md").read_text(encoding="utf-8")
    assert [
        name for name in PROJECT["project"]["entry-points"]["numcodecs.codecs"] if f"| `{name}` |" not in text
    ] == []


def test_every_declared_format_is_a_backend():
    """No format is declared to fsspec that the registry does not know."""
    specs = PROJECT["project"]["entry-points"]["fsspec.specs"]
    formats = {name for name, target in specs.items() if target.startswith("storefs.backends.")}
    assert "precomputed" in formats
    assert formats <= set(schemes())


def test_codecs_folder_is_no_package():
    """`codecs/__init__.py` would hide the standard library's module of that name."""
    assert not (ROOT / "codecs" / "__init__.py").exists()


def test_imports_point_downwards():
    """The contracts of import-linter hold."""
    if not importlib.util.find_spec("importlinter"):
        pytest.skip("import-linter is not installed (extra lint)")
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or "lint-imports"
    run = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_fresh_interpreter_opens_by_address_alone(tmp_path):
    """`import zarr` is all that a reader imports."""
    url = write_sample(tmp_path, (16, 32, 32)).labels.url
    code = f"import zarr; array = zarr.open({url!r}, mode='r')['0']; print(array.shape, array[0, 0, 0] > 2**53)"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.stdout.strip() == "(16, 32, 32) True", run.stderr
    assert run.stderr == ""


def test_importing_prints_nothing_and_opens_no_connection():
    """`import storefs` has no side effect: no output, no thread."""
    code = "import threading, storefs; print(threading.active_count())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (run.stdout.strip(), run.stderr) == ("1", "")


def test_the_filesystem_does_without_zarr():
    """What fsspec needs imports no zarr, of which old versions are to be served too."""
    code = "import fsspec, sys; fsspec.filesystem('precomputed'); import storefs; assert 'zarr' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
