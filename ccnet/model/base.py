"""The optional per-pixel base: a small network from a pixel's RGB to its spectrum, whose residual CCNet learns.

Shape legend: B images, H×W pixels.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from ccnet.contract import BANDS_NM
from ccnet.model.config import BASE_WIDTH
from ccnet.model.layers import Pointwise


class PixelMLP(nn.Sequential):
    """Multilayer perceptron on each pixel by itself: (B, 3, H, W) → (B, 31, H, W).

    It is four 1×1 convolutions, 37,120 weights for a width of 128, with ReLU between them. Without biases the spectrum
    is proportional to the pixel's brightness: ``mlp(s * rgb) == s * mlp(rgb)`` for s ≥ 0.

    Args:
        width: Features of each of the three hidden layers.
    """

    def __init__(self, width: int = BASE_WIDTH) -> None:
        sizes = (3, width, width, width, len(BANDS_NM))
        layers: list[nn.Module] = []
        for channels, out_channels in pairwise(sizes):
            layers += [Pointwise(channels, out_channels, bias=False), nn.ReLU()]
        super().__init__(*layers[:-1])
