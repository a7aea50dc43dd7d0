"""Data instances: creating them, and what they say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from storefs.backends.dvid import calls
from storefs.backends.dvid.creating import InstanceSettings, create_instance, instance_settings, post_extents
from storefs.backends.dvid.part import Part, asked
from storefs.backends.dvid.voxels_metadata import VoxelsMetadata
from storefs.errors import MetadataError
from storefs.plans import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storefs.plans import Plan

Corners = tuple[tuple[int, int, int], tuple[int, int, int]]


class Instances(Part):
    """Data instances of a version."""

    @asked
    def create(self, /, uuid: str, typename: str, name: str, **settings: Unpack[InstanceSettings]) -> Plan[None]:
        """A new instance, seen from every version of the repository.

        Settings: block_size, voxel_size, voxel_units, min_point, max_point (inclusive), all x, y, z; background,
        versioned, compression ("lz4", "gzip:6", "jpeg", "snappy", "none"), checksum ("crc32"), tags,
        indexed_labels, max_downres_level; source and tile_format of an imagetile. Raises ValueError for what the
        server would refuse.
        """
        yield from create_instance(self._connection.url, uuid, instance_settings(typename, name, **settings))

    @asked
    def create_from_metadata(self, uuid: str, name: str, metadata: VoxelsMetadata) -> Plan[None]:
        """A new voxel instance that fits `metadata`: type, resolution and units."""
        settings = instance_settings(metadata.typename, name, **metadata.settings)
        yield from create_instance(self._connection.url, uuid, settings)

    @asked
    def names(self, uuid: str) -> Plan[dict[str, str]]:
        """Type by name of all instances of the repository."""
        repo = yield from self._ask_json(Call(calls.repo(uuid, "info")))
        found = repo.get("DataInstances") or {}
        return {name: str(item["Base"]["TypeName"]) for name, item in found.items()}

    @asked
    def info(self, uuid: str, name: str) -> Plan[dict[str, Any]]:
        """What the instance says of itself: `Base`, `Extended`, and for most voxel types `Extents`."""
        return (yield from self._ask_json(Call(calls.node(uuid, name, "info"))))  # type: ignore[no-any-return]  # JSON

    @asked
    def metadata(self, uuid: str, name: str) -> Plan[VoxelsMetadata]:
        """Axes, extents and data type of a voxel instance."""
        return VoxelsMetadata((yield from self._ask_json(Call(calls.node(uuid, name, "metadata")))))

    @asked
    def extents(self, uuid: str, name: str) -> Plan[Corners | None]:
        """First and last voxel (x, y, z, inclusive) said to be there; None where nothing is."""
        info = yield from self._ask_json(Call(calls.node(uuid, name, "info")))
        extended = info.get("Extended") if isinstance(info, dict) else None
        if not isinstance(extended, dict):
            raise MetadataError(f"info: Extended: expected an object, got {extended!r}", url=self._connection.url)
        low, high = extended.get("MinPoint"), extended.get("MaxPoint")
        if low is None or high is None:
            return None
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    @asked
    def set_extents(self, uuid: str, name: str, min_point: Sequence[int], max_point: Sequence[int]) -> Plan[None]:
        """Say where voxels lie: corners x, y, z, the last inclusive. Replaces what was said; clips nothing."""
        yield from post_extents(self._connection.url, uuid, name, min_point, max_point)

    @asked
    def set_resolution(self, uuid: str, name: str, voxel_size: Sequence[float]) -> Plan[None]:
        """Change the size of a voxel (x, y, z) of the whole instance; its units cannot be changed."""
        if len(voxel_size) != 3 or any(n <= 0 for n in voxel_size):  # noqa: PLR2004  # x, y and z
            raise ValueError(f"voxel_size: expected three positive numbers x, y, z, got {tuple(voxel_size)}")
        yield from self._post_json(calls.node(uuid, name, "resolution"), [float(n) for n in voxel_size])
        self._connection.instances.clear()
