"""Points, sizes and boxes in DVID's URLs, with the words it has for bad ones. Points are x, y, z."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.backends.dvid.answers import Refusal

Point = tuple[int, int, int]

PLANES = {
    **dict.fromkeys(("0_1", "xy"), (0, 1)),
    **dict.fromkeys(("0_2", "xz"), (0, 2)),
    **dict.fromkeys(("1_2", "yz"), (1, 2)),
}
VOLUMES = ("0_1_2", "vol", "xyz")
PLANE_NAMES = {(0, 1): "XY", (0, 2): "XZ", (1, 2): "YZ"}
PAYLOAD_LIMIT = 3 * 2**30


def integer(word: str, *, by: str = "ParseInt", bits: int = 32) -> int:
    """A decimal integer; Refusal in Go's words."""
    if not word.removeprefix("-").removeprefix("+").isdigit():
        raise Refusal(f'strconv.{by}: parsing "{word}": invalid syntax')
    value = int(word)
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise Refusal(f'strconv.{by}: parsing "{word}": value out of range')
    return value


def unsigned(word: str, bits: int = 64) -> int:
    """A label or a small unsigned number."""
    if not word.isdigit():
        raise Refusal(f'strconv.ParseUint: parsing "{word}": invalid syntax')
    if int(word) >= 2**bits:
        raise Refusal(f'strconv.ParseUint: parsing "{word}": value out of range')
    return int(word)


def point(words: str) -> Point:
    """A 3-D point `x_y_z`."""
    parts = words.split("_")
    if len(parts) != 3:
        raise Refusal(f'String "{words}" cannot be converted to a 3d point')
    x, y, z = (integer(part) for part in parts)
    return x, y, z


def block_point(words: str) -> Point:
    """A block coordinate `x_y_z`."""
    parts = words.split("_")
    if len(parts) != 3:
        raise Refusal(f'cannot convert "{words}" into a ChunkPoint3d')
    x, y, z = (integer(part) for part in parts)
    return x, y, z


def shown(corner: Sequence[int]) -> str:
    """A point in an error text: `(x,y,z)`."""
    return "(" + ",".join(str(n) for n in corner) + ")"


@dataclass(frozen=True)
class Box:
    """A box of voxels; `plane` names the two axes of a 2-D request, None for volumes."""

    offset: Point
    size: Point
    plane: tuple[int, int] | None = None

    @property
    def stop(self) -> Point:
        """One beyond the last voxel."""
        return add(self.offset, self.size)

    @property
    def last(self) -> Point:
        """The last voxel."""
        x, y, z = self.stop
        return x - 1, y - 1, z - 1

    @property
    def voxels(self) -> int:
        """How many there are."""
        x, y, z = self.size
        return x * y * z

    def aligned(self, block: Sequence[int]) -> bool:
        """Whether it is made of whole blocks."""
        whole = zip((*self.offset, *self.size), (*block, *block), strict=False)
        return len(block) == 3 and all(n % side == 0 for n, side in whole)

    def blocks(self, block: Sequence[int]) -> Iterator[Point]:
        """Coordinates of the blocks it touches, z slowest."""
        spans = [range(o // b, -(-s // b)) for o, s, b in zip(self.offset, self.stop, block, strict=True)]
        return ((x, y, z) for z in spans[2] for y in spans[1] for x in spans[0])


def add(a: Sequence[int], b: Sequence[int]) -> Point:
    """Sum of two points."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def parse_box(dims: str, size: str, offset: str, *, empty: bool = False) -> Box:
    """Box of `raw/{dims}/{size}/{offset}`; `empty` allows sides of 0."""
    if dims not in PLANES and dims not in VOLUMES:
        raise Refusal(f"Unknown data shape specification ({dims})")
    plane = PLANES.get(dims)
    if "_" not in offset:
        raise Refusal(f"cannot convert '{offset}' into a Point.")
    corner = offset.split("_")
    if len(corner) != 3:
        raise Refusal(f"Offset must be 3d coordinate, not {len(corner)}-d coordinate")
    at = point(offset)
    sides = [integer(word) for word in size.split("_")]
    if plane is None:
        if len(sides) != 3:
            raise Refusal(f"Size must be 3 (not {len(sides)}) dimensions")
        box = Box(at, (sides[0], sides[1], sides[2]))
        shape = f"3d volume {shown(sides)} at offset {shown(at)}"
    else:
        if len(sides) != 2:
            raise Refusal("cannot parse into a 2d point")
        full = [1, 1, 1]
        full[plane[0]], full[plane[1]] = sides
        box = Box(at, (full[0], full[1], full[2]), plane)
        shape = f"{PLANE_NAMES[plane]} slice @ offset {shown(at)}, size ({sides[0]}, {sides[1]})"
    if min(sides) < (0 if empty else 1):
        raise Refusal(f"Illegal geometry requested: {shape}")
    return box


def check_payload(count: int) -> None:
    """Refusal of answers above the server's limit."""
    if count > PAYLOAD_LIMIT:
        raise Refusal(f"Requested payload ({count} bytes) exceeds this DVID server's set limit ({PAYLOAD_LIMIT})")


def block_list(words: str) -> list[Point]:
    """Coordinates of `blocks=x,y,z,x,y,z,...`."""
    if not words:
        return []
    parts = words.split(",")
    if len(parts) % 3:
        raise Refusal("block query string should be three coordinates per block")
    numbers = [integer(part, by="Atoi", bits=64) for part in parts]
    return [(numbers[at], numbers[at + 1], numbers[at + 2]) for at in range(0, len(numbers), 3)]
