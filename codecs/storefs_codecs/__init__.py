"""Chunk encodings of connectomics volumes, as numcodecs codecs and zarr v3 codecs."""

from storefs_codecs.chunk_codec import ChunkCodec
from storefs_codecs.errors import DecodeError, EncodeError, MissingExtra

__all__ = ["ChunkCodec", "DecodeError", "EncodeError", "MissingExtra"]
