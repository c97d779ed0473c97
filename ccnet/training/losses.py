"""The training objective (section III-E)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ccnet.metrics import MRAE_OFFSET
from ccnet.ops.kernels import cpu_kernel_supported, launch, num_blocks, reference_ops_active

GAMMA = 0.1
"""Weight of the spectral difference loss (Eq. 16)."""


def mrae_loss(truth: Tensor, estimate: Tensor, offset: float = MRAE_OFFSET) -> Tensor:
    """Eq. 14 with |d| / (Y + offset), since CAVE has black pixels. (B, 31, H, W) → scalar."""
    return ((truth - estimate).abs() / (truth + offset)).mean()


def spectral_difference_loss(truth: Tensor, estimate: Tensor) -> Tensor:
    """Eq. 15: how all differences between bands differ, mean over pixels. (B, 31, H, W) → scalar.

    In training, where only the estimate gets a gradient, there is a first one only.
    """
    training = torch.is_grad_enabled() and estimate.requires_grad and not truth.requires_grad
    if not training or torch.compiler.is_compiling() or reference_ops_active():
        return spectral_difference_reference(truth, estimate)
    result: Tensor = _SpectralDifference.apply(truth, estimate)  # type: ignore[no-untyped-call]
    return result


def spectral_difference_reference(truth: Tensor, estimate: Tensor) -> Tensor:
    """The definition of :func:`spectral_difference_loss`, in plain differentiable torch.

    |Y(i) - Y(j)| is symmetric, so each distance between bands is visited once and counted twice.
    """
    total = truth.new_zeros(())
    for distance in range(1, truth.shape[1]):
        gaps = (one[:, distance:] - one[:, :-distance] for one in (truth, estimate))
        of_truth, of_estimate = (gap.abs() for gap in gaps)
        total = total + (of_truth - of_estimate).abs().sum()
    return total * _scale(truth)


def _scale(truth: Tensor) -> float:
    return 2 / max(1, truth.numel())  # bands · pixels


class _SpectralDifference(Function):
    """Its gradient is made on the way: autograd would keep each distance's gaps, and fill a cube for each."""

    @staticmethod
    def forward(ctx: Any, truth: Tensor, estimate: Tensor) -> Tensor:
        truth, estimate = truth.contiguous(), estimate.contiguous()  # a band is one run, as the network's are not
        compiled = (
            cpu_kernel_supported(truth, estimate) and truth.shape == estimate.shape and truth.shape[1] <= _MAX_BANDS
        )
        total, gradient = (_compiled if compiled else _by_distance)(truth, estimate)
        ctx.scale = _scale(truth)
        ctx.save_for_backward(gradient)
        return total.mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (gradient,) = ctx.saved_tensors
        return None, gradient * (grad * ctx.scale)


def _by_distance(truth: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over pairs of bands and all pixels, and its gradient to the estimate."""
    total, gradient = truth.new_zeros(()), torch.zeros_like(estimate)
    for distance in range(1, truth.shape[1]):
        gap = estimate[:, distance:] - estimate[:, :-distance]
        excess = gap.abs().sub_((truth[:, distance:] - truth[:, :-distance]).abs_())
        total += excess.abs().sum()
        slope = excess.sign_().mul_(gap.sign_())
        gradient[:, distance:] += slope
        gradient[:, :-distance] -= slope
    return total, gradient


_PIXELS, _MAX_BANDS = 64, 64  # as in spectral.c


def _compiled(truth: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """As _by_distance, in one pass."""
    images, bands, plane = *truth.shape[:2], truth.shape[2:].numel()
    count = images * num_blocks(plane, _PIXELS)
    gradient, totals = torch.empty_like(estimate), truth.new_empty(count)
    launch("ccnet_spectral", count, (bands, plane), (truth, estimate, gradient, totals))
    return totals.sum(), gradient


def ccnet_loss(truth: Tensor, estimate: Tensor) -> Tensor:
    """Eq. 16: MRAE + γ · spectral difference, in float32."""
    truth, estimate = truth.to(torch.float32), estimate.to(torch.float32)
    return mrae_loss(truth, estimate) + GAMMA * spectral_difference_loss(truth, estimate)
