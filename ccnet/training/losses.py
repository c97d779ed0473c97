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


def rmse_loss(truth: Tensor, estimate: Tensor) -> Tensor:
    """Return the mean over images of the root mean square error: (B, 31, H, W) twice → scalar."""
    return (truth - estimate).square().mean((1, 2, 3)).clamp_min(_LEAST_SQUARE).sqrt().mean()


_LEAST_SQUARE = 1e-8
"""Mean square below which the root's gradient is 0, as it has none at 0."""


def ccnet_loss(truth: Tensor, estimate: Tensor, *, gaps: bool = False, rmse_weight: float = 0) -> Tensor:
    """Compute the training objective (Eq. 16), MRAE + γ · spectral difference, in float32.

    Args:
        truth: (B, 31, H, W).
        estimate: (B, 31, H, W).
        gaps: The truth may be NaN in whole pixels and whole bands of an image, which then do not count. The caller
            says so, because a look at the values would wait for the GPU.
        rmse_weight: Weight of ``rmse_loss``, which is added; 0 in the paper.

    Returns:
        The loss, a scalar.
    """
    truth, estimate = truth.to(torch.float32), estimate.to(torch.float32)
    if gaps:
        return _loss_of_known(truth, estimate, rmse_weight)
    loss = mrae_loss(truth, estimate) + GAMMA * spectral_difference_loss(truth, estimate)
    return loss + rmse_weight * rmse_loss(truth, estimate) if rmse_weight else loss


def _loss_of_known(truth: Tensor, estimate: Tensor, rmse_weight: float) -> Tensor:
    """Return the objective over the bands and pixels in which each image has data; 0 if there are none."""
    total, count = 0 * estimate.sum(), 0
    roots = total
    for image, its_estimate in zip(truth, estimate, strict=True):
        known = ~image.isnan()
        bands, pixels = known.any(dim=2).any(dim=1), known.any(dim=0)
        y_NP, e_NP = image[bands][:, pixels], its_estimate[bands][:, pixels]
        pairs = spectral_difference(y_NP[None, :, None], e_NP[None, :, None])
        total = total + ((y_NP - e_NP).abs() / (y_NP + MRAE_OFFSET)).sum() + 2 * GAMMA * pairs
        count += y_NP.numel()
        if rmse_weight and y_NP.numel():
            roots = roots + rmse_loss(y_NP[None, None], e_NP[None, None]) / len(truth)
    return total / max(1, count) + rmse_weight * roots
