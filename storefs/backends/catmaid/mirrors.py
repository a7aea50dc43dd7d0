"""Which mirror of a stack is read: the first that has a real image where the stack should have one.

The canary is where the stack's owner says there is data. Where no mirror has a tile there, or one has a black image,
the centre of the stack and then its coarsest level tell.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from storefs.backend import Stored
from storefs.backends.catmaid.info import Mirror, StackInfo
from storefs.backends.catmaid.levels import Level
from storefs.backends.catmaid.n5 import N5_BLOCKS, find_datasets
from storefs.backends.catmaid.probing import Prober
from storefs.backends.catmaid.reading import Reading
from storefs.backends.catmaid.tile_sources import (
    TYPE_NAMES,
    is_turned,
    no_tiles,
    served,
    without_secrets,
)
from storefs.backends.catmaid.url import DTYPES
from storefs.backends.catmaid.views import BY_BROWSER, BY_SERVER, DVID_BLOCKS, DVID_TILES, find_views
from storefs.errors import Changing, MetadataError, StorefsError, TransportError, Unsupported
from storefs.model import Encoding
from storefs.plans import Race
from storefs_codecs.tile import TileHeader

if TYPE_CHECKING:
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

# a mirror that says nothing for so long lets the others have a go first
SOON = 10.0
_NO_CANARY = "it answers, but has no tile at the canary"
_BLACK = "it answers, but with nothing but black"


class MirrorWarning(UserWarning):
    """A mirror was passed over, or is used although it may not do; or a stack says something that cannot be right."""


class LevelView(Protocol):
    """A level of the stack as seen in a volume of another format."""

    @property
    def encoding(self) -> Encoding:
        """How chunks are handed on: "raw", or as they are stored (StoredView)."""

    @property
    def dtype(self) -> str:
        """Of the voxels."""

    @property
    def channels(self) -> tuple[int, ...]:
        """The shape in front of z, y, x."""

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Voxels along z, y, x, or c, z, y, x."""

    @property
    def size_zyx(self) -> tuple[int, ...]:
        """Voxels that the volume has along the stack's z, y, x."""

    @property
    def in_parts(self) -> bool:
        """Whether less than a chunk can be had for less."""

    @property
    def attributes(self) -> Mapping[str, object]:
        """Where the voxels come from."""

    def read(self, start: tuple[int, ...], stop: tuple[int, ...], fill_value: int = 0) -> Plan[Array | None]:
        """Voxels of the level from `start` to `stop` (zyx or czyx), None where there are none."""


@runtime_checkable
class StoredView(LevelView, Protocol):
    """A level whose chunks are handed on as they are stored."""

    def stored(self, index: tuple[int, ...]) -> Plan[Stored | None]:
        """The chunk at `index`, None where absent."""


Views = Mapping[int, LevelView]
FindViews = Callable[[Mirror, StackInfo, tuple[Level, ...], Reading], "Plan[Mapping[int, LevelView] | None]"]
"""The levels of a mirror as views by number, None where it has tiles. Raises StorefsError where it does not answer."""

HANDED_OVER: Mapping[int, FindViews] = {
    DVID_BLOCKS: find_views,
    DVID_TILES: find_views,
    BY_SERVER: find_views,
    BY_BROWSER: find_views,
    N5_BLOCKS: find_datasets,
}
"""By tile source type. Where the volume cannot be had, types that have tiles as well are read as tiles."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The mirror that is read, by tiles or as views of another volume; and why others were passed over."""

    mirror: Mirror
    dtype: str = "uint8"
    colour: bool | None = None
    views: Views | None = None
    problems: Mapping[Mirror, str] = field(default_factory=dict)


def name_of(mirror: Mirror) -> str:
    """What a mirror is called in messages."""
    title = f" {mirror.title!r}" if mirror.title else ""
    number = "the mirror" if mirror.id is None else f"mirror {mirror.id}"
    return f"{number}{title} ({without_secrets(mirror.image_base).partition('?')[0]})"


def choose(info: StackInfo, url: str, reading: Reading) -> Plan[Choice]:
    """The mirror to read. Raises UrlError, MetadataError, or Unsupported or a TransportError naming every fault."""
    if not info.mirrors:
        raise MetadataError("stack info: mirrors: the stack has none, so there are no images", url=url)
    return (yield from _Chooser(info, url, reading, reading.wanted(info.mirrors, url)).run())


def survey(info: StackInfo, url: str, reading: Reading) -> Plan[dict[Mirror, str | None]]:
    """What is wrong with each mirror, None for those that can be read; each is asked for one tile, all at once."""
    chooser = _Chooser(info, url, reading)
    found: dict[Mirror, str | None] = {}
    for mirror in info.mirrors:
        if (yield from chooser.views(mirror)) is not None:
            found[mirror] = None
    tiles = [m for m in info.mirrors if m not in found and m not in chooser.problems and not chooser.rejects(m)]
    requests = tuple(chooser.request(mirror, next(chooser.places(mirror))) for mirror in tiles)
    answers_given: tuple[tuple[Any, float], ...] = (yield Race(requests, reading.timeout)) if requests else ()
    for mirror, (answer, _) in zip(tiles, answers_given, strict=True):
        verdict = chooser.judge(mirror, answer)
        if verdict is None:
            # the canary may lie in a black corner of good data
            found[mirror] = None if mirror in chooser.black else _NO_CANARY
        else:
            found[mirror] = None if isinstance(verdict, TileHeader) else _text(verdict)
    return {mirror: found[mirror] if mirror in found else chooser.said()[mirror] for mirror in info.mirrors}


def successor(info: StackInfo, url: str, reading: Reading, passed: Sequence[Mirror], dtype: str) -> Plan[Mirror | None]:
    """The next mirror whose tiles have the size and voxels of those `passed`; None if none is left."""
    last = passed[-1]
    chooser = _Chooser(info, url, reading)
    for mirror in info.mirrors:
        same = (mirror.tile_width, mirror.tile_height) == (last.tile_width, last.tile_height)
        turned = is_turned(mirror, info.orientation) == is_turned(last, info.orientation)
        fewer = len(served(mirror, chooser.levels)) < len(served(last, chooser.levels))
        if mirror in passed or not same or not turned or fewer or chooser.rejects(mirror):
            continue
        for place in chooser.places(mirror):
            found = yield from chooser.probe(mirror, place, reading.timeout)
            if found is not None:
                break
        if isinstance(found, TileHeader) and found.dtype == dtype:
            return mirror
    return None


class _Chooser(Prober):
    """Asks `candidates`, in order; those that answer and have no tile at the canary are in `empty`."""

    def __init__(self, info: StackInfo, url: str, reading: Reading, candidates: Sequence[Mirror] = ()) -> None:
        super().__init__(info, url, reading)
        self.candidates = candidates
        self.empty: list[Mirror] = []

    def run(self) -> Plan[Choice]:
        if len(self.candidates) == 1 and self.reading.dtype is not None:
            (mirror,) = self.candidates
            if mirror.tile_source_type not in HANDED_OVER and not self.rejects(mirror):
                return self.chosen(mirror, None)  # nothing to be learnt by asking
        choice = None
        if self.reading.mirror == "fastest":
            choice = yield from self.fastest()
        soon = min(SOON, self.reading.timeout) if len(self.candidates) > 1 else self.reading.timeout
        if choice is None:
            choice = yield from self.first(self.candidates, soon)
        if choice is None and soon < self.reading.timeout:
            slow = [mirror for mirror, problem in self.problems.items() if isinstance(problem, TimeoutError)]
            for mirror in slow:
                del self.problems[mirror]
            choice = yield from self.first(slow, self.reading.timeout)
        if choice is None:
            choice = yield from self.elsewhere()
        if choice is None:
            raise self.failure()
        return choice

    def fastest(self) -> Plan[Choice | None]:
        """The mirror with a real image that took the least time for each pixel of it."""
        # what is no tiles has none to race with, and has its turn where nothing else is left
        tiled = [mirror for mirror in self.candidates if mirror.tile_source_type not in HANDED_OVER]
        racing = [mirror for mirror in tiled if not self.rejects(mirror)]
        requests = tuple(self.request(mirror, next(self.places(mirror))) for mirror in racing)
        results: list[tuple[Any, float]] = list((yield Race(requests, self.reading.timeout)))
        scores: dict[Mirror, tuple[float, TileHeader]] = {}
        for mirror, (answer, seconds) in zip(racing, results, strict=True):
            found = self.noted(mirror, (yield from self.beyond_black(mirror, self.judge(mirror, answer))))
            if found is not None:
                scores[mirror] = seconds / (mirror.tile_width * mirror.tile_height), found
        if not scores:
            return None
        best = min(scores, key=lambda mirror: scores[mirror][0])
        return (yield from self.settled(best, scores[best][1]))

    def first(self, mirrors: Sequence[Mirror], timeout: float) -> Plan[Choice | None]:
        """The first of `mirrors` with a real image at the canary."""
        for mirror in mirrors:
            if mirror in self.problems or mirror in self.empty:
                continue
            views = yield from self.views(mirror)
            if views is not None:
                self.warn_of_passed(mirror)
                self.warn_of_sizes(mirror, views)
                return Choice(mirror, views[min(views)].dtype, None, views, self.said(mirror))
            if mirror in self.problems or self.rejects(mirror):
                continue
            answer = yield from self.probe(mirror, next(self.places(mirror)), timeout)
            found = self.noted(mirror, (yield from self.beyond_black(mirror, answer)))
            if found is not None:
                return (yield from self.settled(mirror, found))
        return None

    def beyond_black(
        self, mirror: Mirror, found: TileHeader | StorefsError | str | None
    ) -> Plan[TileHeader | StorefsError | str | None]:
        """`found` at the canary; or, where that is black, a real image at another place."""
        if found is not None or mirror not in self.black:
            return found
        for place in list(self.places(mirror))[1:]:
            elsewhere = yield from self.probe(mirror, place, self.reading.timeout)
            if elsewhere is not None:
                return elsewhere
        return None

    def noted(self, mirror: Mirror, found: TileHeader | StorefsError | str | None) -> TileHeader | None:
        """The real image that was found; all else is noted."""
        if isinstance(found, TileHeader):
            return found
        if found is None:
            self.empty.append(mirror)
        else:
            self.problems[mirror] = found
        return None

    def views(self, mirror: Mirror) -> Plan[Views | None]:
        """The levels of `mirror` as views of another volume; None where it is to be read as tiles, or not at all."""
        find = HANDED_OVER.get(mirror.tile_source_type)
        if find is None:
            return None
        try:
            views = yield from find(mirror, self.info, self.levels, self.reading)
        except StorefsError as error:
            # as tiles it may do; but tiles of what changes would be kept as well
            if isinstance(error, Changing) or no_tiles(mirror, self.info.orientation):
                self.problems[mirror] = error
            else:
                warnings.warn(
                    f"{name_of(mirror)}: the volume behind its tiles cannot be read ({error.message}); its tiles are "
                    f"read, which may be compressed with loss [{self.url}]",
                    MirrorWarning,
                    stacklevel=2,
                )
            return None
        return views

    def elsewhere(self) -> Plan[Choice | None]:
        """The first mirror with a real image in another place; without one, the first that at least answers."""
        for number in (1, 2):
            for mirror in self.empty:
                places = list(self.places(mirror))
                if number >= len(places) or mirror in self.problems or mirror in self.black:
                    continue
                found = yield from self.probe(mirror, places[number], self.reading.timeout)
                if isinstance(found, TileHeader):
                    return (yield from self.settled(mirror, found))
                if found is not None:
                    self.problems[mirror] = found
        for mirror in self.empty:
            if mirror not in self.problems:
                header = self.black.get(mirror)
                dtype = self.reading.dtype or (header.dtype if header else DTYPES[0])
                has = "has none of the tiles" if header is None else "has nothing but black in the tiles"
                warnings.warn(
                    f"{name_of(mirror)} answers, but {has} that it was asked for; its voxels are taken for {dtype} "
                    f"(dtype=… says otherwise) [{self.url}]",
                    MirrorWarning,
                    stacklevel=2,
                )
                return self.chosen(mirror, header)
        return None

    def settled(self, mirror: Mirror, header: TileHeader) -> Plan[Choice]:
        """The choice of `mirror`, whose voxels a tile of the right size tells best: a stock image is of any size."""
        if self.reading.dtype is None and header.dtype == DTYPES[0] and not self.fits(mirror, header):
            for place in list(self.places(mirror))[1:]:
                found = yield from self.probe(mirror, place, self.reading.timeout)
                if isinstance(found, TileHeader) and self.fits(mirror, found):
                    header = found
                    break
        return self.chosen(mirror, header)

    def chosen(self, mirror: Mirror, header: TileHeader | None) -> Choice:
        self.warn_of_passed(mirror)
        return Choice(
            mirror,
            dtype=self.reading.dtype or (header.dtype if header else DTYPES[0]),
            colour=None if header is None else header.channels > 2,  # noqa: PLR2004  # grey and alpha
            problems=self.said(mirror),
        )

    # telling

    def said(self, chosen: Mirror | None = None) -> dict[Mirror, str]:
        """What is wrong with the mirrors that were asked, other than the one `chosen`."""
        empty = {mirror: _BLACK if mirror in self.black else _NO_CANARY for mirror in self.empty}
        said = empty | {m: _text(problem) for m, problem in self.problems.items()}
        return {mirror: text for mirror, text in said.items() if mirror != chosen}

    def warn_of_passed(self, mirror: Mirror) -> None:
        """Warn of the candidates that would have come before `mirror`, which in a race are all."""
        raced = self.reading.mirror == "fastest"
        passed = self.candidates if raced else self.candidates[: self.candidates.index(mirror)]
        said = self.said(mirror)
        for other in passed:
            if other in said:
                message = f"{name_of(other)} is skipped: {said[other]} [{self.url}]"
                warnings.warn(message, MirrorWarning, stacklevel=2)

    def warn_of_sizes(self, mirror: Mirror, views: Views) -> None:
        """Warn of levels that the volume made by other factors than the stack's: its voxels lie elsewhere."""
        if mirror.tile_source_type == DVID_TILES:
            return  # padded to whole tiles
        factors = {level.number: level.factor_xyz[::-1] for level in self.levels}
        finest = min(views)
        for number, view in views.items():
            ratios = zip(view.size_zyx, views[finest].size_zyx, factors[number], factors[finest], strict=True)
            if any(abs(n - whole * first / factor) > 1 for n, whole, factor, first in ratios):
                warnings.warn(
                    f"{name_of(mirror)}: level {number} of the volume has {view.size_zyx} voxels (z, y, x) and level "
                    f"{finest} {views[finest].size_zyx}, which does not fit the stack's factors {factors[number]}: the "
                    f"level is not where it should be, and filled where the volume ends [{self.url}]",
                    MirrorWarning,
                    stacklevel=2,
                )

    def failure(self) -> StorefsError:
        """The error that names every mirror and its fault, of their common kind."""
        faults = [self.problems[mirror] for mirror in self.candidates]
        listed = "; ".join(
            f"{name_of(mirror)}: {_text(fault)}" for mirror, fault in zip(self.candidates, faults, strict=True)
        )
        kinds = {type(fault) if isinstance(fault, StorefsError) else Unsupported for fault in faults}
        kind = kinds.pop() if len(kinds) == 1 else TransportError
        return kind(f"no mirror of this stack can be read: {listed}", url=self.url)


def _text(problem: StorefsError | str) -> str:
    return problem if isinstance(problem, str) else problem.message


def type_name(mirror: Mirror) -> str:
    """What CATMAID calls the mirror's type."""
    return TYPE_NAMES.get(mirror.tile_source_type, "unknown")
