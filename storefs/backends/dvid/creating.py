"""Making repositories, versions and data instances: plans, and the settings that DVID understands.

A server takes settings as text only and ignores those it does not know, so all of them are made and checked here.
None of these requests is sent twice: the answer to a second would be that the thing exists already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from storefs.backends.dvid import calls
from storefs.backends.dvid.info import SETTABLE_EXTENTS, parse_json
from storefs.backends.dvid.part import ask, field_of
from storefs.plans import Call

if TYPE_CHECKING:
    from storefs.plans import Plan

Triple = tuple[int, int, int]

RESERVED = ("log", "branch", "note", "commit", "newversion", "status", "tag")
RENAMED = {
    "grayscale8": "uint8blk",
    "uint8": "uint8blk",
    "labels32": "uint32blk",
    "labels64": "labelmap",
    "rgba8": "rgba8blk",
}
_LABEL_UNIT = 16
_MOST_BACKGROUND = 255
_MOST_LEVELS = 255
_AXES = 3


class InstanceSettings(TypedDict, total=False):
    """Settings of a new instance; triples are x, y, z."""

    block_size: Sequence[int]
    voxel_size: Sequence[float]
    voxel_units: Sequence[str] | str
    min_point: Sequence[int]
    max_point: Sequence[int]  # inclusive
    background: int
    versioned: bool
    compression: str  # "lz4", "gzip:6", "jpeg", "snappy", "none"
    checksum: str  # "crc32", "none"
    tags: Mapping[str, str]
    indexed_labels: bool
    max_downres_level: int
    source: str  # of an imagetile
    tile_format: str  # of an imagetile: "png", "jpg", "lz4"


def instance_settings(typename: str, name: str, **given: Unpack[InstanceSettings]) -> dict[str, str]:
    """The settings of a new instance as DVID wants them.

    Raises ValueError for what the server would refuse, or take and regret.
    """
    block_size, compression, tags = given.get("block_size"), given.get("compression"), given.get("tags")
    _check_names(typename, name)
    _check_compression(typename, compression)
    labels = typename in ("labelmap", "labelarray")
    if block_size is not None and labels and any(n % _LABEL_UNIT for n in block_size):
        raise ValueError(f"block_size of a {typename} must be multiples of {_LABEL_UNIT}, got {tuple(block_size)}")
    if ("min_point" in given) != ("max_point" in given):
        raise ValueError("min_point and max_point are given together or not at all")
    units = given.get("voxel_units")
    indexed = given.get("indexed_labels")
    settings = {
        "typename": typename,
        "dataname": name,
        "BlockSize": _numbers("block_size", block_size, least=1),
        "VoxelSize": _numbers("voxel_size", given.get("voxel_size"), least=1e-9),
        "VoxelUnits": None if units is None else ",".join([units] * _AXES if isinstance(units, str) else units),
        "MinPoint": _numbers("min_point", given.get("min_point")),
        "MaxPoint": _numbers("max_point", given.get("max_point")),
        "Background": _small("background", given.get("background"), _MOST_BACKGROUND),
        "versioned": None if given.get("versioned", True) else "false",
        "Compression": compression,
        "Checksum": given.get("checksum"),
        "Tags": tags and ",".join(f"{key}={value}" for key, value in tags.items()),
        "MaxDownresLevel": _small("max_downres_level", given.get("max_downres_level"), _MOST_LEVELS),
        "IndexedLabels": None if indexed is None else str(indexed).lower(),
        "Source": given.get("source"),
        "Format": given.get("tile_format"),
    }
    return {key: value for key, value in settings.items() if value}


def create_instance(url: str, uuid: str, settings: Mapping[str, str]) -> Plan[None]:
    """A new data instance in the repository that holds `uuid`; see `instance_settings`.

    Extents among the settings are posted as well where the type has that, as images forget them at the first write.
    Raises NoSuchVolume, TransportError with the server's words (a locked version, a name that exists).
    """
    body = calls.to_json(dict(settings))
    yield from ask(Call(calls.repo(uuid, "instance"), method="POST", body=body, repeatable=False), url)
    if settings["typename"] in SETTABLE_EXTENTS and "MinPoint" in settings:
        low, high = ([int(n) for n in settings[key].split(",")] for key in ("MinPoint", "MaxPoint"))
        yield from post_extents(url, uuid, settings["dataname"], low, high)


def post_extents(url: str, uuid: str, name: str, min_point: Sequence[int], max_point: Sequence[int]) -> Plan[None]:
    """Say where the voxels of a version lie; `max_point` (x, y, z) is inclusive. Replaces what was said before."""
    low, high = ([int(n) for n in point] for point in (min_point, max_point))
    if len(low) != _AXES or len(high) != _AXES or any(a > b for a, b in zip(low, high, strict=True)):
        raise ValueError(f"extents {low} to {high}: expected two corners x, y, z, the lower first")
    body = calls.to_json({"MinPoint": low, "MaxPoint": high})
    yield from ask(Call(calls.node(uuid, name, "extents"), method="POST", body=body), url)


def create_repo(url: str, alias: str = "", description: str = "", root: str | None = None) -> Plan[str]:
    """A new repository; gives the uuid of its root. Raises TransportError with the server's words."""
    given = {"alias": alias, "description": description} | ({"root": root} if root else {})
    return (yield from _made(url, ("api", "repos"), given, "root"))


def new_child(
    url: str, uuid: str, *, branch: str | None = None, note: str = "", new_uuid: str | None = None
) -> Plan[str]:
    """An open child of the committed version `uuid`, on its branch or a new one; gives the child's uuid.

    Raises NoSuchVolume, TransportError with the server's words.
    """
    given = {"branch": branch, "note": note, "uuid": new_uuid}
    path = ("api", "node", uuid, "branch" if branch else "newversion")
    return (yield from _made(url, path, {key: value for key, value in given.items() if value}, "child"))


def _made(url: str, path: tuple[str, ...], given: dict[str, Any], key: str) -> Plan[str]:
    reply = yield from ask(Call(path, method="POST", body=calls.to_json(given), repeatable=False), url)
    return field_of(parse_json(reply.data, "/".join(path), url), key, str, url)


def _check_names(typename: str, name: str) -> None:
    if typename in RENAMED:
        raise ValueError(f"type {typename!r} is gone; DVID now calls it {RENAMED[typename]!r}")
    if not name or "/" in name or name in RESERVED:
        raise ValueError(f"{name!r} cannot name a data instance: not empty, no slash, none of {', '.join(RESERVED)}")


def _check_compression(typename: str, compression: str | None) -> None:
    if compression and compression.startswith("jpeg:"):
        raise ValueError(f"compression {compression!r}: the quality cannot be chosen, write 'jpeg'")
    if typename == "labelmap" and compression and not compression.startswith("gzip"):
        raise ValueError(f"a labelmap stored with {compression} cannot be read block by block: leave it at gzip")


def _numbers(what: str, values: Sequence[float] | None, least: float | None = None) -> str | None:
    if values is None:
        return None
    if len(values) != _AXES or (least is not None and any(n < least for n in values)):
        bound = "" if least is None else f" of at least {least:g}"
        raise ValueError(f"{what}: expected three numbers x, y, z{bound}, got {tuple(values)}")
    return ",".join(f"{n:.15g}" for n in values)


def _small(what: str, value: int | None, most: int) -> str | None:
    if value is None:
        return None
    if not 0 <= value <= most:
        raise ValueError(f"{what}: expected 0 to {most}, got {value}")
    return str(value)
