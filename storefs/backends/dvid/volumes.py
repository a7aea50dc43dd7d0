"""Boxes of voxels through `raw`: any box is read, whole blocks are written.

Voxels go straight from the connection into the array's memory and back; only labels, which travel compressed, are
held in both forms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING

import imagecodecs
import numpy as np

from storefs.backends.dvid import calls
from storefs.backends.dvid.blocks import lz4
from storefs.backends.dvid.boxes import Axes, Box, BoxLike, read_box, sized_box, triple
from storefs.backends.dvid.part import Part, asked
from storefs.backends.dvid.roi import parse_block
from storefs.backends.dvid.sinks import FileSink, MemorySink
from storefs.errors import Unsupported
from storefs.plans import Call
from storefs_codecs.errors import DecodeError
from storefs_codecs.jpeg import Jpeg

if TYPE_CHECKING:
    from storefs.backends.dvid.info import Instance
    from storefs.plans import Plan
    from storefs_codecs.chunk_codec import Array

_LARGEST_REPLY = 3 << 30
_LARGEST_LZ4 = (1 << 31) - (1 << 24)
_SLACK = 1 << 16


class Volumes(Part):
    """Boxes of voxels of the image and label types."""

    @asked
    def read(
        self,
        uuid: str,
        name: str,
        box: BoxLike,
        *,
        axes: Axes = "zyx",
        scale: int = 0,
        supervoxels: bool = False,
        roi: str | None = None,
    ) -> Plan[Array]:
        """The voxels of `box`: zyx, C order (czyx with channels), or a transposed view of that for `axes="xyz"`.

        What is not stored is 0; extents clip nothing. `scale`, at which the box is counted, and `supervoxels` are
        for labels; outside `roi` (of the same block size) voxels are the background. Raises ValueError for an
        impossible box, DecodeError.
        """
        instance = yield from self._voxels(uuid, name)
        place = read_box(box, axes)
        if instance.is_label:
            yield from self._check_roi(uuid, instance, roi)
            query = self._label_query(instance, scale, roi, supervoxels=supervoxels)
            voxels = yield from self._read_labels(uuid, instance, place, query)
        else:
            _check_plain(instance, scale)
            yield from self._check_roi(uuid, instance, roi)
            query = (*self._throttled(), *((("roi", roi),) if roi else ()))
            voxels = yield from self._read_image(uuid, instance, place, query)
        return voxels if axes == "zyx" else voxels.T

    @asked
    def read_jpeg(self, uuid: str, name: str, box: BoxLike, *, axes: Axes = "zyx") -> Plan[Array]:
        """The voxels of a uint8 `box` as the server's JPEG shows them: lossy, about a tenth of the bytes."""
        instance = yield from self._voxels(uuid, name)
        if instance.typename != "uint8blk":
            raise Unsupported(f"{name} is {instance.typename}: JPEG is for uint8blk", url=self._connection.url)
        place = read_box(box, axes)
        path = (*_raw(uuid, name, place), "jpg")
        reply = yield from self._ask(Call(path, query=self._throttled(), limit=4 * place.voxels + _SLACK))
        voxels: Array = Jpeg(place.shape, "uint8").decode_chunk(reply.data)
        return voxels if axes == "zyx" else voxels.T

    @asked
    def save(self, uuid: str, name: str, box: BoxLike, file: IO[bytes], *, axes: Axes = "zyx") -> Plan[int]:
        """Write the voxels of `box` to `file` as the server sends them: x fastest, channels together, little-endian.

        Gives the number of bytes. Nothing is held; `file` should be able to seek, for an answer that breaks off.
        """
        instance = yield from self._voxels(uuid, name)
        place, sink = read_box(box, axes), FileSink(file)
        expected = _nbytes(instance, place)
        if _is_single_block(instance, place):
            file.write((yield from self._read_labels(uuid, instance, place, self._throttled())).tobytes())
            return expected
        whole = yield from self._ask(
            Call(_raw(uuid, name, place), query=self._throttled(), into=sink, limit=expected + _SLACK)
        )
        if sink.length != expected:
            self._fail(f"{name}: expected {expected} bytes, got {sink.length} (status {whole.status})")
        return expected

    @asked
    def write(
        self,
        uuid: str,
        name: str,
        start: Sequence[int],
        voxels: Array | Iterable[bytes],
        *,
        shape: Sequence[int] | None = None,
        axes: Axes = "zyx",
        roi: str | None = None,
    ) -> Plan[None]:
        """Write whole blocks: `voxels` (zyx or czyx; for `axes="xyz"` xyz or xyzc) from voxel `start` on.

        `voxels` may be pieces of bytes, as the server wants them, of a volume of `shape`; such a write is not asked
        twice. What is written to a labelmap are supervoxels, in a way that keeps its counts right. Raises ValueError
        where the box is not of whole blocks or the data type does not fit, TransportError for a locked version,
        before anything is sent.
        """
        instance = yield from self._voxels(uuid, name)
        if instance.grid_store:
            raise Unsupported(f"{name} is backed by precomputed data and read only", url=self._connection.url)
        query = [*self._throttled(), *([("roi", roi)] if roi else []), ("mutate", "true")]
        if isinstance(voxels, np.ndarray):
            place, body = _wire(instance, triple(start, axes), voxels if axes == "zyx" else voxels.T)
            if instance.typename == "labelmap" and memoryview(body).nbytes <= _LARGEST_LZ4:
                query.append(("compression", "lz4"))
                body = lz4(body)
        else:
            if shape is None:
                raise ValueError("shape: needed with pieces of bytes")
            place, body = sized_box(triple(start, axes), triple(shape, axes)), voxels  # type: ignore[assignment]  # pieces
        if not place.is_aligned(instance.block_size):
            raise ValueError(
                f"{name}: only whole blocks of {instance.block_size} (x, y, z) can be written, not {place.size} at"
                f' {place.offset}; for other boxes open the instance with zarr, mode "r+"'
            )
        yield from self._check_roi(uuid, instance, roi)
        yield from self._check_open(uuid, name)
        yield from self._ask(Call(_raw(uuid, name, place), query=tuple(query), method="POST", body=body))

    def _check_roi(self, uuid: str, instance: Instance, roi: str | None) -> Plan[None]:
        """Raise Unsupported where the server would mask another region: it compares blocks of different sizes."""
        if roi is None:
            return
        block = parse_block((yield from self._ask_json(Call(calls.node(uuid, roi, "info")))), self._connection.url)
        if block != instance.block_size:
            raise Unsupported(
                f"roi {roi} has blocks of {block}, {instance.name} of {instance.block_size}: the server would mask the"
                " wrong region; read without roi and apply rois.mask",
                url=self._connection.url,
            )

    # reading

    def _read_image(self, uuid: str, instance: Instance, place: Box, query: tuple[tuple[str, str], ...]) -> Plan[Array]:
        _check_size(instance, place)
        tail = (instance.channels,) if instance.channels > 1 else ()
        voxels = np.empty((*place.shape, *tail), _dtype(instance))
        sink = MemorySink(voxels.reshape(-1).view(np.uint8).data)
        path = _raw(uuid, instance.name, place)
        yield from self._ask(Call(path, query=query, into=sink, limit=voxels.nbytes + _SLACK))
        sink.check("/".join(path), self._connection.url)
        return np.moveaxis(voxels, -1, 0) if tail else voxels

    def _read_labels(
        self, uuid: str, instance: Instance, place: Box, query: tuple[tuple[str, str], ...]
    ) -> Plan[Array]:
        asked_for = place
        if _is_single_block(instance, place):
            asked_for = Box(place.offset, (2 * place.size[0], *place.size[1:]))
        _check_size(instance, asked_for)
        path = _raw(uuid, instance.name, asked_for)
        length = _nbytes(instance, asked_for)
        if length > _LARGEST_LZ4:
            voxels = yield from self._read_image(uuid, instance, place, query)
            return voxels
        call = Call(path, query=(*query, ("compression", "lz4")), limit=length + length // 255 + _SLACK)
        reply = yield from self._ask(call)
        voxels = np.empty(asked_for.shape, _dtype(instance))
        _unlz4_into(reply.data, voxels)
        return voxels[..., : place.size[0]]

    def _label_query(
        self, instance: Instance, scale: int, roi: str | None, *, supervoxels: bool
    ) -> tuple[tuple[str, str], ...]:
        if scale and not 0 < scale <= instance.max_scale:
            raise ValueError(f"{instance.name} has scales 0 to {instance.max_scale}, not {scale}")
        query = list(self._throttled())
        query += [("scale", str(scale))] if scale else []
        query += [("roi", roi)] if roi else []
        query += [("supervoxels", "true")] if supervoxels and instance.typename == "labelmap" else []
        return tuple(query)


def _raw(uuid: str, name: str, place: Box) -> tuple[str, ...]:
    return calls.node(uuid, name, "raw", "0_1_2", calls.text(place.size), calls.text(place.offset))


def _is_single_block(instance: Instance, place: Box) -> bool:
    """Whether the server answers this with an error where the block is missing, which it does not for two blocks."""
    block = instance.block_size
    return instance.typename == "labelmap" and place.size == block and place.is_aligned(block)


def _dtype(instance: Instance) -> np.dtype[np.generic]:
    return np.dtype(instance.dtype).newbyteorder("<")


def _nbytes(instance: Instance, place: Box) -> int:
    return place.voxels * _dtype(instance).itemsize * instance.channels


def _check_size(instance: Instance, place: Box) -> None:
    if _nbytes(instance, place) > _LARGEST_REPLY:
        raise ValueError(f"{place.size} voxels (x, y, z) are more than the 3 GiB that a DVID server sends at once")


def _check_plain(instance: Instance, scale: int) -> None:
    if scale:
        raise ValueError(f"{instance.name} has no scales: they are instances {instance.name}_1, {instance.name}_2, …")


def _unlz4_into(payload: bytes, target: Array) -> None:
    """Unpack one LZ4 block that must fill `target` exactly. Raises DecodeError."""
    try:
        found = imagecodecs.lz4_decode(payload, out=target.reshape(-1).view(np.uint8).data)
    except imagecodecs.Lz4Error as error:
        raise DecodeError("dvid.lz4", f"the block is damaged: {error}", f"{target.nbytes} bytes") from error
    if len(found) != target.nbytes:
        raise DecodeError("dvid.lz4", "the block unpacks to another length", target.nbytes, len(found))


def _wire(instance: Instance, offset_xyz: tuple[int, int, int], voxels: Array) -> tuple[Box, memoryview | bytes]:
    """The box that `voxels` (zyx, or czyx) fill, and their bytes as the server wants them. Raises ValueError."""
    shape = (instance.channels,) * (instance.channels > 1) + voxels.shape[-3:]
    if voxels.shape != shape or len(shape) < 3:  # noqa: PLR2004  # z, y and x
        expected = "czyx with 4 channels" if instance.channels > 1 else "zyx"
        raise ValueError(f"{instance.name}: expected an array {expected}, got shape {voxels.shape}")
    if not np.can_cast(voxels.dtype, _dtype(instance), "safe"):
        raise ValueError(f"{instance.name} holds {instance.dtype}, which {voxels.dtype} does not fit into")
    place = sized_box(offset_xyz, voxels.shape[-3:][::-1])
    ordered = np.moveaxis(voxels, 0, -1) if instance.channels > 1 else voxels
    flat = np.ascontiguousarray(ordered, _dtype(instance)).reshape(-1).view(np.uint8)
    return place, flat.data
