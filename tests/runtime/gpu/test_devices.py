"""The list of GPUs, one context for each in the process, and errors that name what is missing."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.gpu import cuda
from tests.runtime.gpu.driver_double import Driver


def test_gpus_have_name_and_architecture(driver: Driver) -> None:
    driver.gpus = 2
    assert cuda.gpus() == ("Orin (sm_87, 16 SM)", "Orin (sm_87, 16 SM)")
    assert trt.has_gpu()


@pytest.mark.usefixtures("fresh")
def test_missing_driver_means_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not trt.has_gpu()
    with pytest.raises(CCNetError, match=r"no CUDA driver.*onnxruntime"):
        cuda.gpus()


def test_missing_device_means_no_gpu(driver: Driver) -> None:
    driver.gpus = 0
    assert not cuda.has_gpu()
    with pytest.raises(CCNetError, match="finds no GPU"):
        cuda.gpus()


def test_driver_that_does_not_start_gives_its_reason(driver: Driver) -> None:
    driver.failing["cuInit"] = 100
    assert not cuda.has_gpu()
    with pytest.raises(CCNetError, match="cuInit failed with CUDA_ERROR_NO_DEVICE"):
        cuda.gpus()


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("index", [1, -1])
def test_absent_device_is_refused(index: int) -> None:
    with pytest.raises(CCNetError, match=rf"device is {index}, expected 0 to 0: Orin \(sm_87, 16 SM\)"):
        cuda.Device(index)


def test_device_is_one_object_with_one_context_until_the_process_ends(driver: Driver) -> None:
    driver.gpus = 2
    devices = [cuda.Device(index) for index in (0, 1, 0, 1, 0)]
    assert len({id(device) for device in devices}) == 2
    assert [device.index for device in devices] == [0, 1, 0, 1, 0]
    assert driver.contexts == 2
    cuda.release_devices()  # what the end of the process calls
    assert driver.contexts == 0
    assert cuda.Device(0) is not devices[0]
    assert driver.contexts == 1


def test_threads_that_open_a_device_at_once_share_it(driver: Driver) -> None:
    found: list[cuda.Device] = []
    threads = [threading.Thread(target=lambda: found.append(cuda.Device())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    assert driver.contexts == 1


def test_device_that_cannot_be_opened_is_tried_again(driver: Driver) -> None:
    driver.failing["cuDevicePrimaryCtxRetain"] = 2
    with pytest.raises(CCNetError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        cuda.Device()
    driver.failing.clear()
    assert cuda.Device().name == "Orin (sm_87, 16 SM)"


def test_device_knows_its_properties(driver: Driver) -> None:
    driver.attributes |= {16: 132, 18: 0, 19: 1, 75: 9, 76: 0}
    device = cuda.Device()
    assert (device.compute_capability, device.multiprocessors) == ((9, 0), 132)
    assert (device.is_integrated, device.can_map_host_memory) == (False, True)


def test_free_memory_is_what_is_not_allocated(driver: Driver) -> None:
    driver.capacity = 1000
    device = cuda.Device()
    block = cuda.DeviceMemory(device, 300)
    assert device.free_memory() == 700
    with pytest.raises(cuda.OutOfMemoryError, match="cuMemAlloc_v2 failed with CUDA_ERROR_OUT_OF_MEMORY"):
        cuda.DeviceMemory(device, 701)
    block.close()
    assert device.free_memory() == 1000


def test_context_is_current_inside_with_and_in_its_thread_only(driver: Driver) -> None:
    driver.gpus = 2
    device, other = cuda.Device(0), cuda.Device(1)
    with pytest.raises(CCNetError, match="cuCtxSynchronize failed with CUDA_ERROR_INVALID_CONTEXT"):
        device.call("cuCtxSynchronize")
    failures: list[Exception] = []

    def elsewhere() -> None:
        try:
            device.call("cuCtxSynchronize")
        except CCNetError as error:
            failures.append(error)

    with device, other, device:
        device.call("cuCtxSynchronize")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert len(failures) == 1
    assert driver.calls["cuCtxPushCurrent_v2"] == driver.calls["cuCtxPopCurrent_v2"] == 3
