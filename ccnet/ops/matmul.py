"""Small matrices times an image's pixels: what a 1×1 convolution is, and GrSCM's attention.

BLAS is made for matrices that are large both ways. float32 on a CPU runs the compiled kernel, all else torch's product.
"""

from __future__ import annotations

from torch import Tensor

from .kernels import cpu_kernel_supported, launch, num_blocks

_ROWS, _LANES = 4, 8  # the kernel takes channels and pixels by these
_RUN = 32768  # numbers that are read at once, so that they stay in cache


def product(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight @ x + bias: (B, k, O, N), no gradient. weight: (k, O, I), x: (B, k, I, N), bias: (k, O).

    B images in k groups of channels, I of them in and O out, N pixels.
    """
    (groups, outer, inner), (images, *size, pixels) = weight.shape, x.shape
    if size != [groups, inner]:
        raise ValueError(f"x is {tuple(x.shape)}, expected (images, {groups}, {inner}, pixels)")
    if not cpu_kernel_supported(weight, x) or outer % _ROWS or pixels % _LANES:
        made = weight @ x
        return made if bias is None else made + bias[..., None]
    length = max(_LANES, min(pixels, _RUN // inner) // _LANES * _LANES)
    made = x.new_empty((images, groups, outer, pixels))
    tensors = (weight.contiguous(), None if bias is None else bias.contiguous(), x.contiguous(), made)
    launch(
        "ccnet_product", images * groups * num_blocks(pixels, length), (groups, outer, inner, pixels, length), tensors
    )
    return made
