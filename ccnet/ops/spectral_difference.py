"""The spectral difference of Eq. 15 before its scaling, as one operator.

Shape legend: B images, N bands, H×W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ccnet.ops.kernels import cpu_kernel_supported, launch, limit, num_blocks, reference_ops_active


def spectral_difference(truth: Tensor, estimate: Tensor) -> Tensor:
    """Sum the differences between the band gaps of two cubes: Σ_{i<j} | |Y_i - Y_j| - |Ŷ_i - Ŷ_j| | over all pixels.

    If only the estimate needs a gradient, as in training, the result is not twice differentiable.

    Args:
        truth: Y, (B, N, H, W).
        estimate: Ŷ, (B, N, H, W).

    Returns:
        The sum, a scalar.
    """
    training = torch.is_grad_enabled() and estimate.requires_grad and not truth.requires_grad
    if not training or torch.compiler.is_compiling() or reference_ops_active():
        return spectral_difference_reference(truth, estimate)
    return _SpectralDifference.apply(truth, estimate)  # type: ignore[no-untyped-call]


def spectral_difference_reference(truth: Tensor, estimate: Tensor) -> Tensor:
    """Define :func:`spectral_difference` in differentiable torch, one distance j - i between bands at a time."""
    total = truth.new_zeros(())
    for distance in range(1, truth.shape[1]):
        truth_gap, estimate_gap = (cube[:, distance:] - cube[:, :-distance] for cube in (truth, estimate))
        total = total + (truth_gap.abs() - estimate_gap.abs()).abs().sum()
    return total


class _SpectralDifference(Function):
    """Compute the gradient with the value: autograd would keep all gaps, 30 times the size of a cube."""

    @staticmethod
    def forward(ctx: Any, truth: Tensor, estimate: Tensor) -> Tensor:
        truth, estimate = truth.contiguous(), estimate.contiguous()  # the network's estimate has another layout
        supported = cpu_kernel_supported(truth, estimate) and truth.shape == estimate.shape
        supported = supported and truth.shape[1] <= limit("max_bands")
        compute = _value_and_gradient_kernel if supported else _value_and_gradient_torch
        total, gradient = compute(truth, estimate)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (gradient,) = ctx.saved_tensors
        return None, gradient * grad


def _value_and_gradient_kernel(truth: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and its gradient to the estimate from the compiled kernel, in one pass over the cubes."""
    images, bands, plane = *truth.shape[:2], truth.shape[2:].numel()
    count = images * num_blocks(plane, limit("spectral_block"))
    gradient, totals = torch.empty_like(estimate), truth.new_empty(count)
    launch("ccnet_spectral", count, (bands, plane), (truth, estimate, gradient, totals))
    return totals.sum(), gradient


def _value_and_gradient_torch(truth: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and its gradient to the estimate from torch, for all devices and dtypes."""
    total, gradient = truth.new_zeros(()), torch.zeros_like(estimate)
    for distance in range(1, truth.shape[1]):
        gap = estimate[:, distance:] - estimate[:, :-distance]
        excess = gap.abs().sub_((truth[:, distance:] - truth[:, :-distance]).abs_())
        total += excess.abs().sum()
        slope = excess.sign_().mul_(gap.sign_())
        gradient[:, distance:] += slope
        gradient[:, :-distance] -= slope
    return total, gradient
