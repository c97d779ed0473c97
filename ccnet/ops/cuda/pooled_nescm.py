"""NeSCM with SIA's pooling (Eq. 5-9) for inference, by the kernel of ``ccnet/csrc/cuda/pooled_nescm.cu``."""

from __future__ import annotations

import torch
from torch import Tensor

from ccnet.contract import CCNetError

from .launcher import launch
from .variants import HEADS, MAX_BANDS, PooledVariant, Storage

_STORAGE: dict[torch.dtype, Storage] = {torch.float32: "float", torch.float16: "Half"}


def cuda_pooled_nescm(
    x_BCHW: Tensor,
    groups: int,
    forget: Tensor,
    forget_bias: Tensor,
    output: Tensor,
    output_bias: Tensor,
    *,
    approximate: bool = False,
) -> Tensor:
    """Return mean and maximum of each group of ``ccnet.ops.nescm.nescm``'s result, without a gradient.

    Args:
        x_BCHW: Features, float32 or float16 on CUDA.
        groups: k.
        forget: (2, n, 2n), float32, as the weights that follow.
        forget_bias: (2, n).
        output: (2, n, n, 3, 3, 3).
        output_bias: (n,).
        approximate: sigmoid and tanh are exact to 11 bits only, which FP16 has.

    Returns:
        (B, 2k, H, W), in the features' type: the mean, then the maximum of each group.

    Raises:
        CCNetError: The kernel does not take so many heads or bands.
    """
    batch, channels, height, width = x_BCHW.shape
    heads = forget.shape[1]
    if heads not in HEADS or channels > MAX_BANDS * heads:
        raise CCNetError(f"{heads} heads of {channels // heads} bands, expected 1, 2 or 4 of at most {MAX_BANDS}")
    variant = PooledVariant(heads=heads, storage=_STORAGE[x_BCHW.dtype], approximate=approximate)
    y = x_BCHW.new_empty((batch, 2 * groups, height, width))
    weights = [weight.contiguous() for weight in (forget, forget_bias, output, output_bias)]
    sizes = (channels // heads, groups, height, width)
    launch(
        variant, "ccnet_pooled_nescm", variant.grid(batch, height, width), (x_BCHW.contiguous(), *weights, y, *sizes)
    )
    return y
