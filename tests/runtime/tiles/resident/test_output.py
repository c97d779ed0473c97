"""Cubes that stay on the GPU, in memory of the caller or of another library."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.runtime import Reconstructor
from ccnet.runtime.gpu.cuda import Device, Event, Stream
from ccnet.runtime.gpu.device_array import DeviceArray
from tests.runtime.conftest import pixels, refusal
from tests.runtime.gpu.driver_double import Driver

from .conftest import gpu, on_host, resident

SIZE = (70, 90)
SHAPE = (31, *SIZE)


class Other:
    """Another library: a tensor whose memory it still uses on a stream of its own when it lends it."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.array, self.stream = driver, DeviceArray.empty(Device(), SHAPE), Stream(Device())
        self.array.ready = Event(Device())
        with Device():
            driver.enqueue(self.stream.handle, self.clear, [self.array.address])
            self.array.ready.record(self.stream)

    def clear(self) -> None:
        self.driver.view(self.array.address, SHAPE, np.float32)[:] = -1

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def close(self) -> None:
        with Device():
            self.stream.synchronize()
        self.stream.close()
        if self.array.ready:
            self.array.ready.close()
        del self.array


@pytest.mark.parametrize("seed", range(4))
def test_cube_stays_in_the_memory_of_another_library(engines: Path, seed: int) -> None:
    frame = pixels(*SIZE, seed=seed)
    with gpu(seed, False) as driver, resident(engines, tile=64) as tested, on_host(engines, tile=64) as reference:
        other = Other(driver)
        assert tested(frame, out=other) is other
        found = driver.view(other.array.address, SHAPE, np.float32).copy()  # without waiting: the cube is complete
        np.testing.assert_array_equal(found, reference(frame))
        assert driver.calls["cuMemcpyDtoHAsync_v2"] == 4, "the sums of four tiles alone"
        other.close()


def test_cube_may_be_interleaved_by_pixel(engines: Path) -> None:
    frame = pixels(*SIZE)
    with gpu(0, False), resident(engines, tile=64) as tested, on_host(engines, tile=64) as reference:
        memory = DeviceArray.empty(Device(), (*SIZE, 31))
        strides = (memory.strides[2], memory.strides[0], memory.strides[1])
        cube = DeviceArray(memory.device, memory.address, SHAPE, "f4", strides=strides, owner=memory.owner)
        np.testing.assert_array_equal(tested(frame, out=cube).download(), reference(frame))
        del memory, cube


def lent(shape: tuple[int, ...], dtype: str = "f4", read_only: bool = False, index: int = 0) -> list[DeviceArray]:
    """Return an array in a list, from which ``refused`` takes it."""
    array = DeviceArray.empty(Device(index), shape, dtype)
    array.read_only = read_only
    return [array]


def refused(reconstruct: Reconstructor, out: list[DeviceArray], *words: str) -> None:
    """Check the error, and that nothing keeps the memory afterwards."""
    refusal(lambda: reconstruct(pixels(*SIZE), out=out.pop()), *words)
    gc.collect()


@pytest.mark.parametrize(
    ("shape", "dtype", "read_only", "words"),
    [
        ((31, 70, 91), "f4", False, "out is float32 (31, 70, 91) on the GPU"),
        (SHAPE, "f8", False, "out is float64 (31, 70, 90)"),
        (SHAPE, "f4", True, "out is read-only float32"),
    ],
)
def test_memory_that_does_not_fit_is_refused(
    engines: Path, shape: tuple[int, ...], dtype: str, read_only: bool, words: str
) -> None:
    with gpu(0, False), resident(engines, tile=64) as tested:
        refused(tested, lent(shape, dtype, read_only), words, "expected a writeable float32 (31, 70, 90)")


def test_memory_of_another_gpu_is_refused(engines: Path) -> None:
    with gpu(0, False) as driver:
        driver.gpus = 2
        with resident(engines, tile=64) as tested:
            refused(tested, lent(SHAPE, index=1), "out is on Orin", "where this backend writes")


@pytest.mark.parametrize("integrated", [False, True])
def test_all_memory_is_that_of_the_chosen_gpu(engines: Path, integrated: bool) -> None:
    """The double reports memory, streams and events of another GPU, and each GPU that is used has a context."""
    frame = pixels(*SIZE, "uint8")
    with gpu(3, integrated) as driver, on_host(engines, tile=64) as reference:
        driver.gpus = 2
        with resident(engines, tile=64, device=1) as tested:
            (cube,) = lent(SHAPE, index=1)
            np.testing.assert_array_equal(tested(frame, out=cube).download(), reference(frame))
            np.testing.assert_array_equal(tested(frame), reference(frame))
            assert driver.contexts == 1, "the first GPU is left alone"
            assert "(cuda:1), frames stay on the GPU" in tested.describe()["backend"]
            del cube


def test_backend_of_the_host_writes_no_gpu_memory(engines: Path) -> None:
    with gpu(0, False), on_host(engines, tile=64) as reference:
        refused(reference, lent(SHAPE), "out is on Orin", "expected memory of the host")
