"""NeSCM with SIA's pooling as a CUDA kernel against the operators in float64: compiled as C++, and on a GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccnet.contract import CCNetError
from ccnet.ops.cuda.pooled_nescm import cuda_pooled_nescm
from ccnet.ops.nescm import from_bands, to_bands
from ccnet.ops.output_gate import output_gate_reference
from ccnet.ops.scan import scan_reference

LIMIT = 1e-5  # relative to the largest value where that exceeds 1
FP16_ULP = 2.0**-10  # of numbers from 1 to 2
Weights = tuple[Tensor, Tensor, Tensor, Tensor]


def weights(heads: int) -> Weights:
    """Forget gates and biases, output gates and biases."""
    return (
        torch.randn(2, heads, 2 * heads),
        torch.randn(2, heads),
        0.2 * torch.randn(2, heads, heads, 3, 3, 3),
        torch.randn(heads),
    )


def reference(x_BCHW: Tensor, groups: int, *given: Tensor) -> Tensor:
    """Pool in float64 as SIA does (Eq. 8, 9): (B, 2k, H, W)."""
    x, forget, forget_bias, output, output_bias = (tensor.double() for tensor in (x_BCHW, *given))
    streams = scan_reference(to_bands(x, groups, forget.shape[1]), forget, forget_bias)
    features = from_bands(output_gate_reference(streams, output, output_bias), groups).unflatten(1, (groups, -1))
    return torch.stack([features.mean(2), features.amax(2)], 2).flatten(1, 2)


def distance(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected).abs().max() / max(1.0, expected.abs().max().item())).item()


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_matches_the_operators_over_several_tiles(heads: int) -> None:
    x, given = torch.randn(2, 12 * heads, 10, 34), weights(heads)
    assert distance(cuda_pooled_nescm(x, 4, *given), reference(x, 4, *given)) <= LIMIT


@pytest.mark.usefixtures("emulator")
@settings(max_examples=8)
@given(
    st.sampled_from([1, 2, 4]),
    st.sampled_from([(1, 1), (1, 5), (2, 8), (4, 32), (4, 28), (3, 9)]),
    st.integers(1, 19),
    st.integers(1, 40),
)
def test_matches_the_operators_for_any_shape(
    heads: int, groups_bands: tuple[int, int], height: int, width: int
) -> None:
    groups, bands = groups_bands
    x, given = torch.randn(1, bands * heads, height, width), weights(heads)
    assert distance(cuda_pooled_nescm(x, groups, *given), reference(x, groups, *given)) <= LIMIT


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_fp16_storage_computes_in_float(heads: int, approximate: bool) -> None:
    x, given = torch.randn(1, 32 * heads, 9, 20).half(), weights(heads)
    actual = cuda_pooled_nescm(x, 4, *given, approximate=approximate)
    assert actual.dtype == torch.float16
    assert distance(actual, reference(x, 4, *given)) <= (2 if approximate else 0.5) * FP16_ULP


@pytest.mark.parametrize("heads", [1, 4])
def test_result_depends_on_no_order_of_threads(heads: int, emulator: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """u meets in shared memory, where a missing barrier would show; an odd number of bands ends on the first buffer."""
    x, given = torch.randn(1, 3 * heads, 9, 34), weights(heads)
    ascending = cuda_pooled_nescm(x, 1, *given)
    monkeypatch.setattr(emulator, "descending", True)
    assert torch.equal(cuda_pooled_nescm(x, 1, *given), ascending)


@pytest.mark.usefixtures("emulator")
def test_hides_no_nan() -> None:
    x, given = torch.randn(1, 16, 6, 7), weights(2)
    x[0, 3, 2, 2] = torch.nan
    assert torch.equal(cuda_pooled_nescm(x, 2, *given).isnan(), reference(x, 2, *given).isnan())


@pytest.mark.parametrize(("heads", "channels"), [(3, 24), (1, 33)])
def test_sizes_that_the_kernel_does_not_take_are_refused(heads: int, channels: int) -> None:
    with pytest.raises(CCNetError, match="expected 1, 2 or 4 of at most 32"):
        cuda_pooled_nescm(torch.randn(1, channels, 4, 4), 1, *weights(heads))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a torch that finds a CUDA device")
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_gpu_matches_the_operators(heads: int) -> None:
    x, given = torch.randn(2, 32 * heads, 48, 80).cuda(), tuple(weight.cuda() for weight in weights(heads))
    expected = reference(x, 4, *given)
    assert distance(cuda_pooled_nescm(x, 4, *given), expected) <= LIMIT
    assert distance(cuda_pooled_nescm(x.half(), 4, *given, approximate=True), expected) <= 4 * FP16_ULP
