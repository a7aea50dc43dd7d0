"""What all data instances share: settings given at creation, `info`, tags, and the call they answer."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.backends.dvid.answers import Asked, Refusal, Reply, as_json, octets, parse_json
from tests.backends.dvid.geometry import Point, integer, unsigned
from tests.backends.dvid.versions import Line, Node, Repo

SOURCE = "github.com/janelia-flyem/dvid/datatype/"
TYPES = {  # name: path of its source, version
    "annotation": ("annotation", "0.1"),
    "float32blk": ("imageblk/float32.go", "0.1"),
    "googlevoxels": ("googlevoxels", "0.1"),
    "imagetile": ("imagetile", "0.1"),
    "keyvalue": ("keyvalue", "0.2"),
    "labelarray": ("labelarray", "0.1"),
    "labelblk": ("labelblk", "0.1"),
    "labelmap": ("labelmap", "0.1"),
    "labelsz": ("labelsz", "0.1"),
    "labelvol": ("labelvol", "0.1"),
    "multichan16": ("multichan16", "0.1"),
    "neuronjson": ("neuronjson", "0.1"),
    "rgba8blk": ("imageblk/rgba8.go", "0.2"),
    "roi": ("roi", "0.1"),
    "tarsupervoxels": ("tarsupervoxels", "0.1"),
    "uint16blk": ("imageblk/uint16.go", "0.1"),
    "uint32blk": ("imageblk/uint32.go", "0.1"),
    "uint64blk": ("imageblk/uint64.go", "0.1"),
    "uint8blk": ("imageblk/uint8.go", "0.2"),
}
CODINGS = {"none": "No compression", "snappy": "Go Snappy compression", "lz4": "LZ4 compression"}
CHECKSUMS = {"none": "No checksum", "crc32": "CRC32 checksum"}
DEFAULT_CODING = {"labelmap": "gzip", "labelarray": "gzip", "imagetile": "none"}


@dataclass(frozen=True)
class Call:
    """A request to an instance: the words of the path after its name, the version, who may be asked for more."""

    asked: Asked
    repo: Repo
    node: Node
    line: Line
    words: list[str]
    admin: bool = False
    single_missing_block_fails: bool = True
    honours_ranges: bool = True

    @property
    def method(self) -> str:
        """The HTTP verb."""
        return self.asked.method

    @property
    def keyword(self) -> str:
        """The endpoint."""
        return self.words[0]

    @property
    def rest(self) -> list[str]:
        """The words after the endpoint."""
        return self.words[1:]

    @property
    def body(self) -> bytes:
        """The request's body."""
        return self.asked.body

    def option(self, name: str) -> str:
        """A value of the query, empty where it is not given."""
        return self.asked.options.get(name, "")

    def flag(self, name: str) -> bool:
        """Whether an option is `true` or `on`."""
        return self.option(name) in ("true", "on")


class Settings:
    """The strings an instance is created with; names in any case."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.values: dict[str, str] = {}
        for name, value in given.items():
            yes_or_no = name.lower() == "versioned" and isinstance(value, bool)
            if not isinstance(value, str) and not yes_or_no:
                raise Refusal(f"Setting for '{name}' was not a string: {_go_text(value)}")
            self.values[name.lower()] = str(value).lower() if yes_or_no else str(value)
        self.versioned = self.get("versioned", "true") != "false"

    def get(self, name: str, default: str = "") -> str:
        """One setting."""
        return self.values.get(name, default)

    def integers(self, name: str, default: str) -> list[int]:
        """Numbers separated by commas."""
        return [integer(word) for word in self.get(name, default).split(",")]

    def floats(self, name: str, default: str) -> list[float]:
        """Numbers separated by commas."""
        found = []
        for word in self.get(name, default).split(","):
            try:
                found.append(float(word))
            except ValueError:
                raise Refusal(f'strconv.ParseFloat: parsing "{word}": invalid syntax') from None
        return found

    def corner(self, name: str) -> Point | None:
        """A point, None where it is not given."""
        if name not in self.values:
            return None
        x, y, z = self.integers(name, "")
        return x, y, z

    def small(self, name: str) -> int:
        """A number that fits a byte."""
        return unsigned(self.get(name, "0"), 8)


def _go_text(value: Any) -> str:
    return "[" + " ".join(str(item) for item in value) + "]" if isinstance(value, list) else str(value)


class Instance:
    """Base of the data types. Subclasses list `endpoints` and say what `extended` shows."""

    reads_by_post: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ("GET", "POST")

    def __init__(self, name: str, typename: str, node: Node, settings: Settings) -> None:
        self.name, self.typename, self.versioned = name, typename, settings.versioned
        self.coding, _, level = settings.get("compression", DEFAULT_CODING.get(typename, "lz4")).partition(":")
        if self.coding not in (*CODINGS, "gzip", "jpeg") or (level and self.coding != "gzip"):
            raise Refusal(f"Illegal compression specified: {settings.get('compression')}")
        self.gzip_level = integer(level) if level else -1
        self.checksum = CHECKSUMS[settings.get("checksum", "none")]
        self.uuid, self.made_in = uuids.uuid4().hex, node.uuid
        pairs = [pair.partition("=") for pair in settings.get("tags").split(",") if pair]
        self.tags: dict[str, str] | None = {key: value for key, _, value in pairs} or None
        self.endpoints: dict[str, Callable[[Call], Reply]] = {"info": self.info}

    def line(self, call: Call) -> Line:
        """Versions whose values the call sees; one for all where the instance is unversioned."""
        return call.line if self.versioned else (0,)

    def answer(self, call: Call) -> Reply:
        """Answer a call; Refusal for an unknown endpoint or verb."""
        if call.method not in self.verbs:
            raise Refusal(f'Data "{self.name}" can only handle GET or POST HTTP verbs')
        endpoint = self.endpoints.get(call.keyword)
        if endpoint is None:
            raise self.bad_call(call)
        return endpoint(call)

    def bad_call(self, call: Call) -> Refusal:
        """For an endpoint that the type does not have."""
        return Refusal(
            f'Bad API call ({call.asked.path}) for data "{self.name}".  '
            f"See API help at http://localhost:8000/api/help/{self.typename}\n",
            bare=True,
        )

    def info(self, call: Call) -> Reply:
        """GET `info`."""
        if call.method != "GET":
            raise Refusal("info endpoint only supports GET HTTP verb")
        return as_json(self.described(self.line(call)))

    def described(self, line: Line, *, whole_repo: bool = False) -> dict[str, Any]:
        """The instance in `info` of itself and of the repository."""
        path, version = TYPES[self.typename]
        return {
            "Base": {
                "TypeName": self.typename,
                "TypeURL": SOURCE + path,
                "TypeVersion": version,
                "DataUUID": self.uuid,
                "Name": self.name,
                "RepoUUID": self.made_in,
                "Compression": self._coding_text(),
                "Checksum": self.checksum,
                "Syncs": [],
                "Versioned": self.versioned,
                "KVStore": "badger @ /srv/dvid/db",
                "LogStore": "write logs @ /srv/dvid/log",
                "Tags": self.tags,
            },
            "Extended": self.extended(line),
        }

    def _coding_text(self) -> str:
        if self.coding == "jpeg":
            return "jpeg compression, level 64"
        return f"{CODINGS.get(self.coding, 'gzip compression')}, level {self.gzip_level}"

    def extended(self, line: Line) -> dict[str, Any]:
        """What the type adds."""
        return {}

    def tags_endpoint(self, call: Call) -> Reply:
        """GET and POST `tags`, of the types that have it."""
        if call.method == "GET":
            return as_json({"Tags": self.tags})
        self.tags = {**(self.tags or {}), **parse_json(call.body, dict, "map[string]string")}
        return octets()
