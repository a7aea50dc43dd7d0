"""The command `storefs`: look at a volume, or make one to try things on."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import textwrap
import traceback
import warnings
from typing import TYPE_CHECKING, Any

from rich.console import Console

import storefs
from storefs.cache_command import add_cache_command
from storefs.demo import run_demo
from storefs.errors import StorefsError, UrlError
from storefs.registry import open_source
from storefs.report import info, tree
from storefs.summary import summarise
from storefs_codecs.errors import DecodeError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storefs.summary import VolumeSummary

FAILED = 1
INTERRUPTED = 130
WIDTH_OF_TEXT = 100
WIDTH_WHEN_PIPED = 160

EXAMPLES = """\
examples:
  storefs demo
  storefs info precomputed://gs://bucket/path/to/layer
  storefs info precomputed://s3://bucket/layer -o anonymous=true -o region=eu-west-1
  storefs info precomputed://https://host/layer -o 'headers.Authorization=Bearer $TOKEN'
  storefs tree ./folder/of/layer --json
  storefs tree dvid://https://host
  storefs info dvid://https://host/uuid:branch/instance -o user=me
  storefs tree catmaid://https://host/project
  storefs info catmaid://https://host/project/stack -o timeout=5
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit code: 0, 1 for a failure told in one paragraph, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every letter
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (StorefsError, DecodeError, MissingExtra, OSError) as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            _complain(error)
        return FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="storefs",
        description="Open connectomics volumes as zarr, in place.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"storefs {storefs.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of a failure"
    )
    volume = argparse.ArgumentParser(add_help=False)
    volume.add_argument(
        "url",
        metavar="URL",
        help="precomputed://ADDRESS, ADDRESS|neuroglancer-precomputed:, a folder, dvid://HOST[/UUID[/INSTANCE]], or "
        "catmaid://HOST[/PROJECT[/STACK]]",
    )
    volume.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of storefs.open; repeatable",
    )
    volume.add_argument("--json", action="store_true", help="the facts as JSON")
    of_info = (
        "a table of scales: shape, chunks, encoding, voxel size, offset; of a DVID server its repos and versions; of "
        "a CATMAID server its projects, of a stack its mirrors, each asked for a tile"
    )
    of_tree = (
        "the arrays as zarr shows them; of a DVID server its repos, instances and versions; of a CATMAID server its "
        "projects and stacks"
    )
    for name, run, text in (("info", _info, of_info), ("tree", _tree, of_tree)):
        command = commands.add_parser(name, parents=[shared, volume], help=text, description=text)
        command.set_defaults(run=run)
    add_cache_command(commands, shared, _console)
    text = "make a small sample volume, open it with zarr, dask and xarray, check every voxel, draw a picture"
    demo = commands.add_parser("demo", parents=[shared], help=text, description=text)
    demo.add_argument("folder", nargs="?", default="storefs-demo", metavar="FOLDER", help="default: ./storefs-demo")
    demo.set_defaults(run=_demo)
    return parser


def _info(arguments: argparse.Namespace) -> None:
    volume = _summary(arguments)
    if arguments.json:
        _print_json(volume)
    else:
        _console().print(info(volume))


def _tree(arguments: argparse.Namespace) -> None:
    volume = _summary(arguments)
    if arguments.json:
        _print_json(volume)
    else:
        _console().print(tree(volume))


def _demo(arguments: argparse.Namespace) -> None:
    run_demo(arguments.folder, _console())


def _summary(arguments: argparse.Namespace) -> VolumeSummary:
    address = arguments.url
    if "://" not in address and "|" not in address and os.path.isdir(address):  # noqa: PTH112  # text as typed
        address = f"precomputed://{address}"
    with warnings.catch_warnings():
        # mirrors that do not answer are in what is shown
        warnings.simplefilter("ignore", UserWarning)
        return summarise(open_source(address, parse_options(arguments.option)))


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` pairs as options; `headers.NAME=VALUE` fills a dictionary. Raises UrlError."""
    options: dict[str, Any] = {}
    for pair in given:
        name, found, value = pair.partition("=")
        if not found:
            raise UrlError(f"-o wants NAME=VALUE, got {pair!r}")
        outer, dot, inner = name.partition(".")
        if not dot:
            options[name] = value
        elif isinstance(inside := options.setdefault(outer, {}), dict):
            inside[inner] = value
        else:
            raise UrlError(f"-o {outer} is given twice, once as text and once as {name}")
    return options


def _print_json(volume: VolumeSummary) -> None:
    sys.stdout.write(json.dumps(volume.as_json(), indent=1) + "\n")


def _console() -> Console:
    """Standard output: coloured and as wide as the terminal, or plain and wide where it is none."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_WHEN_PIPED)


def _complain(error: Exception) -> None:
    text = " ".join(f"storefs: {error}".split())
    sys.stderr.write(textwrap.fill(text, WIDTH_OF_TEXT, break_long_words=False, break_on_hyphens=False) + "\n")
