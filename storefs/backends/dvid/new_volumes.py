"""New voxel instances from what a user of arrays knows: shape, data type, voxel size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storefs.backends.dvid.creating import InstanceSettings, create_instance, instance_settings
from storefs.backends.dvid.info import IMAGE_TYPES, NANOMETERS
from storefs.backends.dvid.versions import find_version
from storefs.errors import TransportError, Unsupported, UrlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storefs.backends.dvid.url import Address
    from storefs.model import NewVolume
    from storefs.plans import Plan

Triple = tuple[int, int, int]

_WITH_SCALES = ("labelmap", "labelarray")
_DTYPES = {**IMAGE_TYPES, **dict.fromkeys(_WITH_SCALES, "uint64")}
_COLOUR = "rgba8blk"
_COLOURS = 4
_SPATIAL = 3
_LARGEST = (1 << 31) - 1
_NEAREST = {
    "bool": "uint8",
    "int8": "uint8",
    "int16": "uint16",
    "int32": "uint32",
    "int64": "uint64",
    "float16": "float32",
    "float64": "float32",
}


def make_volume(address: Address, volume: NewVolume) -> Plan[dict[str, Any]]:
    """Create the instance that `address` names and say at once where its voxels lie; gives the options to write it.

    Raises Unsupported, UrlError, NoSuchVolume for an unknown version, TransportError for a locked one or a name
    that is taken: all before anything is sent that changes the server.
    """
    url = address.url
    if not address.instance or address.key:
        raise UrlError("to create an instance give dvid://https://host/uuid/name", url=url)
    typename = _type_of(volume, url)
    try:
        settings = instance_settings(typename, address.instance, **_settings(volume, typename))
    except ValueError as error:
        raise UrlError(str(error), url=url) from error
    version = yield from find_version(address.version, url)
    if address.instance in version.instances:
        taken = f"{address.instance!r} ({version.instances[address.instance]}) exists in this repo, so nothing was made"
        raise TransportError(f'{taken}; open it with mode="r+", or take another name', url=url)
    if version.locked:
        locked = f"version {version.uuid} is locked, so nothing was made"
        raise TransportError(f"{locked}; create at an open child version (newversion)", url=url)
    yield from create_instance(url, version.uuid, settings)
    return {"supervoxels": True} if typename == "labelmap" else {}


def _type_of(volume: NewVolume, url: str) -> str:
    """DVID's type for `volume`, checked. Raises Unsupported."""
    channels = volume.shape[0] if len(volume.shape) > _SPATIAL else 1
    dtype = volume.dtype or _DTYPES.get(volume.type or "", "")
    typename = volume.type or (_COLOUR if channels > 1 else f"{dtype}blk")
    if not dtype and not volume.type:
        raise UrlError("say which voxels it holds: dtype=… or type=…", url=url)
    if not volume.type and dtype not in IMAGE_TYPES.values():
        near = f"; nearest is {_NEAREST[dtype]}" if dtype in _NEAREST else ""
        offered = ", ".join(dict.fromkeys(IMAGE_TYPES.values()))
        raise Unsupported(f"DVID has no {dtype}{near}; it has {offered}", url=url)
    if typename not in _DTYPES:
        hint = "others are made by storefs.dvid.Client(…).instances.create"
        raise Unsupported(f"type {typename!r} is not made here: {', '.join(_DTYPES)}; {hint}", url=url)
    if dtype != _DTYPES[typename]:
        raise Unsupported(f"a {typename} holds {_DTYPES[typename]}, not {dtype}", url=url)
    if channels != (_COLOURS if typename == _COLOUR else 1) or len(volume.shape) - _SPATIAL != (typename == _COLOUR):
        expected = "(4, z, y, x)" if typename == _COLOUR else "(z, y, x)"
        raise Unsupported(f"shape {volume.shape}: a {typename} is {expected}; 4 channels need uint8", url=url)
    if volume.scales != 1 and typename not in _WITH_SCALES:
        raise Unsupported(
            f"scales={volume.scales}: a {typename} has one; a pyramid is made of instances name, name_1, …", url=url
        )
    return typename


def _settings(volume: NewVolume, typename: str) -> InstanceSettings:
    """The settings of `volume` as DVID has them. Raises ValueError."""
    low, high = _corners(volume.shape[-_SPATIAL:], volume.offset)
    units = volume.units.lower()
    if not units or units not in NANOMETERS:
        raise ValueError(f"units: expected one of {', '.join(u for u in NANOMETERS if u)}, got {volume.units!r}")
    if volume.scales > 1 and min(low) < 0:
        raise ValueError("scales: DVID loses lower scales of labels at negative coordinates; give a larger offset")
    if volume.scales < 1:
        raise ValueError(f"scales: expected 1 or more, got {volume.scales}")
    settings: InstanceSettings = {"min_point": low, "max_point": high, "voxel_units": units}
    if volume.voxel_size is not None:
        settings["voxel_size"] = volume.voxel_size
    if volume.block_size is not None:
        settings["block_size"] = volume.block_size
    if volume.background is not None:
        settings["background"] = volume.background
    if volume.compression is not None:
        settings["compression"] = volume.compression
    if typename in _WITH_SCALES:
        settings["max_downres_level"] = volume.scales - 1
    return settings


def _corners(shape_zyx: tuple[int, ...], offset: Sequence[int]) -> tuple[Triple, Triple]:
    """First and last voxel (x, y, z). Raises ValueError."""
    if len(offset) != _SPATIAL:
        raise ValueError(f"offset: expected three numbers x, y, z, got {tuple(offset)}")
    low = tuple(int(n) for n in offset)
    high = tuple(o + n - 1 for o, n in zip(low, shape_zyx[::-1], strict=True))
    if any(n < 1 for n in shape_zyx) or min(low) < -_LARGEST or max(high) > _LARGEST:
        raise ValueError(f"shape {shape_zyx} at offset {low}: expected positive numbers within 32 bits")
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])
