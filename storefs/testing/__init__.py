"""The contract suite that every backend passes, for use in a backend's own tests. Needs pytest."""

from storefs.testing.contract import BackendContract

__all__ = ["BackendContract"]
