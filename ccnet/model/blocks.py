"""The parts of CCNet under their names in the paper, with the equations that each one computes.

Shape legend: B images, C channels, H×W pixels, k groups, n heads, b bands in a group, T = k·b = C_in bands, r patch.
Channels are ordered (k, n, b) everywhere: a group is a run of adjacent bands for GrSCM and PAF alike, and NeSCM's
band axis is (k, b) with the head brought to the front.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.ops.cosine import EPS, cosine_of_maps, norm
from ccnet.ops.kernels import cpu_kernel_supported, reference_ops_active
from ccnet.ops.layers import ChannelNorm, Depthwise, Pointwise, depthwise, pointwise
from ccnet.ops.output_gate import gates
from ccnet.ops.patch_fusion import fusion, fusion_fits
from ccnet.ops.scan import scan

from .config import CCNetConfig


def float32(x: Tensor) -> AbstractContextManager[object]:
    """No autocast inside: for sums over many pixels and for the recurrence. Nothing at all where it is off."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class L2Normalize(nn.Module):
    """x / ‖x‖ over the last axes, the cosine's half (Eq. 3, 11), in float32: FP16 cannot hold a sum of squares."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x / norm(x, self.axes).clamp_min(EPS)


class SpectralAttention(nn.Module):
    """Cosine attention whose tokens are bands, in groups and heads of them, with a 1×1 projection behind it.

    Such matrices are the network's only reductions over all pixels. ``correlate(*features)`` computes them (float32),
    ``forward(*features, attention)`` applies them, so that a tile can use its frame's matrices.
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
        """(k·n, b, b), an image's attention matrices."""
        count, bands = self.split
        return count, bands, bands

    def cosine(self, x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
        """xᵀy / (‖x‖‖y‖) over all pixels, for every band of x (rows) and of y in a head: (B, k·n, b, b), float32.

        It divides first: products of what has length 1 are at most 1 in any precision.
        """
        x, y = (self.unit(one.unflatten(1, self.split)).flatten(3) for one in (x_BCHW, y_BCHW))
        return x @ y.transpose(-1, -2)

    def similarity(self, x_BCHW: Tensor) -> Tensor:
        """cosine(to_k(x), to_q(x)). x: float32."""
        if torch.compiler.is_compiling() or reference_ops_active():
            return self.cosine(self.to_k(x_BCHW), self.to_q(x_BCHW))
        groups, bands = self.to_q.groups, self.split[1]
        keys, queries = (one.weight.flatten(1).unflatten(0, (groups, -1, bands)) for one in (self.to_k, self.to_q))
        return cosine_of_maps(x_BCHW.unflatten(1, (groups, -1)).flatten(3), keys, queries)

    def attend(self, attention: Tensor, v_BCHW: Tensor) -> Tensor:
        """The attention-weighted bands of each group, heads and groups merged (Eq. 4): F_att before projection."""
        v = v_BCHW.unflatten(1, self.split).flatten(3)
        return (attention.to(v.dtype) @ v).reshape(v_BCHW.shape)

    def project(self, attention: Tensor, v_BCHW: Tensor) -> Tensor:
        """proj(attend(attention, v)) as one 1×1 convolution, whose matrix is made once a frame."""
        weight = self.proj.weight.flatten(1).unflatten(1, self.split)
        matrix = (weight.transpose(0, 1) @ attention).transpose(1, 2).flatten(2).to(v_BCHW.dtype)
        bias = self.proj.bias
        assert bias is not None  # noqa: S101 - for the type checker
        count = len(matrix)
        if not cpu_kernel_supported(matrix, v_BCHW) or count not in (1, len(v_BCHW)) or not len(v_BCHW):
            return (matrix @ v_BCHW.flatten(2)).reshape(v_BCHW.shape) + bias[:, None, None]
        # One matrix for all images, or each image as a group of a single one
        groups = v_BCHW.reshape(len(v_BCHW) // count, -1, *v_BCHW.shape[2:])
        weight = matrix.flatten(0, 1)[..., None, None]
        return pointwise(groups, weight, bias.repeat(count), count).view(v_BCHW.shape)


class GrSCM(SpectralAttention):
    """Group-wise Spectral Correlation Modeling (section III-B): attention among the bands of each group."""

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__(channels, channels // config.width, config.groups)
        self.rse = nn.Parameter(torch.zeros(self.context_shape))
        self.position = nn.Sequential(Depthwise(channels), nn.GELU(), Depthwise(channels))

    def correlate(self, x_BCHW: Tensor) -> Tensor:
        """softmax(RSE + σ · KᵀQ / (‖K‖‖Q‖)) over all pixels (Eq. 3, 4): (B, k·n, b, b)."""
        with float32(x_BCHW):
            return torch.softmax(self.rse + self.sigma * self.similarity(x_BCHW.float()), dim=-1)

    def forward(self, x_BCHW: Tensor, attention: Tensor) -> Tensor:
        """F_att: (B, C, H, W), local in space given the attention."""
        v = self.to_v(x_BCHW)
        return self.project(attention, v) + self.locate(v)

    def locate(self, v_BCHW: Tensor) -> Tensor:
        """The positional embedding of the values: (B, C, H, W)."""
        if not cpu_kernel_supported(v_BCHW):
            result: Tensor = self.position(v_BCHW)
            return result
        first, _, second = self.position
        moved: Tensor = second(first(v_BCHW, behind=True))
        return moved


class CMU(nn.Module):
    """Continuous Memory Unit: the gates of one direction of NeSCM (Eq. 5-7)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.forget = nn.Conv3d(2 * heads, heads, 1)
        self.output = nn.Conv3d(heads, heads, 3, padding=(0, 1, 1))  # (window slot, H, W)

    def step(self, m: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """One step as the paper writes it. m, x: (B, n, 3, H, W) → m_t, y_t (B, n, H, W)."""
        s = torch.sigmoid(self.forget(torch.cat([m, x], 1)))  # Eq. 5
        m = s * m + (1 - s) * x  # Eq. 6
        return m, self.output(torch.tanh(m) + x).squeeze(2)  # Eq. 7


class BandSequence(nn.Module):
    """What sees C channels as a sequence of T bands of n features, (B, n, T, H, W): NeSCM and what Table III tries."""

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


def to_bands(x_BCHW: Tensor, groups: int, heads: int) -> Tensor:
    return x_BCHW.unflatten(1, (groups, heads, -1)).transpose(1, 2).flatten(2, 3)


def from_bands(y: Tensor, groups: int) -> Tensor:
    return y.unflatten(2, (groups, -1)).transpose(1, 2).flatten(1, 3)


class NeSCM(BandSequence):
    """Neighborhood-wise Spectral Continuity Modeling (section III-C): a recurrence over windows of three bands.

    :meth:`literal` is the paper's loop; :meth:`forward` computes the same through two operators, ``scan``, ``gates``.
    """

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__(channels, config)
        self.forward_cmu, self.backward_cmu = CMU(self.heads), CMU(self.heads)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """F_p, the progressive features of both directions, summed: (B, C, H, W)."""
        run = torch.ops.ccnet.nescm if torch.compiler.is_exporting() else nescm
        result: Tensor = run(x_BCHW, self.groups, *self.weights())
        return result

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gates of both directions as :func:`nescm` takes them."""
        cmus = (self.forward_cmu, self.backward_cmu)
        forget = torch.stack([cmu.forget.weight.flatten(1) for cmu in cmus])
        forget_bias = torch.stack([cmu.forget.bias for cmu in cmus if cmu.forget.bias is not None])
        output = torch.stack([cmu.output.weight for cmu in cmus])
        output_bias = torch.stack([cmu.output.bias for cmu in cmus if cmu.output.bias is not None]).sum(0)
        return forget, forget_bias, output, output_bias

    def literal(self, x_BCHW: Tensor) -> Tensor:
        """Section III-C word for word: the reference for tests, FLOP counts and benchmarks."""
        bands = self.to_bands(x_BCHW)
        windows = F.pad(bands, (0, 0, 0, 0, 1, 1)).unfold(2, 3, 1).movedim(-1, 3).unbind(2)  # T × (B, n, 3, H, W)
        features = torch.zeros_like(bands)
        for cmu, order in ((self.forward_cmu, range(len(windows))), (self.backward_cmu, reversed(range(len(windows))))):
            m = torch.zeros_like(windows[0])
            for t in order:
                m, y = cmu.step(m, windows[t])
                features[:, :, t] = features[:, :, t] + y
        return self.from_bands(features)


def nescm(
    x_BCHW: Tensor, groups: int, forget: Tensor, forget_bias: Tensor, output: Tensor, output_bias: Tensor
) -> Tensor:
    """NeSCM with its weights as ``scan`` and ``gates`` take them: (B, C, H, W)."""
    bands = to_bands(x_BCHW, groups, forget.shape[1])
    with float32(x_BCHW):
        streams = scan(bands.float(), forget, forget_bias)
    return from_bands(gates(streams, output, output_bias), groups)


# An export sees NeSCM as one operator, and unrolls it (``export/graph/nescm_unrolled.py``)
torch.library.custom_op("ccnet::nescm", nescm, mutates_args=()).register_fake(
    lambda x_BCHW, *weights: torch.empty_like(x_BCHW)
)


class PAF(nn.Module):
    """Patch-wise Adaptive Fusion (section III-D) of GrSCM's F_att and NeSCM's F_p; local to r×r patches."""

    def __init__(self, channels: int, patch: int, config: CCNetConfig) -> None:
        super().__init__()
        self.groups, self.patch = config.groups, patch
        self.aggregate = nn.Conv2d(2 * self.groups, self.groups, 3, padding=1, groups=self.groups)
        self.map_att = Pointwise(channels, channels)
        self.map_cp = Pointwise(self.groups, self.groups)
        self.unit = L2Normalize(axes=1)

    def sia(self, progressive_BCHW: Tensor) -> Tensor:
        """Spectrum Information Aggregation (Eq. 8-10): F_cp, (B, k, H, W)."""
        groups = progressive_BCHW.unflatten(1, (self.groups, -1))
        pooled = torch.stack([groups.mean(2), groups.amax(2)], 2).flatten(1, 2)
        if not cpu_kernel_supported(pooled):
            result: Tensor = self.aggregate(pooled)
            return result
        weight, bias = self.aggregate.parameters()  # mean and maximum apart, then summed: oneDNN is slow at such groups
        return depthwise(pooled, weight.flatten(0, 1)[:, None]).unflatten(1, (-1, 2)).sum(2) + bias[:, None, None]

    def patches(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) → (B, H/r, W/r, C, r·r)."""
        r = self.patch
        x = x_BCHW.unflatten(3, (-1, r)).unflatten(2, (-1, r))  # (B, C, H/r, r, W/r, r)
        return x.permute(0, 2, 4, 1, 3, 5).flatten(4)

    def fuse(self, mapped_BCHW: Tensor, compressed_BkHW: Tensor) -> Tensor:
        """Eq. 11-13: (B, C, H, W)."""
        mapped = self.patches(mapped_BCHW)  # (B, H/r, W/r, C, r·r)
        compressed = self.patches(compressed_BkHW)  # (B, H/r, W/r, k, r·r)
        similarity = self.unit(mapped) @ self.unit(compressed).transpose(-1, -2)  # Eq. 11
        fused = torch.softmax(similarity, dim=-1).to(compressed.dtype) @ compressed  # Eq. 12, 13
        rows, columns = fused.shape[1:3]
        fused = fused.unflatten(4, (self.patch, self.patch)).permute(0, 3, 1, 4, 2, 5)
        return fused.reshape(*mapped_BCHW.shape[:2], rows * self.patch, columns * self.patch)

    def forward(self, att_BCHW: Tensor, progressive_BCHW: Tensor) -> Tensor:
        mapped, compressed = self.map_att(att_BCHW), self.map_cp(self.sia(progressive_BCHW))
        ours = fusion_fits(mapped, compressed, self.patch)
        return att_BCHW + (fusion(mapped, compressed, self.patch) if ours else self.fuse(mapped, compressed))


class FFN(nn.Module):
    """Intra-Spectral Spatiality Modeling: the Transformer's feed-forward network, convolutional as in MST++."""

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__()
        hidden = config.expansion * channels
        self.norm = ChannelNorm(channels)
        self.net = nn.Sequential(
            Pointwise(channels, hidden, bias=False),
            nn.GELU(),
            Depthwise(hidden),
            nn.GELU(),
            Pointwise(hidden, channels, bias=False),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        normed = self.norm(x_BCHW.movedim(1, -1)).movedim(-1, 1)
        if not cpu_kernel_supported(x_BCHW):
            result: Tensor = self.net(normed)
            return result
        expand, _, filters, _, project = self.net
        made: Tensor = project(filters(expand(normed), before=True, behind=True))
        return made
