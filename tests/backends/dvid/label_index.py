"""The label index and the mapping of supervoxels to bodies, by version.

Emulated: without `mutate` writes only ever add to the counts, so data posted twice count twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tests.backends.dvid.answers import Refusal
from tests.backends.dvid.geometry import Point
from tests.backends.dvid.stored_labels import StoredLabels
from tests.backends.dvid.versions import Line, Versioned

Counts = dict[Point, dict[int, int]]


class LabelIndex:
    """Voxels of each supervoxel in each block, by body."""

    def __init__(self) -> None:
        self._bodies: Versioned[int, Counts] = Versioned()
        self._mapping: Versioned[int, int] = Versioned()
        self._flat: dict[Line, dict[int, int]] = {}

    def mapping(self, line: Line) -> Mapping[int, int]:
        """Bodies of the supervoxels that were mapped."""
        if line not in self._flat:
            self._flat[line] = dict(self._mapping.items(line))
        return self._flat[line]

    def map(self, line: Line, supervoxels: Iterable[int], body: int) -> None:
        """Show supervoxels as a body."""
        for supervoxel in supervoxels:
            self._mapping.put(supervoxel, line, body)
        self._flat.clear()

    def body(self, label: int, line: Line) -> Counts | None:
        """Counts of a body by block."""
        return self._bodies.get(label, line)

    def bodies(self, line: Line) -> dict[int, Counts]:
        """All bodies, in order."""
        return dict(sorted(self._bodies.items(line)))

    def supervoxels(self, label: int, line: Line) -> set[int]:
        """Supervoxels of a body."""
        return {supervoxel for block in (self.body(label, line) or {}).values() for supervoxel in block}

    def add(self, line: Line, written: Iterable[tuple[Point, StoredLabels | None, StoredLabels]]) -> None:
        """Count blocks that were written: where, what to subtract, what to add."""
        mapping = self.mapping(line)
        changes: dict[int, dict[Point, dict[int, int]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
        for at, old, new in written:
            for supervoxel, count in new.counts.items():
                changes[mapping.get(supervoxel, supervoxel)][at][supervoxel] += count
            for supervoxel, count in (old.counts if old else {}).items():
                changes[mapping.get(supervoxel, supervoxel)][at][supervoxel] -= count
        for label, blocks in changes.items():
            counts = {at: dict(found) for at, found in (self.body(label, line) or {}).items()}
            for at, deltas in blocks.items():
                here = counts.setdefault(at, {})
                for supervoxel, delta in deltas.items():
                    here[supervoxel] = here.get(supervoxel, 0) + delta
            self._keep(label, line, counts)

    def _keep(self, label: int, line: Line, counts: Counts) -> None:
        kept = {at: {sv: n for sv, n in found.items() if n > 0} for at, found in counts.items()}
        kept = {at: found for at, found in kept.items() if found}
        if kept:
            self._bodies.put(label, line, kept)
        else:
            self._bodies.delete(label, line)

    def merge(self, line: Line, target: int, others: list[int]) -> None:
        """Make bodies part of another; Refusal where one does not exist."""
        for label in (target, *others):
            if self.body(label, line) is None:
                raise Refusal(f"Error on merge: can't merge non-existent label {label}")
        for label in others:
            self._move(line, label, target, self.supervoxels(label, line))
            self.map(line, [label], target)

    def cleave(self, line: Line, label: int, fresh: int, supervoxels: list[int]) -> None:
        """Make a new body of some of another's supervoxels."""
        if not set(supervoxels) < self.supervoxels(label, line):
            raise Refusal(f"cannot cleave all or foreign supervoxels from body {label}")
        self._move(line, label, fresh, set(supervoxels))
        self.map(line, [fresh], 0)

    def _move(self, line: Line, source: int, target: int, supervoxels: set[int]) -> None:
        left = {at: dict(found) for at, found in (self.body(source, line) or {}).items()}
        grown = {at: dict(found) for at, found in (self.body(target, line) or {}).items()}
        for at, found in left.items():
            for supervoxel in supervoxels & set(found):
                here = grown.setdefault(at, {})
                here[supervoxel] = here.get(supervoxel, 0) + found.pop(supervoxel)
        self._keep(source, line, left)
        self._keep(target, line, grown)
        self.map(line, supervoxels, target)


def voxels(counts: Counts) -> int:
    """Number of voxels of a body."""
    return sum(sum(found.values()) for found in counts.values())
