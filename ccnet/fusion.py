"""The core of PAF (section III-D, Eq. 11-13) as one operator for CPUs, ``ccnet::fusion``; ``ccnet.modules`` defines it.

Shape legend: B images, C channels, k groups, H×W pixels, r patch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ccnet.kernels import floats_on_cpu, kernel, pointer, run_all

_MAX_GROUPS = 16  # as in fusion.c


def fusion_fits(mapped_BCHW: Tensor, compressed_BkHW: Tensor, patch: int) -> bool:
    """Whether the operator computes these. A patch of 1 px has no gradient but rounding, which Adam would follow."""
    ours = patch > 1 and compressed_BkHW.shape[1] <= _MAX_GROUPS and floats_on_cpu(mapped_BCHW, compressed_BkHW)
    return ours and _fit(mapped_BCHW, compressed_BkHW, patch)


def _fit(mapped: Tensor, compressed: Tensor, patch: int) -> bool:
    """Whether these are images of the same size, in whole patches."""
    (batch, _, *size), (other, _, *same) = mapped.shape, compressed.shape
    return batch == other and size == same and patch > 0 and not any(side % patch for side in size)


def fusion(mapped_BCHW: Tensor, compressed_BkHW: Tensor, patch: int) -> Tensor:
    """Σ over k of softmax over k of cos(mapped, compressed) · compressed, channel by channel in patches of r×r px:
    (B, C, H, W). float32; H and W are multiples of r."""
    result: Tensor = torch.ops.ccnet.fusion(mapped_BCHW, compressed_BkHW, patch)
    return result


@torch.library.custom_op("ccnet::fusion", mutates_args=(), device_types="cpu")
def _fusion(mapped: Tensor, compressed: Tensor, patch: int) -> Tensor:
    library = kernel()
    assert library is not None  # noqa: S101 - fusion_fits() said so
    mapped, compressed = mapped.contiguous(), compressed.contiguous()
    y = torch.empty_like(mapped)
    sizes, rows = _sizes(mapped, compressed, patch)
    run_all(library.ccnet_fusion, rows, *sizes, *map(pointer, (mapped, compressed, y)))
    return y


@_fusion.register_fake
def _(mapped: Tensor, compressed: Tensor, patch: int) -> Tensor:
    return torch.empty_like(mapped, memory_format=torch.contiguous_format)


@torch.library.custom_op("ccnet::fusion_backward", mutates_args=(), device_types="cpu")
def _fusion_backward(grad: Tensor, mapped: Tensor, compressed: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Gradients of mapped and compressed."""
    library = kernel()
    assert library is not None  # noqa: S101 - fusion_fits() said so
    grad, mapped, compressed = grad.contiguous(), mapped.contiguous(), compressed.contiguous()
    grads = torch.empty_like(mapped), torch.empty_like(compressed)
    sizes, rows = _sizes(mapped, compressed, patch)
    run_all(library.ccnet_fusion_backward, rows, *sizes, *map(pointer, (grad, mapped, compressed, *grads)))
    return grads


@_fusion_backward.register_fake
def _(grad: Tensor, mapped: Tensor, compressed: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    usual = torch.contiguous_format
    return torch.empty_like(mapped, memory_format=usual), torch.empty_like(compressed, memory_format=usual)


def _sizes(mapped: Tensor, compressed: Tensor, patch: int) -> tuple[tuple[int, ...], int]:
    """What the kernel is told, and the rows of patches in all images. It reads where these sizes say."""
    if not _fit(mapped, compressed, patch) or compressed.shape[1] > _MAX_GROUPS:
        raise ValueError(
            f"{tuple(mapped.shape)}, {tuple(compressed.shape)} do not fit each other in patches of {patch} px"
        )
    batch, channels, height, width = mapped.shape
    return (channels, compressed.shape[1], patch, height, width), batch * height // patch


def _setup_context(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, int], output: Tensor
) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.patch = inputs[2]  # type: ignore[attr-defined]


def _autograd(ctx: torch.autograd.function.BackwardCFunction, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.ccnet.fusion_backward(grad, *ctx.saved_tensors, ctx.patch)  # type: ignore[attr-defined]
    return *grads, None


_fusion.register_autograd(_autograd, setup_context=_setup_context)
