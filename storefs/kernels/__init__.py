"""Compiled kernels that are about more than chunks in memory; as `storefs_codecs.kernels` says."""
