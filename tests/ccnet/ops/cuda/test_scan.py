"""The scan's CUDA kernels against the reference in float64: compiled as C++, and on a GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccnet.ops.cuda.scan import cuda_scan, cuda_scan_backward
from ccnet.ops.cuda.variants import ScanVariant
from ccnet.ops.scan import scan_reference
from ccnet.runtime.quality.tolerances import TOLERANCES

LIMIT = TOLERANCES["scan"].max_abs or 0.0
FP16_ULP = 2.0**-10  # of numbers from 1 to 2
Inputs = tuple[Tensor, Tensor, Tensor]


def inputs(heads: int, bands: int, *space: int, images: int = 2) -> Inputs:
    """x (B, n, T, H, W), weight (2, n, 2n), bias (2, n)."""
    return torch.randn(images, heads, bands, *space), torch.randn(2, heads, 2 * heads), torch.randn(2, heads)


def kernels(inputs: Inputs, grad: Tensor, variant: ScanVariant) -> list[Tensor]:
    """Return u and the gradients of x, weight and bias by the kernels."""
    return [cuda_scan(*inputs, variant), *cuda_scan_backward(grad, *inputs, variant)]


def reference(inputs: Inputs, grad: Tensor) -> list[Tensor]:
    """Return u and the gradients by the reference."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    u = scan_reference(*leaves)
    return [u.detach(), *torch.autograd.grad(u, leaves, grad)]


def in_float64(inputs: Inputs) -> Inputs:
    x, weight, bias = (tensor.double() for tensor in inputs)
    return x, weight, bias


def distance(actual: Tensor, expected: Tensor) -> float:
    """Largest distance, relative to the largest value where that exceeds 1."""
    return ((actual.double() - expected).abs().max() / max(1.0, expected.abs().max().item())).item()


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("pixels", [1, 2, 4])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_forward_matches_the_reference(heads: int, pixels: int) -> None:
    given = inputs(heads, 9, 5, 28)
    actual = cuda_scan(*given, ScanVariant(heads=heads, pixels=pixels, threads=64))
    assert distance(actual, scan_reference(*in_float64(given))) <= LIMIT


@pytest.mark.usefixtures("emulator")
@settings(max_examples=12)
@given(st.sampled_from([1, 2, 4]), st.integers(1, 33), st.integers(1, 9), st.integers(1, 20), st.integers(1, 3))
def test_both_passes_match_the_reference_for_any_shape(
    heads: int, bands: int, height: int, width: int, images: int
) -> None:
    given = inputs(heads, bands, height, width, images=images)
    grad = torch.randn(images, 4, heads, bands, height, width)
    actual = kernels(given, grad, ScanVariant(heads=heads, threads=64))
    expected = reference(in_float64(given), grad.double())
    assert max(map(distance, actual, expected)) <= LIMIT


@pytest.mark.usefixtures("emulator")
def test_default_variant_takes_any_strides() -> None:
    x, weight, bias = inputs(2, 5, 6, 5)
    strided = x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2), weight.mT.contiguous().mT, bias
    grad = torch.randn(2, 4, 2, 5, 5, 6).mT
    assert torch.equal(cuda_scan(*strided), cuda_scan(x, weight, bias))
    expected = reference(in_float64((x, weight, bias)), grad.double())[1:]
    assert max(map(distance, cuda_scan_backward(grad, *strided), expected)) <= LIMIT


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_fp16_storage_rounds_the_result_alone(heads: int) -> None:
    x, weight, bias = inputs(heads, 32, 4, 16)
    given = x.half(), weight, bias
    actual = cuda_scan(*given, ScanVariant(heads=heads, storage="Half", pixels=2, threads=64))
    assert actual.dtype == torch.float16
    assert distance(actual, scan_reference(*in_float64(given))) <= FP16_ULP / 2


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_approximate_tanh_is_as_exact_as_fp16(heads: int) -> None:
    x, weight, bias = inputs(heads, 32, 4, 16)
    given = x.half(), weight, bias
    actual = cuda_scan(*given, ScanVariant(heads=heads, storage="Half", threads=64, approximate=True))
    assert FP16_ULP / 8 < distance(actual, scan_reference(*in_float64(given))) <= 2 * FP16_ULP


@pytest.mark.usefixtures("emulator")
def test_saturated_gates_are_as_exact_as_the_reference_in_float32() -> None:
    x, weight, bias = inputs(2, 5, 2, 8)
    given = 1e4 * x, weight, bias
    grad = torch.randn(2, 4, 2, 5, 2, 8)
    actual = kernels(given, grad, ScanVariant(heads=2, threads=64))
    expected = reference(in_float64(given), grad.double())
    for a, r, e in zip(actual, reference(given, grad), expected, strict=True):
        assert distance(a, e) <= max(2e-6, 3 * distance(r, e))


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("index", range(3), ids=["x", "weight", "bias"])
def test_forward_hides_no_nan(index: int) -> None:
    given = inputs(2, 4, 2, 6)
    given[index].view(-1)[1] = torch.nan
    u = cuda_scan(*given, ScanVariant(heads=2, threads=64))
    assert torch.equal(u.isnan(), scan_reference(*given).isnan())


def test_gradients_depend_on_no_order_of_threads(emulator: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block's sums meet in shared memory, where a missing barrier would show."""
    given, grad, variant = inputs(2, 4, 5, 30), torch.randn(2, 4, 2, 4, 5, 30), ScanVariant(heads=2, threads=64)
    ascending = cuda_scan_backward(grad, *given, variant)
    monkeypatch.setattr(emulator, "descending", True)
    descending = cuda_scan_backward(grad, *given, variant)
    assert all(torch.equal(*pair) for pair in zip(ascending, descending, strict=True))


# On a GPU --------------------------------------------------------------------------------------------------------

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a torch that finds a CUDA device")


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("pixels", [1, 2, 4])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_gpu_matches_the_reference(heads: int, pixels: int) -> None:
    x, weight, bias = (tensor.cuda() for tensor in inputs(heads, 32, 24, 36))
    expected = scan_reference(x.double(), weight.double(), bias.double())
    actual = cuda_scan(x, weight, bias, ScanVariant(heads=heads, pixels=pixels))
    assert distance(actual, expected) <= LIMIT
    half = ScanVariant(heads=heads, storage="Half", pixels=pixels, approximate=True)
    assert distance(cuda_scan(x.half(), weight, bias, half), expected) <= 4 * FP16_ULP


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("space", [(1, 1), (5, 13), (8, 125)], ids=str)
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_gradients_on_a_gpu_match_the_reference_and_repeat(heads: int, space: tuple[int, int]) -> None:
    x, weight, bias = (tensor.cuda() for tensor in inputs(heads, 31, *space))
    grad = torch.randn(2, 4, heads, 31, *space, device="cuda")
    first, second = (cuda_scan_backward(grad, x, weight, bias) for _ in range(2))
    expected = reference((x.double(), weight.double(), bias.double()), grad.double())[1:]
    assert max(map(distance, first, expected)) <= LIMIT
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
