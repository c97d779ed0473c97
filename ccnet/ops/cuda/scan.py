"""The scan (``ccnet.ops.scan`` holds the equations) by the kernels of ``ccnet/csrc/cuda/scan.cu``.

The roofline, in units of X = 4·B·n·T·H·W bytes, one pass over float32 x. Forward: x read and u written, 5 X; 6 X where
the second direction does not find x in cache. Backward: the forward kernel writes m_t (6 X); x, m_t and u's gradient
are read, and each direction's gradient of x is written (2 + 4 + 4 + 2 X); the sum of both (3 X): 21 X.

Shape legend: as in ``ccnet.ops.scan``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .launcher import launch
from .variants import ScanVariant, Storage

STREAMS = 4
_STORAGE: dict[torch.dtype, Storage] = {torch.float32: "float", torch.float16: "Half"}


def cuda_scan(x: Tensor, weight: Tensor, bias: Tensor, variant: ScanVariant | None = None) -> Tensor:
    """Compute ``ccnet.ops.scan.scan`` without a gradient.

    Args:
        x: (B, n, T, H, W), float32 or float16 on CUDA.
        weight: (2, n, 2n), float32.
        bias: (2, n), float32.
        variant: The kernel to use, which must fit x; by default one that always fits.

    Returns:
        (B, 4, n, T, H, W), in x's type.
    """
    variant = variant or ScanVariant(heads=x.shape[1], storage=_STORAGE[x.dtype])
    return _run_forward(x.contiguous(), weight.contiguous(), bias.contiguous(), variant, memories=False)


def cuda_scan_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, variant: ScanVariant | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of :func:`cuda_scan`.

    Args:
        grad: (B, 4, n, T, H, W), float32, the result's gradient.
        x: (B, n, T, H, W), float32.
        weight: (2, n, 2n), float32.
        bias: (2, n), float32.
        variant: The kernel to use: float, one pixel a thread.

    Returns:
        The gradients of x, weight and bias.
    """
    grad, x, weight, bias = grad.contiguous(), x.contiguous(), weight.contiguous(), bias.contiguous()
    batch, heads, bands, height, width = x.shape
    variant = variant or ScanVariant(heads=heads)
    grid = variant.grid(batch, height * width)
    memories = _run_forward(x, weight, bias, variant, memories=True)
    directions_x = x.new_empty((batch, 2, heads, bands, height, width))
    # (B, direction, block, n, [W_m | W_x | b])
    partial = x.new_empty((batch, 2, grid[0], heads, 2 * heads + 1))
    tensors = (x, weight, bias, memories, grad, directions_x, partial)
    launch(variant, "ccnet_scan_backward", grid, (*tensors, bands, height * width))
    # Many sums of like size: float64 keeps what the blocks know
    sums = partial.sum((0, 2), dtype=torch.float64).to(x.dtype)
    return directions_x.sum(1), sums[..., :-1].contiguous(), sums[..., -1].contiguous()


def _run_forward(x: Tensor, weight: Tensor, bias: Tensor, variant: ScanVariant, *, memories: bool) -> Tensor:
    """Return the streams' u or, in the same layout, their m_t."""
    batch, heads, bands, height, width = x.shape
    out = x.new_empty((batch, STREAMS, heads, bands, height, width))
    grid = variant.grid(batch, height * width)
    launch(variant, "ccnet_scan", grid, (x, weight, bias, out, bands, height * width, int(memories)))
    return out
