"""The driver double finds what it is there for: each test plants a fault and shows that the double reports it.

Faults of order show in the result, for most seeds; the others are reported at once and again at the end.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.cuda import Block, Device, DeviceMemory, Event, PinnedMemory, Stream, copy
from tests.runtime.gpu.driver_double import Driver, DriverMisuseError, installed

SIZE = 64
SEEDS = range(60)
VALUES = np.arange(SIZE, dtype=np.uint8)


class Rig:
    """Two streams, two blocks on the device, and page-locked blocks with values and for a result."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.device = driver, Device()
        self.first, self.second = Stream(self.device), Stream(self.device)
        self.event = Event(self.device)
        self.source, self.target = PinnedMemory(self.device, SIZE), PinnedMemory(self.device, SIZE)
        self.memory, self.other = DeviceMemory(self.device, SIZE), DeviceMemory(self.device, SIZE)
        self.values, self.result = (block.array((SIZE,), np.uint8) for block in (self.source, self.target))
        self.values[:] = VALUES

    def upload(self, stream: Stream) -> None:
        copy(stream, Block("device", self.memory.address, SIZE), Block("host", self.source.address, SIZE))

    def download(self, stream: Stream) -> None:
        copy(stream, Block("host", self.target.address, SIZE), Block("device", self.memory.address, SIZE))

    def close(self) -> None:
        things = (self.first, self.second, self.event, self.source, self.target, self.memory, self.other)
        for thing in things:
            thing.close()


@contextmanager
def rigged(seed: int = 0) -> Iterator[Rig]:
    with installed(Driver(seed)) as driver:
        rig = Rig(driver)
        with rig.device:
            yield rig
            driver.finish()
        rig.close()


@contextmanager
def reported(rig: Rig, words: str) -> Iterator[None]:
    """Expect a fault, at once and in the list of faults."""
    with pytest.raises(DriverMisuseError, match=words):
        yield
    assert len(rig.driver.faults) == 1
    rig.driver.faults.clear()


def wrong_results(run: Callable[[Rig], None]) -> int:
    """Return for how many seeds the values do not arrive."""
    wrong = 0
    for seed in SEEDS:
        with rigged(seed) as rig:
            run(rig)
            wrong += not np.array_equal(rig.result, VALUES)
    return wrong


@pytest.mark.parametrize("fault", ["none", "no record", "no wait", "wait before record", "no synchronize"])
def test_missing_order_gives_wrong_results(fault: str) -> None:
    def run(rig: Rig) -> None:
        if fault == "wait before record":
            rig.second.wait(rig.event)
        rig.upload(rig.first)
        if fault != "no record":
            rig.event.record(rig.first)
        if fault not in ("no wait", "wait before record"):
            rig.second.wait(rig.event)
        rig.download(rig.second)
        if fault != "no synchronize":
            rig.second.synchronize()

    wrong = wrong_results(run)
    assert wrong == 0 if fault == "none" else wrong > len(SEEDS) / 3


def test_seed_decides_the_order() -> None:
    def order(seed: int) -> list[int]:
        found: list[int] = []
        with rigged(seed) as rig:
            for index in range(6):
                stream = rig.first if index % 2 else rig.second
                rig.driver.enqueue(stream.handle, lambda index=index: found.append(index))  # type: ignore[misc]
        return found

    assert order(3) == order(3)
    orders = [order(seed) for seed in SEEDS]
    assert len(set(map(tuple, orders))) > 10
    for found in orders:
        assert [index for index in found if index % 2] == [1, 3, 5]


def test_source_that_is_overwritten_before_the_copy_gives_wrong_results() -> None:
    def run(rig: Rig) -> None:
        rig.upload(rig.first)
        rig.values[:] = 0
        rig.download(rig.first)
        rig.first.synchronize()

    assert wrong_results(run) > len(SEEDS) / 3


def test_buffer_that_is_read_before_its_upload_gives_wrong_results() -> None:
    def run(rig: Rig) -> None:
        rig.upload(rig.first)
        rig.download(rig.second)
        rig.second.synchronize()
        rig.first.synchronize()

    assert wrong_results(run) > len(SEEDS) / 3


def test_memory_is_not_zero_before_it_is_written_nor_kept_after_it_is_freed() -> None:
    with rigged() as rig:
        assert np.isnan(rig.driver.view(rig.memory.address, (SIZE // 4,), np.float32)).all()
        block = PinnedMemory(rig.device, 8)
        floats = block.array((2,), np.float32)
        floats[:] = 1
        block.close()
        assert np.isnan(floats).all()


def test_early_free_is_reported() -> None:
    with rigged() as rig, reported(rig, "is freed before a copy from host to device has used it"):
        for _ in range(20):  # some of them may run at once
            rig.upload(rig.first)
        rig.source.close()


def test_early_free_of_what_a_kernel_uses_is_reported() -> None:
    with rigged() as rig, reported(rig, "is freed before the engine has used it"):
        for _ in range(20):
            rig.driver.enqueue(rig.first.handle, lambda: None, [rig.memory.address], "the engine")
        rig.memory.close()


def test_use_after_free_is_reported() -> None:
    with rigged() as rig:
        address = rig.memory.address
        rig.memory.close()
        with reported(rig, "device block of 64 bytes at .* is used after it was freed"):
            copy(rig.first, Block("device", address, 8), Block("host", rig.source.address, 8))
        with reported(rig, "is used after it was freed"):
            rig.driver.enqueue(rig.first.handle, lambda: rig.driver.view(address, (8,)).fill(0))
            rig.first.synchronize()
        with reported(rig, "is freed twice"):
            rig.device.call("cuMemFree_v2", address)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (lambda rig: Block("device", rig.memory.address + 1, SIZE), "64 bytes at .* end outside of the device block"),
        (lambda rig: Block("device", rig.memory.address, 8, 8, row_pitch=9), "71 bytes at .* end outside"),
        (lambda rig: Block("device", rig.memory.address, 4, 4, 4, 4, 20), "76 bytes at .* end outside"),
        (lambda rig: Block("device", rig.memory.address - 8, SIZE), "are in no block of the device"),
        (lambda rig: Block("device", rig.source.address, SIZE), "are in no block of the device"),
        (lambda rig: Block("host", rig.memory.address, SIZE), "is on the device, expected host memory"),
        (lambda rig: Block("host", rig.target.address + 1, SIZE), "end outside of the pinned block"),
        (lambda rig: Block("host", 0, SIZE), "0x0 is not host memory"),
    ],
    ids=["shifted", "row pitch", "plane pitch", "before", "host as device", "device as host", "pinned", "null"],
)
def test_wrong_region_is_reported(block: Callable[[Rig], Block], words: str) -> None:
    with rigged() as rig, reported(rig, words):
        target = block(rig)
        rows = target.row_bytes * target.rows * target.planes // target.row_bytes
        source = Block("device", rig.other.address, target.row_bytes, rows)
        copy(rig.first, target, source._replace(rows=target.rows, planes=target.planes))
        rig.first.synchronize()


def test_wrong_pitch_inside_of_a_block_gives_wrong_results() -> None:
    def run(rig: Rig) -> None:
        rig.upload(rig.first)
        target = Block("host", rig.target.address, 8, 4, row_pitch=8)
        copy(rig.first, target, Block("device", rig.memory.address, 8, 4, row_pitch=9))
        copy(rig.first, target._replace(address=target.address + 32), Block("device", rig.memory.address + 32, 8, 4))
        rig.first.synchronize()

    assert wrong_results(run) == len(SEEDS)


def test_address_of_unmapped_memory_is_no_address_of_the_device() -> None:
    with rigged() as rig:
        with pytest.raises(CCNetError, match="cuMemHostGetDevicePointer_v2 failed with CUDA_ERROR_INVALID_VALUE"):
            rig.device.call("cuMemHostGetDevicePointer_v2", ctypes.byref(ctypes.c_uint64()), rig.source.address, 0)
        mapped = PinnedMemory(rig.device, 8, mapped=True)
        distance = mapped.device_address - mapped.address
        assert distance, "else nobody notices that the wrong one of the two is used"
        with reported(rig, "is used by its address on the device, but it is not mapped"):
            rig.driver.view(rig.source.address + distance, (8,))
        mapped.close()


def test_destroyed_and_foreign_handles_are_reported() -> None:
    with rigged() as rig:
        stream, event = Stream(rig.device), Event(rig.device)
        handles = stream.handle, event.handle
        stream.close()
        event.close()
        with reported(rig, "StreamState .* is used after it was destroyed"):
            rig.device.call("cuStreamSynchronize", handles[0])
        with reported(rig, "EventState .* is used after it was destroyed"):
            rig.device.call("cuStreamWaitEvent", rig.first.handle, handles[1], 0)
        with reported(rig, "is no handle of a StreamState"):
            rig.device.call("cuStreamSynchronize", rig.event.handle)


def test_two_devices_are_kept_apart() -> None:
    driver = Driver()
    driver.gpus = 2
    with installed(driver):
        here, there = Device(0), Device(1)
        stream, other = Stream(here), Stream(there)
        block = DeviceMemory(there, 8)
        with here, pytest.raises(CCNetError, match="CUDA_ERROR_INVALID_HANDLE"):
            other.synchronize()
        with here, pytest.raises(DriverMisuseError, match="of device 1 is used in a stream of device 0"):
            copy(stream, Block("device", block.address, 8), Block("device", block.address, 8))
        driver.faults.clear()
        for thing in (stream, other, block):
            thing.close()


def test_arguments_are_checked_like_those_of_the_library() -> None:
    with rigged() as rig:
        with reported(rig, "cuMemFree_v2 has 2 arguments, expected 1"):
            rig.device.call("cuMemFree_v2", rig.memory.address, 0)
        with pytest.raises(TypeError):
            rig.device.call("cuMemFree_v2", ctypes.c_void_p(rig.memory.address))
        with pytest.raises(AttributeError, match="cuMemAllocManaged"):
            rig.device.call("cuMemAllocManaged")


def test_memory_of_a_graph_must_live_until_it_runs() -> None:
    with rigged() as rig:
        rig.first.begin_capture()
        rig.upload(rig.first)
        graph = rig.first.end_capture()
        rig.memory.close()
        with reported(rig, "is used after it was freed"):
            graph.launch(rig.first)
        graph.close()


def test_host_memory_that_is_not_page_locked_cannot_be_captured() -> None:
    with rigged() as rig:
        rig.first.begin_capture()
        with reported(rig, "not page-locked is captured"):
            copy(rig.first, Block("device", rig.memory.address, 8), Block("host", VALUES.ctypes.data, 8))
        rig.first.end_capture().close()


@pytest.mark.parametrize("waits", [True, False])
def test_blocking_streams_and_the_legacy_stream_wait_for_each_other(waits: bool) -> None:
    def run(rig: Rig) -> None:
        handle = ctypes.c_void_p()
        rig.device.call("cuStreamCreate", ctypes.byref(handle), 0 if waits else 1)
        rig.upload(rig.first)
        rig.first.synchronize()
        rig.values[:] = 1
        rig.driver.enqueue(handle.value or 0, lambda: rig.driver.view(rig.memory.address, (SIZE,)).fill(9))
        rig.device.call("cuMemcpyHtoDAsync_v2", rig.memory.address, VALUES.ctypes.data, SIZE, 1)
        rig.device.call("cuMemcpyDtoHAsync_v2", rig.target.address, rig.memory.address, SIZE, handle)
        rig.device.call("cuStreamSynchronize", handle)
        rig.device.call("cuStreamDestroy_v2", handle)

    assert (wrong_results(run) > 0) != waits


def test_fault_that_is_caught_is_reported_at_the_end() -> None:
    def caught() -> None:
        with rigged() as rig, suppress(AssertionError):
            rig.device.call("cuMemFree_v2", 1)

    with pytest.raises(AssertionError, match="which is no device block"):
        caught()


@pytest.mark.parametrize("make", [Stream, Event, lambda device: DeviceMemory(device, 1)])
def test_leak_is_reported(make: Callable[[Device], object]) -> None:
    def leak() -> None:
        with installed(Driver()):
            make(Device())

    with pytest.raises(AssertionError, match="not freed"):
        leak()


def test_context_that_stays_current_is_reported() -> None:
    def leave() -> None:
        with installed(Driver()):
            Device().__enter__()

    with pytest.raises(AssertionError, match="contexts are still current"):
        leave()


def test_kernel_without_a_context_is_reported() -> None:
    with rigged() as rig:
        stream = rig.first.handle
        rig.device.__exit__(None, None, None)
        with reported(rig, "the engine is queued without a current context"):
            rig.driver.enqueue(stream, lambda: None, name="the engine")
        rig.device.__enter__()
