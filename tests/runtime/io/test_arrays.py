"""Frames as arrays of other libraries, on the host and on a GPU, and the array that a caller wants filled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.cuda import Device
from ccnet.runtime.gpu.device_array import DeviceArray
from ccnet.runtime.io.arrays import as_frame, output_array
from tests.runtime.conftest import pixels, refusal
from tests.runtime.gpu.driver_double import Driver, installed
from tests.runtime.gpu.test_exchange import PIXELS, ByInterface, Library, kinds


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_host_memory_is_shared(dtype: str) -> None:
    frame = pixels(4, 5, dtype)
    assert as_frame(frame) is frame
    for other in (torch.from_numpy(frame), torch.from_numpy(frame).permute(1, 0, 2)):
        assert np.shares_memory(as_frame(other), frame)


@pytest.mark.parametrize("kind", kinds)
def test_frame_on_any_gpu_is_downloaded_when_it_is_written(kind: type[Library]) -> None:
    for seed in range(10):
        driver = Driver(seed)
        driver.gpus = 2
        with installed(driver):
            for index in (0, 1):
                library = kind(driver, index)
                np.testing.assert_array_equal(as_frame(library), PIXELS)
                library.close()


@pytest.mark.parametrize("kind", kinds)
def test_frame_on_the_second_gpu_leaves_the_first_alone(kind: type[Library], driver: Driver) -> None:
    driver.gpus = 2
    library = kind(driver, 1)
    np.testing.assert_array_equal(as_frame(library), PIXELS)
    assert driver.contexts == 1, "a context on the first GPU would take memory there"
    library.close()


def test_frames_leave_nothing_behind(driver: Driver) -> None:
    library = ByInterface(driver)
    alive = driver.alive
    for _ in range(5):
        as_frame(library)
    assert driver.alive == alive
    assert driver.contexts == 1
    library.close()


def test_strided_frame_on_a_gpu_is_downloaded(driver: Driver) -> None:
    planes = DeviceArray.empty(Device(), (3, 6, 8), np.uint8)
    driver.view(planes.address, (3, 6, 8))[:] = PIXELS.transpose(2, 0, 1)
    strides = (planes.strides[1], planes.strides[2], planes.strides[0])
    frame = DeviceArray(planes.device, planes.address, PIXELS.shape, "u1", strides=strides, owner=planes)
    np.testing.assert_array_equal(as_frame(frame), PIXELS)


class Broken:
    """An array whose library fails in its own words."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise self.error


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("error", [BufferError("it has\na gradient"), RuntimeError("a"), TypeError("b")])
def test_failure_of_the_other_library_is_one_line(error: Exception) -> None:
    refusal(lambda: as_frame(Broken(error)), "frame cannot be read", " ".join(str(error).split()))


@pytest.mark.parametrize("frame", [[[1, 2, 3]], None, "photo.png", object()])
def test_what_is_no_array_is_refused(frame: Any) -> None:
    refusal(lambda: as_frame(frame), f"frame is a {type(frame).__name__}, expected numpy, DLPack")


def test_frame_on_a_gpu_without_a_driver_is_refused(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    refusal(lambda: as_frame(Broken(BufferError())), "no CUDA driver")


def test_output_array_is_the_callers_or_new() -> None:
    out = np.empty((2, 3), np.float32)
    assert output_array(out, (2, 3)) is out
    assert output_array(None, (2, 3)).shape == (2, 3)
    with pytest.raises(CCNetError, match=r"out is float32 \(2, 3\), expected a writeable float32 \(3, 2\)"):
        output_array(out, (3, 2))
