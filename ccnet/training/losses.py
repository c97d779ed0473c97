"""The training objective (section III-E): relative error, and the differences between bands."""

from __future__ import annotations

import torch
from torch import Tensor

from ccnet.metrics import MRAE_OFFSET
from ccnet.ops.spectral_difference import spectral_difference

GAMMA = 0.1
"""γ, the weight of the spectral difference loss (Eq. 16)."""


def mrae_loss(truth: Tensor, estimate: Tensor, offset: float = MRAE_OFFSET) -> Tensor:
    """Return the mean relative absolute error (Eq. 14): (B, 31, H, W) twice → scalar.

    The relative error is |Y - Ŷ| / (Y + offset), since CAVE has black pixels; the paper's offset is 0.
    """
    return ((truth - estimate).abs() / (truth + offset)).mean()


def spectral_difference_loss(truth: Tensor, estimate: Tensor) -> Tensor:
    """Return the spectral difference loss (Eq. 15): (B, 31, H, W) twice → scalar.

    It is 1/N Σ_i Σ_{j≠i} | |Y_i - Y_j| - |Ŷ_i - Ŷ_j| |, mean over the pixels, for N bands.
    """
    pairs_once = spectral_difference(truth, estimate)  # i < j; the summands of (i, j) and (j, i) are equal
    return pairs_once * (2 / max(1, truth.numel()))


def ccnet_loss(truth: Tensor, estimate: Tensor) -> Tensor:
    """Return the training objective (Eq. 16), MRAE + γ · spectral difference, in float32."""
    truth, estimate = truth.to(torch.float32), estimate.to(torch.float32)
    return mrae_loss(truth, estimate) + GAMMA * spectral_difference_loss(truth, estimate)
