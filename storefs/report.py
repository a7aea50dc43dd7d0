"""Summaries on the terminal: a table of scales, a tree of arrays. Plain text where the output is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from storefs.history import draw
from storefs.summary import count_text, number_text, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from storefs.backend import MirrorState
    from storefs.summary import ScaleSummary, VersionSummary, VolumeSummary

NM_IN_UM = 1000


def info(volume: VolumeSummary) -> RenderableType:
    """Of every repository its history, of every group with arrays its facts, then one row a scale and one a mirror.

    Columns go along the axes as they are shown. Groups that are only listed come as a table of their names.
    """
    parts: list[RenderableType] = [_unwrapped(volume.url)]
    shown = [group for group in volume.walk() if group.scales or group.instances or group.versions]
    for group in shown:
        if not group.scales:
            parts += ["", _repository(group)]
            continue
        if group.path:
            parts += ["", _unwrapped(group.path, f"  {group.title}" if group.title else "")]
        parts += [_facts(group), "", _scales(group)]
        parts += [
            Text(f"scale {scale.path} cannot be read: {scale.unsupported}", style="red")
            for scale in group.scales
            if scale.unsupported
        ]
        if group.mirrors:
            parts += ["", _mirrors(group.mirrors)]
            parts += [Text(f"{_name(m)}: {m.problem}", style="red") for m in group.mirrors if m.problem]
    listed = [group for group in volume.walk() if group.path and group not in shown]
    if listed and not any(group.instances or group.versions for group in shown):
        parts += ["", _directory(listed)]
        parts += [Text(f"{group.path}: {group.problem}", style="red") for group in listed if group.problem]
    return Group(*parts, *([] if shown or listed else ["no arrays"]))


def tree(volume: VolumeSummary, parent: Tree | None = None) -> Tree:
    """The zarr hierarchy as it will be opened."""
    count = len(volume.scales)
    facts = f"  {volume.format}, {count} scale{'s' * (count != 1)}" if count else ""
    if volume.size_xyz and not count:
        facts = f"  {' x '.join(map(str, volume.size_xyz))} voxels"
    if volume.problem:
        facts = f"  cannot be opened: {volume.problem}"
    label = _unwrapped(volume.name or volume.path or "/", f"{'  ' + volume.title if volume.title else ''}{facts}")
    branch = Tree(label) if parent is None else parent.add(label)
    if volume.versions and volume.version is None:
        _list(volume.instances, branch.add("instances"))
        draw(volume.versions, branch.add("versions"))
    for scale in volume.scales:
        voxel = " x ".join(map(number_text, _space(volume, scale.voxel_nm)))
        details = [scale.dtype, _encoding(scale), f"{voxel} nm", size_text(scale.nbytes)]
        name = scale.path.rpartition("/")[2]
        branch.add(_unwrapped(name, f"  ({', '.join(map(str, scale.shape))})  {', '.join(details)}"))
    if volume.mirrors:
        places = branch.add("mirrors")
        for mirror in volume.mirrors:
            state = f"not ok: {mirror.problem}" if mirror.problem else "ok"
            details = [mirror.kind, _tiles(mirror), f"{state}{', read' if mirror.is_read else ''}"]
            places.add(_unwrapped(mirror.title or str(mirror.id), f"  {', '.join(details)}"))
    for group in volume.groups:
        tree(group, branch)
    if volume.version is not None:
        shown = [name for group in volume.groups for name in _instances_of(group, volume.instances)]
        _list({name: kind for name, kind in volume.instances.items() if name not in shown}, branch)
    return branch


def _instances_of(group: VolumeSummary, instances: Mapping[str, str]) -> list[str]:
    """The instances that `group` shows: its own, and those of its lower scales."""
    lower = (f"{group.name}_{number}" for number in range(1, len(group.scales)))
    return [group.name, *(name for name in lower if instances.get(name) == instances.get(group.name))]


def _list(instances: Mapping[str, str], branch: Tree) -> None:
    for name, kind in sorted(instances.items()):
        branch.add(_unwrapped(name, f"  {kind}"))


def _repository(volume: VolumeSummary) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_row("repo", Text(volume.name))
    if volume.remark:
        facts.add_row("about", Text(volume.remark))
    if volume.version is not None:
        facts.add_row("version", _state(volume.version))
    kinds: dict[str, list[str]] = {}
    for name, kind in sorted(volume.instances.items()):
        kinds.setdefault(str(kind), []).append(name)
    for kind, names in sorted(kinds.items()):
        facts.add_row(kind, Text(", ".join(names)))
    history = Tree(f"{len(volume.versions)} version{'s' * (len(volume.versions) != 1)}")
    draw(volume.versions, history, volume.version.name if volume.version else None)
    return Group(facts, "", history)


def _state(version: VersionSummary) -> Text:
    branch = f", branch {version.branch}" if version.branch else ""
    return Text(f"{version.name}{branch}, {'locked' if version.locked else 'open'}", no_wrap=True, overflow="ignore")


def _unwrapped(name: str, rest: str = "") -> Text:
    return Text.assemble((name, "bold"), rest, no_wrap=True, overflow="ignore")


def _facts(volume: VolumeSummary) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    finest = volume.scales[0]
    channels = f", {volume.channels} channels" if volume.channels > 1 else ""
    what = f"{volume.format} {volume.type or 'volume'}, {volume.dtype}{channels}"
    facts.add_row("what", Text(f"{what}, {count_text(finest.voxels)} voxels"))
    stored: dict[str, list[str]] = {}
    for scale in volume.scales:
        stored.setdefault(_encoding(scale), []).append(scale.path)
    for encoding, paths in stored.items():
        where = f"  (scale {', '.join(paths)})" if len(stored) > 1 else ""
        facts.add_row("stored", Text(encoding + where))
    size = zip(volume.axes, finest.shape, finest.voxel_nm, strict=True)
    extent = ", ".join(f"{axis} {n * nm / NM_IN_UM:.4g}" for axis, n, nm in size if axis != "c")
    for name, text in volume.place.items():
        facts.add_row(name, Text(text))
    facts.add_row("extent", f"{extent} \N{MICRO SIGN}m")
    if volume.version is not None:
        facts.add_row("version", _state(volume.version))
    if volume.remark:
        facts.add_row("note", Text(volume.remark))
    facts.add_row("order", f"{' '.join(volume.axes)} in every column below")
    return facts


def _scales(volume: VolumeSummary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, collapse_padding=True)
    for name in ("scale", "shape", "chunks", "voxel nm", "offset", "size"):
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
    for scale in volume.scales:
        along = (scale.shape, scale.chunks, _space(volume, scale.voxel_nm), _space(volume, scale.first_voxel))
        columns = (" ".join(map(number_text, numbers)) for numbers in along)
        table.add_row(scale.path, *columns, size_text(scale.nbytes))
    return table


def _directory(groups: Sequence[VolumeSummary]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, collapse_padding=True)
    for name in ("path", "title", "size x y z"):
        table.add_column(name, overflow="fold")
    for group in groups:
        size = " ".join(map(str, group.size_xyz or ()))
        table.add_row(*map(Text, (group.path, group.title or group.name, size)))
    return table


def _mirrors(mirrors: Sequence[MirrorState]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, collapse_padding=True)
    for name in ("mirror", "id", "type", "tiles", "state", "address"):
        table.add_column(name, overflow="fold")
    for mirror in mirrors:
        state = "not ok" if mirror.problem else "ok"
        row = [mirror.title or "-", "-" if mirror.id is None else str(mirror.id), mirror.kind, _tiles(mirror)]
        table.add_row(*map(Text, [*row, f"{state}{', read' if mirror.is_read else ''}", mirror.url]))
    return table


def _tiles(mirror: MirrorState) -> str:
    width, height = mirror.tile_size
    return f"{width} x {height} {mirror.extension}".rstrip()


def _name(mirror: MirrorState) -> str:
    title = f" {mirror.title}" if mirror.title else ""
    return f"mirror{title}" if mirror.id is None else f"mirror {mirror.id}{title}"


def _encoding(scale: ScaleSummary) -> str:
    if scale.blocks_xyz is not None:
        return f"blocks of {'x'.join(map(str, scale.blocks_xyz))}"
    block = scale.encoding_options.get("block_size")
    detail = f" ({'x'.join(map(str, block))} blocks)" if block else ""
    return f"{scale.encoding}{detail}{', sharded' if scale.sharded else ''}"


def _space(volume: VolumeSummary, along: tuple[float, ...]) -> list[float]:
    return [number for number, axis in zip(along, volume.axes, strict=True) if axis != "c"]
