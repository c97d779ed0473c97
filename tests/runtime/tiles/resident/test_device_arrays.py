"""Frames that are on the GPU already, and cubes that stay there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccnet.contract import CCNetError
from ccnet.runtime.gpu.cuda import Device
from ccnet.runtime.gpu.device_array import DeviceArray
from tests.runtime.conftest import pixels
from tests.runtime.gpu.driver_double import Driver

from .conftest import gpu, on_host, resident
from .test_path import shared_folder

Array = npt.NDArray[Any]


def upload(driver: Driver, values: Array) -> DeviceArray:
    array = DeviceArray.empty(Device(), values.shape, values.dtype)
    with Device():
        driver.view(array.address, values.shape, values.dtype)[...] = values
    return array


def planar(driver: Driver, frame: Array) -> DeviceArray:
    """Return a frame (H, W, 3) whose channels are planes in memory, as torch's frames are."""
    planes = upload(driver, np.ascontiguousarray(frame.transpose(2, 0, 1)))
    strides = tuple(planes.strides[axis] for axis in (1, 2, 0))
    return DeviceArray(Device(), planes.address, frame.shape, frame.dtype, strides=strides, owner=planes.owner)


@shared_folder
@given(st.data())
def test_frames_and_cubes_on_the_gpu_equal_those_of_the_hosts_path(engines: Path, data: st.DataObject) -> None:
    seed, integrated = data.draw(st.integers(0, 1000)), data.draw(st.booleans())
    place, options = data.draw(st.sampled_from([upload, planar])), {"tile": data.draw(st.sampled_from([64, 96]))}
    with (
        gpu(seed, integrated) as driver,
        resident(engines, **options) as tested,
        on_host(engines, **options) as reference,
    ):
        height, width = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150))
        frame = pixels(height, width, tested.manifest.input, seed=seed)
        on_gpu, cube = place(driver, frame), DeviceArray.empty(Device(), (31, height, width))
        assert tested(on_gpu, out=cube) is cube
        np.testing.assert_array_equal(cube.download(), reference(frame))
        np.testing.assert_array_equal(tested.encode(on_gpu), reference.encode(frame))
        del on_gpu, cube


def test_a_frame_on_the_gpu_costs_no_upload(engines: Path) -> None:
    with gpu(0, integrated=False) as driver, resident(engines, tile=64) as reconstructor:
        frame = upload(driver, pixels(96, 96, reconstructor.manifest.input))
        cube = DeviceArray.empty(Device(), (31, 96, 96))
        for _ in range(3):
            before = driver.calls.copy()
            reconstructor(frame, out=cube)
        calls = driver.calls - before
        assert not any(name.startswith(("cuMemAlloc", "cuMemHostAlloc", "cuMemFree")) for name in calls)
        assert {name: count for name, count in calls.items() if "Synchronize" in name} == {"cuStreamSynchronize": 1}
        del frame, cube


def test_frames_of_other_dtypes_pass_through_the_host(engines: Path) -> None:
    with (
        gpu(0, integrated=False) as driver,
        resident(engines, tile=64) as tested,
        on_host(engines, tile=64) as reference,
    ):
        dtype = "uint8" if tested.manifest.input == "float32" else "float32"
        frame = pixels(80, 90, dtype)
        on_gpu = upload(driver, frame)
        if dtype == "float32":
            with pytest.raises(CCNetError, match=r"frame is float32 .* expected .* uint8"):
                tested(on_gpu)
        else:
            np.testing.assert_array_equal(tested(on_gpu), reference(frame))
        del on_gpu
