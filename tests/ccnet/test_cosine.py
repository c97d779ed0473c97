"""GrSCM's cosines and their gradient against the formula, by autograd in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ccnet import modules
from ccnet.config import CCNetConfig
from ccnet.cosine import EPS, cosine
from ccnet.modules import GrSCM

LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planes", "pixels"])


def bands(scale: float, layout: torch.memory_format) -> Tensor:
    """(2, 3 groups, 4 bands, 5, 6), one of them black."""
    x: Tensor = scale * torch.rand(2, 12, 5, 6, dtype=torch.float64)
    x[0, 5] = 0
    x = x.contiguous(memory_format=layout).unflatten(1, (3, 4))
    return x.requires_grad_()


def by_the_formula(x: Tensor, y: Tensor) -> Tensor:
    """Each norm no less than EPS."""
    x, y = (one.flatten(3) / one.flatten(3).norm(dim=-1, keepdim=True).clamp_min(EPS) for one in (x, y))
    return x @ y.transpose(-1, -2)


@LAYOUTS
@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1, 1e3], ids=["under the floor", "dark", "as it is", "bright"])
def test_cosines_and_their_gradient_are_the_formulas(layout: torch.memory_format, scale: float) -> None:
    x, y, weight = bands(scale, layout), bands(1, layout), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    found, expected = cosine(x, y), by_the_formula(x, y)
    torch.testing.assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad((c * weight).sum(), [x, y]) for c in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)


def test_the_gradient_is_that_of_finite_differences() -> None:
    x, y = (torch.rand(1, 2, 3, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(cosine, (x, y))


@pytest.mark.parametrize("scale", [1e-4, 1, 1e3], ids=["dark", "as it is", "bright"])
def test_a_whole_frame_loses_no_digits(scale: float) -> None:
    """Nor does its gradient, of which every pixel takes a part that is summed over all pixels."""
    x, y, weight = scale * torch.rand(1, 1, 8, 512, 512), scale * torch.rand(1, 1, 8, 512, 512), torch.randn(8, 8)
    found, expected = cosine(x.requires_grad_(), y), by_the_formula(x.double(), y.double())
    assert (found - expected).abs().max() < 1e-6
    one, other = (torch.autograd.grad((c * weight).sum(), x)[0] for c in (found, expected))
    assert (one - other).norm() < 5e-7 * other.norm()


def test_exported_graphs_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    part, x = GrSCM(32, CCNetConfig()).requires_grad_(False), torch.randn(2, 32, 6, 8)
    found = part.cosine(x, x.flip(1))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(modules, "cosine", None)
    torch.testing.assert_close(found, part.cosine(x, x.flip(1)))
