"""The core of PAF: kernel and reference agree, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ccnet.model.blocks import PAF
from ccnet.model.config import CCNetConfig
from ccnet.ops import kernels
from ccnet.ops.kernels import kernel, reference_ops
from ccnet.ops.patch_fusion import patch_fusion_kernel, patch_fusion_reference, patch_fusion_supported

needs_kernel = pytest.mark.skipif(kernel() is None, reason="installed without a C compiler: there is no kernel")

SHAPES = [
    (32, 16, 32, 48, 2),
    (64, 8, 16, 24, 1),
    (128, 4, 8, 8, 2),
    (32, 12, 24, 36, 1),
    (32, 4, 4, 4, 1),
    (32, 2, 6, 4, 1),
]


def inputs(channels: int, height: int, width: int, batch: int, groups: int = 4) -> tuple[Tensor, Tensor]:
    """Return mapped (B, C, H, W) and compressed (B, k, H, W); some channels have a norm near EPS, or zero."""
    mapped, compressed = torch.randn(batch, channels, height, width), torch.randn(batch, groups, height, width)
    mapped[0, 3], compressed[0, 2] = 0, 0
    mapped[0, 5] *= 1e-9
    compressed[0, 1] *= 1e-10
    return mapped, compressed


def with_gradients(function: object, given: tuple[Tensor, Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    assert callable(function)
    leaves = tuple(tensor.detach().requires_grad_() for tensor in given)
    result = function(*leaves)
    return result.detach(), *torch.autograd.grad(result, leaves, grad.to(result.dtype))


def normalize(x: Tensor) -> Tensor:
    """Divide by the norm in any precision; the network's L2Normalize computes in float32."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-6)


def exact(given: tuple[Tensor, Tensor], patch: int, grad: Tensor) -> tuple[Tensor, ...]:
    """The reference and its gradients in float64."""
    mapped, compressed = (tensor.double() for tensor in given)
    return with_gradients(lambda a, b: patch_fusion_reference(a, b, patch, normalize), (mapped, compressed), grad)


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Compare channel by channel: gradients of nearly zero channels are a million times those of the others."""
    assert found.dtype == torch.float32
    wrong = (found - expected).abs().amax((2, 3))
    assert (wrong <= 2e-6 * expected.abs().amax((2, 3)).clamp_min(1)).all()


@needs_kernel
@pytest.mark.parametrize(("channels", "patch", "height", "width", "batch"), SHAPES)
def test_kernel_matches_the_reference_in_float64(
    channels: int, patch: int, height: int, width: int, batch: int
) -> None:
    given, grad = inputs(channels, height, width, batch), torch.randn(batch, channels, height, width)
    found = with_gradients(lambda *both: patch_fusion_kernel(*both, patch), given, grad)
    for one, expected in zip(found, exact(given, patch, grad), strict=True):
        assert_near(one, expected)


@needs_kernel
@pytest.mark.parametrize("groups", [1, 8, 16])
def test_kernel_supports_any_number_of_groups(groups: int) -> None:
    mapped, compressed = torch.randn(1, 32, 16, 16), torch.randn(1, groups, 16, 16)
    grad = torch.randn_like(mapped)
    found = with_gradients(lambda *both: patch_fusion_kernel(*both, 8), (mapped, compressed), grad)
    for one, expected in zip(found, exact((mapped, compressed), 8, grad), strict=True):
        assert_near(one, expected)


@needs_kernel
def test_kernel_accepts_any_strides() -> None:
    given, grad = inputs(32, 16, 24, 2), torch.randn(2, 32, 16, 24)
    strided = tuple(tensor.contiguous(memory_format=torch.channels_last) for tensor in given)
    expected, found = (
        with_gradients(lambda *both: patch_fusion_kernel(*both, 8), one, grad)  # type: ignore[arg-type]
        for one in (given, strided)
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_kernel
def test_nan_is_not_hidden_and_stays_in_its_patch() -> None:
    mapped, compressed = inputs(32, 16, 16, 1)
    mapped[0, 7, 3, 4] = torch.nan
    found, expected = (
        patch_fusion_kernel(mapped, compressed, 8).isnan(),
        patch_fusion_reference(mapped, compressed, 8, normalize).isnan(),
    )
    assert expected.any()
    assert torch.equal(found, expected)


@needs_kernel
@pytest.mark.parametrize(
    ("shape", "groups", "patch", "dtype", "fits"),
    [
        ((1, 32, 8, 8), 4, 4, torch.float32, True),
        ((1, 32, 8, 8), 32, 4, torch.float32, False),
        ((1, 32, 8, 8), 4, 1, torch.float32, False),
        ((1, 32, 12, 16), 4, 8, torch.float32, False),
        ((1, 32, 16, 12), 4, 8, torch.float32, False),
        ((2, 32, 8, 8), 4, 16, torch.float32, False),
        ((1, 32, 8, 8), 4, 4, torch.bfloat16, False),
        ((1, 32, 8, 8), 4, 4, torch.float64, False),
    ],
)
def test_supported_tensors(shape: tuple[int, ...], groups: int, patch: int, dtype: torch.dtype, fits: bool) -> None:
    mapped, compressed = torch.zeros(shape, dtype=dtype), torch.zeros(shape[0], groups, *shape[2:], dtype=dtype)
    assert patch_fusion_supported(mapped, compressed, patch) is fits


def test_nothing_is_supported_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "kernel", lambda: None)
    assert not patch_fusion_supported(torch.zeros(1, 32, 8, 8), torch.zeros(1, 4, 8, 8), 4)


@needs_kernel
@pytest.mark.parametrize(
    ("shape", "patch"),
    [((1, 4, 8, 12), 8), ((1, 4, 8, 7), 4), ((2, 4, 8, 8), 4), ((1, 17, 8, 8), 4), ((1, 4, 8, 8), 0)],
)
def test_kernel_refuses_shapes_that_do_not_fit(shape: tuple[int, ...], patch: int) -> None:
    with pytest.raises(ValueError, match="do not fit each other"):
        patch_fusion_kernel(torch.zeros(1, 32, 8, shape[3]), torch.zeros(shape), patch)


@needs_kernel
def test_paf_runs_the_kernel_and_matches_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def count(mapped: Tensor, compressed: Tensor, patch: int) -> Tensor:
        calls.append(patch)
        return patch_fusion_kernel(mapped, compressed, patch)

    monkeypatch.setattr("ccnet.ops.patch_fusion.patch_fusion_kernel", count)
    part, grad = PAF(32, 8, CCNetConfig()), torch.randn(2, 32, 16, 24)
    given = torch.randn(2, 32, 16, 24), torch.randn(2, 32, 16, 24)
    with reference_ops():
        expected = with_gradients(part, given, grad)
    for actual, wanted in zip(with_gradients(part, given, grad), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5)
    assert calls == [8]
