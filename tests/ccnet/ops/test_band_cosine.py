"""Cosines from the Gram matrix and their gradients match the formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ccnet.model.ablations import MHA
from ccnet.model.blocks import GrSCM
from ccnet.model.config import CCNetConfig
from ccnet.model.layers import L2Normalize
from ccnet.ops.band_cosine import EPS, cosine_of_maps, feature_cosine
from ccnet.ops.kernels import reference_ops


def inputs(scale: float = 1, heads: int = 2, pixels: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    """Return x (2 images, 3 groups, 8 bands, pixels) with one black band, and keys and queries of 4 features a head."""
    x = scale * torch.rand(2, 3, 8, pixels, dtype=torch.float64)
    x[0, 1, 5] = 0
    keys, queries = torch.randn(2, 3, heads, 4, 8, dtype=torch.float64)
    return x.requires_grad_(), keys.requires_grad_(), queries.requires_grad_()


def by_the_formula(x: Tensor, keys: Tensor, queries: Tensor) -> Tensor:
    """Compute Eq. 3 as written, with norms of at least EPS."""
    k, q = (one @ x[:, :, None] for one in (keys, queries))  # (B, k, n, b, N)
    k, q = (one / one.norm(dim=-1, keepdim=True).clamp_min(EPS) for one in (k, q))
    return (k @ q.mT).flatten(1, 2)


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1, 1e3], ids=["below EPS", "dark", "normal", "bright"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("pixels", [2, 30, 5000])
def test_cosines_and_gradients_match_the_formula(scale: float, heads: int, pixels: int) -> None:
    given, weight = inputs(scale, heads, pixels), torch.randn(2, 3 * heads, 4, 4, dtype=torch.float64)
    found, expected = cosine_of_maps(*given), by_the_formula(*given)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad((one * weight).sum(), given) for one in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7 * other.abs().max().item())


def test_reference_cosines_of_many_alike_pixels_keep_their_digits() -> None:
    """The features of a photograph: bands that are alike, over 250,000 pixels, with unit vectors of 0.002 a pixel."""
    x = 1 + 0.1 * torch.rand(1, 4, 480, 512)
    unit = L2Normalize(axes=2)
    found = feature_cosine(x, x, 4, unit)
    vectors = unit(x.unflatten(1, (-1, 4))).flatten(3).double()
    assert (found - vectors @ vectors.mT).abs().max() < 2e-7


def test_zero_feature_has_zero_cosine_and_finite_gradient() -> None:
    x, keys, queries = inputs()
    with torch.no_grad():
        keys[:, :, 2] = 0
    found = cosine_of_maps(x, keys, queries)
    assert (found[:, :, 2] == 0).all()
    assert all(one.isfinite().all() for one in torch.autograd.grad(found.sum(), [x, keys, queries]))


def test_gradient_matches_finite_differences() -> None:
    x, keys, queries = (one.detach()[:1].requires_grad_() for one in inputs(pixels=6))
    assert torch.autograd.gradcheck(cosine_of_maps, (x, keys[:1].detach().requires_grad_(), queries)) is True


@pytest.mark.parametrize("scale", [1e-4, 1, 1e3], ids=["dark", "normal", "bright"])
def test_nearly_equal_bands_of_a_large_frame_keep_their_digits(scale: float) -> None:
    """Keys and queries take differences of bands that differ by a hundredth; the gradient keeps its digits as well."""
    light, own = torch.rand(1, 1, 1, 512 * 512), torch.rand(1, 1, 8, 512 * 512)
    x, weight = (scale * (light + 0.01 * own)).requires_grad_(), torch.randn(8, 8)
    keys, queries = torch.randn(2, 1, 1, 8, 8)
    keys, queries = (one - one.mean(-1, keepdim=True) for one in (keys, queries))
    exact = [one.detach().double().requires_grad_() for one in (x, keys, queries)]
    found, expected = cosine_of_maps(x, keys, queries), by_the_formula(*exact)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-6
    one = torch.autograd.grad((found * weight).sum(), x)[0]
    other = torch.autograd.grad((expected * weight).sum(), exact[0])[0]
    assert (one - other).norm() < 1e-5 * other.norm()


@pytest.mark.parametrize("part", [GrSCM, MHA])
@pytest.mark.parametrize("channels", [32, 64, 128])
def test_band_cosine_matches_keys_times_queries(part: type[GrSCM], channels: int) -> None:
    attention, x = part(channels, CCNetConfig()), torch.randn(2, channels, 12, 20)
    with reference_ops():
        expected = attention.correlate(x)
    assert expected.shape[1:] == attention.context_shape
    torch.testing.assert_close(attention.correlate(x), expected, rtol=1e-5, atol=1e-6)


def test_exported_graphs_have_keys_and_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, x = GrSCM(32, CCNetConfig()).requires_grad_(False), torch.randn(2, 32, 6, 8)
    found = attention.correlate(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr("ccnet.ops.band_cosine.cosine_of_maps", None)
    torch.testing.assert_close(found, attention.correlate(x), rtol=1e-5, atol=1e-6)
