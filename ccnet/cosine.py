"""GrSCM's cosines between bands over all pixels (Eq. 3), and their gradient without a cube for each step of it.

Products come first and are then divided by the norms, so that nothing as large as x is written but its gradient:

    c = xᵀy / (‖x‖‖y‖),    dx = (dc / (‖x‖‖y‖)) y - (Σ dc c / ‖x‖²) x

Shape legend: B images, g groups of b bands, H×W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ccnet.products import product

EPS = 1e-6  # floor of the norms in a cosine; 1e-12 would vanish in FP16
_RUN = 4096  # pixels


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Of every band of x (rows) and of y in a group: (B, g, b, b). x, y: (B, g, b, H, W), float32 or wider.

    There is a first gradient, no second one.
    """
    result: Tensor = _Cosine.apply(x, y)  # type: ignore[no-untyped-call]
    return result


class _Cosine(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        norm_x, norm_y = norm(x, 2).flatten(3), norm(y, 2).flatten(3).mT
        lengths = norm_x.clamp_min(EPS) * norm_y.clamp_min(EPS)
        cosines = _products(x.flatten(3), y.flatten(3)) / lengths
        ctx.save_for_backward(x, y, norm_x, norm_y, lengths, cosines)
        return cosines

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, y, norm_x, norm_y, lengths, cosines = ctx.saved_tensors
        slopes, moved = grad / lengths, grad * cosines
        return (
            _gradient(x, norm_x, y, slopes, moved.sum(-1, keepdim=True)),
            _gradient(y, norm_y.mT, x, slopes.mT, moved.mT.sum(-1, keepdim=True)),
        )


def _products(x: Tensor, y: Tensor) -> Tensor:
    """xᵀy over all pixels, summed run by run: one sum would lose digits, and the gradient with it at every pixel."""
    return torch.stack([one @ other.mT for one, other in zip(x.split(_RUN, 3), y.split(_RUN, 3), strict=True)]).sum(0)


def _gradient(x: Tensor, norm_x: Tensor, y: Tensor, slopes: Tensor, moved: Tensor) -> Tensor:
    """dx of the formula above; a norm below its floor does not count."""
    along = torch.where(norm_x < EPS, 0, moved / norm_x.square())
    result = product(slopes.flatten(0, 1), y.flatten(0, 1).flatten(2)[None]).view(x.shape)
    return result.addcmul_(x, along[..., None], value=-1)


def norm(x: Tensor, axes: int) -> Tensor:
    """‖x‖ over the last axes, which stay as 1: one by one, as a single sum over all pixels would lose digits."""
    for axis in range(-1, -1 - axes, -1):
        x = torch.linalg.vector_norm(x, dim=axis, keepdim=True)
    return x
