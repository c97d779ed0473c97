"""The parts that the paper's ablations (section IV-D) use instead of its own; each is a value of CCNetConfig.

Shape legend: B images, C channels, H×W pixels, n heads, T bands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ccnet.model.blocks import PAF, BandSequence, GrSCM, NeSCM, SpectralAttention
from ccnet.model.config import CCNetConfig
from ccnet.model.layers import Pointwise
from ccnet.ops.autocast import float32_region
from ccnet.ops.band_cosine import feature_cosine

TABLES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "II": {"MHA": {"inter_spectral": "mha"}, "Ours": {}},
    "III": {
        "none": {"continuity": "none"},
        "b-convLSTM": {"continuity": "convlstm"},
        "b-convGRU": {"continuity": "convgru"},
        "NeSCM": {},
    },
    "IV": {
        "Addition": {"fusion": "add"},
        "Concatenation": {"fusion": "concat"},
        "CAttention": {"fusion": "cross"},
        "PAF": {},
    },
    "V": {str(side): {"patch": side} for side in (4, 8, 16, 32, 64)},
}
"""Table of the paper → its rows under the paper's names → the CCNetConfig fields of the row's network."""


# Table II


class MHA(GrSCM):
    """MST++'s spectral-wise multi-head attention: GrSCM with one group and without a relative spectrum encoding."""

    def __init__(self, channels: int, config: CCNetConfig) -> None:
        super().__init__(channels, replace(config, groups=1))
        del self.rse
        self.register_buffer("rse", torch.zeros(()), persistent=False)


# Table III


class ConvLSTM(nn.Module):
    """One step of a convolutional LSTM (Shi et al. 2015).

    With ∗ a 3×3 convolution and ∘ the product of elements:

        i, f, o = sigmoid(W_x ∗ x_t + W_h ∗ h_{t-1} + b)        each with its own W_x, W_h, b
        c_t = f ∘ c_{t-1} + i ∘ tanh(W_xc ∗ x_t + W_hc ∗ h_{t-1} + b_c)
        h_t = o ∘ tanh(c_t)

    Shi's peepholes W ∘ c are left out, as is usual in video work: their weights fix the frame's size.
    """

    states = 2  # h, c

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * features, 4 * features, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        """Return the next h and c: x, h, c (B, n, H, W)."""
        i, f, o, candidate = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(candidate)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvGRU(nn.Module):
    """One step of a convolutional GRU (Ballas et al. 2016).

    With ∗ a 3×3 convolution and ∘ the product of elements:

        z, r = sigmoid(W_x ∗ x_t + W_h ∗ h_{t-1} + b)           each with its own W_x, W_h, b
        h_t = (1 - z) ∘ h_{t-1} + z ∘ tanh(W ∗ x_t + U ∗ (r ∘ h_{t-1}) + b_h)
    """

    states = 1  # h

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * features, 2 * features, 3, padding=1)
        self.candidate = nn.Conv2d(2 * features, features, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """Return the next h: x, h (B, n, H, W)."""
        z, r = torch.sigmoid(self.gates(torch.cat([x, h], 1))).chunk(2, 1)
        return ((1 - z) * h + z * torch.tanh(self.candidate(torch.cat([x, r * h], 1))),)


class BiConvRNN(BandSequence):
    """b-convLSTM and b-convGRU: a cell runs over the bands in each direction with its own weights; both are summed."""

    def __init__(self, channels: int, config: CCNetConfig, cell: type[ConvLSTM] | type[ConvGRU]) -> None:
        super().__init__(channels, config)
        self.forward_cell, self.backward_cell = cell(self.heads), cell(self.heads)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return F_p: (B, C, H, W)."""
        with float32_region(x_BCHW):
            bands = self.to_bands(x_BCHW.float()).unbind(2)
            forward = [*_unroll(self.forward_cell, bands)]
            backward = [*_unroll(self.backward_cell, bands[::-1])][::-1]
        return self.from_bands(torch.stack(forward, 2) + torch.stack(backward, 2))


def _unroll(cell: ConvLSTM | ConvGRU, steps: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Yield h_1 … h_T of a cell that starts from zeros."""
    state = (torch.zeros_like(steps[0]),) * cell.states
    for x in steps:
        state = cell(x, *state)
        yield state[0]


def continuity(channels: int, config: CCNetConfig) -> BandSequence | None:
    """Return the global model beside GrSCM (Table III), or None where GrSCM or MHA is used alone."""
    if config.inter_spectral == "mha" or config.continuity == "none":
        return None
    if config.continuity == "nescm":
        return NeSCM(channels, config)
    return BiConvRNN(channels, config, ConvLSTM if config.continuity == "convlstm" else ConvGRU)


# Table IV


class Addition(nn.Module):
    """F_att + F_p."""

    def forward(self, att_BCHW: Tensor, progressive_BCHW: Tensor) -> Tensor:
        """Return the sum, (B, C, H, W)."""
        return att_BCHW + progressive_BCHW


class Concatenation(nn.Module):
    """A 1×1 convolution of the concatenated F_att and F_p."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = Pointwise(2 * channels, channels)

    def forward(self, att_BCHW: Tensor, progressive_BCHW: Tensor) -> Tensor:
        """Return the fused features, (B, C, H, W)."""
        return self.mix(torch.cat([att_BCHW, progressive_BCHW], 1))


class CAttention(SpectralAttention):
    """Image-level cross-attention over channels: queries from F_att, keys and values from F_p, F_att as residual.

    softmax(σ · QᵀK / (‖Q‖‖K‖)) · V over all pixels, so these matrices are part of the context like GrSCM's.
    """

    def correlate(self, att_BCHW: Tensor, progressive_BCHW: Tensor) -> Tensor:
        """Return the weight of each band of F_p (columns) for each band of F_att (rows): (B, n, T, T)."""
        with float32_region(att_BCHW):
            q, k = self.to_q(att_BCHW.float()), self.to_k(progressive_BCHW.float())
            return torch.softmax(self.sigma * feature_cosine(q, k, self.split[1], self.unit), dim=-1)

    def forward(self, att_BCHW: Tensor, progressive_BCHW: Tensor, attention: Tensor) -> Tensor:
        """Return the fused features, (B, C, H, W)."""
        return att_BCHW + self.project(attention, self.to_v(progressive_BCHW))


def fusion(channels: int, patch: int, config: CCNetConfig) -> nn.Module:
    """Return the part that joins F_att and F_p (Table IV)."""
    if config.fusion == "paf":
        return PAF(channels, patch, config)
    if config.fusion == "cross":
        return CAttention(channels, heads=channels // config.width)
    return Concatenation(channels) if config.fusion == "concat" else Addition()
