"""Asking a mirror for one tile, to learn whether it works and what its voxels are.

Asked for is the tile at the canary, where the stack's owner says there is data; or, where there is none, the one in the
centre of the stack and then the one in the centre of its coarsest level. A black image is no proof of data: servers
send it for whatever is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storefs.backends.catmaid import answers
from storefs.backends.catmaid.broken import shown_slice
from storefs.backends.catmaid.info import Mirror, StackInfo
from storefs.backends.catmaid.levels import Level, broken_at, levels_of
from storefs.backends.catmaid.reading import Reading
from storefs.backends.catmaid.tile_sources import Tile, is_turned, no_tiles, served, tile_limit, tile_request
from storefs.backends.catmaid.url import DTYPES
from storefs.errors import Refused, StorefsError
from storefs.plans import At, Body, Call, Race, Reply
from storefs_codecs.content_encoding import inflate
from storefs_codecs.errors import DecodeError
from storefs_codecs.tile import Tile as TileImage
from storefs_codecs.tile import TileHeader, tile_header

if TYPE_CHECKING:
    from storefs.plans import Plan


@dataclass(frozen=True, slots=True)
class Place:
    """A voxel of a level, where a mirror is asked for a tile."""

    level: Level
    x: int
    y: int
    z: int


class Prober:
    """Asks the mirrors of a stack; what is wrong with each is noted in `problems`, black images in `black`."""

    def __init__(self, info: StackInfo, url: str, reading: Reading) -> None:
        self.info = info
        self.url = url
        self.reading = reading
        self.levels = levels_of(info)
        self.problems: dict[Mirror, StorefsError | str] = {}
        self.black: dict[Mirror, TileHeader] = {}

    def fits(self, mirror: Mirror, header: TileHeader) -> bool:
        """Whether a tile is as big as the mirror says its tiles are."""
        return (header.width, header.height) == (mirror.tile_width, mirror.tile_height)

    def rejects(self, mirror: Mirror) -> bool:
        """Whether nothing can be asked of `mirror`; why is noted."""
        reason = no_tiles(mirror, self.info.orientation)
        if reason is None and mirror.image_base.startswith("file:") and not self.reading.local:
            reason = "it names files of this machine, which a server may not"
        if reason is not None:
            self.problems[mirror] = self.problems.get(mirror, reason)
        return reason is not None

    def request(self, mirror: Mirror, place: Place) -> At | Call:
        """What to ask `mirror` for the tile that holds `place`."""
        tile = Tile(place.level.number, place.x // mirror.tile_width, place.y // mirror.tile_height, place.z)
        account = self.reading.account(mirror)
        return tile_request(mirror, self.info, tile, account=account, query=self.reading.flix_query)

    def probe(self, mirror: Mirror, place: Place, timeout: float) -> Plan[TileHeader | StorefsError | str | None]:
        """What `mirror` has at `place`: a real image, nothing or mere black, or something that is wrong."""
        ((answer, _),) = yield Race((self.request(mirror, place),), timeout)
        return self.judge(mirror, answer)

    def judge(self, mirror: Mirror, answer: object) -> TileHeader | StorefsError | str | None:
        """What an answer to `request` says of `mirror`."""
        if isinstance(answer, Refused) and self.reading.forbidden_is_missing:
            return None
        if isinstance(answer, StorefsError):
            return answer
        try:
            data = tile_bytes(answer, tile_limit(mirror), self.url)
            header = None if data is None else tile_header(data)
            suited = None if header is None else self.suited(mirror, header)
            if data is None or not isinstance(suited, TileHeader) or not _is_black(data, suited, mirror):
                return suited
        except StorefsError as error:
            return error
        except DecodeError as error:
            return f"it answers with something that is no image: {error}"
        self.black.setdefault(mirror, suited)
        return None

    def suited(self, mirror: Mirror, header: TileHeader) -> TileHeader | str:
        """`header` as the stack has it, or what is wrong with such voxels."""
        if self.reading.dtype is None and header.dtype not in DTYPES:
            return f"its voxels are {header.dtype}; offered: {', '.join(DTYPES)}"
        if is_turned(mirror, self.info.orientation):
            return TileHeader(header.height, header.width, header.channels, header.dtype)
        return header

    def places(self, mirror: Mirror) -> Iterator[Place]:
        """Where to ask `mirror`: the canary, the centre, the centre of the coarsest level."""
        levels = served(mirror, self.levels)
        finest, coarsest = levels[0], levels[-1]
        factors = finest.factor_xyz
        x, y, z = (c // f for c, f in zip(self.info.canary_xyz, factors, strict=True))
        seen = []
        for place in (self.place(finest, (z, y, x)), self.centre(finest), self.centre(coarsest)):
            if place not in seen:
                seen.append(place)
        return iter(seen)

    def centre(self, level: Level) -> Place:
        """The middle of a level."""
        depth, height, width = level.shape_zyx
        return self.place(level, (depth // 2, height // 2, width // 2))

    def place(self, level: Level, position_zyx: tuple[int, int, int]) -> Place:
        """The nearest place to a position that lies in the level and in no broken slice."""
        z, y, x = (min(max(p, 0), n - 1) for p, n in zip(position_zyx, level.shape_zyx, strict=True))
        near = shown_slice(z, level.shape_zyx[0], broken_at(self.info, level), "nearest")
        return Place(level, x, y, z if near is None else near)


def tile_bytes(answer: object, limit: int, url: str) -> bytes | memoryview | None:
    """The tile in an answer, at most `limit` bytes; None where none. Raises Refused, ServerFault, DecodeError."""
    if isinstance(answer, Body):
        if answer.content_encoding:
            return inflate(answer.data, answer.content_encoding, limit=limit)
        return answer.data
    if isinstance(answer, Reply):
        if answer.status in answers.NOT_FOUND:
            return None
        if answer.status != answers.OK:
            raise answers.tile_failure(answer, url)
        return answer.data
    return None


def _is_black(data: bytes | memoryview, header: TileHeader, mirror: Mirror) -> bool:
    """Whether an image shows nothing at all; one that is broken may still stand among good ones."""
    try:
        return not TileImage((1, mirror.tile_height, mirror.tile_width), header.dtype).decode_chunk(data).any()
    except DecodeError:
        return False
