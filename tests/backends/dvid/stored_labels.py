"""One stored block of labels, in whichever forms it was posted and asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from tests.backends.dvid import label_block
from tests.backends.dvid.label_block import Labels
from tests.backends.dvid.wire import gunzip, gzip_member


class StoredLabels:
    """Labels z, y, x and their compressed block, each made from the other when first needed."""

    def __init__(
        self, *, labels: Labels | None = None, block: bytes | None = None, member: bytes | None = None
    ) -> None:
        self._labels, self._block, self._member = labels, block, member

    @cached_property
    def labels(self) -> Labels:
        """The array."""
        return label_block.decode(self.block) if self._labels is None else self._labels

    @cached_property
    def block(self) -> bytes:
        """The label block; as posted where a client posted one."""
        if self._block is not None:
            return self._block
        if self._member is not None:
            return gunzip(self._member)
        assert self._labels is not None
        return label_block.encode(self._labels)

    @cached_property
    def member(self) -> bytes:
        """The label block as a gzip member."""
        return gzip_member(self.block) if self._member is None else self._member

    @cached_property
    def counts(self) -> dict[int, int]:
        """Voxels by label, without 0."""
        found, voxels = np.unique(self.labels, return_counts=True)
        return {int(label): int(count) for label, count in zip(found, voxels, strict=True) if label}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        return label_block.shape(self.block)

    def mapped(self, mapping: Mapping[int, int]) -> StoredLabels:
        """The block with labels replaced; itself where none is."""
        if not mapping or not any(int(label) in mapping for label in label_block.table(self.block)):
            return self
        return StoredLabels(block=label_block.relabel(self.block, mapping))
