"""Lower scales of labels as the server makes them: 2x2x2 majority that ignores 0, ties to the smallest label."""

from __future__ import annotations

import numpy as np

from tests.backends.dvid.label_block import Labels


def halved(labels: Labels) -> Labels:
    """Labels z, y, x of half the size on each side."""
    z, y, x = (side // 2 for side in labels.shape)
    cells = labels.reshape(z, 2, y, 2, x, 2).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 8)
    first = cells[:, 0].copy()
    mixed = np.flatnonzero((cells != first[:, None]).any(axis=1))
    if mixed.size:
        ordered = np.sort(cells[mixed], axis=1)
        votes = (ordered[:, :, None] == ordered[:, None, :]).sum(axis=2)
        votes[ordered == 0] = 0
        first[mixed] = np.take_along_axis(ordered, votes.argmax(axis=1)[:, None], axis=1)[:, 0]
    return first.reshape(z, y, x)
