"""The parts of a compresso stream, each checked against the chunk it must describe.

Layout, little-endian: a 36 byte header; `ids`, one label for every connected component; `values`, the
distinct windows of boundary bits; `locations`, hints for boundary voxels that no neighbour decides;
run-length coded window numbers; and in version 1 two counts for every slice, which only random access needs.

Format: https://github.com/seung-lab/compresso (versions 0 and 1)
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from storefs_codecs.errors import DecodeError

if TYPE_CHECKING:
    from storefs_codecs.chunk_codec import Array

CODEC_ID = "storefs.compresso"
HEADER = struct.Struct("<4sBB3H3BQIQB")
MAGIC = b"cpso"
MAX_VERSION = 1
WINDOW_BITS = 64
CONNECTIVITIES = (4, 6)


class _Header(NamedTuple):
    """The fields in their order; `ids`, `values` and `locations` are counts."""

    magic: bytes
    version: int
    width: int
    sx: int
    sy: int
    sz: int
    x_step: int
    y_step: int
    z_step: int
    ids: int
    values: int
    locations: int
    connectivity: int

    @property
    def steps(self) -> tuple[int, int, int]:
        """The window shape (z, y, x)."""
        return self.z_step, self.y_step, self.x_step

    @property
    def tail_bytes(self) -> int:
        """Size of the arrays of version 1 that end the stream: two counts for every slice."""
        most = 2 * self.sx * self.sy
        width = next((width for width in (1, 2, 4) if most < (1 << 8 * width) - 1), 8)
        return 2 * self.sz * width if self.version == 1 else 0

    def check(self, shape: tuple[int, int, int], itemsize: int) -> None:
        """Raise DecodeError unless a volume of that shape (z, y, x) can have this header."""
        _expect("magic", MAGIC, self.magic)
        _expect("shape (z, y, x)", shape, (self.sz, self.sy, self.sx))
        _expect("bytes of a label", itemsize, self.width)
        possible = self.version <= MAX_VERSION and self.connectivity in CONNECTIVITIES
        if not possible or not 0 < math.prod(self.steps) <= WINDOW_BITS:
            expected = f"version 0 or 1, connectivity 4 or 6, windows up to {WINDOW_BITS} voxels"
            found = f"version {self.version}, connectivity {self.connectivity}, windows (z, y, x) {self.steps}"
            raise DecodeError(CODEC_ID, "impossible header", expected, found)
        voxels, windows = math.prod(shape), math.prod(_grid(shape, self.steps))
        if self.ids > voxels or self.values > windows or self.locations > 2 * voxels:
            found = f"{self.ids} ids, {self.values} values, {self.locations} locations"
            raise DecodeError(CODEC_ID, "impossible counts", f"{voxels} voxels in {windows} windows", found)


@dataclass(frozen=True)
class CompressoStream:
    """One stream whose sizes agree with its length, its shape with the chunk's.

    `steps` is the window shape `(z, y, x)`; `window_numbers` says for every window of the chunk, in C order,
    which of `values` holds its boundary bits.
    """

    shape: tuple[int, int, int]
    steps: tuple[int, int, int]
    connectivity: int
    ids: Array
    values: Array
    locations: Array
    window_numbers: npt.NDArray[np.intp]

    @classmethod
    def parse(cls, payload: memoryview, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Self:
        """The stream in `payload`, which must hold a volume of `shape` (z, y, x) and `dtype`.

        Raises DecodeError.
        """
        if len(payload) < HEADER.size:
            raise DecodeError(CODEC_ID, "shorter than its header", f"{HEADER.size} bytes", len(payload))
        header = _Header._make(HEADER.unpack(payload[: HEADER.size]))
        header.check(shape, dtype.itemsize)
        steps = header.steps
        window = np.dtype(f"<u{_window_width(steps)}")
        labels_bytes = (header.ids + header.locations) * dtype.itemsize
        known = HEADER.size + labels_bytes + header.values * window.itemsize + header.tail_bytes
        run_bytes = len(payload) - known
        if run_bytes < 0 or run_bytes % window.itemsize:
            problem = "the parts do not add up to the length"
            raise DecodeError(CODEC_ID, problem, f"at least {known} bytes", len(payload))

        ids, at = _part(payload, dtype, header.ids, HEADER.size)
        values, at = _part(payload, window, header.values, at)
        locations, at = _part(payload, dtype, header.locations, at)
        runs, _ = _part(payload, window, run_bytes // window.itemsize, at)
        numbers = _window_numbers(runs, math.prod(_grid(shape, steps)), header.values)
        return cls(shape, steps, header.connectivity, ids, values, locations, numbers)

    def interior(self) -> npt.NDArray[np.bool_]:
        """Where the voxels lie inside a component, shape (z, y, x): their boundary bit is unset."""
        if not self.values.size:
            return np.ones(self.shape, np.bool_)
        # a window that covers the chunk along an axis is cut to it
        zs, ys, xs = (min(step, extent) for step, extent in zip(self.steps, self.shape, strict=True))
        bits = np.unpackbits(
            self.values[:, None].view(np.uint8), axis=1, count=math.prod(self.steps), bitorder="little"
        ).reshape(-1, *self.steps)[:, :zs, :ys, :xs]
        # one item of xs bytes for every window and row of it
        rows = np.logical_not(bits, order="C").view(f"V{xs}")[..., 0]
        nz, ny, nx = _grid(self.shape, self.steps)
        numbers = self.window_numbers.reshape(nz, ny, nx)
        whole = np.empty((nz * zs, ny * ys, nx), f"V{xs}")
        for zo in range(zs):
            for yo in range(ys):
                whole[zo::zs, yo::ys] = np.ascontiguousarray(rows[:, zo, yo])[numbers]
        interior: npt.NDArray[np.bool_] = whole.view(np.bool_)[tuple(slice(extent) for extent in self.shape)]
        return np.ascontiguousarray(interior)


def _grid(shape: tuple[int, int, int], steps: tuple[int, int, int]) -> tuple[int, int, int]:
    """Count of windows along every axis."""
    nz, ny, nx = (-(-extent // step) for extent, step in zip(shape, steps, strict=True))
    return nz, ny, nx


def _part(payload: memoryview, dtype: np.dtype[Any], count: int, at: int) -> tuple[Array, int]:
    """`count` items from byte `at` on, and where they end."""
    return np.frombuffer(payload, dtype, count, at), at + count * dtype.itemsize


def _expect(what: str, expected: object, found: object) -> None:
    if expected != found:
        raise DecodeError(CODEC_ID, f"wrong {what}", expected, found)


def _window_width(steps: tuple[int, int, int]) -> int:
    """Bytes of one window."""
    return 1 << max(0, (math.prod(steps) - 1).bit_length() - 3)


def _window_numbers(runs: Array, blocks: int, value_size: int) -> npt.NDArray[np.intp]:
    """The number of every window: an odd word skips windows numbered 0, an even one tells one number."""
    payloads = runs >> 1
    skips = (runs & 1).astype(np.bool_)
    lengths = np.where(skips, payloads, 1)
    if runs.size > blocks or np.any((lengths == 0) | (lengths > blocks)):
        raise DecodeError(CODEC_ID, "impossible run of windows", f"runs that cover {blocks} windows")
    ends = np.cumsum(lengths, dtype=np.int64)
    covered = int(ends[-1]) if ends.size else 0
    _expect("count of windows", blocks, covered)
    told = payloads[~skips]
    if told.size and int(told.max()) >= max(value_size, 1):
        raise DecodeError(CODEC_ID, "a window number is out of range", f"below {value_size}", int(told.max()))
    numbers = np.zeros(blocks, np.intp)
    numbers[ends[~skips] - 1] = told
    return numbers
