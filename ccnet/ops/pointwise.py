"""1×1 convolutions: small matrices times an image's pixels.

BLAS is made for matrices that are large in both directions. float32 tensors on a CPU take the compiled kernel
``csrc/training/matmul.c``, all others torch's own operators. The kernel is not twice differentiable.

Shape legend: B images, k groups, C input and O output channels (I and O per group in matrices), H×W or N pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ccnet.ops.kernels import cpu_kernel_supported, launch, limit, num_blocks

_BLOCK = 32768  # numbers that are read at once, so that they stay in cache


def pointwise(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """Convolve with 1×1 filters: (B, C, H, W) → (B, O, H, W).

    Args:
        x_BCHW: features.
        weight: (O, C / groups, 1, 1).
        bias: (O,), or None.
        groups: groups of channels that do not mix.

    Returns:
        The convolved features, in the dtype of ``x_BCHW``.
    """
    if cpu_kernel_supported(x_BCHW, weight, bias) and x_BCHW.ndim == 4:
        return _Pointwise.apply(x_BCHW, weight, bias, groups)  # type: ignore[no-untyped-call]
    return F.conv2d(x_BCHW, weight, bias, groups=groups)


def pointwise_per_image(x_BCHW: Tensor, matrices: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply the pixels of each image by its own matrix: (B, C, H, W) → (B, C, H, W).

    Args:
        x_BCHW: features.
        matrices: (B, C, C), or (1, C, C) for all images alike.
        bias: (C,), or None.

    Returns:
        ``matrices @ x + bias`` for every pixel.
    """
    images, count = len(x_BCHW), len(matrices)
    if torch.compiler.is_compiling() and images == count == 1:
        # A product of flattened pixels would be copied to other layouts and back by TensorRT
        return F.conv2d(x_BCHW, matrices.reshape(*matrices.shape[1:], 1, 1), bias)
    if not cpu_kernel_supported(matrices, x_BCHW) or count not in (1, images) or not images:
        y = (matrices @ x_BCHW.flatten(2)).reshape(x_BCHW.shape)
        return y if bias is None else y + bias[:, None, None]
    # Images with matrices of their own become the groups of a single image
    grouped = x_BCHW.reshape(images // count, -1, *x_BCHW.shape[2:])
    weight = matrices.flatten(0, 1)[..., None, None]
    return pointwise(grouped, weight, None if bias is None else bias.repeat(count), count).view(x_BCHW.shape)


def matmul(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply pixels by matrices, group by group, without a gradient.

    Args:
        weight: (k, O, I).
        x: (B, k, I, N).
        bias: (k, O), or None.

    Returns:
        ``weight @ x + bias``, (B, k, O, N).

    Raises:
        ValueError: the shapes do not fit each other.
    """
    (groups, outer, inner), (images, *size, pixels) = weight.shape, x.shape
    if size != [groups, inner]:
        raise ValueError(f"x is {tuple(x.shape)}, expected (images, {groups}, {inner}, pixels)")
    if not cpu_kernel_supported(weight, x) or outer % limit("matmul_outputs") or pixels % limit("matmul_pixels"):
        y = weight @ x
        return y if bias is None else y + bias[..., None]
    step = limit("matmul_pixels")
    length = max(step, min(pixels, _BLOCK // inner) // step * step)
    y = x.new_empty((images, groups, outer, pixels))
    tensors = (weight.contiguous(), None if bias is None else bias.contiguous(), x.contiguous(), y)
    count = images * groups * num_blocks(pixels, length)
    launch("ccnet_product", count, (groups, outer, inner, pixels, length), tensors)
    return y


class _Pointwise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        if weight.shape != (len(weight) // groups * groups, x.shape[1] // groups, 1, 1):
            raise ValueError(f"weight is {tuple(weight.shape)}, expected (channels, {x.shape[1] // groups}, 1, 1)")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"bias is {tuple(bias.shape)}, expected {(len(weight),)}")
        matrices, pixels = _matrices(weight, groups), _pixels(x, groups)
        ctx.save_for_backward(matrices, pixels)
        y = matmul(matrices, pixels, None if bias is None else bias.view(groups, -1))
        return y.view(len(x), len(weight), *x.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        matrices, pixels = ctx.saved_tensors
        (needs_x, needs_weight, needs_bias, _), size = ctx.needs_input_grad, grad.shape[2:]
        grads = _pixels(grad, len(matrices))
        return (
            matmul(matrices.mT, grads).view(len(grad), pixels.shape[1] * pixels.shape[2], *size) if needs_x else None,
            (grads @ pixels.mT).sum(0).flatten(0, 1)[..., None, None] if needs_weight else None,
            grads.sum((0, 3)).flatten() if needs_bias else None,
            None,
        )


def _matrices(weight: Tensor, groups: int) -> Tensor:
    """(O, I, 1, 1) → (k, O, I)."""
    return weight.reshape(groups, -1, weight.shape[1])


def _pixels(x: Tensor, groups: int) -> Tensor:
    """(B, C, H, W) → (B, k, I, N)."""
    return x.reshape(len(x), groups, x.shape[1] // groups, x.shape[2:].numel())
