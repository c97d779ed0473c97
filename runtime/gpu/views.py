"""Strided arrays in host or GPU memory, and the blocks whose copies move the values of one to another.

The driver copies blocks: rows of bytes, in planes (``copies.copy``). Tiles of frames and parts of cubes are blocks, so
that no kernel is needed to cut or to stitch them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .copies import Block, copy
from .device_array import DeviceArray
from .streams import Stream

Memory = Literal["host", "device"]


@dataclass(frozen=True)
class View:
    """An array in host or GPU memory: where each value lies. It owns nothing, and slices like a numpy array.

    Attributes:
        memory: ``host`` or ``device``; mapped host memory is either, by its address there.
        address: Address of the first value.
        shape: Length of each axis.
        strides: Bytes from one value to the next along each axis.
        itemsize: Size of a value, bytes.
    """

    memory: Memory
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int

    @classmethod
    def contiguous(cls, memory: Memory, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> View:
        """Return the view of an array in C order."""
        itemsize = np.dtype(dtype).itemsize
        strides = tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return cls(memory, address, shape, strides, itemsize)

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> View:
        """Return the view of a numpy array."""
        return cls("host", array.ctypes.data, array.shape, array.strides, array.itemsize)

    def __getitem__(self, slices: slice | tuple[slice, ...]) -> View:
        """Return the part that slices without steps select; axes without a slice are kept whole."""
        address, shape = self.address, list(self.shape)
        for axis, selected in enumerate(slices if isinstance(slices, tuple) else (slices,)):
            start, stop, step = selected.indices(shape[axis])
            if step != 1:
                raise ValueError(f"the step is {step}, expected 1")
            address += start * self.strides[axis]
            shape[axis] = max(stop - start, 0)
        return replace(self, address=address, shape=tuple(shape))

    def transpose(self, *axes: int) -> View:
        """Return the view with its axes in another order."""
        shape, strides = (tuple(values[axis] for axis in axes) for values in (self.shape, self.strides))
        return replace(self, shape=shape, strides=strides)


def view_of(array: DeviceArray) -> View:
    """Return the view of an array in GPU memory; the array must live as long as work uses it."""
    return View("device", array.address, array.shape, array.strides, array.dtype.itemsize)


class _Axis(NamedTuple):
    """An axis that the driver walks: its length, and the bytes between two values in the target and in the source."""

    size: int
    target: int
    source: int


def copy_view(stream: Stream, target: View, source: View) -> None:
    """Queue the copies that move all values of one view to another, see ``blocks``."""
    for pair in blocks(target, source):
        copy(stream, *pair)


def blocks(target: View, source: View) -> Iterator[tuple[Block, Block]]:
    """Return the blocks, target and source, whose copies move the values of one view to another.

    Args:
        target: View with positive strides whose values do not overlap.
        source: View of the same shape and size of values, which does not overlap the target.

    Yields:
        The pairs, in any order. For a tile of a frame, or a part of a cube, it is a single one.

    Raises:
        ValueError: The views differ in shape or in the size of their values.
    """
    if target.shape != source.shape or target.itemsize != source.itemsize:
        raise ValueError(f"target is {target.shape} of {target.itemsize} bytes, source {source.shape}")
    if 0 in target.shape:
        return
    width, row, plane, axes = min((_walk(target, source, order) for order in _ORDERS), key=_count)
    shape = (width, row.size, plane.size)
    for index in itertools.product(*(range(axis.size) for axis in axes)):
        steps = list(zip(index, axes, strict=True))
        to = target.address + sum(count * axis.target for count, axis in steps)
        origin = source.address + sum(count * axis.source for count, axis in steps)
        yield (
            Block(target.memory, to, *shape, row_pitch=row.target, plane_pitch=plane.target),
            Block(source.memory, origin, *shape, row_pitch=row.source, plane_pitch=plane.source),
        )


_Walk = tuple[int, _Axis, _Axis, list[_Axis]]
"""Bytes of a row, the axes that the driver walks, and those that are left, each step of which is a copy."""

_ORDERS: tuple[Callable[[_Axis], int], ...] = (lambda axis: axis.target, lambda axis: axis.source)


def _count(walk: _Walk) -> int:
    return math.prod(axis.size for axis in walk[3])


def _walk(target: View, source: View, order: Callable[[_Axis], int]) -> _Walk:
    """Return the longest rows that both views have, and the axes around them, the closest in an order first."""
    axes = [_Axis(*axis) for axis in zip(target.shape, target.strides, source.strides, strict=True) if axis[0] > 1]
    width, merged = target.itemsize, list[_Axis]()
    for axis in sorted(axes, key=order):
        inner = merged[-1] if merged else _Axis(1, width, width)
        adjoins = axis.target == inner.target * inner.size and axis.source == inner.source * inner.size
        if not merged and adjoins:
            width *= axis.size
        elif adjoins:
            merged[-1] = inner._replace(size=inner.size * axis.size)
        else:
            merged.append(axis)
    row = merged.pop(0) if merged else _Axis(1, width, width)
    if merged and _passes_over(merged[0], row):
        return width, row, merged.pop(0), merged
    return width, row, _Axis(1, row.target * row.size, row.source * row.size), merged


def _passes_over(plane: _Axis, row: _Axis) -> bool:
    """Return whether the steps of an axis pass over all rows, in both views."""
    return plane.target >= row.target * row.size and plane.source >= row.source * row.size
