"""Blocks of a store of precomputed data, which may be clipped where the volume ends."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg

from storefs.backends.dvid.blocks import assemble
from storefs.backends.dvid.frames import Frame
from storefs.backends.dvid.info import parse_instance
from storefs_codecs import DecodeError

INFO = {
    "Base": {"TypeName": "uint8blk", "Name": "gray", "Compression": "jpeg compression, level 80"},
    "Extended": {
        "BlockSize": [16, 16, 16],
        "VoxelSize": [8, 8, 8],
        "VoxelUnits": ["nanometers"] * 3,
        "MinPoint": [0, 0, 0],
        "MaxPoint": [20, 12, 16],
        "GridStore": "store",
    },
}


def jpeg(shape: tuple[int, int, int], level: int) -> memoryview:
    flat = np.full((shape[0] * shape[1], shape[2], 1), level, np.uint8)
    return memoryview(simplejpeg.encode_jpeg(flat, colorspace="GRAY"))


def test_clipped_blocks_are_placed():
    """Whole and clipped blocks end up in their places; MaxPoint is the size of such a store."""
    instance = parse_instance(INFO, "dvid")
    assert instance.stop_point == (20, 12, 16)
    frames = [Frame((0, 0, 0), jpeg((16, 16, 16), 50)), Frame((1, 0, 0), jpeg((16, 12, 4), 90))]
    out = np.zeros((16, 12, 20), np.uint8)
    assert assemble(frames, instance, (0, 0, 0), out)
    assert (out[..., :16] == 50).all()
    assert (out[..., 16:] == 90).all()


def test_blocks_of_any_other_size_raise():
    """An image that is neither the block nor its clipped part is an error."""
    out = np.zeros((16, 12, 20), np.uint8)
    with pytest.raises(DecodeError):
        assemble([Frame((1, 0, 0), jpeg((16, 12, 5), 90))], parse_instance(INFO, "dvid"), (0, 0, 0), out)
