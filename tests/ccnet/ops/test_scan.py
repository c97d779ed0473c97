"""The scan operator: the paper's loop, the eager reference, the compiled kernel and the gradients agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.ops import kernels
from ccnet.ops.kernels import kernel
from ccnet.ops.scan import scan, scan_reference
from ccnet.runtime.quality.tolerances import TOLERANCES

LIMIT = TOLERANCES["scan"].max_abs
needs_kernel = pytest.mark.skipif(kernel() is None, reason="installed without a C compiler: there is no kernel")

Inputs = tuple[Tensor, Tensor, Tensor]


def inputs(heads: int, bands: int, *space: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> Inputs:
    """x (B, n, T, H, W), weight (2, n, 2n), bias (2, n)."""
    x = torch.randn(batch, heads, bands, *space, dtype=dtype)
    return x, torch.randn(2, heads, 2 * heads, dtype=dtype), torch.randn(2, heads, dtype=dtype)


def literal_slots(x: Tensor, weight: Tensor, bias: Tensor, backward: bool) -> Tensor:
    """tanh(m_t) + x_t by Eq. 5 and 6 over windows of three bands: (B, n, T, slot, H, W)."""
    heads = x.shape[1]
    bands = F.pad(x, (0, 0, 0, 0, 1, 1))
    w_m, w_x = weight[int(backward)].split(heads, dim=1)
    b = bias[int(backward)][:, None, None, None]
    m = torch.zeros_like(bands[:, :, :3])
    result = torch.zeros_like(x)[:, :, :, None].repeat(1, 1, 1, 3, 1, 1)
    for t in reversed(range(x.shape[2])) if backward else range(x.shape[2]):
        window = bands[:, :, t : t + 3]
        s = torch.sigmoid(torch.einsum("oi,bi...->bo...", w_m, m) + torch.einsum("oi,bi...->bo...", w_x, window) + b)
        m = s * m + (1 - s) * window
        result[:, :, t] = torch.tanh(m) + window
    return result


def gradients(result: Tensor, leaves: Inputs, grad: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(result, leaves, grad)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """Within the scan's tolerance, relative to the largest value where that exceeds 1 (sums over pixels)."""
    assert LIMIT is not None
    scale = max(1.0, expected.abs().max().item())
    assert (actual - expected).abs().max().item() <= LIMIT * scale


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("bands", [1, 2, 32])
def test_four_streams_match_the_reference_loop(heads: int, bands: int) -> None:
    given = inputs(heads, bands, 2, 3, dtype=torch.float64)
    forward, backward = (literal_slots(*given, backward=flag) for flag in (False, True))
    expected = torch.stack([forward[:, :, :, 1], forward[:, :, :, 2], backward[:, :, :, 1], backward[:, :, :, 0]], 1)
    torch.testing.assert_close(scan(*given), expected, rtol=0, atol=1e-14)


def test_trailing_slot_is_the_centre_of_the_previous_step() -> None:
    given = inputs(2, 32, 2, 3, dtype=torch.float64)
    forward, backward = (literal_slots(*given, backward=flag) for flag in (False, True))
    torch.testing.assert_close(forward[:, :, 1:, 0], forward[:, :, :-1, 1], rtol=0, atol=1e-14)
    torch.testing.assert_close(backward[:, :, :-1, 2], backward[:, :, 1:, 1], rtol=0, atol=1e-14)
    assert not forward[:, :, 0, 0].any()
    assert not backward[:, :, -1, 2].any()


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_gradients_match_finite_differences(heads: int) -> None:
    given = tuple(t.requires_grad_() for t in inputs(heads, 4, 1, 2, dtype=torch.float64))
    assert torch.autograd.gradcheck(scan, given)


@needs_kernel
@pytest.mark.parametrize("bands", [31, 32])
@pytest.mark.parametrize("space", [(1, 1), (7, 9), (5, 13), (8, 125)], ids=lambda s: f"{s[0] * s[1]} px")
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_kernel_matches_the_reference(heads: int, space: tuple[int, int], bands: int) -> None:
    leaves = tuple(t.requires_grad_() for t in inputs(heads, bands, *space))
    fast, reference = scan(*leaves), scan_reference(*leaves)
    assert_near(fast, reference)
    grad = torch.randn_like(reference)
    for actual, expected in zip(gradients(fast, leaves, grad), gradients(reference, leaves, grad), strict=True):
        assert_near(actual, expected)


@needs_kernel
def test_kernel_accepts_any_strides() -> None:
    x, weight, bias = inputs(2, 31, 6, 5)
    strided = x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    assert not strided.is_contiguous()
    assert torch.equal(scan(strided, weight.mT.contiguous().mT, bias), scan(x, weight, bias))


@needs_kernel
@pytest.mark.parametrize("index", range(3), ids=["x", "weight", "bias"])
def test_kernel_hides_no_nan(index: int) -> None:
    given = inputs(2, 5, 3, 5)
    given[index].view(-1)[1] = torch.nan
    assert torch.equal(scan(*given).isnan(), scan_reference(*given).isnan())


@needs_kernel
@pytest.mark.parametrize("scale", [30, 1e4, 1e30])
def test_kernel_saturates_like_the_reference(scale: float) -> None:
    x, weight, bias = inputs(2, 5, 3, 5)
    assert_near(scan(scale * x, weight, bias), scan_reference(scale * x, weight, bias))


@needs_kernel
@pytest.mark.usefixtures("threads")
def test_result_does_not_depend_on_the_number_of_threads() -> None:
    given = inputs(1, 32, 20, 20)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(scan(*given))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_gradients_repeat_exactly() -> None:
    leaves = tuple(t.requires_grad_() for t in inputs(2, 32, 20, 20))
    first, second = (torch.autograd.grad(scan(*leaves).square().sum(), leaves) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("heads", "bands", "compiled"),
    [(1, 32, False), (2, 31, False), (3, 5, True), (1, 65, True)],
    ids=["no kernel", "no kernel, 2 heads", "three heads", "65 bands"],
)
def test_reference_runs_without_a_supporting_kernel(
    monkeypatch: pytest.MonkeyPatch, heads: int, bands: int, compiled: bool
) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "kernel", lambda: None)
    leaves = tuple(t.requires_grad_() for t in inputs(heads, bands, 3, 5))
    result, reference = scan(*leaves), scan_reference(*leaves)
    assert torch.equal(result, reference)
    grad = torch.randn_like(reference)
    for actual, expected in zip(gradients(result, leaves, grad), gradients(reference, leaves, grad), strict=True):
        assert_near(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operator_passes_torchs_operator_check(dtype: torch.dtype) -> None:
    given = inputs(2, 5, 2, 3, dtype=dtype)
    torch.library.opcheck(torch.ops.ccnet.scan_backward, (scan(*given), *given))
    torch.library.opcheck(torch.ops.ccnet.scan, tuple(t.requires_grad_() for t in given))


def test_shapes_are_known_for_fake_tensors() -> None:
    given = tuple(t.to("meta") for t in inputs(4, 32, 8, 8))
    assert scan(*given).shape == (2, 4, 4, 32, 8, 8)
