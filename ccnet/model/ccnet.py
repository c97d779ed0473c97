"""CCNet (Fig. 2): frame → 31-band cube, split into ``encode`` (global) and ``decode`` (local).

``ccnet.model.blocks`` holds its parts, ``ccnet.model.ablations`` the parts of the paper's ablations.

Shape legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ccnet.contract import BANDS_NM, padded_size, reflect_index
from ccnet.model.layers import Pointwise

from .ablations import MHA, continuity, fusion
from .base import PixelMLP
from .blocks import FFN, GrSCM, SpectralAttention
from .brightness import FrameScale, Scaling
from .config import CCNetConfig

__all__ = ["SRU", "CCNet", "CCNetConfig"]


class Context:
    """The parts of one pass's context in data-flow order: taken from a list, or else computed on the way."""

    def __init__(self, parts: Iterable[Tensor] | None = None) -> None:
        self._supplied = None if parts is None else iter(parts)
        self.parts: list[Tensor] = []

    def take(self, compute: Callable[..., Tensor], *features: Tensor) -> Tensor:
        """Return the next part of the context, from the list or computed from features of all pixels."""
        part = compute(*features) if self._supplied is None else next(self._supplied)
        self.parts.append(part)
        return part

    def apply(self, part: nn.Module, *features: Tensor) -> Tensor:
        """Return a part's output; pass its attention matrices to a part that attends to all pixels."""
        if not isinstance(part, SpectralAttention):
            return part(*features)
        return part(*features, self.take(part.correlate, *features))


class InterSpectral(nn.Module):
    """Inter-Spectral Relationship Modeling: GrSCM and NeSCM in parallel, joined by PAF.

    A part of an ablation keeps the name of the part that it replaces; MHA (Table II) and GrSCM alone (Table III) need
    no fusion.
    """

    def __init__(self, channels: int, patch: int, config: CCNetConfig) -> None:
        super().__init__()
        self.grscm = MHA(channels, config) if config.inter_spectral == "mha" else GrSCM(channels, config)
        self.nescm = continuity(channels, config)
        if self.nescm is not None:
            self.paf = fusion(channels, patch, config)

    def forward(self, x_BCHW: Tensor, context: Context) -> Tensor:
        """Return the inter-spectral features, (B, C, H, W)."""
        att = context.apply(self.grscm, x_BCHW)
        return att if self.nescm is None else context.apply(self.paf, att, self.nescm(x_BCHW))


class CSRM(nn.Module):
    """Customized Spectral Relationship Modeling block: x + inter-spectral, then x + intra-spectral."""

    def __init__(self, channels: int, patch: int, config: CCNetConfig) -> None:
        super().__init__()
        self.inter = InterSpectral(channels, patch, config)
        self.intra = FFN(channels, config)

    def forward(self, x_BCHW: Tensor, context: Context) -> Tensor:
        """Refine the features: (B, C, H, W) → (B, C, H, W)."""
        x = x_BCHW + self.inter(x_BCHW, context)
        return x + self.intra(x)


class SRU(nn.Module):
    """Spectrum Reconstruction Unit: a U-Net of five CSRM blocks over three scales (C, 2C, 4C)."""

    def __init__(self, config: CCNetConfig) -> None:
        super().__init__()
        c, r = config.width, config.patch
        self.embed = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.enc1 = CSRM(c, r, config)
        self.down1 = nn.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False)
        self.enc2 = CSRM(2 * c, r // 2, config)
        self.down2 = nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1, bias=False)
        self.bottleneck = CSRM(4 * c, r // 4, config)
        self.up2 = nn.ConvTranspose2d(4 * c, 2 * c, 2, stride=2)
        self.fuse2 = Pointwise(4 * c, 2 * c, bias=False)
        self.dec2 = CSRM(2 * c, r // 2, config)
        self.up1 = nn.ConvTranspose2d(2 * c, c, 2, stride=2)
        self.fuse1 = Pointwise(2 * c, c, bias=False)
        self.dec1 = CSRM(c, r, config)

    def forward(self, x_BCHW: Tensor, context: Context) -> Tensor:
        """Refine the features: (B, C, H, W) → (B, C, H, W)."""
        x1 = self.enc1(self.embed(x_BCHW), context)
        x2 = self.enc2(self.down1(x1), context)
        x3 = self.bottleneck(self.down2(x2), context)
        x2 = self.dec2(self.fuse2(torch.cat([self.up2(x3), x2], 1)), context)
        x1 = self.dec1(self.fuse1(torch.cat([self.up1(x2), x1], 1)), context)
        return x_BCHW + x1


class CCNet(nn.Module):
    """RGB frame (B, 3, H, W) in [0, 1] → cube (B, 31, H, W), reflectance-like, bands ascending from 400 to 700 nm.

    ``forward(x)`` is ``decode(x, encode(x))`` in one pass. Any H and W: frames are padded by reflection to
    ``config.size_multiple`` and the cube is cropped back. With ``config.base`` the result is added to the cube of a
    per-pixel base. With ``config.normalise`` every frame is brought to the same brightness, and the cube back to the
    frame's: the cube is proportional to the frame.
    """

    def __init__(self, config: CCNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or CCNetConfig()
        self.conv_in = nn.Conv2d(3, self.config.width, 3, padding=1, bias=False)
        self.units = nn.ModuleList(SRU(self.config) for _ in range(self.config.units))
        self.conv_out = nn.Conv2d(self.config.width, len(BANDS_NM), 3, padding=1, bias=False)
        self.base = PixelMLP(self.config.base_width) if self.config.base == "mlp" else None
        self.brightness = FrameScale() if self.config.normalise else None
        self.scaling = Scaling()
        attentions = (part for part in self.modules() if isinstance(part, SpectralAttention))  # in data-flow order
        self.context_shapes = [(1, 1, 1)] * self.config.normalise + [part.context_shape for part in attentions]

    @property
    def context_size(self) -> int:
        """Count of numbers in a frame's context: 7,680 for the paper's configuration, and the scale if there is one."""
        return sum(g * i * j for g, i, j in self.context_shapes)

    def forward(self, rgb: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the cube (B, 31, H, W) of a frame (B, 3, H, W) with the frame's own context.

        Args:
            rgb: (B, 3, H, W) in [0, 1].
            scale: (B, 1, 1, 1), the factor of ``frame_scale`` of the frames that patches were cut from; None where
                ``rgb`` is a whole frame. It is used with ``config.normalise`` alone.

        Returns:
            (B, 31, H, W).
        """
        return self.run(rgb, None, scale)[0]

    def frame_scale(self, rgb: Tensor) -> Tensor:
        """Return the factor (B, 1, 1, 1) that brings a frame (B, 3, H, W) to the common brightness, 1 by default."""
        return rgb.new_ones(len(rgb), 1, 1, 1) if self.brightness is None else self.brightness(self._pad(rgb))

    def encode(self, rgb: Tensor) -> Tensor:
        """Return the frame's context: its scale, with ``config.normalise``, and every attention matrix of the network.

        The network's only reductions over all pixels are here; a frame of reduced size gives nearly the same context.

        Args:
            rgb: (B, 3, H, W) in [0, 1].

        Returns:
            (B, context_size), float32.
        """
        return self.run(rgb, None)[1]

    def decode(self, rgb: Tensor, context: Tensor) -> Tensor:
        """Return the cube of a frame or tile under a context; local in space.

        Args:
            rgb: (B, 3, H, W) in [0, 1].
            context: (B, context_size), or (1, context_size) for all images alike.

        Returns:
            (B, 31, H, W).

        Raises:
            ValueError: the context belongs to another configuration.
        """
        if context.shape[-1] != self.context_size:
            raise ValueError(f"context holds {context.shape[-1]} numbers, this configuration has {self.context_size}")
        return self.run(rgb, context)[0]

    def run(self, rgb: Tensor, context: Tensor | None, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run all blocks once; they take their attention from the context or, if it is None, compute it.

        Args:
            rgb: (B, 3, H, W) in [0, 1].
            context: (B or 1, context_size), or None.
            scale: (B, 1, 1, 1), see ``forward``; None for the context's, or else for that of ``rgb``.

        Returns:
            The cube (B, 31, H, W), and the context (B or 1, context_size).

        Raises:
            ValueError: ``rgb`` has another shape.
        """
        if rgb.ndim != 4 or rgb.shape[1] != 3:
            raise ValueError(f"rgb is {tuple(rgb.shape)}, expected (B, 3, H, W)")
        height, width = rgb.shape[2:]
        parts = Context(None if context is None else self._unpack(context))
        scaled = rgb
        if self.brightness is not None:
            factor = parts.take(self.brightness if scale is None else lambda _: scale, self._pad(rgb))
            scaled = self.scaling(rgb, factor)
        x0 = x = self.conv_in(self._pad(scaled))
        for unit in self.units:
            x = unit(x, parts)
        cube = self.conv_out(x0 + x)[..., :height, :width]
        if self.brightness is not None:
            cube = self.scaling(cube, factor, undo=True)
        if self.base is not None:
            cube = cube + self.base(rgb)  # proportional to brightness by itself
        return cube, torch.cat([part.flatten(1) for part in parts.parts], 1)

    def _unpack(self, context: Tensor) -> list[Tensor]:
        sizes = [g * i * j for g, i, j in self.context_shapes]
        parts = context.split(sizes, dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.context_shapes, strict=True)]

    def _pad(self, rgb: Tensor) -> Tensor:
        for axis in (2, 3):
            size = rgb.shape[axis]
            if size % self.config.size_multiple:
                index = reflect_index(size, 0, padded_size(size, self.config.size_multiple))
                rgb = rgb.index_select(axis, torch.from_numpy(index).to(rgb.device))
        return rgb
