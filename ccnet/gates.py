"""NeSCM's output gates (Eq. 7) as one operator, ``ccnet::gates``.

A direction's gate is a 3×3×3 convolution of tanh(m_t) + x_t over the window's three slots and the plane. The slots
are the scan's four streams (``ccnet.scan``), two of them also one band away, where the window's outer slot is the
centre of the step before:

    forward   0: stream 0 a band later (zero at the first),   1: stream 0,   2: stream 1
    backward  0: stream 3,   1: stream 2,   2: stream 2 a band earlier (zero at the last)

Shape legend: B images, n heads, T bands, H×W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.kernels import fits, kernel, pointer, run_all


def gates(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """y_t of Eq. 7, both directions summed: (B, n, T, H, W).

    u: (B, 4, n, T, H, W), the scan's result; weight: (2, n, n, 3, 3, 3), a direction's (out, in, slot, H, W);
    bias: (n,), the directions' sum. float32 on a CPU runs the compiled kernel where the package was built with a C
    compiler. All else runs the plain reference, which is also what export and torch.compile see.
    """
    if torch.compiler.is_compiling() or not fits(u, *u.shape[2:4]):
        return gates_reference(u, weight, bias)
    result: Tensor = torch.ops.ccnet.gates(u, weight, bias)
    return result


def gates_reference(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The definition of :func:`gates`, in plain differentiable torch: depthwise, the form that CPUs run best."""
    forward, lead, backward, trail = u.unbind(1)
    later, earlier = (0, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 1)
    slots = [F.pad(forward[:, :, :-1], later), forward, lead, trail, backward, F.pad(backward[:, :, 1:], earlier)]
    planes = torch.cat(slots, 1)  # (B, 6n, T, H, W)
    kernels = weight.movedim(0, 1).transpose(2, 3).flatten(1, 3)  # (n, 6n, 3, 3)
    count, steps = planes.shape[1:3]
    heads = [
        F.conv2d(planes.flatten(1, 2), one.repeat_interleave(steps, 0)[:, None], padding=1, groups=count * steps)
        .unflatten(1, (count, steps))
        .sum(1)
        for one in kernels
    ]
    return torch.stack(heads, 1) + bias[:, None, None, None]


@torch.library.custom_op("ccnet::gates", mutates_args=(), device_types="cpu")
def _gates(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    library = kernel()
    assert library is not None  # noqa: S101 - fits() said so
    batch, _, heads, bands, height, width = u.shape
    u, weight, bias = u.contiguous(), weight.contiguous(), bias.contiguous()
    y = u.new_empty((batch, heads, bands, height, width))
    run_all(library.ccnet_gates, batch * bands, heads, bands, height, width, *map(pointer, (u, weight, bias, y)))
    return y


@_gates.register_fake
def _(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return u.new_empty((u.shape[0], *u.shape[2:]))


@torch.library.custom_op("ccnet::gates_backward", mutates_args=(), device_types="cpu")
def _gates_backward(grad: Tensor, u: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of u, weight and bias."""
    library = kernel()
    assert library is not None  # noqa: S101 - fits() said so
    batch, _, heads, bands, height, width = u.shape
    grad, u, weight = grad.contiguous(), u.contiguous(), weight.contiguous()
    g_u = torch.empty_like(u)
    # A sum for each band of each image, so that it does not matter how these are spread over threads
    g_weight = weight.new_zeros((batch * bands, *weight.shape), dtype=torch.float64)
    tensors = (grad, u, weight, g_u, g_weight)
    run_all(library.ccnet_gates_backward, batch * bands, heads, bands, height, width, *map(pointer, tensors))
    return g_u, g_weight.sum(0).to(weight.dtype), grad.sum((3, 4)).sum((0, 2))


@_gates_backward.register_fake
def _(grad: Tensor, u: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(u), torch.empty_like(weight), weight.new_empty(weight.shape[1])


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _autograd(ctx: torch.autograd.function.BackwardCFunction, grad: Tensor) -> tuple[Tensor, ...]:
    grads: tuple[Tensor, ...] = torch.ops.ccnet.gates_backward(grad, *ctx.saved_tensors)
    return grads


_gates.register_autograd(_autograd, setup_context=_setup_context)
