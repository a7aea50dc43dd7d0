"""The compiled kernel for PNG's row filters, judged by libpng."""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError
from storefs_codecs.kernels import library
from storefs_codecs.kernels import png as kernels
from storefs_codecs.png import SIGNATURE, Png
from storefs_codecs.tile import Tile

COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
WAYS = {"usual": kernels.USUAL, "plain": kernels.PLAIN, "libpng": None}


def compiled():
    """The library; skips the test where it was not built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STOREFS_NO_KERNELS", raising=False)
        found = library("png")
    if found is None:
        pytest.skip("the kernel was not built")
    return found


@pytest.fixture(scope="module", params=[kernels.USUAL, kernels.PLAIN], ids=["usual", "plain"])
def kernel(request):
    """With vectors, where the processor has them, and without."""
    return kernels.Kernel(compiled(), request.param)


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way to undo the filters: by the kernel and by libpng."""
    chosen = WAYS[request.param]
    loaded = None if chosen is None else kernels.Kernel(compiled(), chosen)
    monkeypatch.setattr(kernels, "load", lambda: loaded)


# images


def chunk_of(name, data, crc=0):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ crc)


def png(rows, width, channels=1, bits=8, stream=None):
    """A PNG of filtered rows, or of another zlib stream."""
    header = struct.pack(">IIBBBBB", width, len(rows), bits, COLOR_TYPES[channels], 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 1) if stream is None else stream
    middle = len(data) // 2  # in two chunks
    chunks = [(b"IHDR", header), (b"IDAT", data[:middle]), (b"IDAT", data[middle:]), (b"IEND", b"")]
    return SIGNATURE + b"".join(chunk_of(*chunk) for chunk in chunks)


def filtered(height, width, pixel, filters, kind, seed):
    """Rows of random bytes behind `filters`, which are repeated."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, {"noise": 256, "small": 4, "constant": 1}[kind], (height, 1 + width * pixel), np.uint8)
    if kind == "constant":
        rows[:] = random.integers(0, 256)
    rows[:, 0] = np.resize(filters, height)
    return rows


def reference(payload, shape):
    """The samples that libpng finds, channels first."""
    return np.moveaxis(imagecodecs.png_decode(payload).reshape(*shape[1:], shape[0]), -1, 0)


def within(shape, dtype):
    """Memory of `shape` with gaps between all voxels, and a check that what is there stays."""
    room = np.full([2 * n + 1 for n in shape], 7, dtype)
    inside = tuple(slice(1, None, 2) for _ in shape)

    def untouched():
        around = room.copy()
        around[inside] = 7
        return bool((around == 7).all())

    return room[inside], untouched


def outcome(codec, payload, **given_arguments):
    """The samples, or the text of the error."""
    try:
        return codec.decode_chunk(payload, **given_arguments).tolist()
    except DecodeError as error:
        return str(error)


def both(codec, payload, decoder):
    """The outcomes with `decoder` and without any."""
    found = []
    for loaded in (decoder, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "load", lambda chosen=loaded: chosen)
            found.append(outcome(codec, payload))
    return found


images = st.fixed_dictionaries(
    {
        "height": st.integers(1, 100),
        "width": st.integers(1, 70),
        "filters": st.lists(st.integers(0, 4), min_size=1, max_size=40),
        "kind": st.sampled_from(["noise", "small", "constant"]),
        "seed": st.integers(0, 2**32),
    }
)
channel_counts, depths = st.integers(1, 4), st.sampled_from([8, 16])


# the samples


@given(image=images, channels=channel_counts, bits=depths)
@settings(max_examples=80, deadline=None)
def test_same_samples(kernel, image, channels, bits):
    """Images of any size, samples and filters give what libpng gives, in memory of any strides."""
    rows = filtered(pixel=channels * bits // 8, **image)
    payload = png(rows, image["width"], channels, bits)
    shape = (channels, 1, image["height"], image["width"])
    expected = reference(payload, shape)
    out, untouched = within(shape, f"<u{bits // 8}")
    for view in (
        np.empty(shape, out.dtype),
        out,
        out[..., ::-1],
        out[::-1, :, ::-1],
        np.empty(shape[::-1], out.dtype).T,
    ):
        assert kernel.unfilter(rows.copy().reshape(-1), shape[2:], view) == rows[:, 0].max()
        np.testing.assert_array_equal(view, expected)
    assert untouched()
    assert both(Png(shape, out.dtype), payload, kernel) == [expected.tolist()] * 2


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (2, 8), (3, 8), (4, 8), (1, 16), (3, 16), (4, 16)])
@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], range(5)], ids=str)
def test_wide_images(kernel, channels, bits, filters):
    """Rows of many strips give what libpng gives, whatever the filter."""
    pixel = channels * bits // 8
    for width in (480 // pixel - 1, 480 // pixel, 480 // pixel + 1, 1001):
        rows = filtered(70, width, pixel, filters, "noise", width)
        payload = png(rows, width, channels, bits)
        out = np.empty((channels, 1, 70, width), f"<u{bits // 8}")
        kernel.unfilter(rows.reshape(-1), (70, width), out)
        np.testing.assert_array_equal(out, reference(payload, out.shape))


@pytest.mark.parametrize("name", ["AVG", "PAETH"])
def test_every_prediction(kernel, name):
    """Of left, upper and corner samples of any size, predictions are those of libpng."""
    corner, up = np.meshgrid(np.arange(256), np.arange(256))
    image = np.zeros((2, 2 * corner.size), np.uint8)
    image[0, ::2], image[0, 1::2] = corner.ravel(), up.ravel()
    for left in range(0, 256, 5 if kernel._how == kernels.USUAL else 51):
        image[1, ::2] = left
        payload = imagecodecs.png_encode(image, 1, filter=imagecodecs.PNG.FILTER[name])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "load", lambda: kernel)
            found = Png((1, *image.shape)).decode_chunk(payload)
        np.testing.assert_array_equal(found[0], image)


@given(extent=st.tuples(*[st.integers(1, 12)] * 3), channels=channel_counts, bits=depths, seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_rectangle(kernel, extent, channels, bits, seed):
    """Rows of the image need not be rows of the chunk."""
    voxels = int(np.prod(extent))
    shape = (channels, *extent)
    for width in {n for n in (1, 2, 3, 7, extent[2], extent[1] * extent[2], voxels) if voxels % n == 0}:
        rows = filtered(voxels // width, width, channels * bits // 8, range(4, -1, -1), "noise", seed)
        expected = reference(png(rows, width, channels, bits), shape)
        out, untouched = within(shape, f"<u{bits // 8}")
        kernel.unfilter(rows.reshape(-1), (voxels // width, width), out)
        np.testing.assert_array_equal(out, expected)
        assert untouched()


# what is refused


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("height", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("wrong", [5, 77, 255])
def test_unknown_filters(height, wrong):
    """A filter that is unknown, in any row, raises DecodeError before anything is written."""
    codec, out = Png((1, height, 9)), np.full((1, height, 9), 7, np.uint8)
    for y in {0, height // 2, height - 1}:
        rows = filtered(height, 9, 1, [4], "noise", y)
        rows[y, 0] = wrong
        with pytest.raises(DecodeError, match=f"unknown row filter.*{wrong}"):
            codec.decode_chunk(png(rows, 9), out=out)
    assert (out == 7).all()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: zlib.compress(zlib.decompress(data)[:-1]), "rows are missing"),
        (lambda data: zlib.compress(zlib.decompress(data)[:-10]), "rows are missing"),
        (lambda data: zlib.compress(zlib.decompress(data) + b"\0"), "cannot be inflated"),
        (lambda data: data[:-4] + bytes([data[-4] ^ 1]) + data[-3:], "cannot be inflated"),
        (lambda data: data[:-4], "cannot be inflated"),
        (lambda data: data[: len(data) // 2], "cannot be inflated"),
        (lambda _: b"", "cannot be inflated"),
    ],
    ids=["a byte short", "a row short", "a byte more", "wrong Adler", "no Adler", "half", "nothing"],
)
def test_rows_that_do_not_fit(change, problem):
    """Rows missing, left over, cut short or with a wrong checksum raise DecodeError, however filters are undone."""
    rows = filtered(40, 9, 1, range(5), "noise", 1)
    payload = png(rows, 9, stream=change(zlib.compress(rows.tobytes())))
    with pytest.raises(DecodeError, match=problem):
        Png((1, 40, 9)).decode_chunk(payload)


@given(image=images, at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_damaged_images(kernel, image, at, bit):
    """Damage gives the same outcome with the kernel and without, checked or not by a sum over the chunk."""
    rows = filtered(pixel=1, **image)
    codec = Png((1, *rows[:, 1:].shape))
    payload = bytearray(png(rows, image["width"]))
    payload[int(at * len(payload))] ^= 1 << bit
    found, expected = both(codec, bytes(payload), kernel)
    assert found == expected
    stream = bytearray(zlib.compress(rows.tobytes()))
    stream[int(at * len(stream))] ^= 1 << bit
    found, expected = both(codec, png(rows, image["width"], stream=bytes(stream)), kernel)
    assert found == expected


def test_misuse(kernel):
    """Sizes that do not fit together are refused, and nothing is written."""
    out = np.full((1, 1, 4, 5), 7, np.uint8)
    rows = np.zeros(4 * 6, np.uint8)
    for size, held in (((4, 5), rows[:-1]), ((5, 4), rows), ((4, 6), rows), ((0, 5), rows), ((2**63, 10), rows)):
        with pytest.raises(ValueError, match="misused"):
            kernel.unfilter(held, size, out)
    assert (out == 7).all()


# in the codecs


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_into_strided_output(channels, dtype, image_chunk):
    """The codec writes into memory of any strides, and only there."""
    shape = (channels, 8, 9, 10)
    chunk = image_chunk(shape, dtype)
    codec = Png(shape, dtype)
    out, untouched = within(shape, dtype)
    assert codec.decode_chunk(codec.encode_chunk(chunk), out=out) is out
    np.testing.assert_array_equal(out, chunk)
    assert untouched()


@pytest.mark.usefixtures("way")
def test_read_only_output():
    """Memory that must not be written to is not written to."""
    out = np.zeros((1, 4, 5), np.uint8)
    out.flags.writeable = False
    with pytest.raises(DecodeError, match="read-only"):
        Png(out.shape).decode_chunk(png(filtered(4, 5, 1, [0], "noise", 0), 5), out=out)
    assert not out.any()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (4, 8), (1, 16), (3, 16)])
def test_tiles(channels, bits):
    """Tiles are what libpng makes of them."""
    rows = filtered(50, 40, channels * bits // 8, range(5), "noise", 3)
    payload = png(rows, 40, channels, bits)
    colours = "rgb" if channels > 1 else "luma"
    shape = (3, 1, 50, 40) if channels > 1 else (1, 50, 40)
    found = Tile(shape, f"uint{bits}", channels=colours).decode_chunk(payload)
    expected = reference(payload, (channels, 1, 50, 40))
    np.testing.assert_array_equal(found.reshape(-1, 50, 40), expected[:3, 0])


def test_without_kernels(monkeypatch, image_chunk):
    """STOREFS_NO_KERNELS=1 leaves the kernel unused and the voxels as they are."""
    chunk = image_chunk((8, 40, 64))
    payload = Png(chunk.shape).encode_chunk(chunk)
    for wanted in ("0", "1"):
        monkeypatch.setenv("STOREFS_NO_KERNELS", wanted)
        assert wanted == "0" or kernels.load() is None
        np.testing.assert_array_equal(Png(chunk.shape).decode_chunk(payload), chunk)


def test_threads(kernel):
    """Threads undo filters at once, each its own."""
    rows = [filtered(256, 64, 1, range(5), "noise", seed) for seed in range(4)] * 4

    def undo(image):
        out = np.empty((1, 4, 64, 64), np.uint8)
        kernel.unfilter(image.copy().reshape(-1), (256, 64), out)
        return out

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(undo, rows))
    for image, chunk in zip(rows, found, strict=True):
        np.testing.assert_array_equal(chunk, reference(png(image, 64), chunk.shape))


def test_other_libraries_are_not_used():
    """A library without our functions, or with other ones, is not called."""

    class Stale:
        @staticmethod
        def storefs_png_interface() -> int:
            return 0

    assert kernels._bind(Stale()) is None
    assert kernels._bind(object()) is None
