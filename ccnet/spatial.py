"""What the feed-forward network does in space, between its 1×1 convolutions, as one operator, ``ccnet::spatial``.

GELU, a depthwise 3×3 and GELU again keep five tensors of four times the network's channels for the gradient in plain
torch; the operator keeps what it reads, and does the rest again.

Shape legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.kernels import floats_on_cpu, kernel, pointer, run_all


def spatial(x_BCHW: Tensor, weight: Tensor) -> Tensor:
    """gelu(dw3×3(gelu(x))): (B, C, H, W). weight: (C, 1, 3, 3).

    float32 on a CPU runs the compiled kernel where the package was built with a C compiler. All else runs the plain
    reference, which is also what export and torch.compile see.
    """
    if torch.compiler.is_compiling() or not floats_on_cpu(x_BCHW, weight):
        return spatial_reference(x_BCHW, weight)
    result: Tensor = torch.ops.ccnet.spatial(x_BCHW, weight)
    return result


def spatial_reference(x_BCHW: Tensor, weight: Tensor) -> Tensor:
    """The definition of :func:`spatial`, in plain differentiable torch."""
    return F.gelu(F.conv2d(F.gelu(x_BCHW), weight, padding=1, groups=weight.shape[0]))


@torch.library.custom_op("ccnet::spatial", mutates_args=(), device_types="cpu")
def _spatial(x: Tensor, weight: Tensor) -> Tensor:
    library = kernel()
    assert library is not None  # noqa: S101 - floats_on_cpu() said so
    if weight.shape != (x.shape[1], 1, 3, 3):
        raise ValueError(f"weight is {tuple(weight.shape)}, expected {(x.shape[1], 1, 3, 3)}")
    x, weight = x.contiguous(), weight.contiguous()
    y = torch.empty_like(x)
    run_all(library.ccnet_spatial, len(x) * x.shape[1], *x.shape[1:], *map(pointer, (x, weight, y)))
    return y


@_spatial.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("ccnet::spatial_backward", mutates_args=(), device_types="cpu")
def _spatial_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight."""
    library = kernel()
    assert library is not None  # noqa: S101 - floats_on_cpu() said so
    grad, x, weight = grad.contiguous(), x.contiguous(), weight.contiguous()
    g_x, g_weight = torch.empty_like(x), weight.new_empty((len(x), *weight.shape))
    tensors = (grad, x, weight, g_x, g_weight)
    run_all(library.ccnet_spatial_backward, len(x) * x.shape[1], *x.shape[1:], *map(pointer, tensors))
    return g_x, g_weight.sum(0)


@_spatial_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    usual = torch.contiguous_format
    return torch.empty_like(x, memory_format=usual), torch.empty_like(weight, memory_format=usual)


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd(ctx: torch.autograd.function.BackwardCFunction, grad: Tensor) -> tuple[Tensor, ...]:
    grads: tuple[Tensor, ...] = torch.ops.ccnet.spatial_backward(grad, *ctx.saved_tensors)
    return grads


_spatial.register_autograd(_autograd, setup_context=_setup_context)
