"""The CUDA driver: the list of GPUs, and errors that name what is missing."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.gpu import cuda
from tests.runtime.gpu.driver_double import Driver


def test_gpus_have_name_and_architecture(driver: Driver) -> None:
    driver.gpus = 2
    assert cuda.gpus() == ("Orin (sm_87)", "Orin (sm_87)")
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


def test_absent_device_is_refused(driver: Driver) -> None:
    with pytest.raises(CCNetError, match=r"device is 1, expected 0 to 0: Orin \(sm_87\)"):
        cuda.Device(1)
