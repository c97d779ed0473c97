"""Memory of the device, and page-locked memory."""

from __future__ import annotations

import numpy as np
import pytest

from ccnet.runtime.gpu.cuda import (
    Buffer,
    Device,
    DeviceMemory,
    OutOfMemoryError,
    PinnedMemory,
    Stream,
)
from tests.runtime.gpu.driver_double import Driver


def test_memory_is_freed_once(driver: Driver) -> None:
    device = Device()
    for block in (DeviceMemory(device, 10), PinnedMemory(device, 10), PinnedMemory(device, 10, mapped=True)):
        assert block.address
        block.close()
        block.close()
        assert not block.address
    assert not driver.alive


def test_page_locked_memory_is_an_array(driver: Driver) -> None:
    block = PinnedMemory(Device(), 24)
    floats = block.array((2, 3), np.float32)
    assert np.isnan(floats).all(), "the double fills new memory with NaN"
    floats[:] = 1
    assert floats.ctypes.data == block.address
    np.testing.assert_array_equal(block.array((6,), "float32"), 1)
    with pytest.raises(ValueError, match="array of 28 bytes, expected at most 24"):
        block.array((7,), np.float32)
    with pytest.raises(ValueError, match="is not mapped: allocate it with mapped=True"):
        _ = block.device_address
    block.close()


def test_mapped_memory_is_written_by_the_device(driver: Driver) -> None:
    device = Device()
    block, stream = PinnedMemory(device, 8, mapped=True), Stream(device)
    driver.view(block.device_address, (8,))[:] = 3
    assert (block.array((8,), np.uint8) == 3).all()
    stream.close()
    block.close()


def test_buffer_waits_for_its_stream_before_it_frees(driver: Driver) -> None:
    device = Device()
    stream = Stream(device)
    with device:
        buffer = Buffer(device, stream)
        buffer.view((10,), np.dtype(np.uint8))[:] = 4
        buffer.upload(10)
        buffer.view((20,), np.dtype(np.uint8))  # grows
        buffer.upload(20)
        buffer.close()
    stream.close()
    assert not driver.alive


def test_buffer_that_cannot_grow_is_empty_and_works_again(driver: Driver) -> None:
    device = Device()
    stream = Stream(device)
    with device:
        buffer = Buffer(device, stream)
        buffer.view((10,), np.dtype(np.uint8))
        driver.failing["cuMemHostAlloc"] = 2
        with pytest.raises(OutOfMemoryError):
            buffer.view((20,), np.dtype(np.uint8))
        driver.failing.clear()
        buffer.view((20,), np.dtype(np.uint8))[:] = 6
        buffer.upload(20)
        stream.synchronize()
        assert (driver.view(buffer.address, (20,)) == 6).all()
        buffer.close()
    stream.close()
