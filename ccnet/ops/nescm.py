"""NeSCM as one operator (section III-C): the scan of Eq. 5-6, then the output gates of Eq. 7.

An exported graph holds it as the single node ``ccnet::nescm``, which ``export/graph/nescm_unrolled.py`` unrolls over
the fixed sequence of bands.

Shape legend: B images, C channels, H×W pixels, n heads, T bands, k groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ccnet.ops.autocast import float32_region
from ccnet.ops.output_gate import output_gate
from ccnet.ops.scan import scan


def nescm(
    x_BCHW: Tensor, groups: int, forget: Tensor, forget_bias: Tensor, output: Tensor, output_bias: Tensor
) -> Tensor:
    """Run both directions of NeSCM and sum them: (B, C, H, W) → (B, C, H, W).

    Args:
        x_BCHW: features.
        groups: k.
        forget: (2, n, 2n), each direction's forget gate [W_m | W_x] (Eq. 5).
        forget_bias: (2, n).
        output: (2, n, n, 3, 3, 3), each direction's output gate (Eq. 7).
        output_bias: (n,), both directions' sum.

    Returns:
        F_p, the progressive features.
    """
    operator = torch.ops.ccnet.nescm if torch.compiler.is_exporting() else _nescm
    return operator(x_BCHW, groups, forget, forget_bias, output, output_bias)


def to_bands(x_BCHW: Tensor, groups: int, heads: int) -> Tensor:
    """Order channels (group, head, band) as a sequence of bands: (B, C, H, W) → (B, n, T, H, W)."""
    return x_BCHW.unflatten(1, (groups, heads, -1)).transpose(1, 2).flatten(2, 3)


def from_bands(y: Tensor, groups: int) -> Tensor:
    """Undo :func:`to_bands`: (B, n, T, H, W) → (B, C, H, W)."""
    return y.unflatten(2, (groups, -1)).transpose(1, 2).flatten(1, 3)


def _nescm(
    x_BCHW: Tensor, groups: int, forget: Tensor, forget_bias: Tensor, output: Tensor, output_bias: Tensor
) -> Tensor:
    bands = to_bands(x_BCHW, groups, forget.shape[1])
    with float32_region(x_BCHW):
        streams = scan(bands.float(), forget, forget_bias)
    return from_bands(output_gate(streams, output, output_bias), groups)


torch.library.custom_op("ccnet::nescm", _nescm, mutates_args=()).register_fake(
    lambda x_BCHW, *weights: torch.empty_like(x_BCHW)
)
