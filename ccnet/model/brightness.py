"""The optional normalisation of a frame's brightness, which makes CCNet's cube proportional to its frame.

Shape legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK = 8
"""Side of the blocks that the level averages, px: a single hot pixel counts for a sixty-fourth of its block."""

TARGET = 0.2
"""Level that every frame is scaled to."""

FLOOR = 0.01
"""Lowest level that is scaled to ``TARGET``; a darker frame is scaled by the same factor, TARGET / FLOOR, at most."""


class FrameScale(nn.Module):
    """The factor that brings a frame to the common brightness, from all of its pixels.

    The level of a frame is the power mean, with exponent 8, of the means of its 8×8 px blocks, over red, green and blue
    alike. It is close to the brightness of the frame's bright surfaces: a black background hardly lowers it, a hot
    pixel hardly raises it, and it is nearly the same for a frame of reduced size.
    """

    def forward(self, rgb_BCHW: Tensor) -> Tensor:
        """Return the factor (B, 1, 1, 1) of frames whose height and width are multiples of 8 px."""
        blocks = functional.avg_pool2d(rgb_BCHW.mean(1, keepdim=True), BLOCK)
        power = blocks.square().square().square().mean((2, 3), keepdim=True)
        return TARGET / power.sqrt().sqrt().sqrt().clamp(min=FLOOR)


class Scaling(nn.Module):
    """Product or quotient of an image and a factor, as a part with a name: graphs keep its nodes in FP32."""

    def forward(self, image_BCHW: Tensor, scale: Tensor, undo: bool = False) -> Tensor:
        """Scale (B, C, H, W) by (B or 1, 1, 1, 1), or undo it."""
        return torch.div(image_BCHW, scale) if undo else torch.mul(image_BCHW, scale)
