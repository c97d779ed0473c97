"""Depthwise 3×3 convolutions with GELU at their input and output, as one operator.

The kernel ``csrc/training/depthwise.c`` keeps a single tensor for the gradient, where torch's layers would keep five.
It is not twice differentiable.

Shape legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ccnet.ops.kernels import cpu_kernel_supported, launch


def depthwise(x_BCHW: Tensor, weight: Tensor, gelu_input: bool = False, gelu_output: bool = False) -> Tensor:
    """Convolve each channel with its own 3×3 filter, zero-padded: (B, C, H, W) → (B, C, H, W).

    Args:
        x_BCHW: features.
        weight: (C, 1, 3, 3).
        gelu_input: apply GELU to the features first.
        gelu_output: apply GELU to the result.

    Returns:
        The filtered features.
    """
    if cpu_kernel_supported(x_BCHW, weight) and x_BCHW.ndim == 4:
        return _Depthwise.apply(x_BCHW, weight, gelu_input, gelu_output)  # type: ignore[no-untyped-call]
    return depthwise_reference(x_BCHW, weight, gelu_input, gelu_output)


def depthwise_reference(x_BCHW: Tensor, weight: Tensor, gelu_input: bool = False, gelu_output: bool = False) -> Tensor:
    """Define :func:`depthwise` in differentiable torch."""
    y = F.conv2d(F.gelu(x_BCHW) if gelu_input else x_BCHW, weight, padding=1, groups=len(weight))
    return F.gelu(y) if gelu_output else y


def grouped_conv3x3(x_BCHW: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Convolve groups of channels with 3×3 filters to one channel each: (B, C, H, W) → (B, groups, H, W).

    Args:
        x_BCHW: features.
        weight: (groups, C / groups, 3, 3).
        bias: (groups,).
        groups: groups of adjacent channels.

    Returns:
        The filtered features.
    """
    if not cpu_kernel_supported(x_BCHW, weight, bias):
        return F.conv2d(x_BCHW, weight, bias, padding=1, groups=groups)
    # oneDNN is slow at groups of few channels: filter all channels, then sum each group's
    filtered = depthwise(x_BCHW, weight.flatten(0, 1)[:, None])
    return filtered.unflatten(1, (groups, -1)).sum(2) + bias[:, None, None]


class _Depthwise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, gelu_input: bool, gelu_output: bool) -> Tensor:
        if weight.shape != (x.shape[1], 1, 3, 3):
            raise ValueError(f"weight is {tuple(weight.shape)}, expected {(x.shape[1], 1, 3, 3)}")
        x, weight, ctx.gelus = x.contiguous(), weight.contiguous(), (gelu_input, gelu_output)
        ctx.save_for_backward(x, weight)
        y = torch.empty_like(x)
        launch("ccnet_depthwise", len(x) * x.shape[1], (*ctx.gelus, *x.shape[1:]), (x, weight, y))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g_x, g_weight = torch.empty_like(x), weight.new_empty((len(x), *weight.shape))
        tensors = (grad.contiguous(), x, weight, g_x, g_weight)
        launch("ccnet_depthwise_backward", len(x) * x.shape[1], (*ctx.gelus, *x.shape[1:]), tensors)
        return g_x, g_weight.sum(0), None, None
