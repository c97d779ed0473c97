"""The training objective against Eq. 14-16, computed directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ccnet.metrics import mrae
from ccnet.training.losses import GAMMA, ccnet_loss, mrae_loss, rmse_loss, spectral_difference_loss


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


def test_spectral_difference_is_blind_to_an_offset(pair: tuple[Tensor, Tensor]) -> None:
    truth = pair[0]
    assert spectral_difference_loss(truth, truth + 0.3).item() == pytest.approx(0, abs=1e-12)
    assert spectral_difference_loss(truth, 1.5 * truth).item() > 0.1


def test_objective_is_eq_16_in_float32(pair: tuple[Tensor, Tensor]) -> None:
    truth, estimate = (tensor.to(torch.bfloat16) for tensor in pair)
    loss = ccnet_loss(truth, estimate)
    exact = mrae_loss(truth.double(), estimate.double()) + 0.1 * spectral_difference_loss(
        truth.double(), estimate.double()
    )
    assert GAMMA == 0.1
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def test_gradient_is_that_of_finite_differences() -> None:
    truth, estimate = torch.rand(2, 1, 31, 1, 2, dtype=torch.float64)
    estimate.requires_grad_()

    def objective(estimate: Tensor) -> Tensor:
        return mrae_loss(truth, estimate) + GAMMA * spectral_difference_loss(truth, estimate)

    assert torch.autograd.gradcheck(objective, estimate)


def test_objective_has_a_gradient_under_autocast() -> None:
    """In training with bf16 the estimate is bfloat16."""
    truth, estimate = torch.rand(2, 1, 31, 2, 3)
    half, whole = estimate.to(torch.bfloat16).requires_grad_(), estimate.to(torch.bfloat16).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ccnet_loss(truth, half).backward()
    ccnet_loss(truth, whole).backward()
    assert half.grad is not None and whole.grad is not None
    torch.testing.assert_close(half.grad, whole.grad.to(torch.bfloat16))


def test_gaps_do_not_train() -> None:
    """The loss and its gradient are those of the values with data, and other estimates get no gradient at all."""
    truth, estimate = torch.rand(2, 3, 31, 4, 5)
    truth[0, :, :2], truth[0, [3, 30]], truth[1] = torch.nan, torch.nan, torch.nan
    estimate.requires_grad_()
    loss = ccnet_loss(truth, estimate, gaps=True)
    loss.backward()  # type: ignore[no-untyped-call]
    good = [band for band in range(31) if band not in (3, 30)]
    parts = [(truth[0, good, 2:], estimate[0, good, 2:]), (truth[2], estimate[2])]
    sums = [
        (
            part.numel() * mrae_loss(part[None], guess[None]),
            part.numel() * spectral_difference_loss(part[None], guess[None]),
        )
        for part, guess in parts
    ]
    count = sum(part.numel() for part, _ in parts)
    assert loss.item() == pytest.approx(sum((a + GAMMA * b).item() for a, b in sums) / count, rel=1e-5)
    assert estimate.grad is not None and torch.isfinite(estimate.grad).all()
    assert not estimate.grad[truth.isnan()].any()
    assert (estimate.grad[~truth.isnan()] != 0).float().mean() > 0.99


@pytest.mark.parametrize("gaps", [False, True])
def test_whole_cubes_have_the_same_loss_either_way(pair: tuple[Tensor, Tensor], gaps: bool) -> None:
    expected = mrae_loss(*pair) + GAMMA * spectral_difference_loss(*pair)
    assert ccnet_loss(*pair, gaps=gaps).item() == pytest.approx(expected.item(), rel=1e-5)


def test_batch_without_data_has_no_loss() -> None:
    estimate = torch.rand(1, 31, 2, 2, requires_grad=True)
    loss = ccnet_loss(torch.full((1, 31, 2, 2), torch.nan), estimate, gaps=True)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0 and estimate.grad is not None and not estimate.grad.any()


@pytest.mark.parametrize("gaps", [False, True])
def test_root_mean_square_error_is_added_with_its_weight(pair: tuple[Tensor, Tensor], gaps: bool) -> None:
    truth, estimate = pair
    roots = [(a - b).square().mean().sqrt().item() for a, b in zip(truth, estimate, strict=True)]
    added = ccnet_loss(*pair, gaps=gaps, rmse_weight=2) - ccnet_loss(*pair, gaps=gaps)
    assert added.item() == pytest.approx(2 * sum(roots) / len(roots), rel=1e-4)


def test_root_mean_square_error_of_a_perfect_estimate_has_a_gradient() -> None:
    truth = torch.rand(1, 31, 2, 2)
    estimate = truth.clone().requires_grad_()
    rmse_loss(truth, estimate).backward()  # type: ignore[no-untyped-call]
    assert estimate.grad is not None and not estimate.grad.any()
