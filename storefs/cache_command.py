"""The command `storefs cache`: what a cache folder holds, and making it empty."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.table import Table

from storefs.disk_cache import DiskCache, usual_folder
from storefs.options import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

_NO_BOUND = 1 << 62


def add_cache_command(commands: Any, shared: argparse.ArgumentParser, console: Callable[[], Console]) -> None:  # noqa: ANN401  # argparse names no such type
    """Add `cache info` and `cache clear` to the subparsers `commands`."""
    text = "what a cache of storefs holds, and emptying it"
    cache = commands.add_parser("cache", parents=[shared], help=text, description=text)
    actions = cache.add_subparsers(title="actions", metavar="ACTION", required=True)
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("folder", nargs="?", metavar="FOLDER", help=f"default: {usual_folder()}")
    text = "volumes in the cache, number of entries and size on disk of each"
    action = actions.add_parser("info", parents=[shared, folder], help=text, description=text)
    action.set_defaults(run=lambda given: _info(_cache(given.folder), console()))
    text = "remove all entries, or those of one volume; other files in the folder stay"
    action = actions.add_parser("clear", parents=[shared, folder], help=text, description=text)
    action.add_argument("--source", metavar="ADDRESS", help="a volume as `storefs cache info` shows it")
    action.set_defaults(run=lambda given: _clear(_cache(given.folder), given.source, console()))


def _cache(folder: str | None) -> DiskCache:
    return DiskCache(cache_folder(folder or True) or usual_folder(), _NO_BOUND)


def _info(cache: DiskCache, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("volume", overflow="fold")
    table.add_column("entries", justify="right")
    table.add_column("on disk", justify="right")
    volumes = cache.volumes()
    for source, (entries, nbytes) in sorted(volumes.items()):
        table.add_row(source, str(entries), decimal(nbytes))
    total = [sum(column) for column in zip(*volumes.values(), strict=True)] or [0, 0]
    console.print(f"{cache.root}: {total[0]} entries, {decimal(total[1])}")
    if volumes:
        console.print(table)


def _clear(cache: DiskCache, source: str | None, console: Console) -> None:
    console.print(f"{cache.root}: {cache.clear(source)} entries removed")
