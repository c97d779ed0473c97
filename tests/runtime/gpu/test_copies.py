"""Copies of boxes: for random shapes and pitches they move the bytes of the box and no other."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnet.runtime.gpu.cuda import Block, Device, DeviceMemory, PinnedMemory, Stream, copy
from tests.runtime.gpu.driver_double import Driver, installed

Place = Literal["device", "pinned", "pageable"]
Bytes = npt.NDArray[np.uint8]
Triple = tuple[int, int, int]


class Volume:
    """Memory of a shape (planes, rows, bytes of a row), with random content, and bytes after each plane."""

    def __init__(self, driver: Driver, place: Place, shape: Triple, tail: int, rng: np.random.Generator) -> None:
        planes, rows, row = shape
        self.plane_pitch, self.row_pitch = rows * row + tail, row
        size = planes * self.plane_pitch
        self.bytes: Bytes = np.zeros(0, np.uint8)
        self.memory: Any = None
        if place == "device":
            self.memory = DeviceMemory(Device(), size)
            self.address, self.bytes = self.memory.address, driver.view(self.memory.address, (size,))
        else:
            self.memory = PinnedMemory(Device(), size) if place == "pinned" else None
            self.bytes = self.memory.array((size,), np.uint8) if self.memory else np.empty(size, np.uint8)
            self.address = self.bytes.ctypes.data
        self.kind: Literal["host", "device"] = "device" if place == "device" else "host"
        self.bytes[:] = rng.integers(0, 256, size)
        self.shape = shape

    def box(self, first: Triple, size: Triple) -> Block:
        plane, row, byte = first
        address = self.address + plane * self.plane_pitch + row * self.row_pitch + byte
        return Block(self.kind, address, size[2], size[1], size[0], self.row_pitch, self.plane_pitch)

    def view(self, values: Bytes, first: Triple, size: Triple) -> Bytes:
        planes, rows, row = self.shape
        boxes = values.reshape(planes, self.plane_pitch)[:, : rows * row].reshape(planes, rows, row)
        slices = tuple(slice(start, start + length) for start, length in zip(first, size, strict=True))
        return boxes[slices]

    def close(self) -> None:
        if self.memory:
            self.memory.close()


@st.composite
def volumes(draw: st.DrawFn) -> tuple[Triple, list[tuple[Triple, Triple, int]]]:
    """Return the size of a box, and for source and target: shape of the volume, first corner, tail of a plane."""
    size = tuple(draw(st.integers(1, 4)) for _ in range(3))
    sides = []
    for _ in range(2):
        first = tuple(draw(st.integers(0, 3)) for _ in range(3))
        shape = tuple(a + b + draw(st.integers(0, 3)) for a, b in zip(size, first, strict=True))
        sides.append((shape, first, draw(st.sampled_from((0, 0, 1, 5)))))
    return size, sides  # type: ignore[return-value]


places = st.sampled_from(("device", "pinned", "pageable"))


@settings(max_examples=200, deadline=None, database=None)
@given(volumes(), places, places, st.integers(0, 1000))
def test_box_is_copied_and_nothing_else(case: Any, source_place: Place, target_place: Place, seed: int) -> None:
    size, ((source_shape, source_first, source_tail), (target_shape, target_first, target_tail)) = case
    rng = np.random.default_rng(seed)
    with installed(Driver(seed)) as driver, ExitStack() as stack:
        device = Device()
        stream = Stream(device)
        source = Volume(driver, source_place, source_shape, source_tail, rng)
        target = Volume(driver, target_place, target_shape, target_tail, rng)
        for thing in (stream, source, target):
            stack.callback(thing.close)
        expected = target.bytes.copy()
        target.view(expected, target_first, size)[:] = source.view(source.bytes, source_first, size)
        with device:
            copy(stream, target.box(target_first, size), source.box(source_first, size))
            if source_place == "pageable" and target_place == "device":
                source.bytes[:] = 0  # CUDA has read it before the call returns
            if target_place != "pageable":
                stream.synchronize()
        np.testing.assert_array_equal(target.bytes, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row_bytes": 3}, "they must be equal"),
        ({"rows": 1}, "they must be equal"),
        ({"planes": 3}, "they must be equal"),
        ({"row_pitch": 3}, "shorter than a row"),
        ({"plane_pitch": 7}, "shorter than a row or a plane"),
    ],
)
def test_box_that_does_not_fit_is_refused(driver: Driver, change: dict[str, int], words: str) -> None:
    device = Device()
    stream, memory = Stream(device), DeviceMemory(device, 100)
    block = Block("device", memory.address, 4, 2, 2, 4, 8)
    with device, pytest.raises(ValueError, match=words):
        copy(stream, block._replace(**change), block)
    assert not {name for name in driver.calls if name.startswith("cuMemcpy")}
    memory.close()
    stream.close()


def test_empty_box_is_no_copy(driver: Driver) -> None:
    stream = Stream(Device())
    with Device():
        copy(stream, Block("host", 0, 0, 5), Block("device", 0, 0, 5))
    assert not {name for name in driver.calls if name.startswith("cuMemcpy")}
    stream.close()


@pytest.mark.parametrize(
    ("shape", "pitches", "expected"),
    [
        ((3, 5, 7), (7, 35), "cuMemcpyDtoDAsync_v2"),
        ((1, 1, 7), (9, 99), "cuMemcpyDtoDAsync_v2"),
        ((1, 5, 7), (8, 40), "cuMemcpy2DAsync_v2"),
        ((5, 1, 7), (7, 8), "cuMemcpy2DAsync_v2"),
        ((3, 5, 7), (8, 48), "cuMemcpy3DAsync_v2"),
    ],
)
def test_box_is_one_call(driver: Driver, shape: Triple, pitches: tuple[int, int], expected: str) -> None:
    device = Device()
    stream = Stream(device)
    memory = [DeviceMemory(device, 200) for _ in range(2)]
    with device:
        copy(stream, *(Block("device", block.address, *shape[::-1], *pitches) for block in memory))
        stream.synchronize()
    assert {name: count for name, count in driver.calls.items() if name.startswith("cuMemcpy")} == {expected: 1}
    for thing in (stream, *memory):
        thing.close()
