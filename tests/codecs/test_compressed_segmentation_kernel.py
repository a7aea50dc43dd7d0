"""The compiled compressed_segmentation coder and the numpy one, each judged by the other."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs.kernels import file_parts
from storefs_codecs import DecodeError, EncodeError, segmentation_decoder, segmentation_encoder
from storefs_codecs.kernels import compressed_segmentation as kernels
from storefs_codecs.kernels import dvid_label_block, gzip_member, jpeg, library, png, voxel_copy

ROOT = Path(__file__).parents[2]
FAULTS = [0, 1, 2**24 - 1, 2**31, 2**32 - 1, *(bits << 24 for bits in (1, 2, 3, 8, 16, 32, 64))]


@pytest.fixture(scope="module")
def kernel():
    """The compiled coder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STOREFS_NO_KERNELS", raising=False)
        loaded = kernels.load()
    if loaded is None:
        pytest.skip("the kernel was not built")
    return loaded


@st.composite
def channels(draw):
    """Labels (z, y, x), contiguous, and a block size (z, y, x)."""
    dtype = draw(st.sampled_from(["<u4", "<u8"]))
    shape = draw(st.tuples(*[st.integers(1, 20)] * 3))
    block = draw(st.tuples(*[st.one_of(st.sampled_from([1, 4, 8, 16]), st.integers(1, 30))] * 3))
    kinds = draw(st.sampled_from([1, 2, 4, 5, 16, 17, 300, 70000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pool = random.integers(0, np.iinfo(dtype).max, kinds, dtype, endpoint=True)
    return pool[np.sort(random.integers(0, kinds, shape), axis=draw(st.integers(0, 2)))], block


def outcome(decode, words, block, out):
    """The labels, or the text of the error."""
    try:
        decode(words, 0, block, out)
    except DecodeError as error:
        return str(error)
    return out.tolist()


@given(given_channel=channels())
@settings(max_examples=150, deadline=None)
def test_same_bytes(kernel, given_channel):
    """Both write the same bytes and read them back."""
    channel, block = given_channel
    words = kernel.encode_channel(channel, block)
    assert words.tobytes() == segmentation_encoder.encode_channel(channel, block).tobytes()
    for decode in (kernel.decode_channel, segmentation_decoder.decode_channel):
        out = np.empty_like(channel)
        decode(words, 0, block, out)
        assert np.array_equal(out, channel)


FILL = 2**63 + 5


@pytest.fixture(scope="module")
def large():
    """A volume much larger than a processor's caches, that begins with a cache line."""
    memory = np.empty(20 * 72 * 4096 + 8, np.uint64)
    start = -memory.ctypes.data % 64 // 8
    volume = memory[start : start + 20 * 72 * 4096].reshape(20, 72, 4096)
    volume[:] = FILL
    return volume


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_part_of_a_large_volume(kernel, large, data):
    """Into a part of a volume too large for caches go the same labels, whatever its place, and nothing beside it."""
    shape = tuple(data.draw(st.integers(1, n)) for n in (20, 24, 40))
    step = st.sampled_from([1, 1, 8])
    z, y, x = (data.draw(st.integers(0, n - m)) for n, m in zip((20, 72, 4096), shape, strict=True))
    along_x = data.draw(step)
    y, x = y // 8 * 8, min(x // along_x * along_x, 4096 - shape[2])
    kinds = data.draw(st.sampled_from([1, 2, 4, 5, 17, 300]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pool = random.integers(0, 2**64 - 1, kinds, np.uint64, endpoint=True)
    channel = pool[np.sort(random.integers(0, kinds, shape), axis=data.draw(st.integers(0, 2)))]
    block = data.draw(st.sampled_from([(8, 8, 8), (8, 8, 8), (4, 16, 8), (8, 8, 16)]))
    words = kernel.encode_channel(channel, block)
    around = large[max(0, z - 1) : z + shape[0] + 1, max(0, y - 1) : y + shape[1] + 1, max(0, x - 1) : x + shape[2] + 1]
    part = large[z : z + shape[0], y : y + shape[1], x : x + shape[2]]
    kernel.decode_channel(words, 0, block, part)
    assert np.array_equal(part, channel)
    part[...] = FILL
    assert (around == FILL).all()


@given(given_channel=channels(), data=st.data())
@settings(max_examples=200, deadline=None)
def test_same_verdict_on_damaged_words(kernel, given_channel, data):
    """From damaged words both read the same labels, or both refuse them with the same words."""
    channel, block = given_channel
    words = kernel.encode_channel(channel, block).copy()
    headers = 2 * int(np.prod([-(-n // b) for n, b in zip(channel.shape, block, strict=True)]))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, headers - 1), st.integers(0, len(words) - 1)))
        value = st.one_of(st.integers(0, len(words)), st.sampled_from(FAULTS), st.integers(0, 2**32 - 1))
        words[at] = data.draw(st.sampled_from([0, int(words[at])])) ^ data.draw(value)
    words = words[: max(headers, len(words) - data.draw(st.integers(0, 4)))]
    compiled = outcome(kernel.decode_channel, words, block, np.empty_like(channel))
    assert compiled == outcome(segmentation_decoder.decode_channel, words, block, np.empty_like(channel))


def test_blocks_of_many_labels(kernel):
    """More than 65536 labels in a block take 32 bits each, in both."""
    channel = np.random.default_rng(0).permutation(np.arange(50 * 50 * 30, dtype="<u8") << 40).reshape(50, 50, 30)
    words = kernel.encode_channel(channel, (50, 50, 30))
    assert words[0] >> 24 == 32
    assert np.array_equal(words, segmentation_encoder.encode_channel(channel, (50, 50, 30)))
    out = np.empty_like(channel)
    kernel.decode_channel(words, 0, (50, 50, 30), out)
    assert np.array_equal(out, channel)


@pytest.mark.parametrize("width", [2**24 - 40, 2**24 - 3, 2**24 - 2, 2**24, 2**30])
def test_limit_of_offsets(kernel, width):
    """Both reach the last table offset of 24 bits and refuse the next."""
    channel = np.array([[[1, 2]]], "<u4")
    block = (1, 1, width * 32)
    verdicts = []
    for encode in (kernel.encode_channel, segmentation_encoder.encode_channel):
        try:
            verdicts.append(encode(channel, block).tobytes())
        except EncodeError as error:
            verdicts.append(str(error))
    assert verdicts[0] == verdicts[1]
    assert (2 + width <= 2**24 - 1) == isinstance(verdicts[0], bytes)


def test_refusal_leaves_the_output_alone(kernel):
    """The kernel proves everything before it writes anything."""
    channel = np.arange(16**3, dtype="<u8").reshape(16, 16, 16)
    words = kernel.encode_channel(channel, (8, 8, 8)).copy()
    for damage in (
        (0, 0x03000000),
        (15, 2**32 - 1),
        (14, 2**24 - 1 | 16 << 24),
        (len(words) - 9000, 2**32 - 1),
    ):
        damaged = words[:-8].copy()
        damaged[damage[0]] = damage[1]
        out = np.full(channel.shape, 7, "<u8")
        with pytest.raises(DecodeError):
            kernel.decode_channel(damaged, 0, (8, 8, 8), out)
        assert (out == 7).all()


def test_environment_variable(monkeypatch):
    """STOREFS_NO_KERNELS=1 leaves the kernels unused; other values do not."""
    monkeypatch.setenv("STOREFS_NO_KERNELS", "1")
    assert library("compressed_segmentation") is None
    assert kernels.load() is None
    monkeypatch.setenv("STOREFS_NO_KERNELS", "0")
    assert library("no_such_kernel") is None


def test_other_libraries_are_not_used():
    """A library without our functions, or with other ones, is not called."""

    class Stale:
        @staticmethod
        def storefs_cseg_interface() -> int:
            return 0

    assert kernels._bind(Stale()) is None
    assert kernels._bind(object()) is None


@pytest.fixture(scope="module")
def hook():
    """The build hook of the project."""
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_build(hook, tmp_path, monkeypatch):
    """The kernels compile without a warning, to libraries that offer the interfaces expected here."""
    if not (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")):
        pytest.skip("no C compiler")
    for folder in hook.KERNELS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.so", "*.dll"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(hook, "FLAGS", (*hook.FLAGS, "-Wall", "-Wextra", "-Werror"))
    built = {path.stem: path for path in hook.compile_kernels(tmp_path)}
    expected = {
        "libcompressed_segmentation": ("cseg", kernels.INTERFACE),
        "libdvid_label_block": ("dvid", dvid_label_block.INTERFACE),
        "libgzip_member": ("gzip", gzip_member.INTERFACE),
        "libjpeg": ("jpeg", jpeg.INTERFACE),
        "libpng": ("png", png.INTERFACE),
        "libvoxel_copy": ("voxel_copy", voxel_copy.INTERFACE),
        "libfile_parts": ("files", file_parts.INTERFACE),
    }
    assert set(built) == set(expected)
    for name, (prefix, interface) in expected.items():
        library_path = built[name]
        call = f"import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).storefs_{prefix}_interface())"
        answer = subprocess.run([sys.executable, "-c", call, library_path], capture_output=True, text=True, check=True)
        assert int(answer.stdout) == interface


@pytest.mark.parametrize("compiler", ["/no/such/compiler", "false"])
def test_build_without_compiler(hook, tmp_path, monkeypatch, compiler):
    """Without a working compiler nothing is built and nothing is left, not even an older library."""
    folder = tmp_path / hook.KERNELS[0]
    folder.mkdir(parents=True)
    (folder / "any.c").write_text("int any(void) { return 0; }\n")
    (folder / f"libany{'.dll' if sys.platform == 'win32' else '.so'}").write_text("old")
    monkeypatch.setenv("CC", compiler)
    assert hook.compile_kernels(tmp_path) == []
    assert [path.name for path in folder.iterdir()] == ["any.c"]
