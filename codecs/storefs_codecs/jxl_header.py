"""The first fields of a JPEG XL image: what it declares, before anything is decoded.

Format: ISO/IEC 18181-1 (codestream: SizeHeader, ImageMetadata) and 18181-2 (container boxes).
"""

from __future__ import annotations

from dataclasses import dataclass

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
# longer than any header read here
HEADER_BYTES = 64
BOX_HEAD = 8
LONG_BOX_HEAD = 16
PARTIAL_INDEX = 4
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
SIDE = ((1, 9), (1, 13), (1, 18), (1, 30))


@dataclass(frozen=True)
class JxlHeader:
    """Size in pixels as displayed, extra channels (alpha and others), and whether there are frames."""

    width: int
    height: int
    extra_channels: int
    animated: bool


def read_header(payload: memoryview) -> JxlHeader:
    """The declared header of a bare codestream or a container.

    Raises ValueError where the bytes are neither, or end before the header does.
    """
    bits = _Bits(_codestream_start(payload)[len(CODESTREAM) :])
    width, height = _size(bits)
    if bits.take(1):  # all fields have their defaults
        return JxlHeader(width, height, 0, animated=False)
    animated = False
    if bits.take(1):  # extra fields
        turned = bits.take(3) >= 4  # noqa: PLR2004  # orientations 5 to 8 transpose
        if turned:
            width, height = height, width
        if bits.take(1):
            _size(bits)  # intrinsic size
        if bits.take(1):
            raise ValueError("a preview has no place in a chunk")
        animated = bool(bits.take(1))
        if animated:
            _animation(bits)
    if bits.take(1):  # float samples
        bits.choose((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
    else:
        bits.choose((8, 0), (10, 0), (12, 0), (1, 6))
    bits.take(1)  # 16-bit buffers suffice
    return JxlHeader(width, height, bits.choose((0, 0), (1, 0), (2, 4), (1, 12)), animated)


class _Bits:
    """Reads fields from the least significant bit on."""

    def __init__(self, data: bytes) -> None:
        self._rest = int.from_bytes(data, "little")
        self._left = len(data) * 8

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the header is cut short")
        value = self._rest & ((1 << count) - 1)
        self._rest >>= count
        self._left -= count
        return value

    def choose(self, *options: tuple[int, int]) -> int:
        """A U32 field: two bits select an offset and the width of what is added to it."""
        offset, count = options[self.take(2)]
        return offset + self.take(count)


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    height = (bits.take(5) + 1) * 8 if small else bits.choose(*SIDE)
    ratio = bits.take(3)
    if ratio:
        over, under = RATIOS[ratio - 1]
        return height * over // under, height
    return (bits.take(5) + 1) * 8 if small else bits.choose(*SIDE), height


def _animation(bits: _Bits) -> None:
    bits.choose((100, 0), (1000, 0), (1, 10), (1, 30))
    bits.choose((1, 0), (1001, 0), (1, 8), (1, 10))
    bits.choose((0, 0), (0, 3), (0, 16), (0, 32))
    bits.take(1)


def _codestream_start(payload: memoryview) -> bytes:
    """The first bytes of the codestream, out of its boxes where it lies in a container."""
    if payload[: len(CODESTREAM)] == CODESTREAM:
        return bytes(payload[:HEADER_BYTES])
    if payload[: len(CONTAINER)] != CONTAINER:
        raise ValueError("neither a codestream nor a container")
    start = b""
    at = 0
    while at + BOX_HEAD <= len(payload) and len(start) < HEADER_BYTES:
        length, name, head = (
            int.from_bytes(payload[at : at + 4], "big"),
            bytes(payload[at + 4 : at + 8]),
            BOX_HEAD,
        )
        if length == 1:
            length, head = int.from_bytes(payload[at + 8 : at + 16], "big"), LONG_BOX_HEAD
        end = at + length if length else len(payload)
        if end < at + head:
            raise ValueError("a box is shorter than its head")
        if name == b"jxlc":
            start = bytes(payload[at + head : min(end, at + head + HEADER_BYTES)])
            break
        if name == b"jxlp":
            body = at + head + PARTIAL_INDEX
            start += bytes(payload[body : min(end, body + HEADER_BYTES)])
        at = end
    if not start.startswith(CODESTREAM):
        raise ValueError("the container holds no codestream")
    return start
