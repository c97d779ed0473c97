"""Arrays that other libraries hold on a GPU: their producers' work is done first, for every order of streams."""

from __future__ import annotations

import functools
import gc
from typing import Any

import numpy as np
import pytest
import torch

from ccnet.contract import CCNetError
from ccnet.runtime.gpu import dlpack
from ccnet.runtime.gpu.cuda import Device, DeviceMemory, Event, Stream
from ccnet.runtime.gpu.device_array import DeviceArray
from ccnet.runtime.gpu.exchange import device_array, device_of
from tests.runtime.gpu.driver_double import Driver, installed

SHAPE = (6, 8, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


class Library:
    """Another library: it writes an array late, on a stream of its own, and frees it when its deleter is called."""

    def __init__(self, driver: Driver, index: int = 0) -> None:
        self.driver, self.device = driver, Device(index)
        self.stream = Stream(self.device)
        self.memory = DeviceMemory(self.device, PIXELS.size)
        self.asked: list[dict[str, Any]] = []
        address = self.memory.address
        with self.device:
            self.driver.enqueue(self.stream.handle, lambda: np.copyto(driver.view(address, SHAPE), PIXELS), [address])

    def close(self) -> None:
        with self.device:
            self.stream.synchronize()
        self.stream.close()
        self.memory.close()


class ByDLPack(Library):
    """It has DLPack 1.0, and orders its stream before that of the consumer."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device.index

    def __dlpack__(self, *, stream: int, max_version: tuple[int, int] | None = None) -> Any:
        self.asked.append({"stream": stream, "max_version": max_version})
        event = Event(self.device)
        with self.device as device:
            event.record(self.stream)
            device.call("cuStreamWaitEvent", stream, event.handle, 0)
        event.close()
        strides = dlpack.contiguous_strides(SHAPE, 1)
        owner = object()
        tensor = dlpack.Tensor(
            self.memory.address, SHAPE, strides, np.dtype("u1"), self.__dlpack_device__(), owner, read_only=True
        )
        return dlpack.to_capsule(tensor, max_version)


class ByOldDLPack(ByDLPack):
    """It has DLPack from before version 1.0, which takes a stream alone."""

    def __dlpack__(self, stream: int) -> Any:  # type: ignore[override]
        self.asked.append({"stream": stream})
        tensor = dlpack.from_capsule(super().__dlpack__(stream=stream, max_version=(1, 0)))
        return dlpack.to_capsule(
            dlpack.Tensor(tensor.address, SHAPE, tensor.strides, tensor.dtype, tensor.device, tensor.owner)
        )


class ByInterface(Library):
    """It has CUDA's array interface, version 3, which names its stream."""

    extra: Any = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": SHAPE,
            "typestr": "|u1",
            "data": (self.memory.address, False),
            "version": 3,
            "stream": self.stream.handle,
            **(self.extra or {}),
        }


class ByInterfaceWithoutStream(ByInterface):
    """It has CUDA's array interface without a stream, as torch does: version 2."""

    def __init__(self, driver: Driver, index: int = 0) -> None:
        super().__init__(driver, index)
        self.extra = {"stream": None, "version": 2}


class Both(ByDLPack):
    """It has both, and an array interface that nobody should read."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise AssertionError("DLPack is preferred")


kinds = [ByDLPack, ByOldDLPack, ByInterface, ByInterfaceWithoutStream, Both]


def read_into(read: list[Any], driver: Driver, address: int) -> None:
    read.append(driver.view(address, SHAPE).copy())


@pytest.mark.parametrize("kind", kinds)
@pytest.mark.parametrize("index", [0, 1])
def test_work_of_the_producer_is_done_before(kind: type[Library], index: int) -> None:
    for seed in range(30):
        driver = Driver(seed)
        driver.gpus = 2
        with installed(driver):
            library = kind(driver, index)
            device = device_of(library)
            assert device is Device(index)
            stream = Stream(device)
            array = device_array(library, stream)
            read: list[Any] = []
            with device:
                read_late = functools.partial(read_into, read, driver, array.address)
                driver.enqueue(stream.handle, read_late)
                stream.synchronize()
            np.testing.assert_array_equal(read[0], PIXELS)
            assert (array.device, array.shape, array.dtype) == (device, SHAPE, np.uint8)
            stream.close()
            library.close()


def test_producer_is_told_the_stream_and_the_version(driver: Driver) -> None:
    library, stream = ByDLPack(driver), Stream(Device())
    assert device_array(library, stream).read_only
    assert library.asked == [{"stream": stream.handle, "max_version": dlpack.VERSION}]
    for thing in (stream, library):
        thing.close()


def test_frames_take_no_context_more(driver: Driver) -> None:
    library, stream = ByInterface(driver), Stream(Device())
    for _ in range(20):
        device_array(library, stream)
    assert driver.contexts == 1
    for thing in (stream, library):
        thing.close()


def test_array_of_a_second_gpu_makes_no_context_on_the_first(driver: Driver) -> None:
    driver.gpus = 2
    library = ByInterface(driver, 1)
    assert device_of(library) is Device(1)
    assert driver.contexts == 1
    library.close()


class Lent:
    """Another library that passes on an array, and knows nothing of it afterwards."""

    def __init__(self, source: DeviceArray) -> None:
        self.__dlpack__, self.__dlpack_device__ = source.__dlpack__, source.__dlpack_device__


def test_owner_is_released_with_the_array(driver: Driver) -> None:
    stream = Stream(Device())
    array = device_array(Lent(DeviceArray.empty(Device(), SHAPE)), stream)
    gc.collect()
    assert len(driver.alive) == 2
    del array
    gc.collect()
    assert len(driver.alive) == 1
    stream.close()


def test_arrays_of_this_process_are_taken_as_they_are(driver: Driver) -> None:
    stream, array = Stream(Device()), DeviceArray.empty(Device(), SHAPE)
    assert device_array(array, stream) is array
    assert device_of(array) is Device()
    stream.close()


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("array", [PIXELS, torch.from_numpy(PIXELS), [1, 2], None, "frame"])
def test_arrays_of_the_host_are_on_no_gpu(array: Any) -> None:
    assert device_of(array) is None
    stream = Stream(Device())
    with pytest.raises(CCNetError, match=r"array is on the host, expected Orin \(sm_87, 16 SM\)"):
        device_array(array, stream)
    stream.close()


def test_array_of_another_gpu_is_refused(driver: Driver) -> None:
    driver.gpus = 2
    library, stream = ByDLPack(driver, 1), Stream(Device(0))
    with pytest.raises(CCNetError, match="move it there"):
        device_array(library, stream)
    for thing in (stream, library):
        thing.close()


@pytest.mark.parametrize(
    ("extra", "words"),
    [({"stream": 0}, "stream is 0"), ({"mask": object()}, "has a mask")],
)
def test_interface_that_cannot_be_read_is_refused(driver: Driver, extra: dict[str, Any], words: str) -> None:
    library, stream = ByInterface(driver), Stream(Device())
    library.extra = extra
    with pytest.raises(CCNetError, match=words):
        device_array(library, stream)
    for thing in (stream, library):
        thing.close()


def test_interface_may_have_strides(driver: Driver) -> None:
    library, stream = ByInterface(driver), Stream(Device())
    library.extra = {"shape": SHAPE[::-1], "strides": PIXELS.strides[::-1]}
    np.testing.assert_array_equal(device_array(library, stream).download(stream), PIXELS.transpose(2, 1, 0))
    for thing in (stream, library):
        thing.close()
