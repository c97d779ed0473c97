"""NeSCM's recurrence over the bands as one operator, ``ccnet::scan``.

The forget gate is 1×1×1, so every pixel and window slot runs a recurrence of its own (Eq. 5, 6):

    s_t = sigmoid(W_m m_{t-1} + W_x x_t + b),    m_t = s_t m_{t-1} + (1 - s_t) x_t,    m_0 = 0

The output gate (Eq. 7) reads tanh(m_t) + x_t of the window's three slots. Two recurrences a direction give all three:

    slot       recurrence                               stream forward / backward
    trailing   the centre's, one step earlier           0 / 2
    centre     over the bands                           0 / 2
    leading    over the bands, started one band later   1 / 3

The trailing slot needs none of its own because a zero band leaves the memory at zero.

Shape legend: B images, n heads, T bands, H×W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.ops.kernels import (
    cuda_scan_supported,
    launch,
    limit,
    num_blocks,
    reference_ops_active,
    scan_kernel_supported,
    triton_supported,
)

STREAMS = 4


def scan(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return tanh(m_t) + x_t of the four streams, the operand of Eq. 7, for both directions.

    float32 on a CPU runs the compiled kernel ``csrc/training/scan.c``, float32 on CUDA ``scan_triton.py`` where Triton
    is installed, or ``cuda/scan.py`` where the environment has CCNET_SCAN_KERNEL=cuda, everything else the reference;
    they share this signature and are tested in pairs.

    Args:
        x: (B, n, T, H, W), float.
        weight: (2, n, 2n), each direction's [W_m | W_x].
        bias: (2, n).

    Returns:
        (B, 4, n, T, H, W); step t of a stream is stored at the centre band of its window.
    """
    if not torch.compiler.is_compiling() and reference_ops_active():
        return scan_reference(x, weight, bias)
    return torch.ops.ccnet.scan(x, weight, bias)


def scan_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Define :func:`scan` in differentiable torch."""
    heads = x.shape[1]
    streams = _window_streams(x)  # (B, 4, n, T, H, W), in step order
    # Gates of both streams of a direction are the same: (4, n, n)
    w_m, w_x = weight.repeat_interleave(2, 0).split(heads, dim=2)
    input_gates = torch.einsum("soi,bsithw->bsothw", w_x, streams) + bias.repeat_interleave(2, 0)[..., None, None, None]
    memory = torch.zeros_like(streams[:, :, :, 0])
    memories = []
    for x_t, gate_t in zip(streams.unbind(3), input_gates.unbind(3), strict=True):
        s_t = torch.sigmoid(torch.einsum("soi,bsihw->bsohw", w_m, memory) + gate_t)  # Eq. 5
        memory = x_t + s_t * (memory - x_t)  # Eq. 6
        memories.append(memory)
    out = torch.tanh(torch.stack(memories, 3)) + streams
    return torch.cat([out[:, :2], out[:, 2:].flip(3)], 1)


def _window_streams(x: Tensor) -> Tensor:
    """Return the band that each stream reads at each step: (B, n, T, H, W) → (B, 4, n, T, H, W)."""
    backward = x.flip(2)

    def lead(bands: Tensor) -> Tensor:
        return F.pad(bands[:, :, 1:], (0, 0, 0, 0, 0, 1))

    return torch.stack([x, lead(x), backward, lead(backward)], 1)


@torch.library.custom_op("ccnet::scan", mutates_args=())
def _scan(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if cuda_scan_supported(x, *x.shape[1:3]):
        from ccnet.ops.cuda.scan import cuda_scan

        return cuda_scan(x, weight, bias)
    if triton_supported(x, *x.shape[1:3]):
        from ccnet.ops.scan_triton import triton_scan

        return triton_scan(x, weight, bias)
    return (
        _kernel_scan(x, weight, bias)
        if scan_kernel_supported(x, *x.shape[1:3])
        else scan_reference(x, weight, bias).contiguous()
    )


@_scan.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    batch, *rest = x.shape
    return x.new_empty((batch, STREAMS, *rest))


@torch.library.custom_op("ccnet::scan_backward", mutates_args=())
def _scan_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias; recompute the memory instead of keeping it."""
    if cuda_scan_supported(x, *x.shape[1:3]):
        from ccnet.ops.cuda.scan import cuda_scan_backward

        return cuda_scan_backward(grad, x, weight, bias)
    if triton_supported(x, *x.shape[1:3]):
        from ccnet.ops.scan_triton import triton_scan_backward

        return triton_scan_backward(grad, x, weight, bias)
    if scan_kernel_supported(x, *x.shape[1:3]):
        return _kernel_scan_backward(grad, x, weight, bias)
    return _reference_backward(grad, x, weight, bias)


@_scan_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd(ctx: torch.autograd.function.BackwardCFunction, grad: Tensor) -> tuple[Tensor, ...]:
    return torch.ops.ccnet.scan_backward(grad, *ctx.saved_tensors)


_scan.register_autograd(_autograd, setup_context=_setup_context)


def _reference_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate Eq. 5 and 6 step by step, without a graph of 2·T nodes."""
    heads = x.shape[1]
    streams = _window_streams(x)
    w_m, w_x = weight.repeat_interleave(2, 0).split(heads, dim=2)
    input_gates = torch.einsum("soi,bsithw->bsothw", w_x, streams) + bias.repeat_interleave(2, 0)[..., None, None, None]
    memories = [torch.zeros_like(streams[:, :, :, 0])]
    gates = []
    for x_t, gate_t in zip(streams.unbind(3), input_gates.unbind(3), strict=True):
        gates.append(torch.sigmoid(torch.einsum("soi,bsihw->bsohw", w_m, memories[-1]) + gate_t))
        memories.append(x_t + gates[-1] * (memories[-1] - x_t))
    grad = torch.cat([grad[:, :2], grad[:, 2:].flip(3)], 1)  # from bands to steps

    g_x, g_w, g_b = torch.zeros_like(streams), torch.zeros_like(weight), torch.zeros_like(bias)
    g_m = torch.zeros_like(memories[0])
    for t in reversed(range(streams.shape[3])):
        x_t, s_t, previous = streams[:, :, :, t], gates[t], memories[t]
        g_m = g_m + grad[:, :, :, t] * (1 - torch.tanh(memories[t + 1]) ** 2)
        g_gate = g_m * (previous - x_t) * s_t * (1 - s_t)
        g_x[:, :, :, t] = grad[:, :, :, t] + g_m * (1 - s_t) + torch.einsum("soi,bsohw->bsihw", w_x, g_gate)
        g_m = g_m * s_t + torch.einsum("soi,bsohw->bsihw", w_m, g_gate)
        both = torch.einsum("bsohw,bsihw->soi", g_gate, torch.cat([previous, x_t], 2))
        g_w += both.unflatten(0, (2, 2)).sum(1)
        g_b += g_gate.sum((0, 3, 4)).unflatten(0, (2, 2)).sum(1)
    centre, lead = g_x.unflatten(1, (2, 2)).unbind(2)  # (B, 2, n, T, H, W) each
    grad_streams = centre + F.pad(lead[:, :, :, :-1], (0, 0, 0, 0, 1, 0))
    return grad_streams[:, 0] + grad_streams[:, 1].flip(2), g_w, g_b


# The kernel ---------------------------------------------------------------------------------------------


def _kernel_scan(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    batch, heads, bands, height, width = x.shape
    plane = height * width
    out = x.new_empty((batch, STREAMS, heads, bands, height, width))
    tensors = (x.contiguous(), weight.contiguous(), bias.contiguous(), out)
    launch("ccnet_scan", batch * num_blocks(plane, limit("scan_block")), (heads, bands, plane), tensors)
    return out


def _kernel_scan_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, bands, height, width = x.shape
    plane = height * width
    x, weight, bias, grad = x.contiguous(), weight.contiguous(), bias.contiguous(), grad.contiguous()
    g_x, count = torch.zeros_like(x), batch * num_blocks(plane, limit("scan_block"))
    # One sum for each block, so that the result does not depend on the number of threads
    g_w, g_b = (tensor.new_zeros((count, *tensor.shape), dtype=torch.float64) for tensor in (weight, bias))
    launch("ccnet_scan_backward", count, (heads, bands, plane), (x, weight, bias, grad, g_x, g_w, g_b))
    return g_x, g_w.sum(0).to(weight.dtype), g_b.sum(0).to(bias.dtype)
