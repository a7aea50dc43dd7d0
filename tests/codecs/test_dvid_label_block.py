"""DVID label blocks: the format, with the numpy coder and with the compiled one."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import json
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from storefs_codecs import DecodeError, EncodeError
from storefs_codecs.dvid_label_block import DvidLabelBlock, DvidLabelBlockCodec
from storefs_codecs.kernels import dvid_label_block as kernels

GOLDEN = Path(__file__).parents[2] / "../shared/golden/dvid/label_blocks"
INDEX = json.loads((GOLDEN / "index.json").read_text())["blocks"] if GOLDEN.exists() else []


@pytest.fixture(scope="module", params=["numpy", "kernel"], autouse=True)
def coder(request):
    """Every test here runs with both implementations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOREFS_NO_KERNELS", "1" if request.param == "numpy" else "0")
        if request.param == "kernel" and kernels.load() is None:
            pytest.skip("the kernel was not built")
        yield request.param


def payload_of(sizes, table, lists, codes=b"") -> bytes:
    """A label block put together by hand; `lists` has the places of every sub-block."""
    places = [place for one in lists for place in one]
    return b"".join(
        [
            struct.pack("<4I", *sizes, len(table)),
            struct.pack(f"<{len(table)}Q", *table),
            struct.pack(f"<{len(lists)}H", *map(len, lists)),
            struct.pack(f"<{len(places)}I", *places),
            codes,
        ]
    )


def packed(codes, bits: int) -> bytes:
    """Codes of `bits` bits as bytes, the most significant bit first."""
    return int("".join(f"{code:0{bits}b}" for code in codes), 2).to_bytes(len(codes) * bits // 8, "big")


def voxels_of(block: np.ndarray):
    """The voxels of every sub-block, as lists, in the order of the format."""
    for z, y, x in itertools.product(*(range(0, n, 8) for n in block.shape)):
        yield block[z : z + 8, y : y + 8, x : x + 8].ravel().tolist()


def canonical(block: np.ndarray) -> bytes:
    """The one form of a block in which all tables ascend, written voxel by voxel."""
    table = sorted(set(block.ravel().tolist()))
    if len(table) == 1:
        return payload_of([n // 8 for n in block.shape[::-1]], table, [])
    lists, codes = [], b""
    for voxels in voxels_of(block):
        labels = sorted(set(voxels))
        lists.append([table.index(label) for label in labels])
        bits = (len(labels) - 1).bit_length()
        codes += packed([labels.index(label) for label in voxels], bits) if bits else b""
    return payload_of([n // 8 for n in block.shape[::-1]], table, lists, codes)


def unusual(block: np.ndarray, random) -> bytes:
    """A legal block of no common writer: unsorted, repeated and unused entries, lists of none for label 0."""
    table = list({0, 77, *block.ravel().tolist()})
    table += random.choices(table, k=random.randrange(4))
    random.shuffle(table)
    lists, codes = [], b""
    for voxels in voxels_of(block):
        if not any(voxels) and random.random() < 0.5:
            lists.append([])
            continue
        present = set(voxels)
        places = [place for place, label in enumerate(table) if label in present]
        places += random.choices(range(len(table)), k=min(random.randrange(4), 512 - len(places)))
        random.shuffle(places)
        lists.append(places)
        where: dict[int, list[int]] = {}
        for code, place in enumerate(places):
            where.setdefault(table[place], []).append(code)
        bits = (len(places) - 1).bit_length()
        codes += packed([random.choice(where[label]) for label in voxels], bits) if bits else b""
    return payload_of([n // 8 for n in block.shape[::-1]], table, lists, codes)


def slowly(payload: bytes, shape) -> np.ndarray:
    """The format read code by code; the payload is known to be good."""
    entries = struct.unpack_from("<I", payload, 12)[0]
    table = struct.unpack_from(f"<{entries}Q", payload, 16)
    block, at = np.zeros(shape, "<u8"), 16 + 8 * entries
    if at == len(payload):
        block[:] = table[0]
        return block
    corners = list(itertools.product(*(range(0, n, 8) for n in shape)))
    counts = struct.unpack_from(f"<{len(corners)}H", payload, at)
    at += 2 * len(corners)
    codes_at = at + 4 * sum(counts)
    for (z, y, x), count in zip(corners, counts, strict=True):
        labels = [table[place] for place in struct.unpack_from(f"<{count}I", payload, at)] or [0]
        at += 4 * count
        bits = (len(labels) - 1).bit_length()
        stream = int.from_bytes(payload[codes_at : codes_at + 64 * bits], "big")
        codes = [stream >> bits * (511 - voxel) & (1 << bits) - 1 for voxel in range(512)]
        block[z : z + 8, y : y + 8, x : x + 8].flat = [labels[code] for code in codes]
        codes_at += 64 * bits
    assert codes_at == len(payload)
    return block


def test_two_labels():
    """The known block of 16 x 16 x 16 voxels 5 with a single 9: its bytes, one by one."""
    block = np.full((16, 16, 16), 5, "uint64")
    block[0, 0, 1] = 9
    payload = bytes.fromhex(
        "02000000 02000000 02000000 02000000 0500000000000000 0900000000000000 0200"
        + "0100" * 7
        + "00000000 01000000"
        + "00000000" * 7
        + "40"
        + "00" * 63
    )
    assert len(payload) == 148
    codec = DvidLabelBlock(block.shape)
    assert codec.encode(block) == payload
    assert np.array_equal(codec.decode(payload), block)


def test_codes_of_two_widths():
    """The known block of four labels: codes of two bits, then of one."""
    block = np.full((16, 16, 16), 5, "uint64")
    block[0, 0, 1], block[0, 1, 0], block[15, 15, 15] = 9, 6, 300
    lists = [[0, 1, 2], *[[0]] * 6, [0, 3]]
    codes = bytes.fromhex("200040") + bytes(125) + bytes(63) + b"\1"
    payload = payload_of((2, 2, 2), (5, 6, 9, 300), lists, codes)
    assert len(payload) == 300
    codec = DvidLabelBlock(block.shape)
    assert codec.encode(block) == payload
    assert np.array_equal(codec.decode(payload), block)


def test_order_of_sub_blocks():
    """A known block with three different sides: its canonical bytes, and the order in which DVID writes it."""
    z, y, x = np.indices((16, 32, 48), dtype="uint64")
    block = 1 + x // 8 + 10 * (y // 8) + 100 * (z // 8)
    block[(x % 8 == 1) & (y % 8 == 0) & (z % 8 == 0)] = 7000
    block[(x % 8 == 0) & (y % 8 == 2) & (z % 8 == 0)] = 8000
    block[(x % 8 == 0) & (y % 8 == 0) & (z % 8 == 3)] = 9000
    assert (
        hashlib.sha256(block.tobytes()).hexdigest()
        == "850185d0f2da3975f623e30dae7134a2af24e263e0c9636e927f68caf83592fb"
    )
    codec = DvidLabelBlock(block.shape)
    payload = codec.encode(block)
    assert len(payload) == 7432
    assert hashlib.sha256(payload).hexdigest() == "a1021ade80468223f3e9dabb0d40afb380a2189add74b4d6e48d4edef0995e2d"
    assert np.array_equal(codec.decode(payload), block)
    seen = [list(dict.fromkeys(voxels)) for voxels in voxels_of(block)]
    table = list(dict.fromkeys(itertools.chain.from_iterable(seen)))
    codes = b"".join(
        packed([labels.index(voxel) for voxel in voxels], 2)
        for labels, voxels in zip(seen, voxels_of(block), strict=True)
    )
    theirs = payload_of((6, 4, 2), table, [[table.index(label) for label in one] for one in seen], codes)
    assert hashlib.sha256(theirs).hexdigest() == "909ae779b8aa34fcf519f0803b7433ae507217780fd9e12e05c82b2121126212"
    assert np.array_equal(codec.decode(theirs), block)


def test_order_of_bits():
    """Codes 1, 2, 3, 4, 5, 1, 2, 3 of three bits are the bytes 29 CA 53."""
    row = [10, 20, 30, 40, 50, 10, 20, 30]
    block = np.tile(np.array(row, "uint64"), (8, 8, 1))
    payload = payload_of((1, 1, 1), [0, 10, 20, 30, 40, 50], [range(6)], bytes.fromhex("29CA53") * 64)
    codec = DvidLabelBlock(block.shape)
    assert np.array_equal(codec.decode(payload), block)
    block[0, 0, :] = 0
    block[0, 0, 1:6] = row[:5]
    assert codec.encode(block).endswith(packed([0, 1, 2, 3, 4, 5, 0, 0], 3) + bytes.fromhex("29CA53") * 63)


@pytest.mark.parametrize("label", [0, 1, 2**32, 2**53 + 1, 2**64 - 1])
def test_solid_blocks(label):
    """One label takes 24 bytes; the long form of the same is read as well."""
    block = np.full((8, 16, 24), label, "uint64")
    codec = DvidLabelBlock(block.shape)
    payload = struct.pack("<4IQ", 3, 2, 1, 1, label)
    assert codec.encode(block) == payload
    assert np.array_equal(codec.decode(payload), block)
    assert np.array_equal(codec.decode(payload_of((3, 2, 1), [label], [[0]] * 6)), block)
    twice = payload_of((3, 2, 1), [label], [[0, 0]] * 6, bytes(range(64)) * 6)
    assert np.array_equal(codec.decode(twice), block)


def test_sub_blocks_without_labels():
    """A sub-block that lists nothing is full of 0, whether the table has a 0 or not."""
    block = np.zeros((8, 8, 24), "uint64")
    block[..., 8:16] = 7
    codec = DvidLabelBlock(block.shape)
    assert np.array_equal(codec.decode(payload_of((3, 1, 1), [7, 9], [[], [0], []])), block)
    assert np.array_equal(codec.decode(payload_of((3, 1, 1), [7], [[], [0], []])), block)
    assert not codec.decode(payload_of((3, 1, 1), [7], [[]] * 3)).any()


@pytest.mark.parametrize("case", INDEX or [None], ids=lambda case: case["name"] if case else "none")
def test_blocks_of_a_server(case):
    """What a DVID server sent decodes to its labels, and is longer than what encoding them gives, if anything."""
    if case is None:
        pytest.skip("../shared/golden/dvid/label_blocks not found")
    payload = gzip.decompress((GOLDEN / case["blocks"]).read_bytes())
    with np.load(GOLDEN / case["labels"]) as labels:
        block = labels["data"]
    codec = DvidLabelBlock(case["block_size_xyz"][::-1])
    assert np.array_equal(codec.decode(payload), block)
    encoded = codec.encode(block)
    assert np.array_equal(codec.decode(encoded), block)
    if case["name"] == "c_sorted":
        assert encoded == payload
    elif "ns0" not in case["name"]:  # an empty list takes no room
        assert len(encoded) <= len(payload)


LABELS = [0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63, 2**64 - 1]


@st.composite
def blocks(draw, longest=3):
    """A block of few or many labels."""
    shape = [8 * n for n in draw(st.tuples(*[st.integers(1, longest)] * 3))]
    kinds = draw(st.sampled_from([1, 2, 3, 4, 5, 9, 17, 40, 100, 200, 300, 5000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pool = np.array(LABELS, "uint64")
    if kinds > len(LABELS):
        pool = random.integers(0, 2**64 - 1, kinds, "uint64", endpoint=True)
    block = pool[random.integers(0, min(kinds, len(pool)), shape)]
    if draw(st.booleans()):
        block[: draw(st.integers(0, shape[0])), :, : draw(st.integers(0, shape[2]))] = pool[0]
    return block


@given(blocks())
@settings(max_examples=60, deadline=None)
def test_round_trip(block):
    """Any labels and sides come back exactly, in the one form that all equal blocks have."""
    codec = DvidLabelBlock(block.shape)
    payload = codec.encode(block)
    assert np.array_equal(codec.decode(payload), block)
    if block.size <= 8 * 512:
        assert payload == canonical(block)


@given(blocks(longest=2), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_any_legal_block(block, random):
    """Tables may be unsorted, with repeated and unused entries, and lists longer than needed."""
    if len(np.unique(block)) < 400:
        payload = unusual(block, random)
        assert np.array_equal(slowly(payload, block.shape), block)
        assert np.array_equal(DvidLabelBlock(block.shape).decode(payload), block)


@given(blocks(longest=2), st.data())
@settings(max_examples=100, deadline=None)
def test_hostile_bytes(block, data):
    """Changed, cut or extended bytes give what a plain reader of the format reads, or DecodeError."""
    codec = DvidLabelBlock(block.shape)
    payload = bytearray(codec.encode(block))
    for _ in range(data.draw(st.integers(0, 4))):
        within = data.draw(st.sampled_from([16, 40, 100, len(payload)]))
        at = data.draw(st.integers(0, min(within, len(payload)) - 1))
        payload[at] = data.draw(st.one_of(st.integers(0, 3), st.integers(0, 255)))
    length = data.draw(st.sampled_from([len(payload), len(payload), len(payload) - 1, len(payload) // 2, 24, 15]))
    payload = payload[:length] + data.draw(st.sampled_from([b"", b"", b"\0", bytes(64)]))
    try:
        decoded = codec.decode(payload)
    except DecodeError:
        return
    assert np.array_equal(decoded, slowly(bytes(payload), block.shape))


@given(st.binary(max_size=200), st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_random_bytes(rest, entries):
    """Bytes of any origin raise nothing but DecodeError, with a good header too."""
    codec = DvidLabelBlock((8, 8, 8))
    for payload in (rest, struct.pack("<4I", 1, 1, 1, entries) + rest):
        with contextlib.suppress(DecodeError):
            assert codec.decode(payload).shape == (8, 8, 8)


HEAD = struct.pack("<4I", 1, 1, 1, 2) + struct.pack("<2Q", 5, 7)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "cut short .expected at least 16 bytes, found 0"),
        (HEAD[:15], "cut short"),
        (payload_of((1, 1, 2), [5], []), r"number of sub-blocks .z, y, x. .expected \(1, 1, 1\), found \(2, 1, 1\)"),
        (payload_of((2**32 - 1,) * 3, [5], []), "number of sub-blocks"),
        (payload_of((0, 0, 0), [5], []), "number of sub-blocks"),
        (struct.pack("<4I", 1, 1, 1, 0), "no labels"),
        (struct.pack("<4I", 1, 1, 1, 2**32 - 1), "cut short .expected at least 34359738376 bytes"),
        (payload_of((1, 1, 1), [5], [])[:-1], "cut short"),
        (HEAD, "cut short .expected at least 34 bytes, found 32"),
        (HEAD + b"\1", "cut short"),
        (HEAD + struct.pack("<H", 513), "sub-block 0 lists more than 512 labels"),
        (HEAD + struct.pack("<H", 2**16 - 1), "sub-block 0 lists more than 512 labels"),
        (HEAD + struct.pack("<H", 1), "contradicts the counts .expected 38 bytes, found 34"),
        (HEAD + struct.pack("<HI", 1, 0) + b"\0", "contradicts the counts"),
        (HEAD + struct.pack("<H2I", 2, 0, 1) + bytes(63), "contradicts the counts .expected 106 bytes, found 105"),
        (HEAD + struct.pack("<HI", 1, 2), "entry 0 of the lists"),
        (HEAD + struct.pack("<H2I", 2, 0, 2**32 - 1) + bytes(64), "entry 1 of the lists"),
        (HEAD + struct.pack("<H3I", 3, 0, 1, 0) + bytes(127) + b"\3", "a code of sub-block 0"),
        (payload_of((1, 1, 1), [5], []) + b"\0", "cut short"),
        (payload_of((1, 1, 1), [5], [[0]]) + b"\0", "contradicts the counts"),
    ],
)
def test_every_fault_is_named(payload, message):
    """Each way in which a block can be broken has its message, and leaves the output alone."""
    out = np.full((8, 8, 8), 3, "uint64")
    with pytest.raises(DecodeError, match=message):
        DvidLabelBlock(out.shape).decode_chunk(payload, out=out)
    assert (out == 3).all()


@pytest.mark.parametrize("count", [3, 5, 9, 17, 33, 65, 129, 257, 511])
def test_codes_past_the_end_of_a_list(count):
    """For every code width the greatest code is read, and the next one refused, wherever it stands."""
    bits = (count - 1).bit_length()
    table = list(range(100, 100 + count))
    codec = DvidLabelBlock((8, 8, 16))
    for voxel in (0, 6, 7, 300, 511):
        codes = [0] * 512
        codes[voxel] = count - 1
        good = payload_of((2, 1, 1), table, [[0], range(count)], packed(codes, bits))
        assert codec.decode(good)[:, :, 8:].flat[voxel] == 99 + count
        codes[voxel] = count
        with pytest.raises(DecodeError, match="a code of sub-block 1 points past"):
            codec.decode(payload_of((2, 1, 1), table, [[0], range(count)], packed(codes, bits)))


def test_first_fault_is_named():
    """Where several sub-blocks are broken the first is named, whatever their code widths."""
    lists = [[0], range(5), range(3), range(3)]
    codes = packed([7] * 512, 3) + packed([3] * 512, 2) * 2
    with pytest.raises(DecodeError, match="a code of sub-block 1 "):
        DvidLabelBlock((8, 8, 32)).decode(payload_of((4, 1, 1), range(9), lists, codes))
    with pytest.raises(DecodeError, match="a code of sub-block 2 "):
        DvidLabelBlock((8, 8, 32)).decode(payload_of((4, 1, 1), range(9), lists, bytes(192) + codes[192:]))


def test_into_strided_output():
    """Labels are written into any view: transposed, reversed, with gaps, unaligned; and nothing beside it."""
    block = np.random.default_rng(0).integers(0, 9, (8, 16, 24)).astype("uint64")
    codec = DvidLabelBlock(block.shape)
    larger = np.full((26, 40, 60), 77, "uint64")
    unaligned = np.zeros(block.nbytes + 1, "uint8")[1:].view("uint64").reshape(block.shape)
    for stored in (block, np.full_like(block, 2**63)):
        payload = codec.encode(stored)
        for view in (
            larger[5:21:2, 1:17, 3:27],
            larger.transpose(1, 0, 2)[8:16, :16, :24],
            larger[7::-1, 15::-1, 23::-1],
            larger.transpose(2, 1, 0)[4:20:2, 7:23, :24],
            unaligned,
        ):
            larger[...] = 77
            assert codec.decode_chunk(payload, out=view) is view
            assert np.array_equal(view, stored)
            if view is not unaligned:
                view[...] = 77
                assert (larger == 77).all()


def test_readonly_output():
    """An output that must not be written to is refused."""
    out = np.zeros((8, 8, 8), "uint64")
    out.flags.writeable = False
    codec = DvidLabelBlock(out.shape)
    with pytest.raises(ValueError, match="read-only"):
        codec.decode_chunk(codec.encode(out), out=out)


def test_unaligned_and_readonly_payload():
    """The payload may be any buffer at any address."""
    block = np.arange(16 * 8 * 8, dtype="uint64").reshape(16, 8, 8)
    codec = DvidLabelBlock(block.shape)
    payload = b"x" + codec.encode(block)
    assert np.array_equal(codec.decode_chunk(memoryview(payload)[1:]), block)
    assert np.array_equal(codec.decode_chunk(np.frombuffer(payload, "uint8")[1:]), block)


@pytest.mark.parametrize("shape", [(8, 8, 1024), (1024, 8, 8), (8, 1024, 8), (64, 64, 64)])
def test_memory_stays_near_the_block(shape):
    """Neither coding nor hostile counts take more than a few blocks of memory."""
    rng = np.random.default_rng(0)
    block = rng.integers(0, 3, shape).astype("uint64")
    codec = DvidLabelBlock(shape)
    payload = codec.encode(block)
    hostile = payload[:12] + b"\xff" * 4 + payload[16:]
    codec.decode(payload)
    tracemalloc.start()
    assert np.array_equal(codec.decode(payload), block)
    codec.encode(block)
    for wrong in (hostile, payload[: 16 + 24] + b"\xff" * (len(payload) - 40)):
        with pytest.raises(DecodeError):
            codec.decode(wrong)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * block.nbytes


def test_threads_share_the_codec():
    """One codec works in many threads at once."""
    block = np.random.default_rng(3).integers(0, 30, (32, 32, 32)).astype("uint64")
    codec = DvidLabelBlock(block.shape)
    payload = codec.encode(block)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(got, block) for got in pool.map(codec.decode_chunk, [payload] * 16))
        assert set(pool.map(codec.encode_chunk, [block] * 16)) == {payload}


def test_sides():
    """Sides are multiples of 8 up to 1024, for codecs, arrays and announced extents; there are no channels."""
    for wrong in ((8, 8, 12), (4, 8, 8), (8, 8, 1032), (1, 8, 8, 8)):
        with pytest.raises(ValueError, match="shape must be"):
            DvidLabelBlock(wrong)
    with pytest.raises(ValueError, match="uint32"):
        DvidLabelBlock((8, 8, 8), "uint32")
    codec = DvidLabelBlock((64, 64, 64))
    with pytest.raises(EncodeError, match="multiples of 8"):
        codec.encode_chunk(np.zeros((64, 60, 64), "uint64"))
    with pytest.raises(DecodeError, match="multiples of 8"):
        codec.decode_chunk(struct.pack("<4IQ", 8, 8, 8, 1, 5), extent=(64, 64, 60))
    assert codec.get_config() == {"id": "storefs.dvid_label_block", "shape": [64, 64, 64], "dtype": "uint64"}


def test_in_a_zarr_array():
    """A zarr v3 array stores its chunks in this encoding."""
    labels = np.random.default_rng(5).integers(2**60, 2**60 + 4, (32, 20, 24)).astype("uint64")
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=labels.shape,
        chunks=(16, 16, 8),
        dtype="uint64",
        serializer=DvidLabelBlockCodec(),
        compressors=None,
        filters=None,
    )
    array[...] = labels
    assert np.array_equal(array[3:18, 5:, 17], labels[3:18, 5:, 17])
    assert array.metadata.to_dict()["codecs"][0]["name"] == "storefs.dvid_label_block"
