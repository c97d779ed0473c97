"""The core of PAF (section III-D, Eq. 11-13) as one operator for CPUs; ``ccnet.model.blocks`` defines it.

Shape legend: B images, C channels, k groups, H×W pixels, r patch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .kernels import cpu_kernel_supported, launch

_MAX_GROUPS = 16  # as in fusion.c


def fusion_fits(mapped_BCHW: Tensor, compressed_BkHW: Tensor, patch: int) -> bool:
    """Whether the operator computes these. A patch of 1 px has no gradient but rounding, which Adam would follow."""
    ours = patch > 1 and compressed_BkHW.shape[1] <= _MAX_GROUPS and cpu_kernel_supported(mapped_BCHW, compressed_BkHW)
    return ours and _fit(mapped_BCHW, compressed_BkHW, patch)


def _fit(mapped: Tensor, compressed: Tensor, patch: int) -> bool:
    """Whether these are images of the same size, in whole patches."""
    (batch, _, *size), (other, _, *same) = mapped.shape, compressed.shape
    return batch == other and size == same and patch > 0 and not any(side % patch for side in size)


def fusion(mapped_BCHW: Tensor, compressed_BkHW: Tensor, patch: int) -> Tensor:
    """Σ over k of softmax over k of cos(mapped, compressed) · compressed, channel by channel in patches of r×r px:
    (B, C, H, W). float32; H and W are multiples of r."""
    result: Tensor = _Fusion.apply(mapped_BCHW, compressed_BkHW, patch)  # type: ignore[no-untyped-call]
    return result


class _Fusion(Function):
    @staticmethod
    def forward(ctx: Any, mapped: Tensor, compressed: Tensor, patch: int) -> Tensor:
        if not _fit(mapped, compressed, patch) or compressed.shape[1] > _MAX_GROUPS:  # the kernel reads where sizes say
            raise ValueError(
                f"{tuple(mapped.shape)}, {tuple(compressed.shape)} do not fit each other in patches of {patch} px"
            )
        mapped, compressed, ctx.patch = mapped.contiguous(), compressed.contiguous(), patch
        ctx.save_for_backward(mapped, compressed)
        y = torch.empty_like(mapped)
        launch("ccnet_fusion", *_sizes(mapped, compressed, patch), (mapped, compressed, y))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mapped, compressed = ctx.saved_tensors
        grads = torch.empty_like(mapped), torch.empty_like(compressed)
        tensors = (grad.contiguous(), mapped, compressed, *grads)
        launch("ccnet_fusion_backward", *_sizes(mapped, compressed, ctx.patch), tensors)
        return *grads, None


def _sizes(mapped: Tensor, compressed: Tensor, patch: int) -> tuple[int, tuple[int, ...]]:
    """The rows of patches in all images, and what the kernel is told."""
    batch, channels, height, width = mapped.shape
    return batch * height // patch, (channels, compressed.shape[1], patch, height, width)
