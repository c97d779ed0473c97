"""The spectral difference: reference, kernel and gradient against all pairs of bands at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ccnet.ops.kernels import kernel
from ccnet.ops.spectral_difference import spectral_difference


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    truth, estimate = torch.rand(2, 2, 31, 3, 4, dtype=torch.float64)
    return truth, estimate


def all_pairs(truth: Tensor, estimate: Tensor) -> Tensor:
    """Sum over all pairs of bands i < j at once, in differentiable torch."""
    gap_t, gap_e = ((cube[:, :, None] - cube[:, None]).abs() for cube in (truth, estimate))
    return (gap_t - gap_e).abs().sum() / 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "ties"])
def test_gradient_is_that_of_autograd(layout: torch.memory_format, levels: int | None) -> None:
    """Also where bands are equal, or their gap is equal in both cubes: there |·| has slope 0."""
    truth, estimate = torch.rand(2, 2, 31, 3, 4, dtype=torch.float64)
    if levels:
        truth, estimate = ((cube * levels).floor() for cube in (truth, estimate))
    estimate = estimate.contiguous(memory_format=layout).requires_grad_()
    found, expected = spectral_difference(truth, estimate), all_pairs(truth, estimate)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(3 * value, estimate)[0] for value in (found, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.skipif(kernel() is None, reason="installed without a C compiler: there is no kernel")
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (13, 70)], ids=str)
@pytest.mark.parametrize("bands", [1, 2, 31, 64, 65])
@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "ties"])
def test_kernel_agrees_with_all_pairs(size: tuple[int, int], bands: int, levels: int | None) -> None:
    """With more bands than the kernel supports, torch computes the result."""
    truth, estimate = torch.rand(2, 2, bands, *size)
    if levels:
        truth, estimate = ((cube * levels).floor() for cube in (truth, estimate))
    estimate.requires_grad_()
    exact = estimate.detach().double().requires_grad_()
    found, expected = spectral_difference(truth, estimate), all_pairs(truth.double(), exact)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    gradients = torch.autograd.grad(found, estimate)[0], torch.autograd.grad(expected, exact)[0]
    wrong = (gradients[0] - gradients[1]).abs()
    if levels:
        assert wrong.max() <= 1e-6
    else:  # where a difference vanishes in float32, its sign is another
        assert (wrong > 1e-6).float().mean() < 1e-3


def test_no_graph_is_built_without_a_gradient(pair: tuple[Tensor, Tensor]) -> None:
    assert spectral_difference(*pair).grad_fn is None


def test_truth_gets_a_gradient_if_it_requires_one() -> None:
    truth, estimate = torch.rand(2, 2, 31, 3, 4, dtype=torch.float64).requires_grad_()
    found, expected = (
        torch.autograd.grad(one(truth, estimate), [truth, estimate]) for one in (spectral_difference, all_pairs)
    )
    torch.testing.assert_close(found, expected)
