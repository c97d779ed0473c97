"""GrSCM, NeSCM and PAF against the paper's equations, and the locality that each one promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.model.blocks import PAF, GrSCM, L2Normalize, NeSCM
from ccnet.model.ccnet import CSRM, Context
from ccnet.model.config import CCNetConfig
from ccnet.runtime.quality.tolerances import TOLERANCES

CONFIG = CCNetConfig()
GROUPS, WIDTH = CONFIG.groups, CONFIG.width
LIMIT = TOLERANCES["scan"].max_abs
CHANNELS = pytest.mark.parametrize("channels", [32, 64, 128])


def assert_near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=LIMIT)


def grscm(channels: int) -> GrSCM:
    part = GrSCM(channels, CONFIG)
    torch.nn.init.normal_(part.rse)
    torch.nn.init.uniform_(part.sigma, 0.5, 4)
    return part.requires_grad_(False)


def nescm(channels: int) -> NeSCM:
    return NeSCM(channels, CONFIG).requires_grad_(False)


def paf(channels: int, patch: int) -> PAF:
    return PAF(channels, patch, CONFIG).requires_grad_(False)


# --- cosine


@pytest.mark.parametrize("axes", [1, 2])
def test_l2_normalize_gives_length_one_and_keeps_zero(axes: int) -> None:
    x = torch.randn(3, 5, *(6, 7)[:axes]) * 1e4
    x[1, 2] = 0
    lengths = torch.ones(3, 5)
    lengths[1, 2] = 0
    torch.testing.assert_close(torch.linalg.vector_norm(L2Normalize(axes)(x).flatten(2), dim=-1), lengths)
    assert L2Normalize(axes)(x.to(torch.float16)).dtype == torch.float32


# --- GrSCM


@CHANNELS
def test_correlate_computes_eq_3_and_4(channels: int) -> None:
    part, x = grscm(channels), torch.randn(2, channels, 4, 6)
    heads, size = channels // WIDTH, channels // GROUPS
    attention = part.correlate(x)
    assert attention.shape == (2, *part.context_shape) == (2, GROUPS * heads, 8, 8)
    for group in range(GROUPS):
        run = slice(group * size, (group + 1) * size)  # a group is a run of adjacent channels
        q, k = (F.conv2d(x[:, run], conv.weight[run]).flatten(2) for conv in (part.to_q, part.to_k))
        for head in range(heads):
            bands, index = slice(head * 8, (head + 1) * 8), group * heads + head
            cosine = torch.cosine_similarity(k[:, bands, None], q[:, None, bands], dim=-1)
            expected = torch.softmax(part.rse[index] + part.sigma[index] * cosine, dim=-1)
            torch.testing.assert_close(attention[:, index], expected)


@CHANNELS
def test_folded_projection_equals_projection_after_attention(channels: int) -> None:
    part, x = grscm(channels), torch.randn(2, channels, 5, 6)
    attention, v = part.correlate(x), part.to_v(x)
    assert_near(part(x, attention), part.proj(part.attend(attention, v)) + part.position(v))


@pytest.mark.parametrize("channels", [32, 128])
@pytest.mark.parametrize("group", range(GROUPS))
def test_change_in_a_group_stays_in_its_group(channels: int, group: int) -> None:
    part, x = grscm(channels), torch.randn(1, channels, 4, 4)
    size, heads = channels // GROUPS, channels // WIDTH
    changed = x.clone()
    changed[:, group * size + 1] += 1

    before, after = part.correlate(x), part.correlate(changed)
    matrices = (before != after).any(-1).any(-1)[0].unflatten(0, (GROUPS, heads)).any(1)
    mixed, mixed_after = part.attend(before, part.to_v(x)), part.attend(after, part.to_v(changed))
    features = (mixed != mixed_after).any(-1).any(-1)[0].unflatten(0, (GROUPS, size)).any(1)
    only_this = [index == group for index in range(GROUPS)]
    assert matrices.tolist() == only_this
    assert features.tolist() == only_this


def test_attention_does_not_depend_on_brightness() -> None:
    part, x = grscm(64), torch.randn(1, 64, 8, 8)
    assert_near(part.correlate(1000 * x), part.correlate(x))


# --- NeSCM


@CHANNELS
def test_nescm_forward_matches_the_reference_loop(channels: int) -> None:
    part, x = nescm(channels), torch.randn(2, channels, 5, 7)
    assert_near(part(x), part.reference_loop(x))


@CHANNELS
def test_nescm_gradients_match_the_reference_loop(channels: int) -> None:
    part = NeSCM(channels, CONFIG)
    x = torch.randn(1, channels, 3, 4, requires_grad=True)
    leaves = [x, *part.parameters()]
    grad = torch.randn(1, channels, 3, 4)
    fast, slow = (torch.autograd.grad(function(x), leaves, grad) for function in (part.forward, part.reference_loop))
    for actual, expected in zip(fast, slow, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@CHANNELS
def test_bands_are_adjacent_channels_of_a_head(channels: int) -> None:
    part, x = nescm(channels), torch.randn(2, channels, 2, 3)
    bands, heads = part.to_bands(x), channels // WIDTH
    assert bands.shape == (2, heads, WIDTH, 2, 3)
    for group in range(GROUPS):
        for head in range(heads):
            start = (group * heads + head) * 8
            assert torch.equal(bands[:, head, group * 8 : group * 8 + 8], x[:, start : start + 8])
    assert torch.equal(part.from_bands(bands), x)


@pytest.mark.parametrize("band", [0, 1, 10, 31])
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "backward"])
@pytest.mark.parametrize("method", ["forward", "reference_loop"])
def test_branch_remembers_in_its_own_direction(forward: bool, band: int, method: str) -> None:
    """A band reaches the windows that hold it and, through the memory, all that come after in the branch's order."""
    part = nescm(64)
    silent = part.backward_cmu if forward else part.forward_cmu
    for parameter in silent.output.parameters():
        parameter.zero_()
    bands = torch.randn(1, 2, WIDTH, 3, 3)
    changed = bands.clone()
    changed[:, 0, band] += 1
    run = getattr(part, method)
    before, after = (part.to_bands(run(part.from_bands(b))) for b in (bands, changed))
    reached = (before != after).any(0).any(0).any(-1).any(-1)
    in_reach = torch.arange(WIDTH) >= band - 1 if forward else torch.arange(WIDTH) <= band + 1
    assert not reached[~in_reach].any()
    assert reached[(torch.arange(WIDTH) - band).abs() <= 1].all()
    assert reached.sum() >= min(4, int(in_reach.sum()))  # further than the window


# --- PAF


@CHANNELS
def test_sia_pools_each_group(channels: int) -> None:
    part, x = paf(channels, 4), torch.randn(2, channels, 8, 8)
    size = channels // GROUPS
    for group in range(GROUPS):
        run = x[:, group * size : (group + 1) * size]
        pooled = torch.stack([run.mean(1), run.amax(1)], 1)
        weight, bias = part.aggregate.weight[group], part.aggregate.bias
        assert bias is not None
        expected = F.conv2d(pooled, weight[None], bias[group][None], padding=1)
        torch.testing.assert_close(part.sia(x)[:, group : group + 1], expected)


@pytest.mark.parametrize(("channels", "patch"), [(32, 16), (64, 8), (128, 4)])
def test_paf_computes_eq_11_to_13_in_every_patch(channels: int, patch: int) -> None:
    part = paf(channels, patch)
    att, progressive = torch.randn(2, 1, channels, 2 * patch, 3 * patch)
    mapped, compressed = part.map_att(att), part.map_cp(part.sia(progressive))
    expected = att.clone()
    for y in range(0, 2 * patch, patch):
        for x in range(0, 3 * patch, patch):
            here = (0, slice(None), slice(y, y + patch), slice(x, x + patch))
            a, c = mapped[here].flatten(1), compressed[here].flatten(1)  # (C, r·r), (k, r·r)
            weights = torch.softmax(torch.cosine_similarity(a[:, None], c[None], dim=-1), dim=-1)
            expected[here] += (weights @ c).unflatten(1, (patch, patch))
    assert_near(part(att, progressive), expected)


@pytest.mark.parametrize("which", ["F_att", "F_p"])
def test_change_inside_a_patch_stays_in_its_patch(which: str) -> None:
    part = paf(64, 8)
    att, progressive = torch.randn(2, 1, 64, 24, 24)
    changed = (att if which == "F_att" else progressive).clone()
    changed[:, :, 9:15, 9:15] += torch.randn(6, 6)  # a pixel inside the patch, for the 3×3 convolution of F_p
    after = part(changed, progressive) if which == "F_att" else part(att, changed)
    touched = (after != part(att, progressive))[0].any(0)
    assert touched[8:16, 8:16].all()
    touched[8:16, 8:16] = False
    assert not touched.any()


# --- the block


def test_block_records_its_attention_in_the_context() -> None:
    block, x = CSRM(64, 8, CONFIG).requires_grad_(False), torch.randn(1, 64, 16, 16)
    computed = Context()
    y = block(x, computed)
    given = Context(computed.parts)
    assert torch.equal(block(x, given), y)
    assert len(given.parts) == 1
    assert given.parts[0] is computed.parts[0]
    assert not torch.equal(block(x, Context([computed.parts[0].roll(1, -1)])), y)
