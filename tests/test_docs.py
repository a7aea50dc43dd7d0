"""The documents: every Python and console block runs, and prints what the document says it prints.

A block may be excused by `<!-- not run: reason -->` in the line before it. What a block prints is compared with the
text block that follows it at once, where "…" stands for anything within a line. A document's blocks share their names.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest
from rich.console import Console

import storefs.dvid
from storefs.backends.catmaid.url import OPTIONS as CATMAID_OPTIONS
from storefs.backends.dvid.url import OPTIONS as DVID_OPTIONS
from storefs.backends.precomputed.url import OPTIONS
from storefs.cli import main
from storefs.demo import run_demo
from storefs.options import COMMON
from tests.backends.catmaid.scene import scene
from tests.backends.catmaid.specimen import tissue
from tests.backends.dvid.asking import Asker
from tests.backends.dvid.emulator import ADMIN_TOKEN, DvidEmulator

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "codecs/README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("storefs/backends/*/README.md")),
]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<excuse>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
DVID_HOST, DVID_ROOT = "https://dvid.example.org", "a1b2" + 28 * "0"  # of the documents
CATMAID_HOST = "https://catmaid.example.org"
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the output that the document shows for it."""

    line: int
    language: str
    body: str
    excuse: str | None
    output: str | None


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a document in order."""
    matches = list(BLOCK.finditer(text))
    blocks = []
    for match, following in zip_longest(matches, matches[1:]):
        shown = None
        if following and following["language"] == "text" and not text[match.end() : following.start()].strip():
            shown = following["body"]
        line = text.count("\n", 0, match.start()) + 1
        blocks.append(Block(line, match["language"], match["body"], match["excuse"], shown))
    return blocks


def same(shown: str, printed: str) -> bool:
    """Whether `printed` is what the document shows, up to trailing blanks and what "…" stands for."""
    pattern = "[^\n]*".join(re.escape(part) for part in tidy(shown).split("…"))
    return re.fullmatch(pattern, tidy(printed)) is not None


def tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def run_console(body: str) -> tuple[str, str]:
    """What a console block shows for its only command, and what that command prints."""
    command, _, shown = body.partition("\n")
    program, *arguments = shlex.split(command.removeprefix("$ "))
    assert program == "storefs"
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(arguments) == 0
    return shown, output.getvalue()


@dataclass(frozen=True)
class Demo:
    """The demo as the README says to run it, once for all documents."""

    folder: Path
    printed: str
    seconds: float


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("docs")
    output = io.StringIO()
    started = time.process_time()
    with contextlib.chdir(folder):
        run_demo("storefs-demo", Console(file=output, width=120))
    return Demo(folder, output.getvalue(), time.process_time() - started)


@pytest.fixture
def dvid() -> Iterator[str]:
    """Address of a server with what the documents speak of: a repo, `grayscale` and `files`."""
    with DvidEmulator() as server:
        ask = Asker(server.port)
        given = {"alias": "lab", "root": DVID_ROOT}
        assert ask("POST", f"/api/repos?admintoken={ADMIN_TOKEN}", given).status == 200
        for typename, name in (("uint8blk", "grayscale"), ("keyvalue", "files")):
            made = {"typename": typename, "dataname": name}
            assert ask("POST", f"/api/repo/{DVID_ROOT}/instance", made).status == 200
        raw = f"/api/node/{DVID_ROOT}/grayscale/raw/0_1_2/128_128_64/0_0_0"
        assert ask("POST", raw, 64 * 128 * 128 * b"\x0b").status == 200
        ask.close()
        yield server.url


@pytest.fixture
def catmaid() -> Iterator[str]:
    """Address of a server with the stack that the documents speak of: project 1, stack 2, 4 x 4 x 40 nm."""
    with scene() as em:
        shown = em.stack(tissue((20, 400, 500)), [(1, 1, 1), (2, 2, 1)])
        assert shown.url.endswith("/1/2")
        yield em.server.url


def test_the_demo_is_quick_and_checks_itself(demo):
    """The demo takes well under 20 s of processor time and ends with what to try next."""
    assert demo.seconds < 20
    assert "all equal" in demo.printed
    assert (demo.folder / "storefs-demo/slice.png").stat().st_size > 100_000
    assert "storefs info precomputed://storefs-demo/labels" in demo.printed


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_blocks_run_and_print_what_is_shown(document, demo, dvid, catmaid, monkeypatch):
    """Every block of the document that is not excused works as shown; DVID's and CATMAID's hosts are emulated."""
    monkeypatch.chdir(demo.folder)
    names: dict[str, object] = {"__name__": "__document__"}
    for block in blocks_of(document.read_text(encoding="utf-8")):
        if block.excuse or block.language not in ("python", "console"):
            continue
        where = f"{document.relative_to(ROOT)}:{block.line}"
        body = block.body.replace(DVID_HOST, dvid).replace(CATMAID_HOST, catmaid)
        if block.language == "console":
            shown, printed = run_console(body)
        else:
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(body, where, "exec"), names)  # the document's own code
            shown, printed = block.output, output.getvalue()
        if shown is not None:
            assert same(shown, printed), f"{where} prints\n{printed}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document):
    """Every link to a file of the project names one that is there."""
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_the_readme_shows_output_first():
    """The first block of the README is Python, at most five lines, and its output follows."""
    first = blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert first.language == "python"
    assert first.output
    assert len(first.body.splitlines()) <= 5


def test_excused_blocks_give_a_reason():
    """A block is excused in words, and most are not."""
    python = [b for path in DOCUMENTS for b in blocks_of(path.read_text(encoding="utf-8")) if b.language == "python"]
    excused = [block for block in python if block.excuse]
    assert all(len(block.excuse.split()) > 1 for block in excused)
    assert len(excused) * 2 <= len(python)


@pytest.mark.parametrize("readme", sorted(ROOT.glob("storefs/backends/*/README.md")), ids=lambda path: path.parent.name)
def test_a_backends_readme_names_its_files(readme):
    """Every module of a backend is in the table of its README."""
    text = readme.read_text(encoding="utf-8")
    modules = [path.name for path in readme.parent.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if f"`{name}`" not in text] == []


def test_every_option_is_in_the_readme():
    """The README's table of options has all that an address takes."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert named_in_table(text, "| Option | Values") == COMMON.keys() | OPTIONS.keys()
    assert named_in_table(text, "| DVID option |") == DVID_OPTIONS.keys()
    assert named_in_table(text, "| CATMAID option |") == CATMAID_OPTIONS.keys()


def named_in_table(text: str, head: str) -> set[str]:
    """The names in the first column of the table that begins with `head`."""
    table = text[text.index(head) :].partition("\n\n")[0]
    return set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines())))


def test_every_method_of_the_pydvid_table_exists():
    """Each `c.subject.method` that the README names for pydvid's users is there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| pydvid | storefs |") :].partition("\n\n")[0]
    named = re.findall(r"c\.(\w+)\.(\w+)", table)
    assert len(named) > 12
    client = storefs.dvid.Client("localhost:8000")
    assert [name for name in named if not hasattr(getattr(client, name[0]), name[1])] == []
