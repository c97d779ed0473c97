"""The parts of CCNet under their names in the paper, with the equations that each one computes.

Shape legend: B images, H×W pixels, r patch. C = k·n·b channels: k groups of n heads of b bands; T = k·b bands, the
paper's C_in. Channels are ordered (k, n, b) everywhere: a group is a run of adjacent bands for GrSCM and PAF alike, and
NeSCM's band axis is (k, b) with the head brought to the front.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.model.config import CCNetConfig
from ccnet.model.layers import ChannelNorm, Depthwise, GroupedConv3x3, L2Normalize, Pointwise
from ccnet.ops.autocast import float32_region
from ccnet.ops.band_cosine import band_cosine
from ccnet.ops.nescm import from_bands, nescm, to_bands
from ccnet.ops.patch_fusion import patch_fusion
from ccnet.ops.pointwise import pointwise_per_image


class SpectralAttention(nn.Module):
    """Cosine attention whose tokens are bands, in groups and heads, followed by a 1×1 projection.

    Its matrices are the network's only reductions over all pixels. ``correlate(*features)`` computes them in float32,
    ``forward(*features, attention)`` applies them, so that a tile can use the matrices of its frame.
    """

    correlate: Callable[..., Tensor]

    def __init__(self, channels: int, heads: int, groups: int = 1) -> None:
        super().__init__()
        self.split = groups * heads, channels // (groups * heads)
        self.to_q, self.to_k, self.to_v = (Pointwise(channels, channels, groups=groups, bias=False) for _ in range(3))
        self.unit = L2Normalize(axes=2)
        self.sigma = nn.Parameter(torch.ones(groups * heads, 1, 1))
        self.proj = Pointwise(channels, channels)

    @property
    def context_shape(self) -> tuple[int, int, int]:
        """Shape of an image's attention matrices, (k·n, b, b)."""
        matrices, bands = self.split
        return matrices, bands, bands

    def attend(self, attention: Tensor, v_BCHW: Tensor) -> Tensor:
        """Weight the bands of each head by the attention and merge groups and heads (Eq. 4): (B, C, H, W)."""
        v = v_BCHW.unflatten(1, self.split).flatten(3)
        return (attention.to(v.dtype) @ v).reshape(v_BCHW.shape)

    def project(self, attention: Tensor, v_BCHW: Tensor) -> Tensor:
        """Return ``proj(attend(attention, v))``, with both linear maps multiplied into one matrix a frame."""
        weight = self.proj.weight.flatten(1).unflatten(1, self.split)
        matrices = (weight.transpose(0, 1) @ attention).transpose(1, 2).flatten(2).to(v_BCHW.dtype)
        return pointwise_per_image(v_BCHW, matrices, self.proj.bias)


class GrSCM(SpectralAttention):
    """Group-wise Spectral Correlation Modeling (section III-B): attention among the bands of each group.

    F_att = proj(A V) + position(V),  A = softmax(RSE + σ · KᵀQ / (‖K‖‖Q‖))  (Eq. 3, 4), with K, Q, V of each group.
    """

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__(channels, channels // config.width, config.groups)
        self.rse = nn.Parameter(torch.zeros(self.context_shape))
        # MST++'s positional branch, depthwise, GELU, depthwise; checkpoints number its layers 0 and 2
        branch = {"0": Depthwise(channels, gelu_output=True), "2": Depthwise(channels)}
        self.position = nn.Sequential(OrderedDict(branch))

    def correlate(self, x_BCHW: Tensor) -> Tensor:
        """Return A over all pixels (Eq. 3, 4): (B, k·n, keys b, queries b), float32, each row sums to 1."""
        with float32_region(x_BCHW):
            cosine = band_cosine(x_BCHW.float(), self.to_k, self.to_q, self.split[1], self.unit)
            return torch.softmax(self.rse + self.sigma * cosine, dim=-1)

    def forward(self, x_BCHW: Tensor, attention: Tensor) -> Tensor:
        """Return F_att, (B, C, H, W); local in space, given the attention."""
        v = self.to_v(x_BCHW)
        return self.project(attention, v) + self.position(v)


class CMU(nn.Module):
    """Continuous Memory Unit: the gates of one direction of NeSCM (Eq. 5-7)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.forget = nn.Conv3d(2 * heads, heads, 1)
        self.output = nn.Conv3d(heads, heads, 3, padding=(0, 1, 1))  # (window slot, H, W)

    def step(self, m: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Advance by one band, as the paper writes it: m, x (B, n, 3, H, W) → m_t, y_t (B, n, H, W)."""
        s = torch.sigmoid(self.forget(torch.cat([m, x], 1)))  # Eq. 5
        m = s * m + (1 - s) * x  # Eq. 6
        return m, self.output(torch.tanh(m) + x).squeeze(2)  # Eq. 7


class BandSequence(nn.Module):
    """Part that sees C channels as a sequence of T bands of n features: NeSCM and the recurrences of Table III."""

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__()
        self.groups = config.groups
        self.heads = channels // config.width

    def to_bands(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) → (B, n, T, H, W)."""
        return to_bands(x_BCHW, self.groups, self.heads)

    def from_bands(self, y: Tensor) -> Tensor:
        """(B, n, T, H, W) → (B, C, H, W)."""
        return from_bands(y, self.groups)


class NeSCM(BandSequence):
    """Neighborhood-wise Spectral Continuity Modeling (section III-C): a recurrence over windows of three bands.

    :meth:`reference_loop` is the paper's loop over :meth:`CMU.step`; :meth:`forward` computes the same by one operator.
    """

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__(channels, config)
        self.forward_cmu, self.backward_cmu = CMU(self.heads), CMU(self.heads)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return F_p, the progressive features of both directions, summed: (B, C, H, W)."""
        return nescm(x_BCHW, self.groups, *self.weights())

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gates of both directions as ``ccnet.ops.nescm`` takes them."""
        cmus = (self.forward_cmu, self.backward_cmu)
        forget = torch.stack([cmu.forget.weight.flatten(1) for cmu in cmus])
        forget_bias = torch.stack([cmu.forget.bias for cmu in cmus if cmu.forget.bias is not None])
        output = torch.stack([cmu.output.weight for cmu in cmus])
        output_bias = torch.stack([cmu.output.bias for cmu in cmus if cmu.output.bias is not None]).sum(0)
        return forget, forget_bias, output, output_bias

    def reference_loop(self, x_BCHW: Tensor) -> Tensor:
        """Compute F_p as section III-C does, band after band: the reference for tests, FLOP counts and benchmarks."""
        bands = self.to_bands(x_BCHW)
        windows = F.pad(bands, (0, 0, 0, 0, 1, 1)).unfold(2, 3, 1).movedim(-1, 3).unbind(2)  # T × (B, n, 3, H, W)
        features = torch.zeros_like(bands)
        for cmu, order in ((self.forward_cmu, range(len(windows))), (self.backward_cmu, reversed(range(len(windows))))):
            m = torch.zeros_like(windows[0])
            for t in order:
                m, y = cmu.step(m, windows[t])
                features[:, :, t] = features[:, :, t] + y
        return self.from_bands(features)


class PAF(nn.Module):
    """Patch-wise Adaptive Fusion (section III-D) of GrSCM's F_att and NeSCM's F_p; local to r×r patches.

    F = F_att + softmax(cos(map(F_att), map(F_cp))) · map(F_cp) in each patch (Eq. 11-13), F_cp = SIA(F_p) (Eq. 8-10).
    """

    def __init__(self, channels: int, patch: int, config: CCNetConfig) -> None:
        super().__init__()
        self.groups, self.patch = config.groups, patch
        self.aggregate = GroupedConv3x3(2 * self.groups, self.groups)
        self.map_att = Pointwise(channels, channels)
        self.map_cp = Pointwise(self.groups, self.groups)
        self.unit = L2Normalize(axes=1)

    def sia(self, progressive_BCHW: Tensor) -> Tensor:
        """Aggregate each group's mean and maximum, Spectrum Information Aggregation (Eq. 8-10): F_cp, (B, k, H, W)."""
        groups = progressive_BCHW.unflatten(1, (self.groups, -1))
        return self.aggregate(torch.stack([groups.mean(2), groups.amax(2)], 2).flatten(1, 2))

    def forward(self, att_BCHW: Tensor, progressive_BCHW: Tensor) -> Tensor:
        """Return the fused features, (B, C, H, W)."""
        mapped, compressed = self.map_att(att_BCHW), self.map_cp(self.sia(progressive_BCHW))
        return att_BCHW + patch_fusion(mapped, compressed, self.patch, self.unit)  # Eq. 11-13


class FFN(nn.Module):
    """Feed-forward network of Intra-Spectral Spatiality Modeling, convolutional as in MST++."""

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__()
        hidden = config.expansion * channels
        self.norm = ChannelNorm(channels)
        layers = {  # checkpoints number them with GELU between: 0, 2, 4
            "0": Pointwise(channels, hidden, bias=False),
            "2": Depthwise(hidden, gelu_input=True, gelu_output=True),
            "4": Pointwise(hidden, channels, bias=False),
        }
        self.net = nn.Sequential(OrderedDict(layers))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the intra-spectral features, (B, C, H, W)."""
        return self.net(self.norm(x_BCHW.movedim(1, -1)).movedim(-1, 1))
