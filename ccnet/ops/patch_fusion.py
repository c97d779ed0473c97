"""The core of PAF (section III-D, Eq. 11-13) as one operator.

In every patch of r×r pixels, each channel of F_att is compared with the k channels of F_cp and replaced by their
weighted sum. The kernel ``csrc/training/patch_fusion.c`` is not twice differentiable.

Shape legend: B images, C channels, k groups, H×W pixels, r patch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ccnet.ops.kernels import cpu_kernel_supported, launch, limit

Normalize = Callable[[Tensor], Tensor]
"""x / ‖x‖ over the last axis."""


def patch_fusion(mapped_BCHW: Tensor, compressed_BkHW: Tensor, patch: int, normalize: Normalize) -> Tensor:
    """Sum the compressed channels of each patch, weighted by their cosine with each mapped channel.

    Args:
        mapped_BCHW: F_att after its 1×1 map.
        compressed_BkHW: F_cp after its 1×1 map.
        patch: r, px; divides H and W.
        normalize: divides by the norm over the last axis; its nodes in an exported graph stay in FP32.

    Returns:
        Σ_k (softmax_k(cos(mapped, compressed)) · compressed), (B, C, H, W).
    """
    if patch_fusion_supported(mapped_BCHW, compressed_BkHW, patch):
        return patch_fusion_kernel(mapped_BCHW, compressed_BkHW, patch)
    return patch_fusion_reference(mapped_BCHW, compressed_BkHW, patch, normalize)


def patch_fusion_reference(mapped_BCHW: Tensor, compressed_BkHW: Tensor, patch: int, normalize: Normalize) -> Tensor:
    """Define :func:`patch_fusion` in differentiable torch."""
    mapped = _patches(mapped_BCHW, patch)  # (B, H/r, W/r, C, r·r)
    compressed = _patches(compressed_BkHW, patch)  # (B, H/r, W/r, k, r·r)
    similarity = normalize(mapped) @ normalize(compressed).transpose(-1, -2)  # Eq. 11
    fused = torch.softmax(similarity, dim=-1).to(compressed.dtype) @ compressed  # Eq. 12, 13
    rows, columns = fused.shape[1:3]
    fused = fused.unflatten(4, (patch, patch)).permute(0, 3, 1, 4, 2, 5)
    return fused.reshape(*mapped_BCHW.shape[:2], rows * patch, columns * patch)


def _patches(x_BCHW: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) → (B, H/r, W/r, C, r·r)."""
    x = x_BCHW.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (B, C, H/r, r, W/r, r)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(4)


def patch_fusion_supported(mapped_BCHW: Tensor, compressed_BkHW: Tensor, patch: int) -> bool:
    """Return whether the kernel computes these tensors."""
    # A cosine over 1 px is ±1: its gradient is only rounding noise, which Adam would follow, so torch computes it
    if patch == 1 or not cpu_kernel_supported(mapped_BCHW, compressed_BkHW):
        return False
    return compressed_BkHW.shape[1] <= limit("max_groups") and _fit(mapped_BCHW, compressed_BkHW, patch)


def patch_fusion_kernel(mapped_BCHW: Tensor, compressed_BkHW: Tensor, patch: int) -> Tensor:
    """Run the kernel on float32 tensors that it supports; a ValueError says which shapes do not fit."""
    return _PatchFusion.apply(mapped_BCHW, compressed_BkHW, patch)  # type: ignore[no-untyped-call]


def _fit(mapped: Tensor, compressed: Tensor, patch: int) -> bool:
    """Return whether these are images of the same size, in whole patches."""
    (batch, _, *size), (other, _, *same) = mapped.shape, compressed.shape
    return batch == other and size == same and patch > 0 and not any(side % patch for side in size)


class _PatchFusion(Function):
    @staticmethod
    def forward(ctx: Any, mapped: Tensor, compressed: Tensor, patch: int) -> Tensor:
        # The kernel trusts these sizes
        if not _fit(mapped, compressed, patch) or compressed.shape[1] > limit("max_groups"):
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
    """Return the number of rows of patches in all images, and the kernel's sizes."""
    batch, channels, height, width = mapped.shape
    return batch * height // patch, (channels, compressed.shape[1], patch, height, width)
