"""torch's layers where CCNet has them by the dozen: float32 on a CPU runs compiled kernels, all else is torch's own.

So do exports: parameters, names and graphs are torch's. A kernel has a first gradient only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .kernels import cpu_kernel_supported, launch, num_blocks
from .matmul import product


class Pointwise(nn.Conv2d):
    """A convolution of 1×1: (B, C, H, W) → (B, made, H, W)."""

    def __init__(self, channels: int, made: int, groups: int = 1, bias: bool = True) -> None:
        super().__init__(channels, made, 1, groups=groups, bias=bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return pointwise(x_BCHW, self.weight, self.bias, self.groups)


class Depthwise(nn.Conv2d):
    """A 3×3 of each channel by itself, without a bias: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)

    def forward(self, x_BCHW: Tensor, before: bool = False, behind: bool = False) -> Tensor:
        """With GELU before and behind it where asked for."""
        return depthwise(x_BCHW, self.weight, before, behind)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel, (B, H, W, C), quickest as a view of (B, C, H, W)."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if not cpu_kernel_supported(x_BHWC, self.weight, self.bias) or x_BHWC.shape[3:] != self.normalized_shape:
            return super().forward(x_BHWC)
        x_BCHW = x_BHWC.movedim(-1, 1)
        made: Tensor = _ChannelNorm.apply(x_BCHW, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return made.movedim(1, -1)


def pointwise(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """The convolution of 1×1. weight: (made, C / groups, 1, 1), bias: (made,)."""
    if cpu_kernel_supported(x_BCHW, weight, bias) and x_BCHW.ndim == 4:
        result: Tensor = _Pointwise.apply(x_BCHW, weight, bias, groups)  # type: ignore[no-untyped-call]
        return result
    return F.conv2d(x_BCHW, weight, bias, groups=groups)


def depthwise(x_BCHW: Tensor, weight: Tensor, before: bool = False, behind: bool = False) -> Tensor:
    """The 3×3 of each channel, with GELU before and behind it where asked for. weight: (C, 1, 3, 3).

    In one kernel they keep a single tensor for the gradient, where torch's layers would keep five.
    """
    if cpu_kernel_supported(x_BCHW, weight) and x_BCHW.ndim == 4:
        result: Tensor = _Depthwise.apply(x_BCHW, weight, before, behind)  # type: ignore[no-untyped-call]
        return result
    made = F.conv2d(F.gelu(x_BCHW) if before else x_BCHW, weight, padding=1, groups=weight.shape[0])
    return F.gelu(made) if behind else made


class _Pointwise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        if weight.shape != (len(weight) // groups * groups, x.shape[1] // groups, 1, 1):
            raise ValueError(f"weight is {tuple(weight.shape)}, expected (made, {x.shape[1] // groups}, 1, 1)")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"bias is {tuple(bias.shape)}, expected {(len(weight),)}")
        matrices, pixels = _matrices(weight, groups), _pixels(x, groups)
        ctx.save_for_backward(matrices, pixels)
        made = product(matrices, pixels, None if bias is None else bias.view(groups, -1))
        return made.view(len(x), len(weight), *x.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        matrices, pixels = ctx.saved_tensors
        (wants_x, wants_weight, wants_bias, _), size = ctx.needs_input_grad, grad.shape[2:]
        grads = _pixels(grad, len(matrices))
        return (
            product(matrices.mT, grads).view(len(grad), pixels.shape[1] * pixels.shape[2], *size) if wants_x else None,
            (grads @ pixels.mT).sum(0).flatten(0, 1)[..., None, None] if wants_weight else None,
            grads.sum((0, 3)).flatten() if wants_bias else None,
            None,
        )


def _matrices(weight: Tensor, groups: int) -> Tensor:
    return weight.reshape(groups, -1, weight.shape[1])


def _pixels(x: Tensor, groups: int) -> Tensor:
    return x.reshape(len(x), groups, x.shape[1] // groups, x.shape[2:].numel())


class _Depthwise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, before: bool, behind: bool) -> Tensor:
        if weight.shape != (x.shape[1], 1, 3, 3):
            raise ValueError(f"weight is {tuple(weight.shape)}, expected {(x.shape[1], 1, 3, 3)}")
        x, weight, ctx.gelus = x.contiguous(), weight.contiguous(), (before, behind)
        ctx.save_for_backward(x, weight)
        made = torch.empty_like(x)
        launch("ccnet_depthwise", len(x) * x.shape[1], (*ctx.gelus, *x.shape[1:]), (x, weight, made))
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g_x, g_weight = torch.empty_like(x), weight.new_empty((len(x), *weight.shape))
        tensors = (grad.contiguous(), x, weight, g_x, g_weight)
        launch("ccnet_depthwise_backward", len(x) * x.shape[1], (*ctx.gelus, *x.shape[1:]), tensors)
        return g_x, g_weight.sum(0), None, None


class _ChannelNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
        x, scale, shift, ctx.epsilon = x.contiguous(), scale.contiguous(), shift.contiguous(), x.new_tensor(epsilon)
        ctx.save_for_backward(x, scale)
        made = torch.empty_like(x)
        launch("ccnet_norm", _runs(x), _sizes(x), (ctx.epsilon, x, scale, shift, made))
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        g_x, sums = torch.empty_like(x), x.new_empty((2, _runs(x), x.shape[1]))
        tensors = (ctx.epsilon, grad.contiguous(), x, scale, g_x, *sums)
        launch("ccnet_norm_backward", _runs(x), _sizes(x), tensors)
        return g_x, *sums.sum(1), None


_PIXELS = 64  # of a run, as in norm.c


def _sizes(x: Tensor) -> tuple[int, int]:
    """Channels, and pixels of a plane."""
    return x.shape[1], x.shape[2:].numel()


def _runs(x: Tensor) -> int:
    return len(x) * num_blocks(x.shape[2:].numel(), _PIXELS)
