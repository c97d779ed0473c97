"""Memory of the device, page-locked memory, and arrays of the caller that are page-locked for a while."""

from __future__ import annotations

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.cuda import (
    Block,
    Buffer,
    Device,
    DeviceMemory,
    OutOfMemoryError,
    PinnedMemory,
    Stream,
    copy,
    registered,
)
from tests.runtime.gpu.driver_double import Driver, installed


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


@pytest.mark.parametrize("seed", range(8))
def test_registered_array_is_copied_without_waiting(seed: int) -> None:
    with installed(Driver(seed)) as driver:
        device, array = Device(), np.zeros((4, 6), np.uint8)
        block, stream = DeviceMemory(device, array.size), Stream(device)
        driver.view(block.address, (array.size,))[:] = 5
        with device:
            with registered(device, array) as lock:
                assert lock.address == array.ctypes.data
                for column in (0, 3):
                    target = Block("host", array.ctypes.data + column, 2, 4, row_pitch=6)
                    copy(stream, target, Block("device", block.address, 2, 4, row_pitch=2))
                stream.synchronize()
            np.testing.assert_array_equal(array, np.array([[5, 5, 0, 5, 5, 0]] * 4))
        stream.close()
        block.close()


def test_registered_array_may_be_strided_both_ways(driver: Driver) -> None:
    device, whole = Device(), np.arange(40, dtype=np.uint8).reshape(5, 8)
    for array in (whole[1:4, 2:5], whole[::-1], whole[:, ::-2], whole.T):
        with registered(device, array) as lock:
            first = driver.view(lock.device_address, (1,))
            assert first[0] == array[0, 0]
            lowest = min(array[row, column] for row in (0, -1) for column in (0, -1))
            span = driver.view(lock.device_address + int(lowest) - int(array[0, 0]), (int(array.max() - lowest) + 1,))
            assert (span == np.arange(lowest, array.max() + 1)).all()


@pytest.mark.usefixtures("driver")
def test_array_is_registered_once_at_a_time() -> None:
    device, array = Device(), np.zeros(100, np.uint8)
    with registered(device, array), pytest.raises(CCNetError, match="HOST_MEMORY_ALREADY_REGISTERED"):
        registered(device, array[50:])
    registered(device, array[50:]).close()


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
