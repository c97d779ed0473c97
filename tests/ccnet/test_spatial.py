"""The feed-forward network's part in space: compiled kernel and plain reference agree, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ccnet import kernels
from ccnet.config import CCNetConfig
from ccnet.kernels import kernel
from ccnet.modules import FFN
from ccnet.spatial import spatial, spatial_reference

needs_kernel = pytest.mark.skipif(kernel() is None, reason="installed without a C compiler: there is no kernel")


def with_gradients(function: object, x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """The result, and the gradients of x and weight for a gradient of the result."""
    assert callable(function)
    leaves = x.detach().requires_grad_(), weight.detach().requires_grad_()
    result = function(*leaves)
    return result.detach(), *torch.autograd.grad(result, leaves, grad.to(result.dtype))


def assert_near(actual: Tensor, expected: Tensor) -> None:
    scale = max(1.0, expected.abs().max().item())
    assert actual.dtype == torch.float32
    assert (actual - expected).abs().max().item() <= 2e-6 * scale


@needs_kernel
@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("space", [(1, 1), (1, 7), (7, 1), (2, 3), (16, 16), (13, 70), (70, 33)], ids=str)
def test_the_kernel_is_the_reference_in_float64(channels: int, space: tuple[int, int]) -> None:
    x, weight, grad = (
        3 * torch.randn(2, channels, *space),
        torch.randn(channels, 1, 3, 3),
        torch.randn(2, channels, *space),
    )
    exact = with_gradients(spatial_reference, x.double(), weight.double(), grad)
    for actual, expected in zip(with_gradients(spatial, x, weight, grad), exact, strict=True):
        assert_near(actual, expected)


@needs_kernel
def test_the_slope_is_that_of_gelu_everywhere() -> None:
    """A 3×3 that passes its centre on: the gradient is gelu'(x) gelu'(gelu(x))."""
    x = torch.linspace(-12, 12, 4001).reshape(1, 1, 1, -1)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    found = with_gradients(spatial, x, weight, torch.ones_like(x))[1]

    def slope(at: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(at / math.sqrt(2))) + at * torch.exp(-at * at / 2) / math.sqrt(2 * math.pi)

    at = x.double()
    assert (found - slope(at) * slope(torch.nn.functional.gelu(at))).abs().max().item() <= 1e-6


@needs_kernel
@pytest.mark.parametrize("value", [1e4, 1e30])
def test_values_of_any_size(value: float) -> None:
    x = torch.full((1, 1, 3, 3), value)
    x[0, 0, 0] = -value
    weight = torch.full((1, 1, 3, 3), 0.1)
    expected, found = (with_gradients(one, x, weight, torch.ones_like(x)) for one in (spatial_reference, spatial))
    torch.testing.assert_close(found, expected)


@needs_kernel
def test_a_nan_spreads_no_further_than_the_filters() -> None:
    x, weight = torch.randn(1, 2, 9, 9), torch.randn(2, 1, 3, 3)
    x[0, 0, 4, 5] = torch.nan
    grad = torch.ones_like(x)
    found, expected = (with_gradients(one, x, weight, grad) for one in (spatial, spatial_reference))
    assert all(torch.equal(a.isnan(), b.isnan()) for a, b in zip(found, expected, strict=True))


@needs_kernel
def test_the_kernel_takes_any_strides() -> None:
    x, weight, grad = torch.randn(2, 4, 6, 7), torch.randn(4, 1, 3, 3), torch.randn(2, 4, 6, 7)
    expected = with_gradients(spatial, x, weight, grad)
    found = with_gradients(spatial, x.contiguous(memory_format=torch.channels_last), weight, grad.mT.contiguous().mT)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_kernel
@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_changes_nothing() -> None:
    x, weight, grad = torch.randn(2, 5, 12, 20), torch.randn(5, 1, 3, 3), torch.randn(2, 5, 12, 20)
    results = []
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        results.append(with_gradients(spatial, x, weight, grad))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("dtype", "compiled"), [(torch.float32, False), (torch.bfloat16, True), (torch.float64, True)])
def test_without_a_fitting_kernel_the_reference_runs(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, compiled: bool
) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "kernel", lambda: None)
    given = torch.randn(1, 3, 4, 5, dtype=dtype), torch.randn(3, 1, 3, 3, dtype=dtype), torch.randn(1, 3, 4, 5)
    found, expected = (with_gradients(one, *given) for one in (spatial, spatial_reference))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_kernel
def test_the_operator_is_sound() -> None:
    given = torch.randn(1, 3, 4, 5, requires_grad=True), torch.randn(3, 1, 3, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.ccnet.spatial.default, given)


@needs_kernel
def test_the_feed_forward_network_is_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the operator and two products, and as the convolutions that an export sees."""
    calls: list[torch.Size] = []
    monkeypatch.setattr("ccnet.modules.spatial", lambda x, weight: (calls.append(x.shape), spatial(x, weight))[1])
    part, x, grad = FFN(32, CCNetConfig()), torch.randn(2, 32, 12, 20), torch.randn(2, 32, 12, 20)
    results = []
    for run in (part, part.literal):
        leaf = x.detach().requires_grad_()
        y = run(leaf)
        results.append([y.detach(), *torch.autograd.grad(y, [leaf, *part.parameters()], grad)])
    assert calls == [(2, 128, 12, 20)]
    for found, expected in zip(*results, strict=True):
        assert_near(found, expected)


@needs_kernel
@pytest.mark.parametrize("shape", [(3, 1, 3, 3), (2, 1, 3), (2, 2, 3, 3), (2, 1, 3, 2)])
def test_it_reads_nothing_beyond_its_weight(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        spatial(torch.zeros(1, 2, 4, 4), torch.zeros(shape))


@needs_kernel
def test_autocast_casts_it() -> None:
    part, x = FFN(32, CCNetConfig()), torch.randn(1, 32, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert part(x).dtype == torch.bfloat16
