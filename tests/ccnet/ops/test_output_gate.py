"""Output gates: kernel, reference and the paper's loop agree, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ccnet.model.blocks import NeSCM
from ccnet.model.config import CCNetConfig
from ccnet.ops import kernels
from ccnet.ops.kernels import kernel
from ccnet.ops.output_gate import output_gate, output_gate_reference
from ccnet.ops.scan import STREAMS

needs_kernel = pytest.mark.skipif(kernel() is None, reason="installed without a C compiler: there is no kernel")

Inputs = tuple[Tensor, Tensor, Tensor]


def inputs(heads: int, bands: int, *space: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> Inputs:
    """u (B, 4, n, T, H, W), weight (2, n, n, 3, 3, 3), bias (n,)."""
    u = torch.randn(batch, STREAMS, heads, bands, *space, dtype=dtype)
    return u, torch.randn(2, heads, heads, 3, 3, 3, dtype=dtype), torch.randn(heads, dtype=dtype)


def with_gradients(function: object, given: Inputs, grad: Tensor) -> tuple[Tensor, ...]:
    """Return the result, and the gradients of u, weight and bias for a gradient of the result."""
    assert callable(function)
    leaves = tuple(tensor.detach().requires_grad_() for tensor in given)
    result = function(*leaves)
    return result.detach(), *torch.autograd.grad(result, leaves, grad.to(result.dtype))


def assert_near(actual: Tensor, expected: Tensor) -> None:
    """Compare relative to the largest value: sums over taps and pixels have terms of both signs."""
    scale = max(1.0, expected.abs().max().item())
    assert actual.dtype == torch.float32
    assert (actual - expected).abs().max().item() <= 3e-6 * scale


def test_reference_computes_eq_7() -> None:
    """The expected result is a 3×3×3 convolution of each direction's windows, slot by slot."""
    u, weight, bias = inputs(2, 5, 4, 6, dtype=torch.float64)
    forward, lead, backward, trail = u.unbind(1)
    expected = torch.zeros_like(forward)
    nothing = torch.zeros_like(forward[:, :, 0])
    for t in range(5):
        windows = (
            (forward[:, :, t - 1] if t else nothing, forward[:, :, t], lead[:, :, t]),
            (trail[:, :, t], backward[:, :, t], backward[:, :, t + 1] if t < 4 else nothing),
        )
        for kernel_, window in zip(weight, windows, strict=True):
            slots = torch.stack(window, 2)
            expected[:, :, t] += torch.nn.functional.conv3d(slots, kernel_, padding=(0, 1, 1)).squeeze(2)
    torch.testing.assert_close(output_gate_reference(u, weight, bias), expected + bias[:, None, None, None])


@needs_kernel
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("space", [(1, 1), (1, 7), (7, 1), (2, 3), (16, 16), (13, 70), (70, 33)], ids=str)
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_kernel_matches_the_reference_in_float64(heads: int, space: tuple[int, int], bands: int) -> None:
    given = inputs(heads, bands, *space)
    grad = torch.randn_like(given[0][:, 0])
    exact = with_gradients(output_gate_reference, tuple(tensor.double() for tensor in given), grad)  # type: ignore[arg-type]
    for actual, expected in zip(with_gradients(output_gate, given, grad), exact, strict=True):
        assert_near(actual, expected)


@needs_kernel
@pytest.mark.parametrize("space", [(5, 128), (5, 129), (9, 300), (300, 9)], ids=str)
def test_planes_larger_than_a_tile(space: tuple[int, int]) -> None:
    """Planes wider or higher than a tile."""
    given = inputs(2, 2, *space, batch=1)
    grad = torch.randn_like(given[0][:, 0])
    exact = with_gradients(output_gate_reference, tuple(tensor.double() for tensor in given), grad)  # type: ignore[arg-type]
    for actual, expected in zip(with_gradients(output_gate, given, grad), exact, strict=True):
        assert_near(actual, expected)


@needs_kernel
def test_kernel_accepts_any_strides() -> None:
    u, weight, bias = inputs(2, 5, 6, 7)
    grad = torch.randn_like(u[:, 0])
    strided = tuple(tensor.movedim(-1, 0).contiguous().movedim(0, -1) for tensor in (u, weight))
    assert not any(tensor.is_contiguous() for tensor in strided)
    expected = with_gradients(output_gate, (u, weight, bias), grad)
    found = with_gradients(output_gate, (*strided, bias), grad.mT.contiguous().mT)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_kernel
def test_kernel_spreads_nan_no_further_than_the_window() -> None:
    u, weight, bias = inputs(1, 5, 6, 7)
    u[0, 0, 0, 2, 3, 4] = torch.nan
    assert torch.equal(output_gate(u, weight, bias).isnan(), output_gate_reference(u, weight, bias).isnan())


@needs_kernel
@pytest.mark.usefixtures("threads")
def test_result_does_not_depend_on_the_number_of_threads() -> None:
    given = inputs(2, 7, 20, 20)
    grad = torch.randn_like(given[0][:, 0])
    results = []
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        results.append(with_gradients(output_gate, given, grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0][:3], other[:3], strict=True))
        torch.testing.assert_close(results[0][3], other[3])  # torch's own sum


@pytest.mark.parametrize(
    ("heads", "dtype", "compiled"),
    [(1, torch.float32, False), (3, torch.float32, True), (2, torch.bfloat16, True), (2, torch.float64, True)],
    ids=["no kernel", "three heads", "bfloat16", "float64"],
)
def test_reference_runs_without_a_supporting_kernel(
    monkeypatch: pytest.MonkeyPatch, heads: int, dtype: torch.dtype, compiled: bool
) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "kernel", lambda: None)
    given = inputs(heads, 5, 3, 4, dtype=dtype)
    grad = torch.randn_like(given[0][:, 0])
    pairs = zip(
        with_gradients(output_gate, given, grad), with_gradients(output_gate_reference, given, grad), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("heads", [1, 2])
def test_gradients_match_finite_differences(heads: int) -> None:
    given = tuple(t.requires_grad_() for t in inputs(heads, 2, 1, 2, batch=1, dtype=torch.float64))
    assert torch.autograd.gradcheck(output_gate, given)


def test_exported_graph_has_nescm_as_one_operator() -> None:
    """The exporter unrolls it (``export/graph/nescm_unrolled.py``); the operators inside stay out of the graph."""
    program = torch.export.export(NeSCM(64, CCNetConfig()), (torch.randn(1, 64, 4, 4),))
    ours = [str(node.target) for node in program.graph.nodes if "ccnet" in str(node.target)]
    assert ours == ["ccnet.nescm.default"]


@needs_kernel
@pytest.mark.parametrize("space", [(3, 4), (17, 40)], ids=str)
@pytest.mark.parametrize("channels", [32, 64, 128])
def test_nescm_matches_the_reference_loop(channels: int, space: tuple[int, int]) -> None:
    """Result and gradients, the loop in float64."""
    fast, exact = NeSCM(channels, CCNetConfig()), NeSCM(channels, CCNetConfig()).double()
    exact.load_state_dict(fast.state_dict())
    x, grad = torch.randn(2, 1, channels, *space)
    found, expected = (
        (function(given), *torch.autograd.grad(function(given), [given, *part.parameters()], grad.to(given)))
        for part, function, given in (
            (fast, fast.forward, x.clone().requires_grad_()),
            (exact, exact.reference_loop, x.double().requires_grad_()),
        )
    )
    for actual, wanted in zip(found, expected, strict=True):
        scale = max(1.0, wanted.abs().max().item())
        assert (actual - wanted).abs().max().item() <= 1e-5 * scale
