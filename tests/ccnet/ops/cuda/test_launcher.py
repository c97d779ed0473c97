"""Which kernels of the scan run on CUDA, and how a kernel is handed to the driver."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ccnet.contract import CCNetError
from ccnet.ops import kernels
from ccnet.ops import scan as operator
from ccnet.ops.cuda import launcher
from ccnet.ops.cuda.variants import ScanVariant

ON_CUDA: Any = SimpleNamespace(is_cuda=True, dtype=torch.float32)


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_has_triton", lambda: True)


@pytest.mark.usefixtures("triton")
@pytest.mark.parametrize(("named", "cuda"), [(None, False), ("triton", False), ("cuda", True)])
def test_environment_chooses_the_kernels(named: str | None, cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.SCAN_KERNEL, raising=False)
    if named:
        monkeypatch.setenv(kernels.SCAN_KERNEL, named)
    assert kernels.cuda_scan_supported(ON_CUDA, 2, 32) is cuda
    assert kernels.triton_supported(ON_CUDA, 2, 32)


def test_unknown_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.SCAN_KERNEL, "metal")
    with pytest.raises(CCNetError, match="CCNET_SCAN_KERNEL is 'metal', expected 'triton' or 'cuda'"):
        kernels.cuda_scan_supported(ON_CUDA, 2, 32)
    assert not kernels.cuda_scan_supported(torch.zeros(1), 2, 32)  # on a CPU it is nobody's business


def test_operator_runs_the_cuda_kernels_forward_and_backward(emulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def launch(variant: ScanVariant, name: str, *rest: Any) -> None:
        calls.append(name)
        emulator.launch(variant, name, *rest)

    monkeypatch.setattr(operator, "cuda_scan_supported", lambda *given: True)
    monkeypatch.setattr("ccnet.ops.cuda.scan.launch", launch)
    leaves = [t.requires_grad_() for t in (torch.randn(1, 2, 5, 3, 4), torch.randn(2, 2, 4), torch.randn(2, 2))]
    u = operator.scan(*leaves)
    expected = operator.scan_reference(*leaves)
    grad = torch.randn_like(expected)
    slopes = zip(torch.autograd.grad(u, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True)
    assert calls == ["ccnet_scan", "ccnet_scan", "ccnet_scan_backward"]
    torch.testing.assert_close(u, expected)
    for actual, slope in slopes:
        torch.testing.assert_close(actual, slope, atol=1e-5, rtol=1e-4)


class Driver:
    """CUDA's driver, which keeps what it is asked to launch."""

    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []
        self.status = 0

    def cuModuleLoadData(self, module: Any, code: bytes) -> int:  # noqa: N802
        module._obj.value = 11
        return self.status

    def cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:  # noqa: N802
        assert (module.value, name) == (11, b"ccnet_scan")
        function._obj.value = 12
        return 0

    def cuLaunchKernel(self, function: Any, *numbers: Any) -> int:  # noqa: N802
        *sizes, addresses, _ = numbers
        values = [ctypes.c_void_p.from_address(addresses[0]).value, ctypes.c_int.from_address(addresses[1]).value]
        self.launches.append((function.value, sizes, values))
        return 0

    def cuGetErrorName(self, status: int, name: Any) -> int:  # noqa: N802
        name._obj.value = b"CUDA_ERROR_NO_BINARY_FOR_GPU"
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(launcher, "_driver", lambda: driver)
    monkeypatch.setattr(launcher, "compile_cubin", lambda variant, capability: b"code")
    launcher._function.cache_clear()
    cuda = SimpleNamespace(
        device=lambda device: nullcontext(),
        current_device=lambda: 0,
        current_stream=lambda: SimpleNamespace(cuda_stream=77),
        get_device_capability=lambda device: (9, 0),
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    return driver


def test_launch_hands_over_addresses_sizes_and_the_stream(driver: Driver) -> None:
    x = torch.zeros(4)
    launcher.launch(ScanVariant(heads=1, threads=64), "ccnet_scan", (5, 6, 1), (x, 32))
    assert driver.launches == [(12, [5, 6, 1, 64, 1, 1, 0, 77], [x.data_ptr(), 32])]


def test_error_of_the_driver_has_its_name(driver: Driver) -> None:
    driver.status = 209
    with pytest.raises(CCNetError, match="cuModuleLoadData failed with CUDA_ERROR_NO_BINARY_FOR_GPU"):
        launcher.launch(ScanVariant(heads=1), "ccnet_scan", (1, 1, 1), (torch.zeros(4),))
