"""Cosines between features over all pixels (Eq. 3), without the keys and queries whose cosines they are.

Keys and queries are linear maps of the same bands, K = W_k X and Q = W_q X. Over all pixels everything follows from the
Gram matrix X Xᵀ of a group's bands:

    K Qᵀ = W_k (X Xᵀ) W_qᵀ,    ‖K_i‖² = (W_k (X Xᵀ) W_kᵀ)_ii

It is summed in float64: neighbouring bands are alike, and a map may take their difference. Portable graphs have keys,
queries and unit vectors instead, because products of vectors of length 1 are at most 1 in any precision; graphs for a
CPU have an operator of this (``ccnet/csrc/inference/band_cosine.c``). The Gram matrix is not twice differentiable.

Shape legend: B images, k groups of c bands, n heads of b features, H×W or N pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ccnet.ops.kernels import reference_ops_active
from ccnet.ops.pointwise import matmul

EPS = 1e-6
"""Smallest norm in a cosine; 1e-12 would vanish in FP16."""

_BLOCK = 4096  # pixels that are converted to float64 at once

Normalize = Callable[[Tensor], Tensor]
"""x / ‖x‖ over a feature's pixels."""


def band_cosine(x_BCHW: Tensor, to_key: nn.Conv2d, to_query: nn.Conv2d, bands: int, normalize: Normalize) -> Tensor:
    """Return the cosine of every key (rows) and query (columns) within a head: (B, k·n, b, b).

    Args:
        x_BCHW: float32 features.
        to_key: grouped 1×1 convolution without a bias, called where a graph is exported, so that nodes get its name.
        to_query: another one of the same shape.
        bands: b, features in a head.
        normalize: divides features (B, k·n, b, H, W) by their norm, called where a graph is exported.

    Returns:
        Cosines in [-1, 1], in the dtype of ``x_BCHW``.
    """
    if torch.compiler.is_compiling() or reference_ops_active():
        return feature_cosine(to_key(x_BCHW), to_query(x_BCHW), bands, normalize)
    groups = to_query.groups
    keys, queries = (conv.weight.flatten(1).unflatten(0, (groups, -1, bands)) for conv in (to_key, to_query))
    return cosine_of_maps(x_BCHW.unflatten(1, (groups, -1)).flatten(3), keys, queries)


def feature_cosine(x_BCHW: Tensor, y_BCHW: Tensor, bands: int, normalize: Normalize) -> Tensor:
    """Return xᵀy / (‖x‖‖y‖) over all pixels for every band of x (rows) and of y in a head: (B, k·n, b, b), float32.

    It divides before it multiplies: a sum of squares over a frame overflows FP16.
    """
    x, y = (normalize(z.unflatten(1, (-1, bands))).flatten(3) for z in (x_BCHW, y_BCHW))
    return _product(x, y)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """Return x yᵀ, (…, b, b), in the dtype of x; but for graphs, whose node it is, the sum over pixels is in float64.

    A float32 sum of 250,000 terms was 2.5e-5 off on a photograph, more than a graph may differ from this reference.
    """
    if torch.compiler.is_compiling():
        return x @ y.transpose(-1, -2)
    blocks = zip(_float64_blocks(x), _float64_blocks(y), strict=True)
    return torch.stack([a @ b.mT for a, b in blocks]).sum(0).to(x.dtype)


def _float64_blocks(x: Tensor) -> Iterator[Tensor]:
    """Return the blocks of pixels of (…, N), each converted when it is taken."""
    return (block.double() for block in x.split(_BLOCK, -1))


def cosine_of_maps(x: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
    """Return the cosines of W_k x (rows) and W_q x within a head.

    Args:
        x: (B, k, c, N).
        keys: W_k, (k, n, b, c).
        queries: W_q, (k, n, b, c).

    Returns:
        (B, k·n, b, b) in the dtype of x; zero for a feature that is zero everywhere.
    """
    gram = _Gram.apply(x)[:, :, None]  # type: ignore[no-untyped-call]
    maps = torch.stack([keys, queries]).double()[:, None]  # (2, 1, k, n, b, c)
    products = maps @ gram  # (2, B, k, n, b, c)
    key_norms, query_norms = (products * maps).sum(-1).clamp_min(EPS**2).sqrt()
    norms = key_norms[..., None] * query_norms[..., None, :]
    return (products[0] @ maps[1].mT / norms).flatten(1, 2).to(x.dtype)


def norm(x: Tensor, axes: int) -> Tensor:
    """Return ‖x‖ over the last axes, which stay with size 1.

    One axis after the other: a single float32 sum over all pixels would lose digits.
    """
    for axis in range(-1, -1 - axes, -1):
        x = torch.linalg.vector_norm(x, dim=axis, keepdim=True)
    return x


class _Gram(Function):
    """X Xᵀ, (B, k, c, c) in float64, and its gradient (G + Gᵀ) X."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.stack([block @ block.mT for block in _float64_blocks(x)]).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        symmetric = (grad + grad.mT).to(x.dtype)
        return matmul(symmetric.flatten(0, 1), x.flatten(0, 1)[None]).view(x.shape)
