"""The benchmarks: they run, they compare what is read, they say where storefs loses, and they go on where they were."""

from __future__ import annotations

import http.client
import json
import sys
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from benchmarks import __main__ as benchmark
from benchmarks import catmaid, plot, readme, results
from benchmarks.cases import Case, chosen, every
from benchmarks.ceiling import Ceiling
from benchmarks.goals import outcomes
from benchmarks.one import Job
from benchmarks.report import case_lines, summary
from benchmarks.selections import KINDS, Points, draw, voxels_in
from benchmarks.server import serving
from benchmarks.timing import Measured, side_by_side

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks' web server wants epoll")
RAW = Case("raw", sharded=False, place="file", kind="whole")


def measured(seconds, nbytes=1 << 30, peak_mib=1100.0):
    return Measured(seconds=seconds, nbytes=nbytes, peak_mib=peak_mib, repeats=1)


@pytest.fixture
def found():
    """Results of three cases with a loss, a failure and a part that does not grow as it should."""
    kept = results.Results(about=results.surroundings(data="none", size=512, server="none"))
    readers = {"storefs.open": measured(1.0), "zarr.open": measured(1.1), "tensorstore": measured(0.5)}
    kept.add(RAW, {**readers, "cloud-volume": measured(4.0)}, 1.0)
    kept.add(Case("raw", sharded=False, place="file", kind="half"), {"storefs.open": measured(0.3)}, 1.0)
    failed = {"storefs.open": measured(1.0, peak_mib=2000.0), "tensorstore": Measured(failed="exit code 1: oh")}
    kept.add(Case("png", sharded=True, place="http30", kind="whole"), failed, 1.0)
    return kept


def test_a_run_measures_reports_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    """Every reader asked for is timed; a second run has nothing left to do; the plot and the JSON are written."""
    pytest.importorskip("tensorstore", reason="tensorstore is not installed (extra peers)")
    monkeypatch.setattr(benchmark.ceiling, "measure", lambda **_: Ceiling(1, 1, 1))
    file, picture = tmp_path / "results.json", tmp_path / "speed.svg"
    options = ["--size", "128", "--repeats", "1", "--data", str(tmp_path), "--json", str(file)]
    options += ["--only", "compressed_segmentation,http,box,unsharded", "--plot", str(picture)]
    options += ["--readers", "storefs.open,zarr.open,tensorstore"]
    benchmark.main(options)
    printed = capsys.readouterr().out
    assert "[1 of 1, about 0 min left] compressed_segmentation/http/box" in printed
    assert "faster in" in printed
    assert picture.read_text().startswith("<svg")
    (row,) = results.load(file).rows.values()
    assert set(row.measured) == {"storefs.open", "zarr.open", "tensorstore"}
    assert [one.failed for one in row.measured.values()] == [None] * 3
    assert all(one.seconds > 0 and one.nbytes == 64**3 * 8 for one in row.measured.values())
    before = file.stat().st_mtime_ns
    benchmark.main(options)
    assert file.stat().st_mtime_ns == before


def test_a_reader_that_reads_other_voxels_fails(tmp_path):
    """What is read is compared: a difference is reported in place of a time."""
    tensorstore = pytest.importorskip("tensorstore", reason="tensorstore is not installed (extra peers)")
    layer = tensorstore.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": f"file://{tmp_path}/raw/",
            "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
            "scale_metadata": {"size": [64] * 3, "resolution": [8] * 3, "chunk_size": [64] * 3, "encoding": "raw"},
            "create": True,
        }
    ).result()
    layer[...].write(np.full((64, 64, 64, 1), 7, np.uint8)).result()
    np.save(tmp_path / "expected.npy", np.full((64, 64, 64), 9, np.uint8))
    job = Job("readers:tensorstore", f"file://{tmp_path}/raw", "whole", str(tmp_path / "expected.npy"), 0, 1)
    outcome = side_by_side({"tensorstore": job}, 1)["tensorstore"]
    assert outcome.seconds is None
    assert "reads whole of" in outcome.failed
    assert "differently by 2" in outcome.failed


def test_tiles_are_read_and_compared(tmp_path, capsys):
    """The tile benchmark runs and keeps its table beside the other results."""
    file = tmp_path / "results.json"
    options = ["--shape", "1,512,1024", "--repeats", "1", "--data", str(tmp_path), "--json", str(file)]
    catmaid.main([*options, "--readers", "storefs.open,one by one,from memory", "--type", "5"])
    assert "storefs.open / decoding from memory = " in capsys.readouterr().out
    tiles = json.loads(file.read_text())["tiles"]
    assert [row["failed"] for row in tiles["readers"]] == [None] * 4


def test_losses_are_told_as_plainly_as_wins(found):
    """A ratio above 1 is marked, a goal that is missed is named, a reader that failed says why."""
    text = "\n".join(line for row in found.rows.values() for line in case_lines(row))
    assert "storefs.open  / tensorstore = 2.00 SLOWER (goal 0.9, missed), / cloud-volume = 0.25 (goal 0.7)" in text
    assert "tensorstore   failed: exit code 1: oh" in text
    told = "\n".join(summary(found))
    assert "storefs.open against tensorstore: faster in 0 cases, slower in 1" in told
    assert "storefs.open against cloud-volume: faster in 1 cases, slower in 0" in told
    missed = [goal.what for goal in outcomes(found) if not goal.reached]
    assert "raw/file/whole: storefs.open / tensorstore" in missed
    assert "raw/file/half: whole, over 2 times this" in missed
    assert "png_sharded/http30/whole: MiB of memory beyond the output" in missed


def test_tables_are_written_between_their_markers(found, tmp_path):
    """The text around the markers stays; a loss is bold; a marker that is gone is an error."""
    file = tmp_path / "README.md"
    markers = [f"<!-- results: {name} -->\nold\n<!-- end -->\n" for name in readme.TABLES]
    file.write_text("before\n" + "between\n".join(markers) + "after\n", encoding="utf-8")
    for _ in "twice":
        readme.write(found, file)
    text = file.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("between") == len(markers) - 1
    assert "| raw, file | **2.00** / 0.25 |" in text
    assert "old" in text, "tables without results stay as they are"
    file.write_text("nothing")
    with pytest.raises(ValueError, match="has no marker for about"):
        readme.write(found, file)


def test_the_readme_has_every_marker(tmp_path, found):
    """The tables of the real README can be written."""
    file = tmp_path / "README.md"
    file.write_text((benchmark.HERE / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    readme.write(found, file)


def test_results_survive_the_file(found, tmp_path):
    """What is saved is loaded again."""
    results.save(found, tmp_path / "results.json")
    assert results.load(tmp_path / "results.json") == found
    plot.draw(found, tmp_path / "plot.svg")
    assert "1.07" in (tmp_path / "plot.svg").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_draws_the_same_selections_within_the_volume(kind):
    """Selections depend on kind, shape and seed alone."""
    shape = (128, 256, 192)
    first, second = draw(kind, shape, 3), draw(kind, shape, 3)
    assert str(first) == str(second)
    volume = np.broadcast_to(np.uint8(0), shape)
    for selection in first:
        here = (selection.z, selection.y, selection.x) if isinstance(selection, Points) else selection
        assert volume[here].size == voxels_in(selection) > 0


def test_cases_are_chosen_by_words():
    """All words must fit; those with a minus must not; an unknown one is refused; quick is a part of all."""
    assert len(list(every())) == len({case.name for case in every()})
    names = {case.name for case in chosen(["jpeg,http,whole", "png,chunk,-file,sharded"], quick=False)}
    assert names == {"jpeg/http/whole", "jpeg_sharded/http/whole", "png_sharded/http/chunk", "png_sharded/http30/chunk"}
    assert {case.kind for case in chosen([], quick=True)} == {"whole", "chunk"}
    with pytest.raises(SystemExit, match="no case has jpg; there are "):
        benchmark.main(["--only", "jpg", "--list"])


def test_the_web_server_answers_ranges_and_waits(tmp_path):
    """GET, HEAD, ranges, what is absent, and the latency of each answer on a connection that is kept."""
    (tmp_path / "file").write_bytes(bytes(range(100)))
    with serving(tmp_path, 0.05, processes=1) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)

        def ask(method, path, **headers):
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers

        started = time.monotonic()
        status, body, headers = ask("GET", "/file")
        assert (status, body, headers["Content-Length"]) == (200, bytes(range(100)), "100")
        assert time.monotonic() - started >= 0.05
        assert ask("HEAD", "/file")[:2] == (200, b"")
        status, body, headers = ask("GET", "/file", Range="bytes=10-19")
        assert (status, body, headers["Content-Range"]) == (206, bytes(range(10, 20)), "bytes 10-19/100")
        assert ask("GET", "/file", Range="bytes=-5")[1] == bytes(range(95, 100))
        assert ask("GET", "/file", Range="bytes=100-")[0] == 416
        assert ask("GET", "/none")[0] == 404
        assert ask("GET", "/%66ile", Connection="close")[0] == 200
        connection.close()
