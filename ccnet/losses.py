"""The training objective (section III-E)."""

from __future__ import annotations

import torch
from torch import Tensor

from ccnet.metrics import MRAE_OFFSET

GAMMA = 0.1
"""Weight of the spectral difference loss (Eq. 16)."""


def mrae_loss(truth: Tensor, estimate: Tensor, offset: float = MRAE_OFFSET) -> Tensor:
    """Eq. 14 with |d| / (Y + offset), since CAVE has black pixels. (B, 31, H, W) → scalar."""
    return ((truth - estimate).abs() / (truth + offset)).mean()


def spectral_difference_loss(truth: Tensor, estimate: Tensor) -> Tensor:
    """Eq. 15: how all differences between bands differ, mean over pixels. (B, 31, H, W) → scalar.

    |Y(i) - Y(j)| is symmetric, so each distance between bands is visited once and counted twice.
    """
    bands = truth.shape[1]
    total = truth.new_zeros(())
    for distance in range(1, bands):
        gap_t = (truth[:, distance:] - truth[:, :-distance]).abs()
        gap_e = (estimate[:, distance:] - estimate[:, :-distance]).abs()
        total = total + (gap_t - gap_e).abs().sum(1).mean()
    return 2 * total / bands


def ccnet_loss(truth: Tensor, estimate: Tensor) -> Tensor:
    """Eq. 16: MRAE + γ · spectral difference, in float32."""
    truth, estimate = truth.to(torch.float32), estimate.to(torch.float32)
    return mrae_loss(truth, estimate) + GAMMA * spectral_difference_loss(truth, estimate)
