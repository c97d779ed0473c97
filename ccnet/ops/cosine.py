"""GrSCM's cosines between bands over all pixels (Eq. 3), without the tensors whose cosines they are.

Keys and queries are linear maps of the same bands, K = W_k X and Q = W_q X. Over all pixels everything follows from the
bands' own products, the Gram matrix X Xᵀ of a group:

    K Qᵀ = W_k (X Xᵀ) W_qᵀ,    ‖K_i‖² = (W_k (X Xᵀ) W_kᵀ)_ii

It is made in float64: neighbouring bands are alike, and where a map takes their difference, that is what remains of it.

Shape legend: B images, k groups of c bands, n heads of b features, N pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .matmul import product

EPS = 1e-6  # floor of the norms in a cosine; 1e-12 would vanish in FP16
_RUN = 4096  # pixels that are turned to float64 at once


def cosine_of_maps(x: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
    """Of every feature of W_k x (rows) and of W_q x in a head: (B, k·n, b, b), of x's dtype.

    x: (B, k, c, N); keys, queries: (k, n, b, c). There is a first gradient, no second one.
    """
    gram: Tensor = _Gram.apply(x)[:, :, None]  # type: ignore[no-untyped-call]
    maps = torch.stack([keys, queries]).double()[:, None]  # (2, 1, k, n, b, c)
    seen = maps @ gram  # (2, B, k, n, b, c)
    of_keys, of_queries = (seen * maps).sum(-1).clamp_min(EPS**2).sqrt()
    lengths = of_keys[..., None] * of_queries[..., None, :]
    cosines: Tensor = seen[0] @ maps[1].mT / lengths
    return cosines.flatten(1, 2).to(x.dtype)


class _Gram(Function):
    """X Xᵀ, (B, k, c, c) in float64, and its gradient (G + Gᵀ) X."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        runs = (one.double() for one in x.split(_RUN, 3))
        return torch.stack([one @ one.mT for one in runs]).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        both = (grad + grad.mT).to(x.dtype)
        return product(both.flatten(0, 1), x.flatten(0, 1)[None]).view(x.shape)


def norm(x: Tensor, axes: int) -> Tensor:
    """‖x‖ over the last axes, which stay as 1: one by one, as a single sum over all pixels would lose digits."""
    for axis in range(-1, -1 - axes, -1):
        x = torch.linalg.vector_norm(x, dim=axis, keepdim=True)
    return x
