"""Tiles in every image format: what becomes of colours, sizes and bit depths, and what is refused."""

from __future__ import annotations

import asyncio
import json
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from storefs_codecs import DecodeError
from storefs_codecs.frame import ABSENT
from storefs_codecs.tile import Tile, TileCodec, TileHeader, tile_header

GOLDEN = Path(__file__).parents[2] / "../shared/golden/catmaid/tile_formats"
HEIGHT, WIDTH = 48, 64
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def samples(channels: int, dtype: str = "uint8", size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray[Any, Any]:
    """A slightly noisy image, `(height, width, channels)`, over the whole range of the dtype."""
    rng = np.random.default_rng(channels)
    ramp = np.add.outer(np.arange(size[0]) * 3, np.arange(size[1]))[..., None] + 60 * np.arange(channels)
    image = (ramp + rng.integers(0, 9, (*size, channels))) % 256
    return (image * 256 + rng.integers(0, 256, image.shape) if dtype == "uint16" else image).astype(dtype)


def luma_of(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The luma by the weights of BT.601, in wide integers."""
    red, green, blue = (image[..., n].astype(np.int64) for n in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 32768) // 65536


def planes(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An image `(height, width, channels)` as `(3, 1, height, width)`, without alpha."""
    colours = image[..., :3] if image.shape[-1] > 2 else image[..., [0, 0, 0]]
    return np.moveaxis(colours, -1, 0)[:, None]


def rgb_of(payload: bytes, dtype: str = "uint8", size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray[Any, Any]:
    found = Tile((3, 1, *size), dtype, "rgb").decode(payload)
    assert isinstance(found, np.ndarray)
    return found


# writers


def png(header: tuple[int, ...], rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of the fields of its header and its filtered rows; `extra` chunks stand before those."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *header)), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def png_rows(image: np.ndarray[Any, Any], bits: int, *, interlace: bool) -> bytes:
    """Unfiltered rows of `(height, width, channels)`, packed to `bits`."""
    rows = []
    for x, y, dx, dy in ADAM7 if interlace else ((0, 0, 1, 1),):
        part = image[y::dy, x::dx]
        for row in part if part.size else ():
            if bits < 8:
                ones = (row.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1
                rows.append(b"\0" + np.packbits(ones.astype(np.uint8)).tobytes())
            else:
                rows.append(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes())
    return b"".join(rows)


def gif(indexes: np.ndarray[Any, Any], palette: bytes, *, local: bool = False, before: bytes = b"") -> bytes:
    """A GIF of one frame, of up to 128 colours, whose codes never grow."""
    height, width = indexes.shape
    codes = [
        code for n, index in enumerate(indexes.ravel().tolist()) for code in ([128] if n % 64 == 0 else []) + [index]
    ]
    bits = sum(code << 8 * n for n, code in enumerate([*codes, 129]))
    data = bits.to_bytes(len(codes) + 1, "little")
    blocks = b"".join(bytes([len(data[n : n + 255])]) + data[n : n + 255] for n in range(0, len(data), 255)) + b"\0"
    flags = 0x80 | (len(palette) // 3).bit_length() - 2
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0 if local else flags, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, flags if local else 0)
    start = screen + before + frame + palette if local else screen + palette + before + frame
    return start + b"\x07" + blocks + b";"


def tiff(
    image: np.ndarray[Any, Any],
    *,
    order: str = "<",
    compression: int = 1,
    predictor: int = 1,
    planar: bool = False,
    segment: tuple[int, int | None] = (HEIGHT, None),
    **fields: Any,
) -> bytes:
    """A TIFF of `(height, width, channels)`; `segment` is rows a strip, or height and width of a tile."""
    height, width, channels = image.shape
    parts = [image[..., n : n + 1] for n in range(channels)] if planar else [image]
    down, across = segment
    stored = []
    for part in parts:
        for y in range(0, height, down):
            for x in range(0, width, across or width):
                box = part[y : y + down, x : x + (across or width)]
                if across:
                    box = np.pad(box, ((0, down - box.shape[0]), (0, across - box.shape[1]), (0, 0)), mode="edge")
                if predictor == 2:
                    box = np.diff(box, axis=1, prepend=np.zeros_like(box[:, :1]))
                data = box.astype(box.dtype.newbyteorder(order)).tobytes()
                stored.append(PACK[compression](data))
    starts = np.cumsum([8] + [len(data) for data in stored]).tolist()
    tags = {
        256: [width], 257: [height], 258: [image.itemsize * 8] * channels, 259: [compression],
        262: [2 if channels > 2 else 1], 277: [channels], 284: [2 if planar else 1], 317: [predictor],
    }  # fmt: skip
    if across:
        tags |= {322: [across], 323: [down], 324: starts[:-1], 325: [len(data) for data in stored]}
    else:
        tags |= {278: [down], 273: starts[:-1], 279: [len(data) for data in stored]}
    tags |= {int(name[1:]): value for name, value in fields.items()}
    tags = {tag: value for tag, value in tags.items() if value}
    at = starts[-1] + 2 + 12 * len(tags) + 4
    entries, spill = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            packed, spill = struct.pack(order + "I", at + len(spill)), spill + packed
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, starts[-1])
    return head + b"".join(stored) + struct.pack(order + "H", len(tags)) + entries + bytes(4) + spill


PACK = {
    1: bytes,
    5: lambda data: bytes(imagecodecs.lzw_encode(data)),
    7: bytes,
    8: zlib.compress,
    32773: lambda data: bytes(imagecodecs.packbits_encode(data)),
    32946: zlib.compress,
    50000: lambda data: bytes(imagecodecs.zstd_encode(data)),
}


def examples() -> dict[str, bytes]:
    """A tile of every format."""
    grey, colours = samples(1), samples(3)
    palette = bytes(range(3 * 64))
    return {
        "jpeg": simplejpeg.encode_jpeg(grey, 90, "GRAY", "Gray"),
        "jpeg-rgb": simplejpeg.encode_jpeg(colours, 90, "RGB", "420"),
        "png": bytes(imagecodecs.png_encode(grey[..., 0])),
        "png-16bit-rgb": bytes(imagecodecs.png_encode(samples(3, "uint16"))),
        "png-palette": png((WIDTH, HEIGHT, 4, 3, 0, 0, 1), png_rows(grey % 16, 4, interlace=True), (b"PLTE", palette)),
        "webp": bytes(imagecodecs.webp_encode(colours, lossless=True)),
        "webp-lossy": bytes(imagecodecs.webp_encode(colours, lossless=False, level=80)),
        "gif": gif(grey[..., 0] % 64, palette),
        "tiff": tiff(grey),
        "tiff-lzw": tiff(colours, compression=5, predictor=2, segment=(20, None)),
        "tiff-deflate-tiles": tiff(samples(1, "uint16"), compression=8, segment=(32, 32)),
        "tiff-packbits": tiff(colours, order=">", compression=32773, planar=True),
    }


EXAMPLES = examples()
HEADERS = {
    name: TileHeader(WIDTH, HEIGHT, 1 if name in {"jpeg", "png", "tiff", "tiff-deflate-tiles"} else 3, dtype)
    for name in EXAMPLES
    for dtype in ["uint16" if name in {"png-16bit-rgb", "tiff-deflate-tiles"} else "uint8"]
}


# golden files


def golden_cases() -> Any:
    path = GOLDEN / "cases.json"
    if not path.exists():
        skip = pytest.mark.skip(reason="../shared/golden/catmaid not found")
        return pytest.mark.parametrize("case", [pytest.param(None, marks=skip)])
    return pytest.mark.parametrize("case", json.loads(path.read_text())["cases"], ids=lambda case: case["file"])


@golden_cases()
def test_golden_tile(case):
    """Tiles written by other software give the samples their writer meant, or DecodeError where they are damaged."""
    payload = (GOLDEN / case["file"]).read_bytes()
    if "must" in case:
        with pytest.raises(DecodeError, match=r"storefs\.tile"):
            Tile((1, HEIGHT, WIDTH)).decode(payload)
        return
    with np.load(GOLDEN / "expected.npz") as arrays:
        raw, luma = (arrays[case[key]] if case[key] else None for key in ("raw", "luma"))
    raw = raw[..., None] if raw.ndim == 2 else raw
    assert tile_header(payload) == TileHeader(raw.shape[1], raw.shape[0], raw.shape[2], raw.dtype.name)
    expected = planes(raw)[..., :HEIGHT, :WIDTH].astype(int)
    inside = tuple(slice(n) for n in expected.shape)
    found = rgb_of(payload, raw.dtype.name)
    assert np.abs(found[inside] - expected).max() <= case["tolerance"]
    assert found.sum() == found[inside].sum()
    first = Tile((1, HEIGHT, WIDTH), raw.dtype.name, "first").decode(payload)
    np.testing.assert_array_equal(first, found[0])
    if luma is not None:
        grey = Tile((1, HEIGHT, WIDTH)).decode(payload)[0, : luma.shape[0], : luma.shape[1]]
        assert np.abs(grey.astype(int) - luma[:HEIGHT, :WIDTH]).max() <= case["tolerance"]


# formats


@pytest.mark.parametrize("name", EXAMPLES)
def test_header(name):
    """The header tells size, samples and dtype of every format, from bytes of any kind."""
    for wrap in (bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)):
        assert tile_header(wrap(EXAMPLES[name])) == HEADERS[name]


@pytest.mark.parametrize("data", [b"", b"\xff", b"oops", b"<html>no tile</html>", b"BM" + bytes(60), b"RIFF", b"GIF8"])
def test_what_is_no_image_has_no_header(data):
    """Bytes of no known image format raise DecodeError."""
    with pytest.raises(DecodeError):
        tile_header(data)


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize(
    ("channels", "bits"), [(1, 1), (1, 2), (1, 4), *((c, b) for c in COLOR_TYPES for b in (8, 16))]
)
def test_png(channels, bits, interlace):
    """Every PNG without palette gives its samples; those below 8 bits are spread over 0 to 255."""
    dtype = "uint16" if bits == 16 else "uint8"
    for size in ((HEIGHT, WIDTH), (5, 3), (1, 1)):
        image = samples(channels, dtype, size) & np.array((1 << bits) - 1, dtype)
        payload = png(
            (*size[::-1], bits, COLOR_TYPES[channels], 0, 0, interlace), png_rows(image, bits, interlace=interlace)
        )
        scale = 255 // ((1 << bits) - 1) if bits < 8 else 1
        np.testing.assert_array_equal(rgb_of(payload, dtype, size), planes(image * scale))
        assert tile_header(payload) == TileHeader(size[1], size[0], channels, dtype)


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_palette(bits, interlace):
    """An indexed PNG gives its colours, transparent ones included; an index without a colour raises DecodeError."""
    image = samples(1) & np.uint8((1 << bits) - 1)
    image[-1, -1] = (1 << bits) - 1
    colours = np.random.default_rng(0).integers(0, 256, (1 << bits, 3), np.uint8)
    rows = png_rows(image, bits, interlace=interlace)
    header = (WIDTH, HEIGHT, bits, 3, 0, 0, interlace)
    payload = png(header, rows, (b"PLTE", colours.tobytes()), (b"tRNS", b"\0\x80"))
    np.testing.assert_array_equal(rgb_of(payload), planes(colours[image[..., 0]]))
    for short in ((), ((b"PLTE", colours[:-1].tobytes()),)):
        with pytest.raises(DecodeError, match="beyond the palette"):
            rgb_of(png(header, rows, *short))


def test_png_filters_of_packed_samples():
    """Row filters of samples below 8 bits are undone byte by byte."""
    image = samples(1) % 16
    packed = (image[:, ::2, 0] << 4 | image[:, 1::2, 0]).astype(np.uint8)
    up = np.diff(packed, axis=0, prepend=np.zeros_like(packed[:1]))
    rows = b"".join(b"\2" + row.tobytes() for row in up)
    np.testing.assert_array_equal(rgb_of(png((WIDTH, HEIGHT, 4, 0, 0, 0, 0), rows)), planes(image * 17))


@pytest.mark.parametrize("fields", [(8, 1), (3, 0), (16, 3), (4, 2), (1, 6), (8, 5)], ids=str)
def test_png_of_no_known_kind(fields):
    """Colour types and bit depths that PNG does not have raise DecodeError."""
    with pytest.raises(DecodeError):
        rgb_of(png((WIDTH, HEIGHT, *fields, 0, 0, 0), bytes(20_000)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 5, 8, 32773, 32946, 50000])
@pytest.mark.parametrize("segment", [(HEIGHT, None), (7, None), (1, None), (32, 32), (16, 48)], ids=str)
def test_tiff(order, compression, segment):
    """TIFF in strips and tiles, of both byte orders, packed in any way offered, gives its samples."""
    for dtype in ("uint8", "uint16"):
        for channels in (1, 2, 3, 4):
            image = samples(channels, dtype)
            for options in ({}, {"predictor": 2}, {"planar": True}):
                payload = tiff(image, order=order, compression=compression, segment=segment, **options)
                np.testing.assert_array_equal(rgb_of(payload, dtype), planes(image))
                assert tile_header(payload) == TileHeader(WIDTH, HEIGHT, channels, dtype)


def test_tiff_white_is_zero_and_palette():
    """Inverted grey comes upright, indexes become colours of 8 bits, even where the palette has no more."""
    image = samples(1)
    np.testing.assert_array_equal(rgb_of(tiff(image, t262=[0])), planes(255 - image))
    colours = np.random.default_rng(0).integers(0, 256, (3, 256))
    for scale in (257, 1):
        payload = tiff(image, t262=[3], t320=(colours * scale).ravel().tolist())
        np.testing.assert_array_equal(rgb_of(payload), planes(colours.T[image[..., 0]]))


@pytest.mark.parametrize(
    "fields",
    [
        {"t258": [1]}, {"t258": [32]}, {"t258": [8, 8]}, {"t339": [3]}, {"t262": [5]}, {"t262": [6]}, {"t262": []},
        {"t277": [9]}, {"t256": []}, {"t256": [0]}, {"t257": [0]}, {"t257": [49]}, {"t259": [6]}, {"compression": 7},
        {"t317": [3]}, {"t284": [3]}, {"t266": [2]}, {"t278": [0]}, {"t278": [5]}, {"t273": []}, {"t273": [2**32 - 1]},
        {"t279": [100]}, {"t279": [10**6]}, {"t322": [10**6], "t323": [10**6]}, {"t262": [3]},
        {"t278": [1], "t273": [8] * HEIGHT, "t279": [3000] * HEIGHT},
    ],
    ids=str,
)  # fmt: skip
def test_tiff_refused(fields):
    """TIFF of another kind, and directories that do not fit their file, raise DecodeError."""
    with pytest.raises(DecodeError):
        rgb_of(tiff(samples(1), **fields))


@pytest.mark.parametrize("local", [False, True])
def test_gif(local):
    """A GIF gives the colours of its first frame, transparent ones included; further frames cost nothing."""
    image = samples(1)[..., 0] % 64
    colours = np.random.default_rng(0).integers(0, 256, (64, 3), np.uint8)
    transparent = b"\x21\xf9\x04\x01\0\0\5\0"
    payload = gif(image, colours.tobytes(), local=local, before=transparent)
    np.testing.assert_array_equal(rgb_of(payload), planes(colours[image]))
    second = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x07\x02\x80\x80\0"
    np.testing.assert_array_equal(rgb_of(payload[:-1] + second * 50 + b";"), planes(colours[image]))


def test_gif_refused():
    """A frame that leaves pixels open, one without colours and one that ends early raise DecodeError."""
    whole = EXAMPLES["gif"]
    frame = whole.index(b",", 13 + 192)
    small = whole[: frame + 5] + struct.pack("<HH", WIDTH - 1, HEIGHT) + whole[frame + 9 :]
    colourless = whole[:10] + b"\0" + whole[11:13] + whole[13 + 192 :]
    blocks = frame + 11
    early = whole[: blocks + 256] + b"\0;"
    few_colours = gif(samples(1)[..., 0] % 64, bytes(3 * 32))
    for broken in (small, colourless, early, few_colours, whole[:frame] + b";"):
        with pytest.raises(DecodeError):
            rgb_of(broken)


def test_webp():
    """Lossless WebP gives its samples, lossy ones nearly; alpha is dropped; animations raise DecodeError."""
    colours, with_alpha = samples(3), samples(4)
    np.testing.assert_array_equal(rgb_of(EXAMPLES["webp"]), planes(colours))
    assert np.abs(rgb_of(EXAMPLES["webp-lossy"]).astype(int) - planes(colours)).mean() < 20
    payload = bytes(imagecodecs.webp_encode(with_alpha, lossless=True))
    assert tile_header(payload).channels == 4
    seen = with_alpha[..., 3] > 0  # libwebp's encoder may change what cannot be seen
    np.testing.assert_array_equal(rgb_of(payload)[:, 0, seen], planes(with_alpha)[:, 0, seen])
    animated = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<IB3x", 10, 2) + b"\x3f\0\0\x2f\0\0"
    with pytest.raises(DecodeError, match="animated"):
        tile_header(animated)


def test_jpeg_colours():
    """Colour JPEG gives the luma of its RGB samples, not the stored Y; grey ones may have any sampling factor."""
    payload = EXAMPLES["jpeg-rgb"]
    colours = simplejpeg.decode_jpeg(payload, "RGB")
    np.testing.assert_array_equal(Tile((1, HEIGHT, WIDTH)).decode(payload)[0], luma_of(colours))
    np.testing.assert_array_equal(rgb_of(payload), planes(colours))
    grey = bytearray(EXAMPLES["jpeg"])
    grey[grey.index(b"\xff\xc0") + 11] = 0x22
    np.testing.assert_array_equal(rgb_of(bytes(grey)), rgb_of(EXAMPLES["jpeg"]))


def test_jpeg_refused():
    """CMYK, too many scans and a damaged end raise DecodeError."""
    grey = EXAMPLES["jpeg"]
    cmyk = bytes(imagecodecs.jpeg8_encode(samples(4), colorspace="CMYK", outcolorspace="CMYK"))
    assert cmyk.startswith(b"\xff\xd8")
    progressive = grey.replace(b"\xff\xc0", b"\xff\xc2", 1)
    for broken in (cmyk, progressive[:-2] + b"\xff\xda" * 600 + b"\xff\xd9", grey[:-2], grey[: len(grey) // 2]):
        with pytest.raises(DecodeError):
            Tile((1, HEIGHT, WIDTH)).decode(broken)


# colours and depths


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colours(dtype):
    """Luma, first and rgb are what they say, at both depths; alpha is dropped, grey is repeated."""
    black_to_white = np.array([0, 1, np.iinfo(dtype).max - 1, np.iinfo(dtype).max], dtype)
    corners = np.stack(np.meshgrid(*[black_to_white] * 3), -1).reshape(8, 8, 3)
    for image in (corners, np.dstack([corners, corners[..., :1]])):
        payload = bytes(imagecodecs.png_encode(image))
        np.testing.assert_array_equal(Tile((1, 8, 8), dtype).decode(payload)[0], luma_of(image))
        np.testing.assert_array_equal(Tile((1, 8, 8), dtype, "first").decode(payload)[0], image[..., 0])
        np.testing.assert_array_equal(rgb_of(payload, dtype, (8, 8)), planes(image))
    for channels in (1, 2):
        image = samples(channels, dtype, (8, 8))
        payload = bytes(imagecodecs.png_encode(image.squeeze()))
        for how in ("luma", "first"):
            np.testing.assert_array_equal(Tile((1, 8, 8), dtype, how).decode(payload)[0], image[..., 0])
        np.testing.assert_array_equal(rgb_of(payload, dtype, (8, 8)), planes(image))


def test_16_bits_where_8_are_expected():
    """A tile of 16 bits in an array of 8 raises DecodeError, which says what to pass."""
    payload = bytes(imagecodecs.png_encode(samples(1, "uint16")[..., 0]))
    with pytest.raises(DecodeError, match='pass dtype="uint16"'):
        Tile((1, HEIGHT, WIDTH)).decode(payload)


def test_8_bits_where_16_are_expected():
    """A tile of 8 bits in an array of 16 is taken only where it is all black, whatever its alpha."""
    tile = Tile((1, HEIGHT, WIDTH), "uint16", fill_value=9)
    black = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    black[..., 3] = 255
    for payload in (
        bytes(imagecodecs.png_encode(black)),
        simplejpeg.encode_jpeg(black[..., :1].copy(), 90, "GRAY", "Gray"),
    ):
        found = tile.decode(payload)
        assert found.dtype == np.uint16
        assert not found.any()
    black[-1, -1, 2] = 1  # too little for luma
    with pytest.raises(DecodeError, match="another scale"):
        tile.decode(bytes(imagecodecs.png_encode(black)))


# sizes


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff-lzw"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (30, 70), (60, 40), (50, 80), (20, 90)], ids=str)
def test_short_and_long_tiles(name, turned, size):
    """What a tile lacks is the fill value, what it has too much is cropped, into memory of any layout."""
    slice_size = (WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH)
    image = Tile((1, *slice_size), turned=turned).decode(EXAMPLES[name])[0]
    found = Tile((1, *size), fill_value=77, turned=turned).decode(EXAMPLES[name])
    expected = np.full(size, 77, np.uint8)
    rows, columns = np.minimum(size, slice_size)
    expected[:rows, :columns] = image[:rows, :columns]
    np.testing.assert_array_equal(found[0], expected)
    for extent in ((1, 20, 25), (1, *size)):
        room = np.full((1, 90, 120), 5, np.uint8)
        for out in (room[:, 3 : 3 + extent[1], 4 : 4 + extent[2]], np.empty(extent, np.uint8, order="F")):
            tile = Tile((1, *size), fill_value=77, turned=turned)
            assert tile.decode_chunk(EXAMPLES[name], extent=extent, out=out) is out
            np.testing.assert_array_equal(out[0], expected[: extent[1], : extent[2]])
        inside = int((room[:, 3 : 3 + extent[1], 4 : 4 + extent[2]] != 5).sum())
        assert int((room != 5).sum()) == inside


def test_turned_tile():
    """A turned tile is the transpose of the slice, decoded and encoded."""
    payload = EXAMPLES["png"]
    upright = Tile((1, HEIGHT, WIDTH)).decode(payload)[0]
    tile = Tile((1, WIDTH, HEIGHT), turned=True)
    np.testing.assert_array_equal(tile.decode(payload)[0], upright.T)
    np.testing.assert_array_equal(Tile((1, HEIGHT, WIDTH)).decode(tile.encode(upright.T[None]))[0], upright)


def test_absent_tile_is_the_fill_value():
    """A tile that is not there is all fill value, in place where asked."""
    tile = Tile((1, 4, 5), "uint16", fill_value=1000)
    out = np.empty((1, 4, 5), np.uint16)
    assert tile.decode_chunk(ABSENT, out=out) is out
    assert (out == 1000).all()
    assert (tile.decode(ABSENT) == 1000).all()


HUGE = {
    "png": png((60_000, 60_000, 8, 0, 0, 0, 0), b""),
    "png-1bit": png((60_000, 60_000, 1, 0, 0, 0, 0), bytes(7501)),
    "jpeg": EXAMPLES["jpeg"].replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 60_000, 60_000), 1),
    "gif": EXAMPLES["gif"][:6] + struct.pack("<HH", 60_000, 60_000) + EXAMPLES["gif"][10:],
    "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<IB3x", 10, 0) + b"\x60\xea\0\x60\xea\0",
    "tiff": tiff(samples(1), t256=[60_000], t257=[60_000], t278=[60_000]),
}


@pytest.mark.parametrize("name", HUGE)
def test_declared_size_is_believed_by_nobody(name):
    """A small file that declares a huge image raises DecodeError before anything of that size is allocated."""
    assert tile_header(HUGE[name]).width > 50_000
    tracemalloc.start()
    with pytest.raises(DecodeError, match="far larger than a tile"):
        Tile((1, HEIGHT, WIDTH)).decode(HUGE[name])
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", EXAMPLES)
def test_cut_tiles(name):
    """A tile cut anywhere raises DecodeError, unless only what follows the pixels is missing."""
    payload = EXAMPLES[name]
    dtype = HEADERS[name].dtype
    whole = rgb_of(payload, dtype)
    for length in {*range(0, len(payload), max(1, len(payload) // 60)), *range(len(payload) - 20, len(payload))}:
        try:
            found = rgb_of(payload[:length], dtype)
        except DecodeError:
            continue
        np.testing.assert_array_equal(found, whole)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_mutations(name, data):
    """Changed, deleted and repeated bytes of any format decode to the right shape or raise DecodeError."""
    payload = bytearray(EXAMPLES[name])
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(len(payload), data.draw(st.sampled_from([60, 300, len(payload)]))) - 1))
        kind = data.draw(st.sampled_from(["change", "flip", "delete", "repeat", "word"]))
        if kind == "change":
            payload[at] = data.draw(st.integers(0, 255))
        elif kind == "flip":
            payload[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "delete" and len(payload) > 20:
            del payload[at : at + data.draw(st.integers(1, 9))]
        elif kind == "repeat":
            payload[at:at] = payload[at : at + data.draw(st.integers(1, 50))]
        else:
            payload[at : at + 4] = data.draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1"])
            )
    for codec in (Tile((1, HEIGHT, WIDTH)), Tile((3, 1, HEIGHT, WIDTH), "uint16", "rgb")):
        try:
            found = codec.decode(bytes(payload))
        except DecodeError:
            continue
        assert isinstance(found, np.ndarray)
        assert found.shape == codec.shape
        assert found.dtype == codec.dtype


# configuration and zarr


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": (2, 8, 8)},
        {"shape": (1, 1, 8, 8)},
        {"shape": (1, 8, 8), "channels": "rgb"},
        {"shape": (3, 2, 8, 8), "channels": "rgb"},
        {"shape": (1, 8, 8), "channels": "red"},
        {"shape": (1, 8, 8), "fill_value": 256},
        {"shape": (1, 8, 8), "fill_value": -1},
        {"shape": (1, 8, 8), "dtype": "int8"},
    ],
    ids=str,
)
def test_configuration_refused(arguments):
    """Shapes, channels, dtypes and fill values that no tile has raise ValueError."""
    with pytest.raises(ValueError, match=r"storefs\.tile"):
        Tile(**arguments)


@pytest.mark.parametrize(
    ("shape", "chunks", "dtype", "codec"),
    [
        ((3, 50, 70), (1, 32, 32), "uint8", TileCodec()),
        ((2, 50, 70), (1, 32, 32), "uint16", TileCodec(turned=True)),
        ((3, 2, 50, 70), (3, 1, 32, 32), "uint8", TileCodec(channels="rgb")),
    ],
    ids=str,
)
def test_zarr_array(shape, chunks, dtype, codec, image_chunk):
    """A zarr array of tiles is written losslessly and read back, reopened and in parts."""
    data = image_chunk(shape, dtype)
    store = MemoryStore()
    made = zarr.create_array(store, shape=shape, chunks=chunks, dtype=dtype, serializer=codec, compressors=None)
    made[:] = data
    reopened = zarr.open_array(store, mode="r")
    np.testing.assert_array_equal(reopened[:], data)
    np.testing.assert_array_equal(reopened[..., 1, 20:40, 7], data[..., 1, 20:40, 7])
    assert reopened.metadata.codecs[0].to_dict()["name"] == "storefs.tile"


def test_tiles_of_others_in_a_zarr_array():
    """Tiles of several formats stand side by side in one array; missing ones are the array's fill value."""
    store = MemoryStore()
    made = zarr.create_array(
        store,
        shape=(3, HEIGHT, WIDTH),
        chunks=(1, HEIGHT, WIDTH),
        dtype="uint8",
        fill_value=3,
        serializer=TileCodec(fill_value=3),
        compressors=None,
    )
    buffer = zarr.core.buffer.default_buffer_prototype().buffer
    for z, name in enumerate(["jpeg", "webp"]):
        asyncio.run(store.set(f"c/{z}/0/0", buffer.from_bytes(EXAMPLES[name])))
    np.testing.assert_array_equal(made[0], simplejpeg.decode_jpeg(EXAMPLES["jpeg"], "GRAY")[..., 0])
    np.testing.assert_array_equal(made[1], luma_of(samples(3)))
    assert (made[2] == 3).all()
