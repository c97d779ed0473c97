"""Copies of boxes of bytes, within a GPU or between host and GPU: a tile out of a frame, a kept part into a cube."""

from __future__ import annotations

import ctypes
import math
from typing import Literal, NamedTuple

from .library import Copy2D, Copy3D
from .streams import Stream

_KINDS = {"host": 1, "device": 2}  # CU_MEMORYTYPE_*
_LINES = {
    ("device", "host"): "cuMemcpyHtoDAsync_v2",
    ("host", "device"): "cuMemcpyDtoHAsync_v2",
    ("device", "device"): "cuMemcpyDtoDAsync_v2",
}
"""Target and source → the function that copies bytes without a gap."""


class Block(NamedTuple):
    """Planes of rows of bytes in memory, each plane and row at a constant distance from the one before; all in bytes.

    Attributes:
        kind: ``host`` or ``device``. Mapped host memory is ``device`` by its ``device_address``.
        address: Address of the first byte.
        row_bytes: Bytes of a row that are copied.
        rows: Rows of a plane.
        planes: Planes, such as the bands of a cube.
        row_pitch: Distance from a row to the next; 0 for rows without a gap.
        plane_pitch: Distance from a plane to the next; 0 for planes without a gap.
    """

    kind: Literal["host", "device"]
    address: int
    row_bytes: int
    rows: int = 1
    planes: int = 1
    row_pitch: int = 0
    plane_pitch: int = 0


def copy(stream: Stream, target: Block, source: Block) -> None:
    """Queue a copy between two blocks. Host memory that is not page-locked makes the host wait.

    Args:
        stream: Stream that copies.
        target: Block that is written.
        source: Block of the same shape that is read.

    Raises:
        ValueError: The shapes differ, or a pitch is shorter than what it spans.
        CCNetError: CUDA refuses the copy.
    """
    shape = source[2:5]
    if shape != target[2:5]:
        raise ValueError(f"source has {shape} bytes, rows and planes, target {target[2:5]}: they must be equal")
    if 0 in shape:
        return
    (row, plane), (target_row, target_plane) = _pitches(source), _pitches(target)
    _, rows, planes = shape
    if _is_line(source, row, plane) and _is_line(target, target_row, target_plane) and (target[0], source[0]) in _LINES:
        size = math.prod(shape)
        stream.device.call(_LINES[target.kind, source.kind], target.address, source.address, size, stream.handle)
    elif planes == 1:
        _copy_rows(stream, target, source, target_row, row)
    elif rows == 1:  # one row a plane: the planes are the rows of one plane
        source, target = (block._replace(rows=planes, planes=1) for block in (source, target))
        _copy_rows(stream, target, source, target_plane, plane)
    elif plane % row or target_plane % target_row:  # CUDA counts the distance of planes in rows
        for index in range(planes):
            block, into = source.address + index * plane, target.address + index * target_plane
            _copy_rows(stream, target._replace(address=into), source._replace(address=block), target_row, row)
    else:
        _copy_planes(stream, target, source, (target_row, target_plane // target_row), (row, plane // row))


def _pitches(block: Block) -> tuple[int, int]:
    _, _, row_bytes, rows, planes, row_pitch, plane_pitch = block
    row_pitch = row_pitch or row_bytes
    plane_pitch = plane_pitch or rows * row_pitch
    span = (rows - 1) * row_pitch + row_bytes
    if (rows > 1 and row_pitch < row_bytes) or (planes > 1 and plane_pitch < span):
        raise ValueError(f"pitches of {block} are shorter than a row or a plane, expected no overlap")
    return max(row_pitch, row_bytes), plane_pitch


def _is_line(block: Block, row_pitch: int, plane_pitch: int) -> bool:
    """Return whether all bytes of a block follow each other."""
    _, _, row_bytes, rows, planes, _, _ = block
    return (rows == 1 or row_pitch == row_bytes) and (planes == 1 or plane_pitch == rows * row_bytes)


def _copy_rows(stream: Stream, target: Block, source: Block, target_pitch: int, source_pitch: int) -> None:
    arguments = Copy2D(
        source_kind=_KINDS[source.kind],
        source_pitch=source_pitch,
        target_kind=_KINDS[target.kind],
        target_pitch=target_pitch,
        width=source.row_bytes,
        height=source.rows,
    )
    setattr(arguments, f"source_{source.kind}", source.address)
    setattr(arguments, f"target_{target.kind}", target.address)
    stream.device.call("cuMemcpy2DAsync_v2", ctypes.byref(arguments), stream.handle)


def _copy_planes(
    stream: Stream, target: Block, source: Block, target_pitches: tuple[int, int], source_pitches: tuple[int, int]
) -> None:
    arguments = Copy3D(
        source_kind=_KINDS[source.kind],
        source_pitch=source_pitches[0],
        source_height=source_pitches[1],
        target_kind=_KINDS[target.kind],
        target_pitch=target_pitches[0],
        target_height=target_pitches[1],
        width=source.row_bytes,
        height=source.rows,
        depth=source.planes,
    )
    setattr(arguments, f"source_{source.kind}", source.address)
    setattr(arguments, f"target_{target.kind}", target.address)
    stream.device.call("cuMemcpy3DAsync_v2", ctypes.byref(arguments), stream.handle)
