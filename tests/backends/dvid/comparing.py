"""Whether an emulated answer says the same as a recorded one: bodies are decoded, times and ids ignored."""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

import imagecodecs
import numpy as np
import simplejpeg

from tests.backends.dvid import label_block
from tests.backends.dvid.protobuf import fields
from tests.backends.dvid.replay import Exchange
from tests.backends.dvid.wire import Malformed, gunzip, parse_records

VOLATILE = {
    "DataUUID",
    "Created",
    "Updated",
    "MutationID",
    "SavedMutationID",
    "KVStore",
    "LogStore",
    "Log",
    "log",
    "VersionID",
}
LARGEST = 1 << 25
UNORDERED = ("supervoxels", "mappings")
RESAMPLED = ("isotropic", "arb")  # the server interpolates, the emulator does not: sizes are compared


NOT_COMPARED = {
    r"compression=google": "neuroglancer's compression is not emulated",
    r"/api/load|/api/server/info": "about the machine and its uptime",
    r"/(tif|bmp)$": "image files that no client here reads",
    r"optimized=true": "another way to partition a roi",
    r"/(pseudocolor|map-stats)": "not emulated: for viewing, and for administrators",
    r"/(lastmod|tilekey)": "internal numbers of the server",
    r"tiles_jpg/raw": "stitched from lossy tiles, the emulator's from the source",
}


def left_out(exchange: Exchange) -> str | None:
    """Why an exchange is not compared, None where it is."""
    if exchange.data["status"] != 200:
        return None
    return next((why for pattern, why in NOT_COMPARED.items() if re.search(pattern, exchange.target)), None)


def difference(exchange: Exchange, status: int | None, body: bytes) -> str | None:
    """What differs, None where nothing does."""
    if status != exchange.status:
        return f"status {status} instead of {exchange.status}: {body[:200]!r}"
    if exchange.data["method"] == "HEAD" or status is None or body == exchange.body:
        return None
    try:
        wanted, found = decoded(exchange, exchange.body), decoded(exchange, body)
    except (Malformed, ValueError, struct.error) as error:
        return f"undecodable: {error}"
    if _same(wanted, found):
        return None
    return f"{str(found)[:400]} instead of {str(wanted)[:400]}"


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return wanted.keys() == found.keys() and all(_same(wanted[key], found[key]) for key in wanted)
    if isinstance(wanted, Lossy) and isinstance(found, Lossy):
        return wanted.near(found)
    if isinstance(wanted, np.ndarray) and isinstance(found, np.ndarray):
        return wanted.shape == found.shape and wanted.tobytes() == found.tobytes()
    return type(wanted) is type(found) and bool(wanted == found)


def lz4_decompress(data: bytes, limit: int = LARGEST) -> bytes:
    """Content of one LZ4 block."""
    try:
        return bytes(imagecodecs.lz4_decode(data, out=limit))
    except imagecodecs.Lz4Error as error:
        raise Malformed(str(error)) from error


class Lossy:
    """Pixels that went through JPEG, equal to others where they are near."""

    def __init__(self, data: bytes) -> None:
        if data[:2] != b"\xff\xd8":
            self.pixels = np.frombuffer(data, np.uint8).astype(int)[None]
            return
        self.pixels = np.asarray(simplejpeg.decode_jpeg(data, "GRAY"))[:, :, 0].astype(int)

    def near(self, other: Lossy) -> bool:
        """Whether no pixel is far off, and few are at all."""
        if self.pixels.shape != other.pixels.shape:
            return False
        off = np.abs(self.pixels - other.pixels)
        return int(off.max()) <= 60 and float(off.mean()) <= 6

    def __str__(self) -> str:
        return f"jpeg of {self.pixels.shape}, mean {self.pixels.mean():.2f}"


def decoded(exchange: Exchange, body: bytes) -> Any:
    """What a body says, in a form that can be compared."""
    data = exchange.data
    words = unquote(data["path"]).strip("/").split("/")
    keyword = words[4] if words[:2] == ["api", "node"] and len(words) > 4 else ""
    query = {name: values[0] for name, values in parse_qs(data["query"], keep_blank_values=True).items()}
    content_type = data["response_headers"].get("Content-Type", "")
    if data["status"] != 200:
        return re.sub(rb"request vm\S+|IP: [\d.:]+", b"", body).replace(b"\xc2\xa0", b" ")
    if "image" in content_type:
        return _image(body, keyword)
    if keyword == "mappings" and data["method"] == "GET":
        return _pairs(body, query)
    for kind, reader in (("tar", _tar), ("json", _json)):
        if kind in content_type:
            return reader(body, keyword)
    if data["method"] == "GET" and keyword in READERS and "octet" in content_type:
        return _near(words, READERS[keyword](words, query, body))
    return body


def _image(body: bytes, keyword: str) -> Any:
    if body[:2] == b"\xff\xd8":
        lossy = Lossy(body)
        return lossy.pixels.shape if keyword in RESAMPLED else lossy
    pixels = np.asarray(imagecodecs.png_decode(body))
    return pixels.shape if keyword in RESAMPLED else pixels


def _near(words: list[str], value: Any) -> Any:
    """Voxels of a store that keeps JPEG need not be equal."""
    if words[3] != "grayscalejpeg":
        return value
    if isinstance(value, dict):
        return {at: _near(words, payload) for at, payload in value.items()}
    return Lossy(value) if isinstance(value, bytes) else value


def _pairs(body: bytes, query: dict[str, str]) -> Any:
    if query.get("format") == "binary":
        return {tuple(pair) for pair in np.frombuffer(body, "<u8").reshape(-1, 2).tolist()}
    return set(body.split(b"\n"))


def _json(body: bytes, keyword: str) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    if keyword == "supervoxel-sizes":
        return dict(zip(value["supervoxels"], value["sizes"], strict=True))
    return sorted(value) if keyword in UNORDERED else _scrubbed(value)


def _scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: len(item) if key.lower() == "log" else _scrubbed(item) for key, item in value.items()
                if key not in VOLATILE or key.lower() == "log"}  # fmt: skip
    return [_scrubbed(item) for item in value] if isinstance(value, list) else value


def _tar(body: bytes, _: str) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            found[entry.name] = content.read() if content else b""
    return found


def _raw(words: list[str], query: dict[str, str], body: bytes) -> bytes:
    form = query.get("compression", "") if words[3].startswith(("seg", "zoo", "w", "empty_seg", "neg")) else ""
    return {"lz4": lz4_decompress, "gzip": gunzip}.get(form, bytes)(body)


def _frames(words: list[str], query: dict[str, str], body: bytes) -> dict[Any, Any]:
    if b"was corrupted lz4" in body:  # one useless record, then a text: lengths depend on the compressor
        head, text = body[: body.index(b"block (")], body[body.index(b"block (") :]
        useless = {at: label_block.decode(lz4_decompress(p)) for at, p in parse_records(head).items()}
        return useless | {"text": re.sub(rb"\d+ but had \d+", b"", text)}
    return {at: _payload(payload, query.get("compression", "")) for at, payload in parse_records(body).items()}


def _payload(payload: bytes, form: str) -> Any:
    """Content of a record: pixels, labels or bytes, by what it looks like."""
    if payload[:2] == b"\xff\xd8":
        return Lossy(payload)
    content = _inflated(payload, form)
    try:
        return label_block.decode(content)
    except Malformed:
        return content


def _inflated(payload: bytes, form: str) -> bytes:
    if payload[:2] == b"\x1f\x8b":
        return gunzip(payload)
    attempts = (lz4_decompress,) if form == "lz4" else (_lz4_after_length, _snappy, lz4_decompress)
    for attempt in () if form == "uncompressed" else attempts:
        try:
            return attempt(payload)
        except Malformed:
            continue
    return payload


def _lz4_after_length(payload: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", payload)
    content = lz4_decompress(payload[4:], min(size, LARGEST))
    if len(content) != size:
        raise Malformed("another length")
    return content


def _snappy(payload: bytes) -> bytes:
    try:
        return bytes(imagecodecs.snappy_decode(payload))
    except imagecodecs.SnappyError as error:
        raise Malformed(str(error)) from error


def _block_row(words: list[str], query: dict[str, str], body: bytes) -> Any:
    return body if words[5].count("_") == 2 and words[6].lstrip("-").isdigit() else _frames(words, query, body)


def _sparsevol(words: list[str], query: dict[str, str], body: bytes) -> Any:
    form = query.get("compression", "")
    body = {"lz4": lz4_decompress, "gzip": gunzip}.get(form, bytes)(body)
    if query.get("format") == "blocks":
        return _binary_blocks(body)
    runs = np.frombuffer(body if query.get("format") == "srles" else body[12:], "<i4").reshape(-1, 4)
    lengths = runs[:, 3]
    steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    voxels = np.repeat(runs[:, :3], lengths, axis=0) + steps[:, None] * [1, 0, 0]
    return voxels[np.lexsort(voxels.T)]


def _binary_blocks(body: bytes) -> dict[tuple[int, int, int], list[bytes]]:
    gx, gy, gz, _ = struct.unpack_from("<IIIQ", body)
    found, at = {}, 20
    while at < len(body):
        x, y, z, flag = struct.unpack_from("<iiiB", body, at)
        at += 13
        parts = [b"\xff" * 64 if flag == 1 else bytes(64)] * (gx * gy * gz)
        if flag == 2:
            for number in range(len(parts)):
                kind, at = body[at], at + 1
                parts[number] = b"\xff" * 64 if kind == 1 else bytes(64)
                if kind == 2:
                    parts[number], at = body[at : at + 64], at + 64
        found[x, y, z] = parts
    return found


def _index(words: list[str], query: dict[str, str], body: bytes) -> dict[int, dict[int, int]]:
    found = {}
    for number, entry in fields(body):
        if number == 1:
            key, value = dict(fields(bytes(entry))).values()
            pairs = (dict(fields(bytes(pair))) for n, pair in fields(bytes(value)) if n == 1)
            found[int(key)] = {int(pair[1]): int(pair[2]) for pair in pairs}
    return found


READERS: dict[str, Callable[[list[str], dict[str, str], bytes], Any]] = {
    "raw": _raw,
    "isotropic": _raw,
    "blocks": _block_row,
    "specificblocks": _frames,
    "subvolblocks": _frames,
    "index": _index,
    "sparsevol": _sparsevol,
    "sparsevol-by-point": _sparsevol,
    "sparsevol-coarse": _sparsevol,
}
