"""Arrays in GPU memory, as consumers of DLPack and of CUDA's array interface take them, over a driver double."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ccnet.runtime.gpu import dlpack
from ccnet.runtime.gpu.cuda import Device, Event, Stream
from ccnet.runtime.gpu.device_array import DeviceArray
from tests.runtime.gpu.driver_double import Driver, installed

Array = npt.NDArray[Any]
SHAPE = (3, 4, 5)
VALUES = np.arange(60, dtype=np.float32).reshape(SHAPE)
PER_THREAD = 2


def values_of(driver: Driver, address: int, strides: tuple[int, ...] = VALUES.strides) -> Array:
    """Return what lies at an address in the strides of ``VALUES``, or others of the same bytes."""
    flat = driver.view(address, (VALUES.size,), np.float32)
    return np.lib.stride_tricks.as_strided(flat, SHAPE, strides)


class Writer:
    """A DeviceArray that a stream writes late, and a consumer's stream that reads it."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.device = driver, Device()
        self.stream, self.consumer, self.event = Stream(self.device), Stream(self.device), Event(self.device)
        self.array = DeviceArray.empty(self.device, SHAPE)
        self.array.ready = self.event
        self.read: list[Array] = []

    def write(self) -> None:
        address = self.array.address
        with self.device:
            self.driver.enqueue(self.stream.handle, lambda: np.copyto(values_of(self.driver, address), VALUES))
            self.event.record(self.stream)

    def consume(self, address: int, stream: int) -> None:
        """Read on a stream, as a consumer would that took the array."""
        with self.device as device:
            self.driver.enqueue(stream, lambda: self.read.append(values_of(self.driver, address).copy()))
            device.call("cuStreamSynchronize", stream)

    def close(self) -> None:
        with self.device as device:
            device.synchronize()
        for thing in (self.stream, self.consumer, self.event):
            thing.close()
        del self.array


def wrong_reads(take: Any) -> int:
    """Return for how many seeds a consumer reads other values than those that were written."""
    wrong = 0
    for seed in range(40):
        with installed(Driver(seed)) as driver:
            writer = Writer(driver)
            writer.write()
            take(writer)
            wrong += not np.array_equal(writer.read[0], VALUES)
            writer.close()
    return wrong


def test_consumer_reads_what_was_written() -> None:
    def take(writer: Writer) -> None:
        found = dlpack.from_capsule(writer.array.__dlpack__(stream=writer.consumer.handle, max_version=(1, 1)))
        assert (found.shape, found.strides, found.dtype, found.device) == (
            SHAPE,
            VALUES.strides,
            np.float32,
            (dlpack.CUDA, 0),
        )
        writer.consume(found.address, writer.consumer.handle)

    assert wrong_reads(take) == 0


@pytest.mark.parametrize(("passed", "used"), [(None, 1), (1, 1), (PER_THREAD, PER_THREAD)])
def test_streams_with_numbers_are_cudas_own(passed: int | None, used: int) -> None:
    def take(writer: Writer) -> None:
        found = dlpack.from_capsule(writer.array.__dlpack__(stream=passed))
        writer.consume(found.address, used)

    assert wrong_reads(take) == 0


def test_consumer_that_wants_no_order_gets_none() -> None:
    def take(writer: Writer) -> None:
        found = dlpack.from_capsule(writer.array.__dlpack__(stream=-1))
        writer.consume(found.address, writer.consumer.handle)

    assert wrong_reads(take) > 10


def test_array_interface_names_a_stream_that_waits() -> None:
    def take(writer: Writer) -> None:
        interface = writer.array.__cuda_array_interface__
        assert interface["stream"] == 1
        writer.consume(interface["data"][0], interface["stream"])

    assert wrong_reads(take) == 0


@pytest.mark.usefixtures("driver")
def test_array_interface_has_version_3() -> None:
    array = DeviceArray.empty(Device(), SHAPE)
    assert array.__cuda_array_interface__ == {
        "shape": SHAPE,
        "strides": None,
        "typestr": "<f4",
        "data": (array.address, False),
        "version": 3,
        "stream": None,
    }
    other = DeviceArray(Device(), array.address, SHAPE[::-1], "f4", strides=VALUES.strides[::-1], read_only=True)
    assert other.__cuda_array_interface__["strides"] == VALUES.strides[::-1]
    assert other.__cuda_array_interface__["data"] == (array.address, True)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_download_keeps_strides_and_waits_for_the_writer(seed: int, order: tuple[int, ...]) -> None:
    with installed(Driver(seed)) as driver:
        writer = Writer(driver)
        writer.write()
        expected, array = VALUES.transpose(order), writer.array
        view = DeviceArray(
            array.device, array.address, expected.shape, "f4", strides=expected.strides, owner=array, ready=array.ready
        )
        assert view.is_contiguous == (order == (0, 1, 2))
        for stream in (None, writer.consumer):
            host = view.download(stream)
            np.testing.assert_array_equal(host, expected)
            assert host.strides == expected.strides
        del view, array
        writer.close()


def test_part_of_an_array_is_downloaded_without_its_surroundings(driver: Driver) -> None:
    array = DeviceArray.empty(Device(), SHAPE)
    values_of(driver, array.address)[:] = VALUES
    part = VALUES[1:, ::2, 3:0:-1]
    offset = part.ctypes.data - VALUES.ctypes.data
    view = DeviceArray(array.device, array.address + offset, part.shape, "f4", strides=part.strides, owner=array.owner)
    np.testing.assert_array_equal(view.download(), part)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0), ()])
def test_empty_arrays_and_scalars_are_passed_on(driver: Driver, shape: tuple[int, ...]) -> None:
    array = DeviceArray.empty(Device(), shape)
    assert array.download().shape == shape
    assert dlpack.from_capsule(array.__dlpack__()).shape == shape
    assert array.ndim == len(shape)
    assert array.is_contiguous


def test_memory_is_freed_with_its_last_user_after_all_work(driver: Driver) -> None:
    array = DeviceArray.empty(Device(), SHAPE)
    address, device, stream = array.address, array.device, Stream(Device())
    found = dlpack.from_capsule(array.__dlpack__(stream=stream.handle))
    del array
    gc.collect()
    assert driver.alive != [f"StreamState {stream.handle:#x}"], "the consumer keeps it"
    with device:
        driver.enqueue(stream.handle, lambda: values_of(driver, address).fill(0), [address])
    del found  # while its work is queued
    gc.collect()
    assert driver.alive == [f"StreamState {stream.handle:#x}"]
    stream.close()


def test_capsule_keeps_memory_even_if_nobody_takes_it(driver: Driver) -> None:
    capsule = DeviceArray.empty(Device(), SHAPE).__dlpack__()
    gc.collect()
    assert len(driver.alive) == 1
    del capsule
    gc.collect()
    assert not driver.alive


def test_torch_takes_a_copy_on_the_cpu(driver: Driver) -> None:
    array = DeviceArray.empty(Device(), SHAPE)
    values_of(driver, array.address)[:] = VALUES
    for version in (None, (1, 0)):
        taken = torch.from_dlpack(array.__dlpack__(dl_device=(1, 0), max_version=version))
        np.testing.assert_array_equal(taken, VALUES)
    capsule = array.__dlpack__(dl_device=(1, 0), max_version=(1, 1))
    del array
    gc.collect()
    assert not driver.alive, "the copy does not need the device"
    assert dlpack.from_capsule(capsule).is_copy


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_copy_is_independent_and_on_the_device(driver: Driver, order: tuple[int, ...]) -> None:
    array = DeviceArray.empty(Device(), SHAPE)
    expected = VALUES.transpose(order)
    view = DeviceArray(array.device, array.address, expected.shape, "f4", strides=expected.strides, owner=array.owner)
    values_of(driver, array.address)[:] = VALUES
    found = dlpack.from_capsule(view.__dlpack__(copy=True, dl_device=(2, 0)))
    assert (found.device, found.shape, found.strides) == ((dlpack.CUDA, 0), expected.shape, expected.strides)
    values_of(driver, array.address)[:] = 0
    np.testing.assert_array_equal(values_of(driver, found.address), VALUES)
    shared = dlpack.from_capsule(view.__dlpack__(copy=False))
    assert shared.address == array.address


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stream": 0}, "stream is 0"),
        ({"dl_device": (2, 1)}, r"is on \(2, 0\), and cannot be moved to \(2, 1\)"),
        ({"dl_device": (10, 0)}, "cannot be moved"),
        ({"dl_device": (1, 0), "copy": False}, "cannot be read on the CPU without a copy"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(options: dict[str, Any], words: str) -> None:
    array = DeviceArray.empty(Device(), SHAPE)
    with pytest.raises(BufferError, match=words):
        array.__dlpack__(**options)


@pytest.mark.usefixtures("driver")
def test_read_only_arrays_say_so() -> None:
    array = DeviceArray.empty(Device(), SHAPE)
    array.read_only = True
    assert dlpack.from_capsule(array.__dlpack__(max_version=(1, 1))).read_only
    with pytest.raises(BufferError, match="readonly"):
        array.__dlpack__()


def test_second_gpu_is_named(driver: Driver) -> None:
    driver.gpus = 2
    array = DeviceArray.empty(Device(1), SHAPE)
    assert array.__dlpack_device__() == (dlpack.CUDA, 1)
    assert dlpack.from_capsule(array.__dlpack__(stream=1)).device == (dlpack.CUDA, 1)
    array.download()


@pytest.mark.gpu
def test_torch_takes_a_cube_on_the_gpu() -> None:
    array = DeviceArray.empty(Device(), SHAPE)
    taken = torch.from_dlpack(array)
    taken.copy_(torch.from_numpy(VALUES))
    torch.cuda.synchronize()
    np.testing.assert_array_equal(array.download(), VALUES)
    assert taken.data_ptr() == array.address
