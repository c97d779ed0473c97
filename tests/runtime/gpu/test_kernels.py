"""Kernels in machine code: loaded once for each context, launched with the addresses of their arguments."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.gpu import library
from ccnet.runtime.gpu.kernels import Kernel


class Driver:
    """CUDA's driver, which keeps what it is asked to launch."""

    def __init__(self) -> None:
        self.context = 5
        self.loaded: list[tuple[int, bytes]] = []
        self.launches: list[tuple[Any, ...]] = []
        self.status = 0

    def cuCtxGetCurrent(self, context: Any) -> int:  # noqa: N802
        context._obj.value = self.context
        return 0

    def cuModuleLoadData(self, module: Any, code: bytes) -> int:  # noqa: N802
        self.loaded.append((self.context, code))
        module._obj.value = self.context + 100
        return self.status

    def cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:  # noqa: N802
        assert name == b"scan"
        function._obj.value = module.value + 100
        return 0

    def cuLaunchKernel(self, function: Any, *arguments: Any) -> int:  # noqa: N802
        *sizes, addresses, _ = arguments
        values = [ctypes.c_void_p.from_address(addresses[0]).value, ctypes.c_int.from_address(addresses[1]).value]
        self.launches.append((function.value, sizes, values))
        return 0

    def cuGetErrorName(self, status: int, name: Any) -> int:  # noqa: N802
        name._obj.value = b"CUDA_ERROR_NO_BINARY_FOR_GPU"
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(library, "driver", lambda: driver)
    return driver


def launch(kernel: Kernel) -> None:
    kernel.launch(77, (5, 6, 1), 64, [ctypes.c_void_p(1 << 40), ctypes.c_int(-3)])


def test_launch_hands_over_addresses_sizes_and_the_stream(driver: Driver) -> None:
    launch(Kernel(b"code", "scan"))
    assert driver.launches == [(205, [5, 6, 1, 64, 1, 1, 0, 77], [1 << 40, -3])]


def test_code_is_loaded_once_for_each_context(driver: Driver) -> None:
    kernel = Kernel(b"code", "scan")
    for driver.context in (5, 5, 6, 5):
        launch(kernel)
    assert driver.loaded == [(5, b"code"), (6, b"code")]
    assert [function for function, *_ in driver.launches] == [205, 205, 206, 205]


def test_code_of_another_architecture_is_refused(driver: Driver) -> None:
    driver.status = 209
    with pytest.raises(CCNetError, match="cuModuleLoadData failed with CUDA_ERROR_NO_BINARY_FOR_GPU"):
        launch(Kernel(b"code", "scan"))


def test_every_function_has_argument_types() -> None:
    names = {"cuCtxGetCurrent", "cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel"}
    assert names <= library.SIGNATURES.keys()
    assert len(library.SIGNATURES["cuLaunchKernel"]) == 11
