"""The command line: what it prints where, and how it fails."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import imagecodecs
import numpy as np
import pytest
from rich.console import Console

import storefs
from storefs import cli, demo
from storefs.registry import open_source
from storefs.report import info
from storefs.sample import write_sample
from storefs.summary import count_text, number_text, size_text, summarise

ESCAPE = "\x1b"
HUGE = {
    "type": "segmentation",
    "data_type": "uint64",
    "num_channels": 1,
    "scales": [
        {
            "key": str(i),
            "size": [34432 >> i, 39552 >> i, 41376 >> i],
            "resolution": [8 << i] * 3,
            "voxel_offset": [-120000, 86000, 2041],
            "chunk_sizes": [[64, 64, 64]],
            "encoding": "raw" if i else "mystery",
        }
        for i in range(5)
    ],
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample"), (20, 72, 90))


@pytest.fixture
def layer(tmp_path):
    """Writes an info file; gives the address."""

    def write(info):
        (tmp_path / "info").write_text(json.dumps(info))
        return f"precomputed://{tmp_path}"

    return write


def run(*arguments, **kwargs):
    """The command in a process of its own, piped."""
    return subprocess.run(
        [sys.executable, "-m", "storefs", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **kwargs,
    )


def on_terminal(columns, *arguments):
    """What the command prints on a terminal of that width."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "storefs", *arguments], stdout=child, stderr=child, env=environment
    )
    os.close(child)
    pieces = []
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(parent)
    assert process.wait(timeout=60) == 0
    return b"".join(pieces).decode()


def test_info_shows_every_scale(sample, capsys):
    """The table has shape, chunks, voxel size, offset and size of every scale, and says how it is stored."""
    assert cli.main(["info", sample.labels.url]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"file://{sample.labels.folder}"
    assert "what    precomputed segmentation, uint64, 130 k voxels" in lines
    assert "stored  compressed_segmentation (8x8x8 blocks)" in lines
    assert [line.split("  ")[0] for line in lines[-3:]] == ["0", "1", "2"]
    assert " ".join(lines[-3].split()) == "0 20 72 90 16 64 64 40 8 8 2041 8600 12000 1.04 MB"
    assert " ".join(lines[-1].split()) == "2 11 18 23 16 64 64 80 32 32 1020 2150 3000 36.4 kB"


def test_info_takes_the_options_of_open(sample, capsys):
    """`-o` reaches the volume: here the axes are turned round."""
    assert cli.main(["info", sample.labels.url, "-o", "axes=xyz"]) == 0
    out = capsys.readouterr().out
    assert "x y z in every column" in out
    assert "90 72 20" in out


def test_info_as_json_agrees_with_zarr(sample, capsys):
    """`--json` has the facts of the zarr metadata, in plain numbers."""
    assert cli.main(["info", sample.image.url, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    group = storefs.open(sample.image.url)
    assert (facts["type"], facts["dtype"], facts["channels"], facts["axes"]) == ("image", "uint8", 1, ["z", "y", "x"])
    for scale in facts["scales"]:
        array = group[scale["path"]]
        assert scale["shape"] == list(array.shape)
        assert scale["chunks"] == list(array.chunks)
        assert scale["voxel_offset_xyz"] == array.attrs["storefs"]["voxel_offset_xyz"]
        assert scale["nbytes"] == array.nbytes
        assert scale["chunk_count"] == array.nchunks
        assert not scale["sharded"]


def test_info_makes_one_request(sample, monkeypatch, capsys):
    """Only the info file is read."""
    from storefs.transport.files import FileTransport

    asked = []
    fetch = FileTransport.fetch

    def counting(self, request):
        asked.append(request.path)
        return fetch(self, request)

    monkeypatch.setattr(FileTransport, "fetch", counting)
    assert cli.main(["info", sample.image.url]) == 0
    assert asked == ["info"]


def test_a_folder_needs_no_scheme(sample, capsys):
    """A path to a layer is enough."""
    assert cli.main(["tree", str(sample.image.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].rstrip() == "image  precomputed, 3 scales"
    assert lines[1].rstrip() == "├── 0  (20, 72, 90)  uint8, jpeg, 40 x 8 x 8 nm, 130 kB"


def test_an_unreadable_scale_is_told_and_the_rest_shown(layer, capsys):
    """A scale in an unknown encoding is in the table, with the reason below it."""
    assert cli.main(["info", layer(HUGE)]) == 0
    out = capsys.readouterr().out
    assert "stored  mystery  (scale 0)" in out
    assert "stored  raw  (scale 1, 2, 3, 4)" in out
    assert 'scale 0 cannot be read: encoding "mystery" is not offered' in out


@pytest.mark.parametrize("columns", [80, 66])
def test_a_huge_volume_fits_into_a_terminal(layer, columns):
    """On 80 columns no row is wrapped; on fewer rows are, and every number is still there."""
    output = io.StringIO()
    console = Console(file=output, width=columns, force_terminal=True, highlight=False)
    console.print(info(summarise(open_source(layer(HUGE)))))
    shown = plain(output.getvalue())
    assert "…" not in shown
    assert max(len(line) for line in shown.splitlines() if not line.startswith("file:")) <= columns
    assert all(number in shown for number in ("41376", "39552", "34432", "-120000", "451 TB"))
    whole = "0      41376 39552 34432  64 64 64  8 8 8        2041 86000 -120000   451 TB"
    assert (whole in shown) == (columns == 80)


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r", "")


def test_terminals_get_colour_and_pipes_do_not(sample):
    """Escape sequences go to terminals only."""
    assert ESCAPE in on_terminal(80, "info", sample.image.url)
    piped = run("info", sample.image.url)
    assert (piped.returncode, piped.stderr) == (0, "")
    assert ESCAPE not in piped.stdout


def test_output_survives_a_terminal_without_unicode(sample):
    """Where stdout knows ASCII only, letters are replaced and nothing fails."""
    done = run("info", sample.image.url, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "8600" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["info", "precomputd://gs://bucket/layer"], "did you mean precomputed://gs://bucket/layer?"),
        (["info", "gs://bucket/layer"], "write precomputed://gs://bucket/layer"),
        (["info", "precomputed:///nowhere/at/all"], "there is no info file"),
        (["tree", "precomputed:///nowhere/at/all"], "there is no info file"),
        (["info", "precomputed:///nowhere", "-o", "axis=xyz"], "did you mean 'axes'?"),
        (["info", "precomputed:///nowhere", "-o", "axes"], "-o wants NAME=VALUE, got 'axes'"),
        (["info", "precomputed:///nowhere", "-o", "zarr_format=4"], "option zarr_format: expected one of 2, 3"),
    ],
)
def test_a_failure_is_one_paragraph(arguments, said, capsys):
    """Failures go to stderr in words, without a traceback, and the exit code is 1."""
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("storefs: ")
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert "\n\n" not in err


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(place, capsys):
    """`--debug` may stand before or after the command."""
    command = ["info", "precomputed:///nowhere/at/all"]
    assert cli.main(["--debug", *command] if place == "before" else [*command, "--debug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "NoSuchVolume" in err


def test_a_broken_info_names_its_key(layer, capsys):
    """The message says which key of the info makes no sense."""
    assert cli.main(["info", layer({**HUGE, "data_type": "uint9"})]) == 1
    assert "data_type" in capsys.readouterr().err


def test_headers_are_given_one_by_one():
    """`-o headers.NAME=VALUE` fills the dictionary of that option."""
    assert cli.parse_options(["headers.Authorization=Bearer a=b", "headers.X=1", "axes=xyz"]) == {
        "headers": {"Authorization": "Bearer a=b", "X": "1"},
        "axes": "xyz",
    }
    with pytest.raises(storefs.UrlError, match="headers"):
        cli.parse_options(["headers=1", "headers.X=1"])


def test_usage_errors_exit_with_2(capsys):
    """What argparse refuses is told with the usage."""
    with pytest.raises(SystemExit) as refused:
        cli.main(["inform"])
    assert refused.value.code == 2
    assert "usage: storefs" in capsys.readouterr().err


def test_version(capsys):
    """`storefs --version` names the version."""
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"storefs {storefs.__version__}\n"


def test_ctrl_c_exits_with_130(monkeypatch, capsys):
    """An interrupt ends the command quietly."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_demo", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_reaches_a_running_command(tmp_path):
    """SIGINT during the demo gives 130 and no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "storefs", "demo", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # jobs of a shell's background are born deaf to Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # only sets a handler
    )
    process.stdout.readline()
    assert "Growing" in process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""


def test_a_reader_that_leaves_is_no_failure_to_tell(sample):
    """`storefs info … | head -0` prints no traceback."""
    command = f"{sys.executable} -m storefs info {sample.image.url} --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


# the demo


@pytest.fixture
def small_demo(monkeypatch):
    """The demo on a smaller piece of tissue."""
    monkeypatch.setattr(demo, "write_sample", lambda folder: write_sample(folder, (20, 72, 90)))


def test_demo_tells_step_by_step(small_demo, tmp_path, capsys):
    """The demo makes, opens, checks and draws, with timings, in plain text where it is piped."""
    assert cli.main(["demo", str(tmp_path / "here")]) == 0
    out = capsys.readouterr().out
    assert ESCAPE not in out
    for part in ("Growing", "with zarr", "in dask", "in xarray", "picture", "all equal", "(beyond 2^53)", "Done in"):
        assert part in out
    assert f"storefs info precomputed://{tmp_path}/here/labels" in out
    assert imagecodecs.png_decode((tmp_path / "here/slice.png").read_bytes()).shape[-1] == 3


def test_demo_says_what_is_not_installed_and_goes_on(small_demo, tmp_path, monkeypatch, capsys):
    """Without dask and xarray the demo leaves these steps out and names the extras."""
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["demo", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "dask is not installed, left out (pip install 'storefs[dask]')" in out
    assert "xarray is not installed" in out
    assert "Done in" in out


@pytest.mark.parametrize("name", ["labels", "image"])
def test_demo_notices_wrong_voxels(name, tmp_path, monkeypatch, capsys):
    """If what is read differs from what was written, the demo fails with exit code 1."""

    def wrong(folder):
        sample = write_sample(folder, (20, 72, 90))
        voxels = getattr(sample, name).levels[1].voxels
        voxels[...] = voxels[::-1, ::-1, ::-1].copy()
        return sample

    monkeypatch.setattr(demo, "write_sample", wrong)
    assert cli.main(["demo", str(tmp_path)]) == 1
    assert "differ" in capsys.readouterr().err


def test_demo_writes_over_nothing_but_an_earlier_demo(small_demo, tmp_path, capsys):
    """The demo may be run twice in one folder; a layer of somebody's own is left alone."""
    assert cli.main(["demo", str(tmp_path)]) == 0
    assert cli.main(["demo", str(tmp_path)]) == 0
    info = tmp_path / "labels" / "info"
    info.write_text(json.dumps(HUGE))
    capsys.readouterr()
    assert cli.main(["demo", str(tmp_path)]) == 1
    assert "holds something else already" in " ".join(capsys.readouterr().err.split())
    assert json.loads(info.read_text()) == HUGE


def test_demo_into_a_place_that_cannot_be_written(small_demo, tmp_path, capsys):
    """A file in the way is told in words."""
    (tmp_path / "taken").write_text("")
    assert cli.main(["demo", str(tmp_path / "taken")]) == 1
    assert capsys.readouterr().err.startswith("storefs: ")


# numbers


def test_sizes_have_three_digits_and_a_unit():
    """Sizes are decimal; what would round to 1000 takes the next unit."""
    assert [size_text(n) for n in (0, 999, 999_499, 999_500, 4_243_200, 10**20)] == [
        "0 B",
        "999 B",
        "999 kB",
        "1 MB",
        "4.24 MB",
        "100 EB",
    ]
    assert [count_text(n) for n in (12, 56_347_000_000_000)] == ["12", "56.3 T"]


def test_numbers_lose_no_digits_that_matter():
    """Whole numbers have no point, fractions no noise."""
    assert [number_text(x) for x in (8.0, 0.1 + 0.2, -120000, 3.75, 1e-9)] == ["8", "0.3", "-120000", "3.75", "0"]


def test_labels_in_the_sample_are_wider_than_a_float(sample):
    """The demo's claim holds: the largest label lies beyond 2^53."""
    assert int(np.max(sample.labels.levels[0].voxels)) > 2**53
