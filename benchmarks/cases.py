"""The matrix: which layer is read from where, what of it, and on how many cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

ENCODINGS = ("raw", "jpeg", "compressed_segmentation", "png")
PLACES = ("file", "http", "http30")
KINDS = ("whole", "box", "slice_z", "slice_y", "slice_x", "chunk", "points")
PARTS = ("eighth", "quarter", "half")
CORES = 2

LATENCY = {"file": 0.0, "http": 0.0, "http30": 0.03}
"""Seconds that the server of a place waits before it answers."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the results: `kind` of read of a layer at a place, with `cores` processor cores."""

    encoding: str
    sharded: bool
    place: str
    kind: str
    cores: int = CORES

    @property
    def layer(self) -> str:
        """Folder of the layer."""
        return f"{self.encoding}_sharded" if self.sharded else self.encoding

    @property
    def name(self) -> str:
        """What `--only` looks at."""
        return f"{self.layer}/{self.place}/{self.kind}" + (f"/{self.cores}core" if self.cores != CORES else "")


def every() -> Iterator[Case]:
    """All cases; the most telling come first, so that a run that is cut short says something."""
    layers = [(encoding, sharded) for sharded in (False, True) for encoding in ENCODINGS]
    for kind in KINDS:
        for place in PLACES:
            yield from (Case(encoding, sharded, place, kind) for encoding, sharded in layers)
    for encoding in ENCODINGS:
        yield from (Case(encoding, sharded=False, place="file", kind=part) for part in PARTS)
        yield from (Case(encoding, sharded=False, place="file", kind=part, cores=1) for part in (*PARTS, "whole"))


def chosen(only: list[str], *, quick: bool) -> list[Case]:
    """The cases of which every word of one of `only` (comma between words) is a part of the name; all without any.

    A word that begins with `-` must not be in it. `quick` leaves the whole volume and single chunks, from files and
    from a local server. Raises ValueError for a word that no name has.
    """
    cases = list(every())
    known = set[str]().union(*map(_words, cases))
    if strange := {word.removeprefix("-") for words in only for word in words.split(",")} - known:
        raise ValueError(f"no case has {', '.join(sorted(strange))}; there are {', '.join(sorted(known))}")
    if quick:
        cases = [c for c in cases if c.kind in ("whole", "chunk") and c.place in ("file", "http") and c.cores == CORES]
    return [case for case in cases if not only or any(_fits(case, words.split(",")) for words in only)]


def _fits(case: Case, words: list[str]) -> bool:
    of_case = _words(case)
    return all((word[1:] not in of_case) if word.startswith("-") else word in of_case for word in words)


def _words(case: Case) -> set[str]:
    return {*case.name.split("/"), case.encoding, "sharded" if case.sharded else "unsharded"}
