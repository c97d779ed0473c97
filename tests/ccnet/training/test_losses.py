"""The training objective against Eq. 14-16, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ccnet.metrics import mrae
from ccnet.ops.kernels import kernel
from ccnet.training.losses import GAMMA, ccnet_loss, mrae_loss, spectral_difference_loss


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    truth, estimate = torch.rand(2, 2, 31, 3, 4, dtype=torch.float64)
    return truth, estimate


def test_mrae_loss_is_the_metric(pair: tuple[Tensor, Tensor]) -> None:
    truth, estimate = (tensor.movedim(1, 0).flatten(1, 2).numpy() for tensor in pair)
    assert mrae_loss(*pair).item() == pytest.approx(mrae(truth, estimate))
    assert mrae_loss(*pair, offset=0).item() == pytest.approx(mrae(truth, estimate, 0))


def test_black_truth_has_a_finite_loss() -> None:
    assert mrae_loss(torch.zeros(1, 31, 2, 2), torch.full((1, 31, 2, 2), 0.01)).item() == pytest.approx(0.5)


def test_spectral_difference_is_eq_15(pair: tuple[Tensor, Tensor]) -> None:
    truth, estimate = (tensor.numpy() for tensor in pair)
    total = np.zeros((2, 3, 4))
    for i in range(31):
        for j in range(31):
            if j != i:
                gap_t, gap_e = (np.abs(cube[:, i] - cube[:, j]) for cube in (truth, estimate))
                total += np.abs(gap_t - gap_e)
    assert spectral_difference_loss(*pair).item() == pytest.approx(total.mean() / 31)


def by_the_formula(truth: Tensor, estimate: Tensor) -> Tensor:
    """Eq. 15 over all pairs of bands, in plain differentiable torch."""
    gap_t, gap_e = ((cube[:, :, None] - cube[:, None]).abs() for cube in (truth, estimate))
    return (gap_t - gap_e).abs().sum((1, 2)).mean() / truth.shape[1]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("levels", [None, 3], ids=["apart", "ties"])
def test_the_spectral_differences_gradient_is_autograds(layout: torch.memory_format, levels: int | None) -> None:
    """Also where bands are equal, or as far apart in both cubes: there |·| has slope 0."""
    truth, estimate = torch.rand(2, 2, 31, 3, 4, dtype=torch.float64)
    if levels:
        truth, estimate = ((cube * levels).floor() for cube in (truth, estimate))
    estimate = estimate.contiguous(memory_format=layout).requires_grad_()
    found, expected = spectral_difference_loss(truth, estimate), by_the_formula(truth, estimate)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(3 * value, estimate)[0] for value in (found, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.skipif(kernel() is None, reason="installed without a C compiler: there is no kernel")
@pytest.mark.parametrize("space", [(1, 1), (3, 5), (8, 8), (13, 70)], ids=str)
@pytest.mark.parametrize("bands", [1, 2, 31, 64, 65])
@pytest.mark.parametrize("levels", [None, 3], ids=["apart", "ties"])
def test_the_kernels_difference_is_the_formulas(space: tuple[int, int], bands: int, levels: int | None) -> None:
    """Of more bands than it has room for, torch's is taken."""
    truth, estimate = torch.rand(2, 2, bands, *space)
    if levels:
        truth, estimate = ((cube * levels).floor() for cube in (truth, estimate))
    estimate.requires_grad_()
    exact = estimate.detach().double().requires_grad_()
    found, expected = spectral_difference_loss(truth, estimate), by_the_formula(truth.double(), exact)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    gradients = torch.autograd.grad(found, estimate)[0], torch.autograd.grad(expected, exact)[0]
    wrong = (gradients[0] - gradients[1]).abs()
    if levels:
        assert wrong.max() <= 1e-6
    else:  # where a difference vanishes in float32, its sign is another
        assert (wrong > 1e-6).float().mean() < 1e-3


def test_nothing_is_kept_where_no_gradient_is_asked_for(pair: tuple[Tensor, Tensor]) -> None:
    assert spectral_difference_loss(*pair).grad_fn is None


def test_the_truth_gets_a_gradient_where_it_asks_for_one() -> None:
    truth, estimate = torch.rand(2, 2, 31, 3, 4, dtype=torch.float64).requires_grad_()
    found, expected = (
        torch.autograd.grad(one(truth, estimate), [truth, estimate])
        for one in (spectral_difference_loss, by_the_formula)
    )
    torch.testing.assert_close(found, expected)


def test_spectral_difference_sees_no_offset(pair: tuple[Tensor, Tensor]) -> None:
    truth = pair[0]
    assert spectral_difference_loss(truth, truth + 0.3).item() == pytest.approx(0, abs=1e-12)
    assert spectral_difference_loss(truth, 1.5 * truth).item() > 0.1


def test_the_objective_is_eq_16_in_float32(pair: tuple[Tensor, Tensor]) -> None:
    truth, estimate = (tensor.to(torch.bfloat16) for tensor in pair)
    loss = ccnet_loss(truth, estimate)
    exact = mrae_loss(truth.double(), estimate.double()) + 0.1 * spectral_difference_loss(
        truth.double(), estimate.double()
    )
    assert GAMMA == 0.1
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    truth, estimate = torch.rand(2, 1, 31, 1, 2, dtype=torch.float64)
    estimate.requires_grad_()

    def objective(estimate: Tensor) -> Tensor:
        return mrae_loss(truth, estimate) + GAMMA * spectral_difference_loss(truth, estimate)

    assert torch.autograd.gradcheck(objective, estimate)


def test_the_objective_has_a_gradient_under_autocast() -> None:
    """As in training with bf16, whose estimate is bfloat16."""
    truth, estimate = torch.rand(2, 1, 31, 2, 3)
    half, whole = estimate.to(torch.bfloat16).requires_grad_(), estimate.to(torch.bfloat16).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ccnet_loss(truth, half).backward()
    ccnet_loss(truth, whole).backward()
    assert half.grad is not None and whole.grad is not None
    torch.testing.assert_close(half.grad, whole.grad.to(torch.bfloat16))
