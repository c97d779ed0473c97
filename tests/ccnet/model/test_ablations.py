"""The paper's Tables II to V: every row is a network, and each part that an ablation brings is what it is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ccnet.contract import CCNetError
from ccnet.export.artifacts import export
from ccnet.model import CCNet
from ccnet.model.ablations import MHA, TABLES, Addition, BiConvRNN, CAttention, Concatenation, ConvGRU, ConvLSTM
from ccnet.model.blocks import GrSCM
from ccnet.model.ccnet import Context, InterSpectral
from ccnet.model.checkpoint import load_checkpoint, save_checkpoint
from ccnet.model.config import CCNetConfig
from ccnet.ops.kernels import reference_ops
from ccnet.runtime.quality.tolerances import TOLERANCES

CONFIG = CCNetConfig()
LIMIT = TOLERANCES["fp32"].max_abs
ROWS: dict[str, Mapping[str, Any]] = {
    f"{table} {row}": values for table, rows in TABLES.items() for row, values in rows.items()
}
ABLATIONS = {name: values for name, values in ROWS.items() if CCNetConfig(**values) != CONFIG}
each_ablation = pytest.mark.parametrize("values", ABLATIONS.values(), ids=ABLATIONS)
each_cell = pytest.mark.parametrize("cell", [ConvLSTM, ConvGRU])
Array = npt.NDArray[np.float64]


def network_of(values: Mapping[str, Any]) -> CCNet:
    """One unit of an ablation, with random weights also where they start as zeros or ones."""
    model = CCNet(CCNetConfig(units=1, **values))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".rse", ".sigma")):
                parameter.add_(torch.randn_like(parameter))
    return model.eval()


def assert_near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=LIMIT)


# --- the networks


def test_tables_have_the_rows_of_the_paper() -> None:
    assert {table: list(rows) for table, rows in TABLES.items()} == {
        "II": ["MHA", "Ours"],
        "III": ["none", "b-convLSTM", "b-convGRU", "NeSCM"],
        "IV": ["Addition", "Concatenation", "CAttention", "PAF"],
        "V": ["4", "8", "16", "32", "64"],
    }
    ours = ("II Ours", "III NeSCM", "IV PAF", "V 16")
    assert [name for name in ROWS if name not in ABLATIONS] == list(ours)  # the paper's network, in each table


@pytest.mark.parametrize(
    ("row", "parameters", "context"),
    [
        ("II MHA", 1_696_062, 30_720),
        ("III none", 1_524_120, 7_680),
        ("III b-convLSTM", 1_617_864, 7_680),
        ("III b-convGRU", 1_614_996, 7_680),
        ("IV Addition", 1_528_764, 7_680),
        ("IV Concatenation", 1_689_468, 7_680),
        ("IV CAttention", 1_849_242, 38_400),
        ("V 4", 1_611_036, 7_680),
        ("V 64", 1_611_036, 7_680),
    ],
)
def test_ablations_have_the_sizes_of_the_paper(row: str, parameters: int, context: int) -> None:
    with torch.device("meta"):
        model = CCNet(CCNetConfig(**ROWS[row]))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.context_size == context


@each_ablation
def test_forward_equals_decode_with_the_encoded_context(values: Mapping[str, Any]) -> None:
    network, rgb = network_of(values), torch.rand(2, 3, 13, 20)
    with torch.inference_mode():
        cube, context = network.run(rgb, None)
        assert cube.shape == (2, 31, 13, 20)
        assert context.shape == (2, network.context_size)
        assert_near(network.decode(rgb, context), cube)
        assert (network.decode(rgb, context.roll(1, 0)) - cube).abs().max() > 1e-4


@each_ablation
def test_gradient_reaches_every_parameter(values: Mapping[str, Any]) -> None:
    network = network_of(values)
    network(torch.rand(1, 3, 16, 16)).square().sum().backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 5e-5]
    # In a patch of one pixel, PAF's cosine is a sign: Table V's 4 px are 1 px at the coarsest scale
    names = [f"units.0.bottleneck.inter.paf.map_att.{name}" for name in ("weight", "bias")]
    assert unreached == (names if values == {"patch": 4} else [])


@pytest.mark.parametrize("row", ["II MHA", "III b-convLSTM", "III b-convGRU", "IV CAttention"])
def test_under_autocast_context_and_recurrence_stay_float32(row: str) -> None:
    network, rgb = network_of(ROWS[row]), torch.rand(1, 3, 16, 16)
    seen = []
    for module in network.modules():
        if isinstance(module, ConvLSTM | ConvGRU):
            module.register_forward_hook(lambda *call: seen.append(call[-1][0].dtype))
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            cube, context = network.run(rgb, None)
        assert context.dtype == torch.float32
        assert set(seen) <= {torch.float32}
        torch.testing.assert_close(cube.float(), network(rgb), rtol=0, atol=0.1)


def test_checkpoint_of_an_ablation_loads(tmp_path: Path) -> None:
    network, rgb = network_of(ROWS["II MHA"]), torch.rand(1, 3, 16, 16)
    save_checkpoint(tmp_path / "mha.safetensors", network)
    with torch.inference_mode():
        assert torch.equal(load_checkpoint(tmp_path / "mha.safetensors")(rgb), network(rgb))


@pytest.mark.parametrize("row", ["III b-convLSTM", "III b-convGRU", "V 32", "V 64"])
def test_export_refuses_ablations_that_exceed_the_halo(row: str, tmp_path: Path) -> None:
    (value,) = ROWS[row].values()
    with pytest.raises(CCNetError, match=f"{value}.*halo of 80 px"):
        export(network_of(ROWS[row]), tmp_path)
    assert not any(tmp_path.iterdir())


# --- Table II


def test_mha_module_costs_what_the_paper_says() -> None:
    """0.44 GMAC at 256×256×32, as torch counts the projection after the attention."""
    with reference_ops(), FakeTensorMode():  # shapes without arithmetic
        mha, x = InterSpectral(32, 16, CCNetConfig(inter_spectral="mha")).grscm, torch.rand(1, 32, 256, 256)
        with FlopCounterMode(display=False) as counter:
            v = mha.to_v(x)
            mha.proj(mha.attend(mha.correlate(x), v)) + mha.position(v)
    assert counter.get_total_flops() // 2 == 440_401_920


def test_mha_network_with_31_channels_has_the_size_of_mstpp() -> None:
    """1.62 M, once MST++'s 3×3 convolution behind each unit, which CCNet does without, is added."""
    with torch.device("meta"):
        model = CCNet(CCNetConfig(width=31, groups=1, inter_spectral="mha"))
    assert sum(p.numel() for p in model.parameters()) + 3 * 31 * 31 * 9 == 1_619_625


@pytest.mark.parametrize("channels", [32, 64])
def test_mha_equals_grscm_with_one_group_and_no_encoding(channels: int) -> None:
    mha, x = MHA(channels, CONFIG).requires_grad_(False), torch.randn(2, channels, 4, 5)
    one_group = GrSCM(channels, replace(CONFIG, groups=1)).requires_grad_(False)
    assert set(one_group.state_dict()) - set(mha.state_dict()) == {"rse"}
    one_group.load_state_dict(mha.state_dict(), strict=False)
    attention = mha.correlate(x)
    assert attention.shape == (2, *mha.context_shape) == (2, channels // 32, 32, 32)
    assert torch.equal(attention, one_group.correlate(x))
    assert torch.equal(mha(x, attention), one_group(x, attention))


def test_mha_and_grscm_alone_need_no_fusion() -> None:
    x = torch.randn(1, 32, 16, 16)
    for config in (CCNetConfig(inter_spectral="mha"), CCNetConfig(continuity="none")):
        model = CCNet(replace(config, units=1))
        assert not [name for name in model.state_dict() if ".nescm." in name or ".paf." in name]
        module = model.units[0].enc1.inter
        context = [module.grscm.correlate(x)]
        assert torch.equal(module(x, Context(context)), module.grscm(x, *context))


# --- Table III


def recurrent(cell: type[ConvLSTM] | type[ConvGRU], channels: int = 64) -> BiConvRNN:
    part = BiConvRNN(channels, CONFIG, cell).requires_grad_(False)
    for parameter in part.parameters():
        nn.init.normal_(parameter, std=0.5)
    return part


def convolved(x: Array, conv: nn.Conv2d) -> Array:
    """A 3×3 convolution of (channels, H, W) with zeros around it, tap by tap."""
    height, width = x.shape[1:]
    around = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    weight, bias = conv.weight.double().numpy(), conv.bias.double().numpy()
    taps = (
        np.einsum("oi,ihw->ohw", weight[:, :, i, j], around[:, i : i + height, j : j + width])
        for i in range(3)
        for j in range(3)
    )
    return sum(taps, bias[:, None, None])


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def steps_by_hand(cell: ConvLSTM | ConvGRU, bands: Array) -> Iterator[Array]:
    """h_t for each band of (T, n, H, W), as the docstrings write the cells."""
    h = c = np.zeros_like(bands[0])
    for x in bands:
        gates = convolved(np.concatenate([x, h]), cell.gates)
        if isinstance(cell, ConvLSTM):
            i, f, o, candidate = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
            h = sigmoid(o) * np.tanh(c)
        else:
            z, r = np.split(sigmoid(gates), 2)
            h = (1 - z) * h + z * np.tanh(convolved(np.concatenate([x, r * h]), cell.candidate))
        yield h


@each_cell
def test_recurrent_cell_matches_its_equations(cell: type[ConvLSTM] | type[ConvGRU]) -> None:
    part, x = recurrent(cell), torch.randn(1, 64, 3, 4)
    bands = part.to_bands(x)[0].movedim(1, 0).double().numpy()  # (T, n, H, W)
    forward = [*steps_by_hand(part.forward_cell, bands)]
    backward = [*steps_by_hand(part.backward_cell, bands[::-1])][::-1]
    found = part.to_bands(part(x))[0].movedim(1, 0).double().numpy()
    np.testing.assert_allclose(found, np.add(forward, backward), rtol=0, atol=LIMIT)


@each_cell
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_direction_depends_only_on_bands_it_has_read(cell: type[ConvLSTM] | type[ConvGRU], direction: str) -> None:
    part = recurrent(cell)
    silent = part.backward_cell if direction == "forward" else part.forward_cell
    for parameter in silent.parameters():
        parameter.zero_()  # h stays zero
    bands = torch.randn(1, 2, 32, 3, 3)
    changed = bands.clone()
    changed[:, :, 10] += 1
    before, after = (part.to_bands(part(part.from_bands(b))) for b in (bands, changed))
    reached = (before != after)[0].any(0).any(-1).any(-1)
    read = torch.arange(32) >= 10 if direction == "forward" else torch.arange(32) <= 10
    assert not reached[~read].any()
    assert reached[read][: 5 if direction == "forward" else None][-5:].all()  # the band and four further on


@each_cell
def test_recurrent_cell_gradients_match_finite_differences(cell: type[ConvLSTM] | type[ConvGRU]) -> None:
    part = cell(1).double()
    state = (torch.zeros(1, 1, 3, 3, dtype=torch.float64),) * cell.states

    def two_steps(bands: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        after = state
        for x in bands.unbind(2):
            after = torch.func.functional_call(part, dict(zip(names, parameters, strict=True)), (x, *after))
        return after

    names, parameters = zip(*part.named_parameters(), strict=True)
    bands = torch.randn(1, 1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(two_steps, (bands, *parameters))


# --- Table IV


def test_addition_adds() -> None:
    att, progressive = torch.randn(2, 1, 32, 3, 4)
    assert torch.equal(Addition()(att, progressive), att + progressive)


def test_concatenation_depends_on_both_inputs() -> None:
    part, (att, progressive) = Concatenation(32).requires_grad_(False), torch.randn(2, 1, 32, 3, 4)
    left, right = part.mix.weight.split(32, 1)
    assert_near(part(att, progressive), F.conv2d(att, left, part.mix.bias) + F.conv2d(progressive, right))


def by_the_formula(part: CAttention, att: Tensor, progressive: Tensor) -> Tensor:
    """F_att + proj(softmax(σ · cos(Q, K)) · V), head by head."""
    q, k, v = part.to_q(att), part.to_k(progressive), part.to_v(progressive)
    heads = []
    for head in range(att.shape[1] // 32):
        run = slice(32 * head, 32 * head + 32)
        q_h, k_h, v_h = (one[:, run].flatten(2) for one in (q, k, v))
        cosine = torch.cosine_similarity(q_h[:, :, None], k_h[:, None], dim=-1)
        heads.append(torch.softmax(part.sigma[head] * cosine, dim=-1) @ v_h)
    return att + part.proj(torch.cat(heads, 1).reshape(att.shape))


@pytest.mark.parametrize("channels", [32, 64])
def test_cross_attention_matches_its_formula(channels: int) -> None:
    part = CAttention(channels, heads=channels // 32)
    nn.init.uniform_(part.sigma, 1, 4)
    att, progressive = torch.randn(2, 2, channels, 4, 3, requires_grad=True)
    fused, expected = part(att, progressive, part.correlate(att, progressive)), by_the_formula(part, att, progressive)
    assert_near(fused, expected)
    grad = torch.randn_like(fused)
    leaves = [att, progressive, *part.parameters()]
    for actual, wanted in zip(*(torch.autograd.grad(y, leaves, grad) for y in (fused, expected)), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-4)


def test_cross_attention_is_local_given_its_matrices() -> None:
    part, (att, progressive) = CAttention(64, heads=2).requires_grad_(False), torch.randn(2, 1, 64, 4, 4)
    attention = part.correlate(att, progressive)
    changed = progressive.clone()
    changed[..., 1, 2] += 1
    moved = (part(att, changed, attention) != part(att, progressive, attention))[0].any(0)
    assert moved.nonzero().tolist() == [[1, 2]]
    assert (part.correlate(att, changed) != attention).any()


def test_block_takes_both_attentions_from_the_context() -> None:
    network = network_of(ROWS["IV CAttention"])
    assert network.context_shapes[:2] == [(4, 8, 8), (1, 32, 32)]  # GrSCM's, then the fusion's
    rgb = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        cube, context = network.run(rgb, None)
        for start, size in ((0, 256), (256, 1024)):
            other = context.clone()
            other[:, start : start + size] = context[:, start : start + size].flip(1)
            assert (network.decode(rgb, other) - cube).abs().max() > 1e-5


# --- Table V


@pytest.mark.parametrize("patch", [4, 8, 16, 32, 64])
def test_patches_halve_with_every_scale(patch: int) -> None:
    with torch.device("meta"):
        model = CCNet(CCNetConfig(units=1, patch=patch))
    unit = model.units[0]
    blocks = (unit.enc1, unit.enc2, unit.bottleneck, unit.dec2, unit.dec1)
    assert [block.inter.paf.patch for block in blocks] == [patch, patch // 2, patch // 4, patch // 2, patch]
    assert model.config.size_multiple == max(16, patch)
