"""Copies between strided views move exactly the bytes that numpy would move, for any layout."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccnet.runtime.gpu.copies import Block
from ccnet.runtime.gpu.views import View, blocks

Array = npt.NDArray[Any]


def perform(target: Block, source: Block) -> None:
    for plane, row in np.ndindex(source.planes, source.rows):
        to, origin = (block.address + plane * block.plane_pitch + row * block.row_pitch for block in (target, source))
        ctypes.memmove(to, origin, source.row_bytes)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Array, Array]:
    """Return two parts of the same shape in two larger arrays, whose axes lie in memory in different orders."""
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    parts = []
    for _ in range(2):
        before, after = (draw(st.tuples(*[st.integers(0, 2)] * 3)) for _ in range(2))
        sizes = [sum(lengths) for lengths in zip(before, shape, after, strict=True)]
        order = draw(st.permutations(range(3)))
        block = np.random.default_rng(len(parts)).integers(0, 255, [sizes[axis] for axis in order]).astype(dtype)
        slices = tuple(slice(first, first + size) for first, size in zip(before, shape, strict=True))
        parts.append(block.transpose(np.argsort(order))[slices])
    return parts[0], parts[1]


@given(arrays())
def test_copies_equal_an_assignment_in_numpy(pair: tuple[Array, Array]) -> None:
    target, source = pair
    whole = target
    while whole.base is not None:
        whole = whole.base
    memory = whole.copy()
    at = (target.ctypes.data - whole.ctypes.data,)
    expected = np.ndarray(target.shape, target.dtype, memory.data, at[0], target.strides)
    expected[...] = source
    for pair in blocks(View.of(target), View.of(source)):
        perform(*pair)
    np.testing.assert_array_equal(whole, memory, "a byte beside the target has changed, or one of the target is wrong")


@given(arrays(), st.data())
def test_views_slice_like_arrays(pair: tuple[Array, Array], data: st.DataObject) -> None:
    array = pair[0]
    bounds = [sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2))) for size in array.shape]
    slices = tuple(slice(*bound) for bound in bounds)
    view, part = View.of(array)[slices], array[slices]
    assert view.shape == part.shape
    assert part.size == 0 or view == View.of(part)


def test_tiles_and_parts_of_cubes_are_one_copy() -> None:
    everything = slice(None)
    planes, tile = planes_of(3, 64, 80, address=1000), planes_of(3, 32, 48)
    assert list(blocks(tile, planes[everything, slice(16, 48), slice(32, 80)])) == [
        (Block("device", 0, 192, 32, 3, 192, 6144), Block("device", 1000 + 16 * 320 + 128, 192, 32, 3, 320, 20480))
    ]
    pixels, tile = (View.contiguous("device", *of, np.uint8) for of in ((1000, (64, 80, 3)), (0, (32, 48, 3))))
    assert list(blocks(tile, pixels[slice(16, 48), slice(32, 80)])) == [
        (Block("device", 0, 144, 32, 1, 144, 4608), Block("device", 1000 + 16 * 240 + 96, 144, 32, 1, 240, 7680))
    ]


def planes_of(*shape: int, address: int = 0) -> View:
    return View.contiguous("device", address, shape, np.float32)


def test_pixels_become_planes_by_one_copy_a_channel() -> None:
    assert len(list(blocks(planes_of(3, 5, 7), planes_of(5, 7, 3).transpose(2, 0, 1)))) == 3
    assert len(list(blocks(planes_of(5, 7, 3), planes_of(3, 5, 7).transpose(1, 2, 0)))) == 3


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"target is \(2, 3\) of 4 bytes, source \(3, 2\)"):
        list(blocks(planes_of(2, 3), planes_of(3, 2)))
    with pytest.raises(ValueError, match="the step is 2, expected 1"):
        planes_of(4)[(slice(0, 4, 2),)]
