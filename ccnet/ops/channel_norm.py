"""Layer normalisation over the channels of each pixel.

torch normalises the last axis and would copy a transposed image; the kernel ``csrc/training/channel_norm.c`` reads the
planes as they lie, so it is fastest on a view (B, H, W, C) of an image (B, C, H, W). It is not twice differentiable.

Shape legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ccnet.ops.kernels import cpu_kernel_supported, launch, limit, num_blocks


def channel_norm(x_BHWC: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
    """Normalise the channels of each pixel to mean 0 and variance 1, then scale and shift them.

    Args:
        x_BHWC: features.
        scale: (C,).
        shift: (C,).
        epsilon: added to the variance.

    Returns:
        The normalised features, (B, H, W, C).
    """
    if not cpu_kernel_supported(x_BHWC, scale, shift) or x_BHWC.shape[3:] != scale.shape:
        return F.layer_norm(x_BHWC, tuple(scale.shape), scale, shift, epsilon)
    planes = x_BHWC.movedim(-1, 1)
    return _ChannelNorm.apply(planes, scale, shift, epsilon).movedim(1, -1)  # type: ignore[no-untyped-call]


class _ChannelNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
        x, scale, shift, ctx.epsilon = x.contiguous(), scale.contiguous(), shift.contiguous(), x.new_tensor(epsilon)
        ctx.save_for_backward(x, scale)
        y = torch.empty_like(x)
        launch("ccnet_norm", _count(x), _sizes(x), (ctx.epsilon, x, scale, shift, y))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        g_x, sums = torch.empty_like(x), x.new_empty((2, _count(x), x.shape[1]))
        tensors = (ctx.epsilon, grad.contiguous(), x, scale, g_x, *sums)
        launch("ccnet_norm_backward", _count(x), _sizes(x), tensors)
        return g_x, *sums.sum(1), None


def _sizes(x: Tensor) -> tuple[int, int]:
    """Return the number of channels and of pixels in a plane."""
    return x.shape[1], x.shape[2:].numel()


def _count(x: Tensor) -> int:
    """Return the number of blocks of pixels in all images."""
    return len(x) * num_blocks(x.shape[2:].numel(), limit("norm_block"))
