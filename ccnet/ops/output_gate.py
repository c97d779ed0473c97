"""NeSCM's output gates (Eq. 7) as one operator.

A direction's gate is a 3×3×3 convolution of tanh(m_t) + x_t over the window's three slots and the plane. The slots
are the scan's four streams (``ccnet.ops.scan``), two of them also one band away, where the window's outer slot is the
centre of the step before:

    forward   0: stream 0 a band later (zero at the first),   1: stream 0,   2: stream 1
    backward  0: stream 3,   1: stream 2,   2: stream 2 a band earlier (zero at the last)

Shape legend: B images, n heads, T bands, H×W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ccnet.ops.kernels import launch, scan_kernel_supported


def output_gate(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return y_t of Eq. 7, both directions summed: (B, n, T, H, W).

    Args:
        u: (B, 4, n, T, H, W), the result of ``ccnet.ops.scan``.
        weight: (2, n, n, 3, 3, 3), each direction's (out, in, slot, H, W).
        bias: (n,), the sum of both directions' biases.

    Returns:
        The gated features, in the dtype of ``u``. float32 on a CPU runs the compiled kernel
        ``csrc/training/output_gate.c``, everything else the reference, also inside torch.compile.
    """
    if torch.compiler.is_compiling() or not scan_kernel_supported(u, *u.shape[2:4]):
        return output_gate_reference(u, weight, bias)
    return _OutputGate.apply(u, weight, bias)  # type: ignore[no-untyped-call]


def output_gate_reference(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Define :func:`output_gate` in differentiable torch, as depthwise convolutions: CPUs run those best."""
    forward, lead, backward, trail = u.unbind(1)
    later, earlier = (0, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 1)
    slots = [F.pad(forward[:, :, :-1], later), forward, lead, trail, backward, F.pad(backward[:, :, 1:], earlier)]
    planes = torch.cat(slots, 1)  # (B, 6n, T, H, W)
    kernels = weight.movedim(0, 1).transpose(2, 3).flatten(1, 3)  # (n, 6n, 3, 3)
    count, steps = planes.shape[1:3]
    heads = [
        F.conv2d(planes.flatten(1, 2), kernel.repeat_interleave(steps, 0)[:, None], padding=1, groups=count * steps)
        .unflatten(1, (count, steps))
        .sum(1)
        for kernel in kernels
    ]
    return torch.stack(heads, 1) + bias[:, None, None, None]


class _OutputGate(Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        batch, _, heads, bands, height, width = u.shape
        u, weight, bias = u.contiguous(), weight.contiguous(), bias.contiguous()
        ctx.save_for_backward(u, weight)
        y = u.new_empty((batch, heads, bands, height, width))
        launch("ccnet_gates", batch * bands, (heads, bands, height, width), (u, weight, bias, y))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (u, weight), grad = ctx.saved_tensors, grad.contiguous()
        batch, _, heads, bands, height, width = u.shape
        g_u = torch.empty_like(u)
        # One sum for each band of each image, so that the result does not depend on the number of threads
        g_weight = weight.new_zeros((batch * bands, *weight.shape), dtype=torch.float64)
        tensors = (grad, u, weight, g_u, g_weight)
        launch("ccnet_gates_backward", batch * bands, (heads, bands, height, width), tensors)
        return g_u, g_weight.sum(0).to(weight.dtype), grad.sum((3, 4)).sum((0, 2))
