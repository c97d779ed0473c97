"""The parts of CCNet under their names in the paper, with the equations that each one computes.

Shape legend: B images, C channels, H×W pixels, k groups, n heads, b bands in a group, T = k·b = C_in bands, r patch.
Channels are ordered (k, n, b) everywhere: a group is a run of adjacent bands for GrSCM and PAF alike, and NeSCM's
band axis is (k, b) with the head brought to the front.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.config import CCNetConfig
from ccnet.contract import CCNetError
from ccnet.scan import scan

EPS = 1e-6  # floor of the norms in a cosine; 1e-12 would vanish in FP16


def _float32(x: Tensor) -> AbstractContextManager[object]:
    """No autocast inside: for sums over many pixels and for the recurrence. Nothing at all where it is off."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class Unit(nn.Module):
    """x / ‖x‖ over the last axes, the cosine's half (Eq. 3, 11), in float32: FP16 cannot hold a sum of squares."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        norm = x = x.float()
        for axis in range(-1, -1 - self.axes, -1):  # one by one: a single sum over all pixels would lose digits
            norm = torch.linalg.vector_norm(norm, dim=axis, keepdim=True)
        return x / norm.clamp_min(EPS)


class GrSCM(nn.Module):
    """Group-wise Spectral Correlation Modeling (section III-B): attention among the bands of each group.

    Its matrices are the network's only reduction over all pixels. :meth:`correlate` computes them (float32),
    :meth:`forward` applies them, so that a tile can use its frame's matrices.
    """

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__()
        # MST++'s attention (Table II) is the same with one group and no relative spectrum encoding
        self.groups = config.groups if config.inter_spectral == "ccnet" else 1
        self.heads = channels // config.width
        self.bands = config.width // self.groups
        self.to_q, self.to_k, self.to_v = (
            nn.Conv2d(channels, channels, 1, groups=self.groups, bias=False) for _ in range(3)
        )
        self.unit = Unit(axes=2)
        self.sigma = nn.Parameter(torch.ones(self.groups * self.heads, 1, 1))
        relative = torch.zeros(self.groups * self.heads, self.bands, self.bands)
        self.rse = nn.Parameter(relative, requires_grad=config.inter_spectral == "ccnet")
        self.proj = nn.Conv2d(channels, channels, 1)
        self.position = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        )

    @property
    def context_shape(self) -> tuple[int, int, int]:
        """(k·n, b, b), an image's attention matrices."""
        return self.groups * self.heads, self.bands, self.bands

    def correlate(self, x_BCHW: Tensor) -> Tensor:
        """softmax(RSE + σ · KᵀQ / (‖K‖‖Q‖)) over all pixels (Eq. 3, 4): (B, k·n, b, b)."""
        split = (self.groups * self.heads, self.bands)
        with _float32(x_BCHW):
            x = x_BCHW.float()
            q = self.unit(self.to_q(x).unflatten(1, split)).flatten(3)
            k = self.unit(self.to_k(x).unflatten(1, split)).flatten(3)
            return torch.softmax(self.rse + self.sigma * (k @ q.transpose(-1, -2)), dim=-1)

    def attend(self, attention: Tensor, v_BCHW: Tensor) -> Tensor:
        """The attention-weighted bands of each group, heads and groups merged (Eq. 4): F_att before projection."""
        v = v_BCHW.unflatten(1, (self.groups * self.heads, self.bands)).flatten(3)
        return (attention.to(v.dtype) @ v).reshape(v_BCHW.shape)

    def forward(self, x_BCHW: Tensor, attention: Tensor) -> Tensor:
        """F_att: (B, C, H, W), local in space given the attention."""
        v = self.to_v(x_BCHW)
        # proj(attention · V) is one 1×1 convolution whose matrix is made once a frame
        weight = self.proj.weight.flatten(1).unflatten(1, (self.groups * self.heads, self.bands))
        matrix = (weight.transpose(0, 1) @ attention).transpose(1, 2).flatten(2).to(v.dtype)
        mixed = (matrix @ v.flatten(2)).reshape(v.shape)
        assert self.proj.bias is not None  # noqa: S101 - for the type checker
        return mixed + self.proj.bias[:, None, None] + self.position(v)


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


class NeSCM(nn.Module):
    """Neighborhood-wise Spectral Continuity Modeling (section III-C): a recurrence over windows of three bands.

    :meth:`literal` is the paper's loop; :meth:`forward` computes the same through one scan and depthwise convolutions.
    """

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__()
        self.groups = config.groups
        self.heads = channels // config.width
        self.forward_cmu, self.backward_cmu = CMU(self.heads), CMU(self.heads)

    def to_bands(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) → (B, n, T, H, W)."""
        return x_BCHW.unflatten(1, (self.groups, self.heads, -1)).transpose(1, 2).flatten(2, 3)

    def from_bands(self, y: Tensor) -> Tensor:
        """(B, n, T, H, W) → (B, C, H, W)."""
        return y.unflatten(2, (self.groups, -1)).transpose(1, 2).flatten(1, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """F_p, the progressive features of both directions, summed: (B, C, H, W)."""
        cmus = (self.forward_cmu, self.backward_cmu)
        weight = torch.stack([cmu.forget.weight.flatten(1) for cmu in cmus])
        bias = torch.stack([cmu.forget.bias for cmu in cmus if cmu.forget.bias is not None])
        bands = self.to_bands(x_BCHW)
        with _float32(x_BCHW):
            forward, lead, backward, trail = scan(bands.float(), weight, bias).unbind(1)
        later, earlier = (0, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 1)
        # The windows' slots 0, 1, 2 of the forward, then of the backward branch: (B, 6n, T, H, W)
        slots = [F.pad(forward[:, :, :-1], later), forward, lead, trail, backward, F.pad(backward[:, :, 1:], earlier)]
        return self.from_bands(self._output_gates(torch.cat(slots, 1)))

    def _output_gates(self, slots: Tensor) -> Tensor:
        """Eq. 7 for all bands and both branches: 3×3×3 as depthwise convolutions, the form that CPUs run best."""
        cmus = (self.forward_cmu, self.backward_cmu)
        kernels = torch.cat([cmu.output.weight.transpose(1, 2).flatten(1, 2) for cmu in cmus], 1)  # (n, 6n, 3, 3)
        bias = torch.stack([cmu.output.bias for cmu in cmus if cmu.output.bias is not None]).sum(0)
        count, steps = slots.shape[1:3]
        planes = slots.flatten(1, 2)
        heads = [
            F.conv2d(planes, kernel.repeat_interleave(steps, 0)[:, None], padding=1, groups=count * steps)
            .unflatten(1, (count, steps))
            .sum(1)
            for kernel in kernels
        ]
        return torch.stack(heads, 1) + bias[:, None, None, None]

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


class PAF(nn.Module):
    """Patch-wise Adaptive Fusion (section III-D) of GrSCM's F_att and NeSCM's F_p; local to r×r patches."""

    def __init__(self, channels: int, patch: int, config: CCNetConfig) -> None:
        super().__init__()
        self.groups, self.patch = config.groups, patch
        self.aggregate = nn.Conv2d(2 * self.groups, self.groups, 3, padding=1, groups=self.groups)
        self.map_att = nn.Conv2d(channels, channels, 1)
        self.map_cp = nn.Conv2d(self.groups, self.groups, 1)
        self.unit = Unit(axes=1)

    def sia(self, progressive_BCHW: Tensor) -> Tensor:
        """Spectrum Information Aggregation (Eq. 8-10): F_cp, (B, k, H, W)."""
        groups = progressive_BCHW.unflatten(1, (self.groups, -1))
        result: Tensor = self.aggregate(torch.stack([groups.mean(2), groups.amax(2)], 2).flatten(1, 2))
        return result

    def patches(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) → (B, H/r, W/r, C, r·r)."""
        r = self.patch
        x = x_BCHW.unflatten(3, (-1, r)).unflatten(2, (-1, r))  # (B, C, H/r, r, W/r, r)
        return x.permute(0, 2, 4, 1, 3, 5).flatten(4)

    def forward(self, att_BCHW: Tensor, progressive_BCHW: Tensor) -> Tensor:
        compressed = self.patches(self.map_cp(self.sia(progressive_BCHW)))  # (B, H/r, W/r, k, r·r)
        mapped = self.patches(self.map_att(att_BCHW))  # (B, H/r, W/r, C, r·r)
        similarity = self.unit(mapped) @ self.unit(compressed).transpose(-1, -2)  # Eq. 11
        fused = torch.softmax(similarity, dim=-1).to(compressed.dtype) @ compressed  # Eq. 12, 13
        rows, columns = fused.shape[1:3]
        fused = fused.unflatten(4, (self.patch, self.patch)).permute(0, 3, 1, 4, 2, 5)
        return att_BCHW + fused.reshape(*att_BCHW.shape[:2], rows * self.patch, columns * self.patch)


class FFN(nn.Module):
    """Intra-Spectral Spatiality Modeling: the Transformer's feed-forward network, convolutional as in MST++."""

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__()
        hidden = config.expansion * channels
        self.norm = nn.LayerNorm(channels)
        self.net = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        result: Tensor = self.net(self.norm(x_BCHW.movedim(1, -1)).movedim(-1, 1))
        return result


class InterSpectral(nn.Module):
    """Inter-Spectral Relationship Modeling: GrSCM and NeSCM in parallel, joined by PAF."""

    def __init__(self, channels: int, patch: int, config: CCNetConfig) -> None:
        super().__init__()
        missing = [
            f"{name}={value!r}"
            for name, value, built in (
                ("inter_spectral", config.inter_spectral, "ccnet"),
                ("continuity", config.continuity, "nescm"),
                ("fusion", config.fusion, "paf"),
            )
            if value != built
        ]
        if missing:
            raise CCNetError(f"{', '.join(missing)}: this version builds the paper's own parts only")
        self.grscm = GrSCM(channels, config)
        self.nescm = NeSCM(channels, config)
        self.paf = PAF(channels, patch, config)

    def forward(self, x_BCHW: Tensor, attention: Tensor) -> Tensor:
        result: Tensor = self.paf(self.grscm(x_BCHW, attention), self.nescm(x_BCHW))
        return result


class CSRM(nn.Module):
    """Customized Spectral Relationship Modeling block: x + inter-spectral, then x + intra-spectral."""

    def __init__(self, channels: int, patch: int, config: CCNetConfig) -> None:
        super().__init__()
        self.inter = InterSpectral(channels, patch, config)
        self.intra = FFN(channels, config)

    def forward(self, x_BCHW: Tensor, attention: Tensor | None) -> tuple[Tensor, Tensor]:
        """x and the attention that it was given, or else computed from x."""
        if attention is None:
            attention = self.inter.grscm.correlate(x_BCHW)
        x = x_BCHW + self.inter(x_BCHW, attention)
        return x + self.intra(x), attention
