"""The compiled JPEG decoder, judged by simplejpeg."""

from __future__ import annotations

import io
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError
from storefs_codecs.jpeg import Jpeg
from storefs_codecs.kernels import jpeg as kernels
from storefs_codecs.kernels import library
from storefs_codecs.tile import CHANNELS, Tile

GOLDEN = Path(__file__).parents[2] / "../shared/golden/codecs/jpeg"
START_OF_FRAME, START_OF_SCAN, END = b"\xff\xc0", b"\xff\xda", b"\xff\xd9"
SUBSAMPLINGS = ("444", "422", "420", "411", "440")
ODD_BYTES = (0x00, 0x01, 0x10, 0x11, 0x7F, 0xC0, 0xC4, 0xD0, 0xD9, 0xDA, 0xDB, 0xDD, 0xFF)


def compiled():
    """The library; skips the test where it was not built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STOREFS_NO_KERNELS", raising=False)
        found = library("jpeg")
    if found is None:
        pytest.skip("the kernel was not built")
    return found


@pytest.fixture(scope="module", params=[kernels.VECTORS, kernels.PLAIN], ids=["vectors", "plain"])
def kernel(request):
    """The decoder for images of any size, with and without vectors."""
    loaded = kernels.Kernel(compiled(), request.param)
    if loaded.decode(simple(np.zeros((8, 8), np.uint8)), (1, 8, 8), None, 1) is None:
        pytest.skip("the processor has no such vectors")
    return loaded


@pytest.fixture(scope="module")
def usual():
    """The decoder as the codecs use it."""
    compiled()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STOREFS_NO_KERNELS", raising=False)
        loaded = kernels.load()
    if loaded.decode(simple(np.zeros((128, 128), np.uint8)), (1, 128, 128), None, 1) is None:
        pytest.skip("the processor has no such vectors")
    return loaded


# images and writers


def tissue(height, width, seed=0):
    """Something like tissue: smooth, with edges and some noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = sum(np.sin(y / random.uniform(2, 30) + x / random.uniform(2, 30) + random.uniform(0, 6)) for _ in range(4))
    return np.clip(128 + 40 * waves + 30 * (waves > 1) + random.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)


def picture(kind, height, width, seed):
    random = np.random.default_rng(seed)
    if kind == "noise":
        return random.integers(0, 256, (height, width), np.uint8)
    if kind == "binary":
        return random.integers(0, 2, (height, width), np.uint8) * np.uint8(255)
    if kind == "constant":
        return np.full((height, width), random.integers(0, 256), np.uint8)
    return tissue(height, width, seed)


def simple(image, quality=85):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image[..., None]), quality, "GRAY", "Gray")


def colourless(image, subsampling, quality=85):
    return simplejpeg.encode_jpeg(np.repeat(image[..., None], 3, axis=-1), quality, "RGB", subsampling)


WRITERS = {
    "simplejpeg": simple,
    "imagecodecs": lambda image, quality: imagecodecs.jpeg8_encode(image, level=quality),
    "optimised": lambda image, quality: imagecodecs.jpeg8_encode(image, level=quality, optimize=True),
}
sides = st.integers(1, 80)
pictures = st.builds(
    picture, st.sampled_from(["noise", "binary", "constant", "tissue"]), sides, sides, st.integers(0, 2**32)
)
qualities = st.integers(1, 100)
writers = st.sampled_from(sorted(WRITERS))


def reference(payload):
    return simplejpeg.decode_jpeg(payload, "GRAY")[..., 0]


def within(shape, value=7):
    """Memory of `shape` with something around every row and plane, and a check that this is as it was."""
    room = np.full([n + 2 for n in shape[:-1]] + [shape[-1] + 5], value, np.uint8)
    inside = (*(slice(1, n + 1) for n in shape[:-1]), slice(2, shape[-1] + 2))

    def untouched():
        around = room.copy()
        around[inside] = value
        return bool((around == value).all())

    return room[inside], untouched


def segment(marker, data):
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


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


# the samples


@given(image=pictures, quality=qualities, writer=writers)
@settings(max_examples=300, deadline=None)
def test_same_samples(kernel, image, quality, writer):
    """Grey images of any size, content and quality give what simplejpeg gives, and nothing beside them is written."""
    payload = WRITERS[writer](image, quality)
    out, untouched = within((1, *image.shape))
    assert kernel.decode(payload, out.shape, out, 1) is out
    np.testing.assert_array_equal(out[0], reference(payload))
    assert untouched()


@given(shape=st.tuples(*[st.integers(1, 20)] * 3), seed=st.integers(0, 2**32), quality=qualities)
@settings(max_examples=150, deadline=None)
def test_planes(kernel, shape, seed, quality):
    """Rows go to planes however far these are apart, also backwards, and to memory whose voxels have gaps."""
    z, y, x = shape
    payload = simple(picture("tissue", z * y, x, seed), quality)
    expected = reference(payload).reshape(shape)
    out, untouched = within(shape)
    for view in (out, out[::-1], out[:, ::-1], np.zeros((z, y, 2 * x), np.uint8)[..., ::2]):
        assert kernel.decode(payload, shape, view, 1) is view
        np.testing.assert_array_equal(view, expected)
    assert untouched()
    np.testing.assert_array_equal(kernel.decode(payload, (1, *shape), None, 1), expected[None])


@pytest.mark.parametrize("width", [1, 3, 10, 24, 40, 60, 120, 240])
def test_other_widths(kernel, width):
    """An image whose rows are not those of the chunk is decoded, whatever memory it goes to."""
    shape = (4, 6, 10)
    payload = simple(picture("tissue", 240 // width, width, 1), 90)
    expected = reference(payload).reshape(shape)
    out, untouched = within(shape)
    for view in (None, np.zeros(shape, np.uint8), out):
        np.testing.assert_array_equal(kernel.decode(payload, shape, view, 1), expected)
    assert untouched()


@given(
    image=pictures,
    quality=qualities,
    subsampling=st.sampled_from(SUBSAMPLINGS),
)
@settings(max_examples=200, deadline=None)
def test_images_without_colours(kernel, image, quality, subsampling):
    """Images that could be coloured but are not give their luma, which is red, green and blue."""
    payload = colourless(image, subsampling, quality)
    out, untouched = within((1, *image.shape))
    assert kernel.decode(payload, out.shape, out, 3) is out
    np.testing.assert_array_equal(out[0], reference(payload))
    np.testing.assert_array_equal(np.repeat(out[0, ..., None], 3, axis=-1), simplejpeg.decode_jpeg(payload, "RGB"))
    assert untouched()


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_images_with_colours(kernel, subsampling):
    """A trace of colour anywhere leaves the image to simplejpeg."""
    colours = np.repeat(tissue(40, 50)[..., None], 3, axis=-1)
    colours[-1, -1, 0] ^= 128
    payload = simplejpeg.encode_jpeg(colours, 90, "RGB", subsampling)
    assert kernel.decode(payload, (1, 40, 50), None, 3) is None


@pytest.mark.parametrize("components", [1, 3])
def test_components_are_compared(kernel, components):
    """Images with another number of components than expected are left to simplejpeg."""
    image = tissue(16, 16)
    payload = colourless(image, "444") if components == 1 else simple(image)
    assert kernel.decode(payload, (1, 16, 16), None, components) is None


def test_sizes_are_compared(kernel):
    """Images with more or fewer samples than expected are left to simplejpeg."""
    payload = simple(tissue(16, 24))
    for shape in ((1, 16, 25), (2, 16, 24), (1, 1, 1), (1, 24, 24), (3, 5, 7)):
        assert kernel.decode(payload, shape, None, 1) is None


# who wrote it


@pytest.mark.parametrize("quality", [1, 10, 50, 75, 85, 95, 100])
@pytest.mark.parametrize("writer", [*WRITERS, *SUBSAMPLINGS])
def test_usual_writers(usual, writer, quality):
    """What the usual libraries write is not left to simplejpeg."""
    image = tissue(512, 64)
    colours = writer in SUBSAMPLINGS
    payload = colourless(image, writer, quality) if colours else WRITERS[writer](image, quality)
    found = usual.decode(payload, (8, 64, 64), None, 3 if colours else 1)
    np.testing.assert_array_equal(found.reshape(512, 64), reference(payload))


@pytest.mark.parametrize("optimise", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pillow(usual, optimise, mode):
    """What Pillow writes is not left to simplejpeg, but for progressive images."""
    pillow = pytest.importorskip("PIL.Image")
    for progressive in (False, True):
        file = io.BytesIO()
        image = pillow.fromarray(tissue(256, 256)).convert(mode)
        image.save(file, "JPEG", quality=80, optimize=optimise, progressive=progressive)
        payload = file.getvalue()
        found = usual.decode(payload, (1, 256, 256), None, 3 if mode == "RGB" else 1)
        assert progressive == (found is None)
        assert progressive or np.array_equal(found[0], reference(payload))


def test_tensorstore(usual, tmp_path):
    """What TensorStore writes is not left to simplejpeg."""
    tensorstore = pytest.importorskip("tensorstore")
    voxels = tissue(64 * 64, 64).reshape(64, 64, 64)
    scale = {"size": [64] * 3, "chunk_size": [64] * 3, "encoding": "jpeg", "resolution": [8] * 3}
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": str(tmp_path)}}
    metadata = {"type": "image", "data_type": "uint8", "num_channels": 1}
    volume = tensorstore.open({**spec, "multiscale_metadata": metadata, "scale_metadata": scale}, create=True).result()
    volume[...] = voxels.T[..., None]
    payload = next(tmp_path.glob("*/0-64_0-64_0-64")).read_bytes()
    found = usual.decode(payload, voxels.shape, None, 1)
    np.testing.assert_array_equal(found.transpose(2, 1, 0)[..., None], volume.read().result())


def test_small_images_are_left(usual):
    """Images for which making tables takes longer than decoding are left to simplejpeg."""
    assert usual.decode(simple(tissue(64, 64)), (1, 64, 64), None, 1) is None


# what is left to simplejpeg


def restarting():
    """An image of two blocks with a restart between them, and its samples."""
    halves = [simple(tissue(8, 8, seed)) for seed in range(2)]
    starts = [half.index(START_OF_SCAN) + 10 for half in halves]
    scans = [half[start : half.index(END, start)] for half, start in zip(halves, starts, strict=True)]
    head = halves[0][: starts[0]].replace(struct.pack(">HH", 8, 8), struct.pack(">HH", 16, 8), 1)
    head = head.replace(START_OF_SCAN, segment(0xDD, b"\0\1") + START_OF_SCAN, 1)
    return head + scans[0] + b"\xff\xd0" + scans[1] + END, np.concatenate([reference(half) for half in halves])


def test_restarts(kernel):
    """Images with restart markers are decoded, by simplejpeg."""
    payload, expected = restarting()
    assert kernel.decode(payload, (1, 16, 8), None, 1) is None
    assert both(Jpeg((1, 16, 8)), payload, kernel) == [expected[None].tolist()] * 2


def test_progressive(kernel):
    """Progressive images are decoded, by simplejpeg."""
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.fromarray(tissue(40, 30)).save(file, "JPEG", progressive=True)
    assert kernel.decode(file.getvalue(), (1, 40, 30), None, 1) is None
    assert both(Jpeg((1, 40, 30)), file.getvalue(), kernel) == [reference(file.getvalue())[None].tolist()] * 2


def insert(data):
    return lambda payload: payload[:2] + data + payload[2:]


def replace(old, new):
    return lambda payload: payload.replace(old, new, 1)


def set_byte(marker, offset, value):
    """Put a byte into the segment of `marker`."""

    def change(payload):
        at = payload.index(bytes([0xFF, marker])) + 4 + offset
        return payload[:at] + bytes([value]) + payload[at + 1 :]

    return change


PROFILE = b"ICC_PROFILE\0"
VARIANTS = {
    # taken
    "as it is": (True, lambda payload: payload),
    "extended": (True, replace(START_OF_FRAME, b"\xff\xc1")),
    "comment": (True, insert(segment(0xFE, b"\xff\xd9"))),
    "exif": (True, insert(segment(0xE1, b"Exif\0\0" + START_OF_SCAN * 600))),
    "profile": (True, insert(segment(0xE2, PROFILE + b"\1\1abc"))),
    "no restarts": (True, insert(segment(0xDD, b"\0\0"))),
    "sampling factors of grey": (True, set_byte(0xC0, 7, 0x42)),
    "more behind the end": (True, lambda payload: payload + b"more"),
    # left
    "broken profile": (False, insert(segment(0xE2, PROFILE + b"\2\1abc"))),
    "two profiles": (False, insert(2 * segment(0xE2, PROFILE + b"\1\1abc"))),
    "empty profile": (False, insert(segment(0xE2, PROFILE + b"\1\1"))),
    "JFIF of the future": (False, set_byte(0xE0, 5, 2)),
    "twelve bits": (False, set_byte(0xC0, 0, 12)),
    "arithmetic": (False, replace(START_OF_FRAME, b"\xff\xc9")),
    "lossless": (False, replace(START_OF_FRAME, b"\xff\xc3")),
    "two frames": (False, lambda payload: insert(payload[payload.index(START_OF_FRAME) :][:13])(payload)),
    "no height": (False, set_byte(0xC0, 2, 0)),
    "sampling factor 0": (False, set_byte(0xC0, 7, 0x01)),
    "sampling factor 5": (False, set_byte(0xC0, 7, 0x51)),
    "no such quantisers": (False, set_byte(0xC0, 8, 3)),
    "quantisers of 16 bits": (False, set_byte(0xDB, 0, 0x10)),
    "quantiser 0": (False, set_byte(0xDB, 40, 0)),
    "fill bytes": (False, insert(b"\xff")),
    "too many codes": (False, set_byte(0xC4, 1, 3)),
    "spectral selection": (False, set_byte(0xDA, 4, 62)),
    "approximation": (False, set_byte(0xDA, 5, 1)),
    "other component": (False, set_byte(0xDA, 1, 9)),
    "no such codes": (False, set_byte(0xDA, 2, 0x11)),
    "no end": (False, lambda payload: payload[:-2]),
    "byte before the end": (False, lambda payload: payload[:-2] + b"\0" + END),
    "fill byte before the end": (False, lambda payload: payload[:-2] + b"\xff" + END),
    "restart before the end": (False, lambda payload: payload[:-2] + b"\xff\xd0" + END),
    "restarts that are not there": (False, insert(segment(0xDD, b"\0\1"))),
    "second start": (False, insert(b"\xff\xd8")),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(kernel, variant):
    """Streams with oddities are left to simplejpeg where that may have its own opinion; outcomes are the same."""
    taken, change = VARIANTS[variant]
    payload = change(simple(tissue(24, 40)))
    assert (kernel.decode(payload, (1, 24, 40), None, 1) is not None) == taken
    found, expected = both(Jpeg((1, 24, 40)), payload, kernel)
    assert found == expected


def test_longest_side(kernel):
    """Images are as long as simplejpeg takes them, and no longer."""
    one = simple(np.full((8, 1), 128, np.uint8))
    start = one.index(START_OF_SCAN) + 10
    for height, taken in ((65_472, True), (65_504, False)):
        blocks = int("001010" * (height // 8), 2)  # no difference, end of block
        scan = blocks.to_bytes(height // 8 * 6 // 8, "big")
        payload = one[:start].replace(struct.pack(">HH", 8, 1), struct.pack(">HH", height, 1), 1) + scan + END
        assert (kernel.decode(payload, (1, height, 1), None, 1) is not None) == taken
        found, expected = both(Jpeg((1, height, 1)), payload, kernel)
        assert found == expected
        assert taken != isinstance(found, str)


def number(*ids):
    """Call the components so."""

    def change(payload):
        for k, value in enumerate(ids):
            payload = set_byte(0xDA, 1 + 2 * k, value)(set_byte(0xC0, 6 + 3 * k, value)(payload))
        return payload.replace(b"JFIF", b"JIFF", 1)

    return change


def adobe(transform):
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


COLOUR_VARIANTS = {
    "as it is": (True, lambda payload: payload),
    "Adobe's luma": (True, insert(adobe(1))),
    "no JFIF": (True, replace(b"JFIF", b"JIFF")),
    "Adobe's luma without JFIF": (True, lambda payload: insert(adobe(1))(payload.replace(b"JFIF", b"JIFF", 1))),
    "Adobe's RGB": (False, insert(adobe(0))),
    "Adobe's RGB without JFIF": (False, lambda payload: insert(adobe(0))(payload.replace(b"JFIF", b"JIFF", 1))),
    "Adobe twice": (False, insert(adobe(1) + adobe(0))),
    "unknown to Adobe": (False, insert(adobe(7))),
    "components called RGB": (False, number(*b"RGB")),
    "components without names": (False, number(7, 8, 9)),
    "components with one name": (False, number(1, 1, 1)),
    "long head": (False, insert(segment(0xE1, START_OF_SCAN * 600))),
    "more behind the end": (False, lambda payload: payload + START_OF_SCAN * 600),
    "no such chroma quantisers": (False, set_byte(0xC0, 11, 3)),
    "other factors of chroma": (False, set_byte(0xC0, 10, 0x21)),
}


@pytest.mark.parametrize("variant", COLOUR_VARIANTS)
def test_variants_that_could_be_coloured(kernel, variant):
    """Whether three components are taken for luma and chroma is as in simplejpeg, or left to that."""
    taken, change = COLOUR_VARIANTS[variant]
    payload = change(colourless(tissue(24, 40), "444"))
    assert (kernel.decode(payload, (1, 24, 40), None, 3) is not None) == taken
    for channels in CHANNELS:
        codec = Tile((3, 1, 24, 40) if channels == "rgb" else (1, 24, 40), channels=channels)
        found, expected = both(codec, payload, kernel)
        assert found == expected


@given(quantisers=st.lists(st.integers(1, 255), min_size=64, max_size=64), kind=st.sampled_from(["noise", "binary"]))
@settings(max_examples=150, deadline=None)
def test_samples_far_off(kernel, quantisers, kind):
    """With quantisers that make samples exceed everything, outcomes are the same."""
    payload = simple(picture(kind, 16, 24, sum(quantisers)), 97)
    start = payload.index(b"\xff\xdb") + 5
    payload = payload[:start] + bytes(quantisers) + payload[start + 64 :]
    found, expected = both(Jpeg((1, 16, 24)), payload, kernel)
    assert found == expected


def test_samples_beyond_certainty(kernel):
    """Samples so far off that decoders may differ are left to simplejpeg."""
    payload = bytearray(simple(picture("binary", 16, 16, 0), 100))
    start = payload.index(b"\xff\xdb") + 5
    payload[start : start + 64] = bytes([255] * 64)
    assert kernel.decode(bytes(payload), (1, 16, 16), None, 1) is None


# damage


@pytest.mark.parametrize("components", [1, 3])
def test_every_length(kernel, components):
    """An image cut anywhere has the same outcome with and without the kernel."""
    image = tissue(24, 17)
    payload = simple(image) if components == 1 else colourless(image, "420")
    codec = Jpeg((1, 24, 17)) if components == 1 else Tile((1, 24, 17))
    for length in range(len(payload) + 1):
        found, expected = both(codec, payload[:length], kernel)
        assert found == expected
        assert isinstance(found, str) == (length < len(payload))


def damaged(payload, random):
    work = bytearray(payload)
    scan = payload.index(START_OF_SCAN)
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(0, min(len(work), scan + 14) if random.integers(0, 2) else len(work)))
        kind = random.integers(0, 6)
        if kind == 0:
            work[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            work[at] = int(random.integers(0, 256))
        elif kind == 2:
            work[at] = int(random.choice(ODD_BYTES))
        elif kind == 3:
            del work[at : at + int(random.integers(1, 4))]
        elif kind == 4:
            work[at:at] = random.integers(0, 256, int(random.integers(1, 4)), np.uint8).tobytes()
        else:
            work[at : at + 2] = work[-2 - at : -at or None]
    return bytes(work)


@given(image=pictures, quality=qualities, writer=st.sampled_from([*WRITERS, *SUBSAMPLINGS]), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_damaged_images(kernel, image, quality, writer, seed):
    """Damaged images have the same outcome with and without the kernel."""
    random = np.random.default_rng(seed)
    colours = writer in SUBSAMPLINGS
    payload = colourless(image, writer, quality) if colours else WRITERS[writer](image, quality)
    codec = (Tile if colours else Jpeg)((1, *image.shape))
    for _ in range(25):
        found, expected = both(codec, damaged(payload, random), kernel)
        assert found == expected


@given(data=st.binary(max_size=600))
@settings(max_examples=200, deadline=None)
def test_any_bytes(kernel, data):
    """Bytes that begin like an image are refused or left to simplejpeg."""
    payload = simple(tissue(8, 8))
    for start in (0, 2, payload.index(START_OF_FRAME), payload.index(START_OF_SCAN) + 10):
        found, expected = both(Jpeg((1, 8, 8)), payload[:start] + data, kernel)
        assert found == expected


@pytest.mark.parametrize("cls", [Jpeg, Tile])
def test_subsampling_without_a_name(kernel, cls):
    """4:4:1, which simplejpeg cannot name, raises DecodeError."""
    payload = set_byte(0xC0, 7, 0x14)(colourless(tissue(16, 16), "444"))
    found, expected = both(cls((1, 16, 16)), payload, kernel)
    assert found == expected
    assert "subsampling" in found


# in the codecs


@pytest.mark.parametrize(
    "folder",
    sorted(GOLDEN.glob("*/payload.bin")) or [pytest.param(None, marks=pytest.mark.skip(reason=f"{GOLDEN} not found"))],
    ids=lambda path: path and path.parent.name,
)
def test_golden_chunks(kernel, folder):
    """Chunks of other writers are the same with and without the kernel, which takes the regular grey ones."""
    config = json.loads((folder.parent / "config.json").read_text())
    with np.load(folder.parent / "expected.npz") as arrays:
        shape = arrays["data"].shape
    payload = folder.read_bytes()
    found, expected = both(Jpeg(shape, config["data_type"]), payload, kernel)
    assert found == expected
    baseline, restarts = START_OF_FRAME in payload, b"\xff\xdd" in payload
    regular = shape[0] == 1 and baseline and not restarts
    assert (kernel.decode(payload, shape[1:], None, 1) is not None) == regular


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("shape", [(40, 50), (32, 64), (64, 32)])
@pytest.mark.parametrize("turned", [False, True])
def test_tiles_without_colours(kernel, channels, shape, turned):
    """Tiles that could be coloured but are not are the same with and without the kernel, cropped and padded too."""
    codec = Tile((3, 1, *shape) if channels == "rgb" else (1, *shape), channels=channels, turned=turned, fill_value=3)
    for payload in (colourless(tissue(40, 50), "420"), simple(tissue(40, 50))):
        found, expected = both(codec, payload, kernel)
        assert found == expected
        assert not isinstance(found, str)


def test_without_kernels(monkeypatch):
    """STOREFS_NO_KERNELS=1 leaves the kernel unused and the voxels as they are."""
    payload, codec = simple(tissue(512, 64)), Jpeg((8, 64, 64))
    monkeypatch.delenv("STOREFS_NO_KERNELS", raising=False)
    found = outcome(codec, payload)
    monkeypatch.setenv("STOREFS_NO_KERNELS", "1")
    assert kernels.load() is None
    assert outcome(codec, payload) == found == reference(payload).reshape(8, 64, 64).tolist()


def test_into_strided_output(usual):
    """The codec writes straight into memory of any strides, and only there."""
    payload, codec = simple(tissue(512, 64)), Jpeg((8, 64, 64))
    expected = reference(payload).reshape(8, 64, 64)
    out, untouched = within((8, 64, 64))
    assert codec.decode_chunk(payload, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert untouched()


def test_read_only_output(kernel):
    """Memory that must not be written to is refused as before, and not written to."""
    out = np.zeros((1, 16, 16), np.uint8)
    out.flags.writeable = False
    assert kernel.decode(simple(tissue(16, 16)), out.shape, out, 1) is None
    assert not out.any()


def test_payloads(kernel):
    """Payloads may be any contiguous bytes, at any address."""
    payload = simple(tissue(16, 16))
    expected = reference(payload)
    shifted = memoryview(b"123" + payload)[3:]
    for data in (payload, bytearray(payload), memoryview(payload), shifted, np.frombuffer(payload, np.uint8)):
        np.testing.assert_array_equal(kernel.decode(data, (1, 16, 16), None, 1)[0], expected)


def test_threads(usual):
    """Threads decode at once, each its own."""
    payloads = [simple(tissue(256, 64, seed)) for seed in range(8)] * 8
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda payload: usual.decode(payload, (4, 64, 64), None, 1), payloads))
    for payload, chunk in zip(payloads, found, strict=True):
        np.testing.assert_array_equal(chunk.reshape(256, 64), reference(payload))


def test_other_libraries_are_not_used():
    """A library without our functions, or with other ones, is not called."""

    class Stale:
        @staticmethod
        def storefs_jpeg_interface() -> int:
            return 0

    assert kernels._bind(Stale()) is None
    assert kernels._bind(object()) is None
