"""What is particular to jpeg, png and jxl: arrangements of pixels, containers, headers that lie."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from storefs_codecs import DecodeError, EncodeError
from storefs_codecs.image_rows import image_size
from storefs_codecs.jpeg import Jpeg
from storefs_codecs.jxl import Jxl
from storefs_codecs.jxl_header import read_header
from storefs_codecs.png import ADAM7, SIGNATURE, Png

SHAPE = (4, 6, 10)


def png_chunk(name: bytes, data: bytes, crc: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ crc)


def png(rows: bytes, *, size=(10, 24), bits=8, color_type=0, interlace=0, extra=(), **header) -> bytes:
    """A PNG made by hand from filtered rows; `extra` chunks stand before the rows."""
    fields = (*size, bits, color_type, header.get("compression", 0), header.get("filtering", 0), interlace)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", *fields)),
        *extra,
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def unfiltered(image) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in image)


# arrangement


@given(st.tuples(*[st.integers(1, 60)] * 3), st.integers(60, 300))
def test_image_holds_every_voxel(extent, longest):
    """Width times height is the number of voxels, and no side is longer than allowed."""
    try:
        height, width = image_size("x", extent, longest)
    except EncodeError:
        voxels = int(np.prod(extent))
        assert not [w for w in range(1, longest + 1) if voxels % w == 0 and voxels // w <= longest]
    else:
        assert height * width == np.prod(extent)
        assert max(height, width) <= longest
        if extent[0] * extent[1] <= longest:
            assert width == extent[2]


@pytest.mark.parametrize("shape", [(256, 256, 1), (300, 300, 2), (1, 1, 70000)])
@pytest.mark.parametrize("cls", [Jpeg, Png, Jxl])
def test_chunks_with_many_rows(cls, shape, image_chunk):
    """A chunk whose rows exceed the longest side of a JPEG is arranged otherwise and still round-trips."""
    chunk = image_chunk(shape)
    found = cls(shape).decode_chunk(cls(shape).encode_chunk(chunk))
    np.testing.assert_allclose(found.astype(float), chunk, atol=0 if cls is not Jpeg else 40)


def test_no_image_for_a_long_prime():
    """A chunk that fits no rectangle raises EncodeError."""
    with pytest.raises(EncodeError, match="fit no image"):
        Jpeg((1, 1, 65537)).encode_chunk(np.zeros((1, 1, 65537), np.uint8))


@pytest.mark.parametrize("width", [1, 3, 10, 60, 240])
def test_any_rectangle_of_the_right_area_is_read(width, image_chunk):
    """Width and height are free: the rows one after the other are the chunk."""
    chunk = image_chunk(SHAPE)
    image = chunk.reshape(-1, width)
    np.testing.assert_array_equal(Png(SHAPE).decode_chunk(imagecodecs.png_encode(image)), chunk)
    np.testing.assert_array_equal(Jxl(SHAPE).decode_chunk(imagecodecs.jpegxl_encode(image, lossless=True)), chunk)
    payload = simplejpeg.encode_jpeg(image[..., None].copy(), 90, "GRAY", "Gray")
    expected = simplejpeg.decode_jpeg(payload, "GRAY").reshape(SHAPE)
    np.testing.assert_array_equal(Jpeg(SHAPE).decode_chunk(payload), expected)


@pytest.mark.parametrize("cls", [Jpeg, Png, Jxl])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_are_compared(cls, channels, image_chunk):
    """An image with another number of channels than the chunk raises DecodeError."""
    payloads = {
        Jpeg: lambda n: Jpeg((n, *SHAPE)).encode_chunk(image_chunk((n, *SHAPE))) if n in {1, 3} else b"",
        Png: lambda n: Png((n, *SHAPE)).encode_chunk(image_chunk((n, *SHAPE))),
        Jxl: lambda n: imagecodecs.jpegxl_encode(
            np.zeros((24, 10, n), np.uint8), lossless=True, photometric="rgb" if n > 2 else "gray"
        ),
    }
    for other in {1, 2, 3, 4} - {channels}:
        if cls is Jpeg and channels not in {1, 3}:
            continue
        with pytest.raises(DecodeError):
            cls((channels, *SHAPE)).decode_chunk(payloads[cls](other))


# jpeg


def test_jpeg_quality_matters(image_chunk):
    """A higher quality gives more bytes and fewer errors; impossible qualities are refused."""
    chunk = image_chunk((16, 16, 16))
    low, high = (Jpeg(chunk.shape, quality=q) for q in (30, 95))
    errors = [np.abs(c.decode_chunk(c.encode_chunk(chunk)).astype(int) - chunk).mean() for c in (low, high)]
    assert errors[1] < errors[0]
    assert len(low.encode_chunk(chunk)) < len(high.encode_chunk(chunk))
    for quality in (0, 101):
        with pytest.raises(ValueError, match="quality"):
            Jpeg(SHAPE, quality=quality)


def test_jpeg_channels_do_not_bleed(image_chunk):
    """Three unrelated channels come back without subsampling."""
    chunk = np.stack([image_chunk((8, 16, 16), seed=n)[::step] for n, step in enumerate((1, -1, 1))])
    payload = Jpeg(chunk.shape, quality=95).encode_chunk(chunk)
    assert simplejpeg.decode_jpeg_header(payload)[3] == "444"
    found = Jpeg(chunk.shape).decode_chunk(payload)
    assert np.abs(found.astype(int) - chunk).mean() < 4


@pytest.mark.parametrize("size", [(65500, 65500), (25, 10), (0, 10)])
def test_jpeg_declares_another_size(size, image_chunk):
    """The size in the header is compared before anything is allocated."""
    payload = Jpeg(SHAPE).encode_chunk(image_chunk(SHAPE))
    start = payload.index(b"\xff\xc0") + 5
    broken = payload[:start] + struct.pack(">HH", *size) + payload[start + 4 :]
    assert peak_while_refusing(Jpeg(SHAPE), broken) < 1 << 20


@pytest.mark.parametrize(("frame", "refusal"), [(b"\xff\xc0", "more than one scan"), (b"\xff\xc2", "too many scans")])
def test_jpeg_scan_bomb(image_chunk, frame, refusal):
    """Scans without number, each a pass over the whole image, are refused, baseline or progressive."""
    payload = Jpeg(SHAPE).encode_chunk(image_chunk(SHAPE)).replace(b"\xff\xc0", frame, 1)
    scan = payload.index(b"\xff\xda")
    with pytest.raises(DecodeError, match=refusal):
        Jpeg(SHAPE).decode_chunk(payload[:scan] + payload[scan : scan + 10] * 1000 + payload[scan:])


# png


@pytest.mark.parametrize(("channels", "color_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_interlaced(channels, color_type, dtype, image_chunk):
    """Interlaced images are read, at all sizes where passes may be empty."""
    for shape in ((channels, 3, 5, 7), (channels, 1, 1, 1), (channels, 2, 9, 3), (channels, 1, 4, 9)):
        chunk = image_chunk(shape, dtype)
        _, z, y, x = shape
        image = np.moveaxis(chunk.reshape(channels, z * y, x), 0, -1).astype(np.dtype(dtype).newbyteorder(">"))
        passes = [image[y0::dy, x0::dx] for x0, y0, dx, dy in ADAM7]
        rows = b"".join(unfiltered(part) for part in passes if part.size)
        payload = png(rows, size=(x, z * y), bits=chunk.itemsize * 8, color_type=color_type, interlace=1)
        np.testing.assert_array_equal(Png(shape, dtype).decode_chunk(payload), chunk)


def test_png_ignores_what_only_concerns_display(image_chunk):
    """Transparent colours, gamma and texts change nothing."""
    chunk = image_chunk(SHAPE)
    extra = [
        (b"gAMA", struct.pack(">I", 10000)),
        (b"tRNS", struct.pack(">H", 7)),
        (b"zTXt", b"text\0\0" + zlib.compress(bytes(10**6))),
        (b"sBIT", b"\3"),
    ]
    payload = png(unfiltered(chunk.reshape(24, 10)), extra=extra)
    np.testing.assert_array_equal(Png(SHAPE).decode_chunk(payload), chunk)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"size": (10, 25)}, "image size"),
        ({"size": (2**31 - 1, 2**31 - 1)}, "image size"),
        ({"bits": 16}, "bits per sample"),
        ({"bits": 4}, "bits per sample"),
        ({"bits": 1}, "bits per sample"),
        ({"color_type": 2}, "channels"),
        ({"color_type": 3, "extra": [(b"PLTE", bytes(range(30)))]}, "colour type"),
        ({"color_type": 77}, "colour type"),
        ({"compression": 1}, "unknown compression"),
        ({"filtering": 64}, "unknown compression"),
        ({"interlace": 2}, "unknown compression"),
        ({"extra": [(b"tEXt", b"a", 1)]}, "checksum"),
    ],
)
def test_png_header_is_compared(change, problem):
    """What the header declares is compared with the chunk before anything is inflated."""
    payload = png(bytes(24 * 11), **change)
    with pytest.raises(DecodeError, match=problem):
        Png(SHAPE).decode_chunk(payload)
    assert peak_while_refusing(Png(SHAPE), payload) < 1 << 20


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (bytes(24 * 11 - 1), "rows are missing"),
        (bytes(24 * 11 + 1), "cannot be inflated"),
        (bytes(50_000_000), "cannot be inflated"),
        (b"\5" * (24 * 11), "unknown row filter"),
        (b"", "rows are missing"),
    ],
)
def test_png_rows_are_bounded(rows, problem):
    """Rows missing, left over, without end or with unknown filters raise DecodeError."""
    payload = png(rows)
    with pytest.raises(DecodeError, match=problem):
        Png(SHAPE).decode_chunk(payload)
    assert peak_while_refusing(Png(SHAPE), payload) < 4 << 20


def test_png_container_must_be_whole(image_chunk):
    """Images without end, without header and with broken checksums raise DecodeError."""
    payload = Png(SHAPE).encode_chunk(image_chunk(SHAPE))
    for broken in (
        payload[:-1],
        payload[:-12],
        SIGNATURE,
        SIGNATURE + payload[33:],
        payload[:-30] + payload[-29:],
    ):
        with pytest.raises(DecodeError):
            Png(SHAPE).decode_chunk(broken)


def test_png_level_matters(image_chunk):
    """Levels trade time for bytes; impossible ones are refused."""
    chunk = image_chunk((16, 16, 16))
    sizes = [len(Png(chunk.shape, level=level).encode_chunk(chunk)) for level in (0, 9)]
    assert sizes[1] < sizes[0]
    for level in (-1, 10):
        with pytest.raises(ValueError, match="level"):
            Png(SHAPE, level=level)


# jxl


def test_jxl_lossless_and_lossy(image_chunk):
    """Without quality, or with 100, nothing is lost; with less the payload shrinks."""
    chunk = image_chunk((16, 16, 16))
    sizes = []
    for quality in (None, 100, 60):
        codec = Jxl(chunk.shape, quality=quality)
        payload = codec.encode_chunk(chunk)
        sizes.append(len(payload))
        assert np.array_equal(codec.decode_chunk(payload), chunk) == (quality != 60)
    assert sizes[0] == sizes[1] > sizes[2]
    with pytest.raises(ValueError, match="quality"):
        Jxl(SHAPE, quality=101)


def test_jxl_several_channels_are_read_both_ways(image_chunk):
    """Colour samples and one frame a channel both become channel planes; neither is written."""
    chunk = image_chunk((3, *SHAPE))
    interleaved = np.ascontiguousarray(np.moveaxis(chunk.reshape(3, 24, 10), 0, -1))
    samples = imagecodecs.jpegxl_encode(interleaved, lossless=True, photometric="rgb")
    frames = imagecodecs.jpegxl_encode(chunk.reshape(3, 24, 10), lossless=True, photometric="gray")
    for payload in (samples, frames):
        np.testing.assert_array_equal(Jxl(chunk.shape).decode_chunk(payload), chunk)
        with pytest.raises(DecodeError):
            Jxl(SHAPE).decode_chunk(payload)
    with pytest.raises(EncodeError, match="only one"):
        Jxl(chunk.shape).encode_chunk(chunk)


def test_jxl_of_other_samples():
    """Samples of 16 bits are refused."""
    with pytest.raises(DecodeError):
        Jxl(SHAPE).decode_chunk(imagecodecs.jpegxl_encode(np.zeros((24, 10), np.uint16), lossless=True))


@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize(
    "size",
    [(1, 1), (8, 8), (256, 256), (257, 257), (480, 32), (20, 768), (600, 720), (9, 16), (3, 4), (1, 65000)],
)
def test_jxl_header(size, container):
    """The declared size is read from small, long and proportional forms, bare and in a container."""
    payload = imagecodecs.jpegxl_encode(np.zeros(size, np.uint8), lossless=True, usecontainer=container, effort=1)
    header = read_header(memoryview(payload))
    assert (header.height, header.width) == size
    assert (header.extra_channels, header.animated) == (0, False)


def test_jxl_header_of_frames_and_alpha():
    """Frames and extra channels are announced."""
    frames = imagecodecs.jpegxl_encode(np.zeros((3, 24, 10), np.uint8), lossless=True, photometric="gray")
    assert read_header(memoryview(frames)).animated
    alpha = imagecodecs.jpegxl_encode(np.zeros((24, 10, 4), np.uint8), lossless=True, photometric="rgb")
    assert read_header(memoryview(alpha)).extra_channels == 1


def test_jxl_codestream_in_parts(image_chunk):
    """A codestream split over several boxes is read, with its header in two of them."""
    chunk = image_chunk(SHAPE)
    bare = Jxl(SHAPE).encode_chunk(chunk)
    boxed = imagecodecs.jpegxl_encode(chunk.reshape(24, 10), lossless=True, usecontainer=True)
    start = boxed[:32]  # signature and file type
    parts = b"".join(
        struct.pack(">I4sI", 12 + len(part), b"jxlp", index | last) + part
        for index, last, part in ((0, 0, bare[:5]), (1, 0, bare[5:40]), (2, 1 << 31, bare[40:]))
    )
    np.testing.assert_array_equal(Jxl(SHAPE).decode_chunk(start + parts), chunk)


def bits(*fields: tuple[int, int]) -> bytes:
    """Pack (value, width) pairs, least significant bit first, behind the codestream signature."""
    packed, at = 0, 0
    for value, width in fields:
        packed |= value << at
        at += width
    return b"\xff\x0a" + packed.to_bytes(at // 8 + 16, "little")


def test_jxl_declares_too_much():
    """Huge sides and thousands of extra channels are refused before the image is decoded."""
    huge = bits((0, 1), (3, 2), (2**30 - 1, 30), (1, 3), (1, 1))
    side = ((0, 1), (0, 2), (23, 9), (0, 3), (0, 2), (9, 9))  # 24 x 10
    extra = bits(*side, (0, 1), (0, 1), (0, 1), (0, 2), (1, 1), (3, 2), (4095, 12))
    preview = bits(*side, (0, 1), (1, 1), (0, 3), (0, 1), (1, 1))
    assert read_header(memoryview(huge)).width == 2**30
    assert read_header(memoryview(extra)).extra_channels == 4096
    for payload, problem in ((huge, "image size"), (extra, "extra channels"), (preview, "preview")):
        with pytest.raises(DecodeError, match=problem):
            Jxl(SHAPE).decode_chunk(payload)
        assert peak_while_refusing(Jxl(SHAPE), payload) < 1 << 20


def test_jxl_header_fields_before_the_extra_channels():
    """Orientation, intrinsic size, animation and float samples are stepped over."""
    payload = bits(
        *((0, 1), (0, 2), (23, 9), (0, 3), (0, 2), (9, 9)),
        *((0, 1), (1, 1), (5, 3)),  # extra fields, orientation 6
        *((1, 1), (1, 1), (3, 5), (1, 3)),  # intrinsic size
        *((0, 1), (1, 1), (2, 2), (7, 10), (3, 2), (9, 10), (1, 2), (3, 3), (0, 1)),  # no preview, animation
        *((1, 1), (3, 2), (30, 6), (7, 4), (0, 1), (2, 2), (11, 4)),  # float, 13 extra channels
    )
    header = read_header(memoryview(payload))
    assert (header.height, header.width) == (10, 24)
    assert header.extra_channels == 13
    assert header.animated


@pytest.mark.parametrize(
    "boxes",
    [
        b"",
        struct.pack(">I4s", 8, b"free"),
        struct.pack(">I4s", 4, b"free"),
        struct.pack(">I4sQ", 1, b"jxlc", 2**63),
        struct.pack(">I4s", 0, b"jxlc"),
        struct.pack(">I4sQ", 1, b"free", 8),
    ],
)
def test_jxl_container_without_codestream(boxes):
    """Containers that hold nothing, or boxes of impossible length, raise DecodeError."""
    with pytest.raises(DecodeError):
        Jxl(SHAPE).decode_chunk(b"\0\0\0\x0cJXL \r\n\x87\n" + boxes)


def peak_while_refusing(codec, payload) -> int:
    """Bytes allocated at most while the payload is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            codec.decode_chunk(payload)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
