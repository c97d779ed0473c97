"""torch's layers with the operators of ``ccnet.ops``: parameters, names and exported graphs are torch's.

Shape legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from ccnet.ops.band_cosine import EPS, norm
from ccnet.ops.channel_norm import channel_norm
from ccnet.ops.depthwise import depthwise, grouped_conv3x3
from ccnet.ops.pointwise import pointwise


class Pointwise(nn.Conv2d):
    """1×1 convolution: (B, channels, H, W) → (B, out_channels, H, W)."""

    def __init__(self, channels: int, out_channels: int, groups: int = 1, bias: bool = True) -> None:
        super().__init__(channels, out_channels, 1, groups=groups, bias=bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Convolve (B, channels, H, W)."""
        return pointwise(x_BCHW, self.weight, self.bias, self.groups)


class Depthwise(nn.Conv2d):
    """3×3 convolution of each channel by itself, without a bias, with GELU at its input or output on request."""

    def __init__(self, channels: int, *, gelu_input: bool = False, gelu_output: bool = False) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.gelu_input, self.gelu_output = gelu_input, gelu_output

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Filter (B, C, H, W)."""
        return depthwise(x_BCHW, self.weight, self.gelu_input, self.gelu_output)


class GroupedConv3x3(nn.Conv2d):
    """3×3 convolution with a bias that turns each group of adjacent channels into one channel."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, groups, 3, padding=1, groups=groups)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Filter (B, C, H, W) to (B, groups, H, W)."""
        weight, bias = self.parameters()
        return grouped_conv3x3(x_BCHW, weight, bias, self.groups)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel, fastest on a view (B, H, W, C) of (B, C, H, W)."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Normalise (B, H, W, C)."""
        return channel_norm(x_BHWC, self.weight, self.bias, self.eps)


class L2Normalize(nn.Module):
    """x / ‖x‖ over the last axes (Eq. 3, 11), in float32: FP16 cannot hold a sum of squares."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the norm; zeros stay zeros."""
        x = x.float()
        return x / norm(x, self.axes).clamp_min(EPS)
