"""DVID's compressed label block: 8x8x8 sub-blocks of bit-packed codes over a table of labels. Arrays are z, y, x."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tests.backends.dvid.wire import Malformed

Labels = npt.NDArray[np.uint64]


def encode(labels: Labels) -> bytes:
    """Canonical block of an array whose sides are multiples of 8: sorted tables, no unused entries."""
    gz, gy, gx = (side // 8 for side in labels.shape)
    head = np.array([gx, gy, gz], "<u4").tobytes()
    rows = labels.reshape(gz, 8, gy, 8, gx, 8).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 512)
    mixed = np.flatnonzero((rows != rows[:, :1]).any(axis=1))
    order = np.argsort(rows[mixed], axis=1)
    ordered = np.take_along_axis(rows[mixed], order, axis=1)
    fresh = np.zeros(rows.shape, bool)
    fresh[:, 0] = True
    fresh[mixed, 1:] = ordered[:, 1:] != ordered[:, :-1]
    codes = np.zeros(rows.shape, np.uint16)
    ranks = np.empty(order.shape, np.uint16)
    np.put_along_axis(ranks, order, (np.cumsum(fresh[mixed], axis=1) - 1).astype(np.uint16), axis=1)
    codes[mixed] = ranks
    counts = fresh.sum(axis=1)
    rows = rows.copy()
    rows[mixed] = ordered
    listed = rows[fresh]
    table = np.unique(listed)
    if len(table) == 1:
        return head + np.uint32(1).tobytes() + table.astype("<u8").tobytes()
    used = np.searchsorted(table, listed)
    packed: list[bytes] = [b""] * len(rows)
    widths = np.array([int(count - 1).bit_length() for count in counts])
    for width in np.unique(widths[widths > 0]):
        chosen = np.flatnonzero(widths == width)
        bits = codes[chosen][:, :, None] >> np.arange(width - 1, -1, -1, dtype=np.uint16) & 1
        for at, row in zip(chosen, np.packbits(bits.astype(np.uint8).reshape(len(chosen), -1), axis=1), strict=True):
            packed[at] = row.tobytes()
    tables = (table.astype("<u8"), counts.astype("<u2"), used.astype("<u4"))
    return head + np.uint32(len(table)).tobytes() + b"".join(part.tobytes() for part in tables) + b"".join(packed)


def shape(block: bytes) -> tuple[int, int, int]:
    """Voxels along x, y and z."""
    if len(block) < 16:
        raise Malformed(f"label block of {len(block)} bytes")
    gx, gy, gz = (int(n) for n in np.frombuffer(block, "<u4", 3))
    if not 0 < gx * gy * gz <= 128**3:
        raise Malformed(f"label block of {gx}x{gy}x{gz} sub-blocks")
    return gx * 8, gy * 8, gz * 8


def table(block: bytes) -> Labels:
    """The labels listed in the block, as they are listed."""
    count = int(np.frombuffer(block, "<u4", 1, 12)[0])
    if count == 0:
        raise Malformed("block has 0 labels, which is not allowed")
    if 16 + 8 * count > len(block):
        raise Malformed("label table beyond the end")
    return np.frombuffer(block, "<u8", count, 16).astype(np.uint64)


def sub_block_counts(block: bytes) -> npt.NDArray[np.uint16]:
    """Number of labels each sub-block lists; of a block of one label, ones."""
    x, y, z = shape(block)
    size, labels = x * y * z // 512, len(table(block))
    if labels == 1 and len(block) == 24:
        return np.ones(size, np.uint16)
    if 16 + 8 * labels + 2 * size > len(block):
        raise Malformed("counts beyond the end")
    return np.frombuffer(block, "<u2", size, 16 + 8 * labels)


def decode(block: bytes) -> Labels:
    """Labels z, y, x; Malformed where the block does not hold together."""
    (x, y, z), labels = shape(block), table(block)
    if len(labels) == 1 and len(block) == 24:
        return np.full((z, y, x), labels[0])
    counts = sub_block_counts(block).astype(np.int64)
    at = 16 + 8 * len(labels) + 2 * len(counts)
    if at + 4 * int(counts.sum()) > len(block):
        raise Malformed("indices beyond the end")
    used = np.frombuffer(block, "<u4", int(counts.sum()), at)
    if used.size and int(used.max()) >= len(labels):
        raise Malformed("index outside the label table")
    widths = np.array([0 if count < 2 else int(count - 1).bit_length() for count in counts])
    at += used.nbytes
    starts = at + 64 * (np.cumsum(widths) - widths)
    if at + 64 * int(widths.sum()) > len(block):
        raise Malformed("codes beyond the end")
    firsts, data = np.cumsum(counts) - counts, np.frombuffer(block, np.uint8)
    rows = np.zeros((len(counts), 512), np.uint64)
    single = np.flatnonzero(counts == 1)
    rows[single] = labels[used[firsts[single]]][:, None]
    for width in np.unique(widths[widths > 0]):
        chosen = np.flatnonzero(widths == width)
        coded = data[starts[chosen][:, None] + np.arange(64 * width)]
        bits = np.unpackbits(coded, axis=1).reshape(len(chosen), 512, width).astype(np.int64)
        codes = bits @ (1 << np.arange(width - 1, -1, -1))
        if (codes >= counts[chosen][:, None]).any():
            raise Malformed("code outside the sub-block's list")
        rows[chosen] = labels[used[firsts[chosen][:, None] + codes]]
    return rows.reshape(z // 8, y // 8, x // 8, 8, 8, 8).transpose(0, 3, 1, 4, 2, 5).reshape(z, y, x)


def relabel(block: bytes, mapping: Mapping[int, int]) -> bytes:
    """The block with the entries of its label table replaced, which may then repeat; as DVID does."""
    labels = table(block)
    mapped = np.array([mapping.get(int(label), int(label)) for label in labels], "<u8")
    return block[:16] + mapped.tobytes() + block[16 + mapped.nbytes :]
