"""Questions about labels of a labelmap: mapping, sizes, supervoxels, the highest label; merge and cleave."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tests.backends.dvid.answers import Refusal, Reply, absent, as_json, json_text, octets, parse_json, text
from tests.backends.dvid.geometry import unsigned
from tests.backends.dvid.instance import Call
from tests.backends.dvid.label_index import Counts, voxels
from tests.backends.dvid.labels import json_list
from tests.backends.dvid.protobuf import bytes_field, fields, packed, varint_field

if TYPE_CHECKING:
    from tests.backends.dvid.labelmap import LabelMap

Endpoint = Callable[[Call], Reply]
NEED_INDEX = (
    *("maxlabel", "nextlabel", "merge", "cleave", "index", "supervoxel-sizes", "existing-labels", "listlabels"),
    *("lastmod", "sparsevol", "sparsevol-size", "sparsevol-coarse", "sparsevol-by-point"),
)


class LabelQueries:
    """Endpoints of one labelmap that need no voxels."""

    def __init__(self, volume: LabelMap) -> None:
        self._volume = volume

    def endpoints(self) -> dict[str, Endpoint]:
        """By keyword."""
        found: dict[str, Endpoint] = {
            "mapping": self.mapping,
            "mappings": self.mappings,
            "supervoxels": self.supervoxels,
            "supervoxel-sizes": self.supervoxel_sizes,
            "size": self.size,
            "sizes": self.sizes,
            "maxlabel": self.max_label,
            "nextlabel": self.next_label,
            "existing-labels": lambda call: as_json(list(self._bodies(call))),
            "listlabels": self.list_labels,
            "merge": self.merge,
            "cleave": self.cleave,
            "index": self.index,
            "lastmod": self.last_mod,
            "mutations": lambda call: text("[]"),
            "sync": self.sync,
        }
        return {name: indexed_only(self._volume, name, endpoint) for name, endpoint in found.items()}

    def _bodies(self, call: Call) -> dict[int, Counts]:
        return self._volume.index.bodies(self._volume.line(call))

    def _counts(self, call: Call, label: int) -> Counts | None:
        line, index = self._volume.line(call), self._volume.index
        if not call.flag("supervoxels"):
            return index.body(label, line)
        body = index.body(index.mapping(line).get(label, label), line) or {}
        return {at: {label: found[label]} for at, found in body.items() if label in found} or None

    def mapping(self, call: Call) -> Reply:
        """GET `mapping` with a list of supervoxels as body; 0 for those that are not known."""
        line, index = self._volume.line(call), self._volume.index
        known = index.mapping(line)
        labels = json_list(call.body, "mapping")
        return as_json([known.get(label, label if index.body(label, line) else 0) for label in labels])

    def mappings(self, call: Call) -> Reply:
        """GET all pairs as text or binary; POST protobuf."""
        line = self._volume.line(call)
        if call.method == "POST":
            for _, operation in fields(call.body):
                parts = list(fields(bytes(operation)))
                body = next(int(value) for number, value in parts if number == 2)
                self._volume.index.map(line, (sv for n, value in parts if n == 3 for sv in packed(value)), body)
            return octets()
        pairs = sorted(self._volume.index.mapping(line).items())
        if call.option("format") == "binary":
            return octets(np.array(pairs, "<u8").tobytes())
        return text("".join(f"{supervoxel} {body}\n" for supervoxel, body in pairs))

    def supervoxels(self, call: Call) -> Reply:
        """GET `supervoxels/label`."""
        found = self._volume.index.supervoxels(unsigned(call.rest[0]), self._volume.line(call))
        return as_json(sorted(found)) if found else absent()

    def supervoxel_sizes(self, call: Call) -> Reply:
        """GET `supervoxel-sizes/label`."""
        counts = self._counts(call, unsigned(call.rest[0])) or {}
        found: dict[int, int] = {}
        for block in counts.values():
            for label, count in block.items():
                found[label] = found.get(label, 0) + count
        return as_json({"supervoxels": list(found), "sizes": list(found.values())})

    def size(self, call: Call) -> Reply:
        """GET `size/label`."""
        label = unsigned(call.rest[0])
        if label == 0:
            raise Refusal("Label 0 is protected background value and cannot be queried as body.\n")
        counts = self._counts(call, label)
        return json_text(f'{{"voxels": {voxels(counts)}}}') if counts else absent()

    def sizes(self, call: Call) -> Reply:
        """GET `sizes` with a list of labels as body."""
        return as_json([voxels(self._counts(call, label) or {}) for label in json_list(call.body, "sizes")])

    def max_label(self, call: Call) -> Reply:
        """GET `maxlabel`; POST `maxlabel/n` for the administrator."""
        volume = self._volume
        if call.method == "POST":
            if not call.admin:
                raise Refusal("POST /maxlabel requires admin privileges (admintoken or DSG admin)")
            volume.raise_max(call.node.version, unsigned(call.rest[0]))
            return octets()
        for version in call.line:
            if version in volume.max_label:
                return json_text(f'{{"maxlabel": {volume.max_label[version]}}}')
        raise Refusal(f"No maximum label found for {volume.name} version {call.node.version}\n")

    def next_label(self, call: Call) -> Reply:
        """GET `nextlabel`; POST `nextlabel/count` reserves labels."""
        first = self._volume.max_repo_label + 1
        if call.method == "GET":
            return json_text(f'{{"nextlabel": {first}}}')
        last = first + unsigned(call.rest[0]) - 1
        self._volume.max_repo_label = last
        return json_text(f'{{"start": {first}, "end": {last}}}')

    def list_labels(self, call: Call) -> Reply:
        """GET `listlabels[?sizes=true&number=]`: uint64 labels, or pairs of label and size."""
        found = self._bodies(call)
        chosen = list(found.items())[: int(call.option("number") or len(found))]
        if call.flag("sizes"):
            return octets(np.array([(label, voxels(counts)) for label, counts in chosen], "<u8").tobytes())
        return octets(np.array([label for label, _ in chosen], "<u8").tobytes())

    def merge(self, call: Call) -> Reply:
        """POST `merge`: [target, others...]."""
        labels = list(parse_json(call.body, list, "[]uint64"))
        if len(labels) < 2:
            shown = " ".join(str(label) for label in labels)
            raise Refusal(f"invalid merge tuple [{shown}], need at least target and to-merge labels")
        self._volume.index.merge(self._volume.line(call), labels[0], labels[1:])
        return json_text(f'{{"MutationID": {call.repo.next_mutation()}}}')

    def cleave(self, call: Call) -> Reply:
        """POST `cleave/label`: the supervoxels become a new body."""
        volume, supervoxels = self._volume, list(parse_json(call.body, list, "[]uint64"))
        fresh = volume.max_repo_label + 1
        volume.index.cleave(volume.line(call), unsigned(call.rest[0]), fresh, supervoxels)
        volume.raise_max(call.node.version, fresh)
        return json_text(f'{{"CleavedLabel": {fresh}, "MutationID": {call.repo.next_mutation()}}}')

    def index(self, call: Call) -> Reply:
        """GET `index/label`: protobuf of blocks and counts, without times."""
        label = unsigned(call.rest[0])
        counts = self._counts(call, label)
        if counts is None:
            return absent()
        out = b""
        for at, found in sorted(counts.items()):
            inner = b"".join(bytes_field(1, varint_field(1, sv) + varint_field(2, n)) for sv, n in found.items())
            out += bytes_field(1, varint_field(1, block_key(at)) + bytes_field(2, inner))
        return octets(out + varint_field(2, label))

    def last_mod(self, call: Call) -> Reply:
        """GET `lastmod/label`: made up, but for the shape."""
        return as_json({"mutation id": call.repo.mutations} | dict.fromkeys(f"last mod {w}" for w in ("user", "app")))

    def sync(self, call: Call) -> Reply:
        """POST `sync` is taken and ignored."""
        if call.method != "POST":
            raise Refusal("Only POST allowed to sync endpoint")
        return octets()


def indexed_only(volume: LabelMap, name: str, endpoint: Endpoint) -> Endpoint:
    """The endpoint, refused where the instance keeps no index."""

    def guarded(call: Call) -> Reply:
        if name in NEED_INDEX and not volume.indexed:
            why = f'is not label indexed (IndexedLabels=false): "{name}" endpoint is not supported'
            raise Refusal(f'data "{volume.name}" {why}')
        return endpoint(call)

    return guarded


def block_key(at: tuple[int, int, int]) -> int:
    """Block coordinate as the index packs it: 21 bits each, sign and magnitude, x lowest."""
    x, y, z = ((n if n >= 0 else -n | 1 << 20) for n in at)
    return z << 42 | y << 21 | x
