"""The training objective (section III-E)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ccnet.metrics import MRAE_OFFSET

GAMMA = 0.1
"""Weight of the spectral difference loss (Eq. 16)."""


def mrae_loss(truth: Tensor, estimate: Tensor, offset: float = MRAE_OFFSET) -> Tensor:
    """Eq. 14 with |d| / (Y + offset), since CAVE has black pixels. (B, 31, H, W) → scalar."""
    return ((truth - estimate).abs() / (truth + offset)).mean()


def spectral_difference_loss(truth: Tensor, estimate: Tensor) -> Tensor:
    """Eq. 15: how all differences between bands differ, mean over pixels. (B, 31, H, W) → scalar.

    Only the estimate gets a gradient, and only a first one; NotImplementedError where the truth asks for one.
    """
    if not torch.is_grad_enabled():
        truth, estimate = truth.detach(), estimate.detach()  # else a gradient would be made for nobody
    result: Tensor = _SpectralDifference.apply(truth, estimate)  # type: ignore[no-untyped-call]
    return result


class _SpectralDifference(Function):
    """Eq. 15 with its gradient made on the way: autograd would keep each distance's gaps, and fill a cube for each."""

    @staticmethod
    def forward(ctx: Any, truth: Tensor, estimate: Tensor) -> Tensor:
        """|Y(i) - Y(j)| is symmetric, so each distance between bands is visited once and counted twice."""
        if ctx.needs_input_grad[0]:
            raise NotImplementedError("the spectral difference has a gradient for the estimate only, not for the truth")
        truth, estimate = truth.contiguous(), estimate.contiguous()  # a band is one run, as the network's are not
        total = truth.new_zeros(())
        gradient = torch.zeros_like(estimate) if ctx.needs_input_grad[1] else None
        for distance in range(1, truth.shape[1]):
            gap = estimate[:, distance:] - estimate[:, :-distance]
            excess = gap.abs().sub_((truth[:, distance:] - truth[:, :-distance]).abs_())
            total += excess.abs().sum()
            if gradient is not None:
                slope = excess.sign_().mul_(gap.sign_())
                gradient[:, distance:] += slope
                gradient[:, :-distance] -= slope
        ctx.scale = 2 / max(1, truth.numel())  # bands · pixels
        ctx.save_for_backward(gradient)
        return total.mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (gradient,) = ctx.saved_tensors
        return None, gradient * (grad * ctx.scale)


def ccnet_loss(truth: Tensor, estimate: Tensor) -> Tensor:
    """Eq. 16: MRAE + γ · spectral difference, in float32."""
    truth, estimate = truth.to(torch.float32), estimate.to(torch.float32)
    return mrae_loss(truth, estimate) + GAMMA * spectral_difference_loss(truth, estimate)
