"""Pixels for engines equal those that the host's path feeds to a graph, mirrored edges included."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccnet.contract import padded_size
from ccnet.runtime.gpu.views import View, blocks
from ccnet.runtime.io.frames import block_mean, rgb_tensor
from ccnet.runtime.tiles.resident.pixels import PixelLayout, mirrored, write_pixels
from ccnet.runtime.tiles.tiling import Span, crop
from tests.runtime.conftest import pixels
from tests.runtime.gpu.test_views import perform

Array = npt.NDArray[Any]
SIDE = st.integers(1, 70)
TYPES = st.sampled_from([("float32", "uint8"), ("float32", "uint16"), ("float32", "float32"), ("uint8", "uint8")])


def empty(layout: PixelLayout, height: int, width: int) -> Array:
    return layout.pixels(np.full(layout.shape(height, width)[1:], 255, layout.dtype))


def expected(frame: Array, input: str, height: int, width: int) -> Array:
    """Return the pixels (height, width, 3) that the host's path feeds to a graph."""
    tensor = rgb_tensor(crop(frame, Span(0, height, 0, 0), Span(0, width, 0, 0)), input)[0]
    return tensor if input == "uint8" else tensor.transpose(1, 2, 0)


@given(SIDE, SIDE, TYPES, st.integers(0, 40), st.integers(0, 40))
def test_written_pixels_are_those_of_the_hosts_path(
    height: int, width: int, types: tuple[str, str], below: int, right: int
) -> None:
    frame, layout = pixels(height, width, types[1]), PixelLayout(types[0])
    target = empty(layout, height + below, width + right)
    write_pixels(target, frame, 0, frame.dtype)
    np.testing.assert_array_equal(target, expected(frame, types[0], *target.shape[:2]))


@given(st.integers(60, 200), SIDE, TYPES, st.data())
def test_rows_of_a_frame_are_written_alone(
    height: int, width: int, types: tuple[str, str], data: st.DataObject
) -> None:
    frame, layout = pixels(height, width, types[1]), PixelLayout(types[0])
    last = padded_size(height)
    first = data.draw(st.integers(0, height - 32))
    target = empty(layout, last - first, width)
    write_pixels(target, frame, first, frame.dtype)
    np.testing.assert_array_equal(target, expected(frame, types[0], last, width)[first:])


@given(SIDE, SIDE, TYPES, st.integers(0, 40), st.integers(0, 40))
def test_the_drivers_copies_mirror_the_same_pixels(
    height: int, width: int, types: tuple[str, str], below: int, right: int
) -> None:
    frame, layout = pixels(height, width, types[1]), PixelLayout(types[0])
    target = empty(layout, height + below, width + right)
    target[:height, :width] = expected(frame, types[0], height, width)
    for pair in mirrored(View.of(target), height, width):
        for copied in blocks(*pair):
            perform(*copied)
    np.testing.assert_array_equal(target, expected(frame, types[0], *target.shape[:2]))


@pytest.mark.parametrize(("input", "dtype"), [("float32", "uint8"), ("float32", "uint16"), ("uint8", "uint8")])
def test_means_are_those_of_the_hosts_path(input: str, dtype: str) -> None:
    frame, layout = pixels(70, 90, dtype), PixelLayout(input)
    means = block_mean(frame, 3)
    target = empty(layout, 32, 48)
    write_pixels(target, means, 0, frame.dtype)
    tensor = rgb_tensor(crop(means, Span(0, 32, 0, 24), Span(0, 48, 0, 30)), input, frame.dtype)[0]
    np.testing.assert_array_equal(target, tensor if input == "uint8" else tensor.transpose(1, 2, 0))
