"""Layers with compiled kernels match torch's layers, forward and backward."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ccnet.model import CCNet
from ccnet.model.blocks import FFN, PAF, GrSCM
from ccnet.model.config import CCNetConfig
from ccnet.model.layers import ChannelNorm, Depthwise, GroupedConv3x3, Pointwise
from ccnet.ops import channel_norm as channel_norm_module
from ccnet.ops import depthwise as depthwise_module
from ccnet.ops import kernels
from ccnet.ops import pointwise as pointwise_module
from ccnet.ops.depthwise import depthwise, depthwise_reference
from ccnet.ops.kernels import kernel, reference_ops
from ccnet.ops.pointwise import matmul, pointwise

needs_kernel = pytest.mark.skipif(kernel() is None, reason="installed without a C compiler: there is no kernel")

OPERATORS = (pointwise_module, depthwise_module, channel_norm_module)

SPACES = [(1, 8), (8, 1), (2, 4), (16, 16), (13, 72), (72, 33), (64, 130), (2, 3)]
"""The last one is not a multiple of the vector length, so torch computes it."""

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "pointwise": lambda: Pointwise(12, 20),
    "without a bias": lambda: Pointwise(32, 128, bias=False),
    "back again": lambda: Pointwise(128, 32, bias=False),
    "in groups": lambda: Pointwise(32, 32, groups=4, bias=False),
    "in groups with a bias": lambda: Pointwise(24, 48, groups=3),
    "not by four": lambda: Pointwise(5, 7),
    "wide": lambda: Pointwise(512, 4),
    "depthwise": lambda: Depthwise(12),
    "depthwise with GELU": lambda: Depthwise(12, gelu_input=True, gelu_output=True),
    "grouped 3x3": lambda: GroupedConv3x3(12, 3),
    "norm": lambda: ChannelNorm(12),
    "norm of one": lambda: ChannelNorm(1),
    "wide norm": lambda: ChannelNorm(257),
}


def with_gradients(function: Callable[..., Tensor], given: list[Tensor], grad: Tensor | None = None) -> list[Tensor]:
    """Return the result and the gradients of all arguments, for a gradient of the result (ones by default)."""
    leaves = [one.detach().requires_grad_() for one in given]
    result = function(*leaves)
    grad = torch.ones_like(result) if grad is None else grad.to(result.dtype)
    return [result.detach(), *torch.autograd.grad(result, leaves, grad)]


def of_layer(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the result and all gradients, for the same gradient of the result each time."""
    grad = torch.randn(of_planes(layer, x).shape, generator=torch.Generator().manual_seed(1))
    for one in layer.parameters():
        one.grad = None
    leaf = x.detach().requires_grad_()
    result = of_planes(layer, leaf)
    result.backward(grad.to(result.dtype))
    assert leaf.grad is not None
    return [result.detach(), leaf.grad, *(one.grad for one in layer.parameters() if one.grad is not None)]


def assert_near(actual: Tensor, expected: Tensor, wrong: float = 2e-6) -> None:
    scale = max(1.0, expected.abs().max().item())
    assert actual.dtype == torch.float32
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max().item() <= wrong * scale


@needs_kernel
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layer_matches_torch_in_float64(name: str, space: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    for one in layer.parameters():
        nn.init.normal_(one, 0.5)
    x = torch.randn(2, channels_of(layer), *space)
    for actual, expected in zip(of_layer(layer, x), of_layer(copy.deepcopy(layer).double(), x.double()), strict=True):
        assert_near(actual, expected, 4e-6)


def channels_of(layer: nn.Module) -> int:
    channels = layer.normalized_shape[0] if isinstance(layer, nn.LayerNorm) else layer.in_channels
    assert isinstance(channels, int)
    return channels


def of_planes(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply the layer to (B, C, H, W), also one that wants channels last."""
    made: Tensor = layer(x.movedim(1, -1)).movedim(-1, 1) if isinstance(layer, nn.LayerNorm) else layer(x)
    return made


@needs_kernel
@pytest.mark.parametrize("name", LAYERS)
def test_layer_runs_a_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for module in OPERATORS:
        run = module.launch
        monkeypatch.setattr(module, "launch", lambda name, *given, run=run: (ran.append(name), run(name, *given))[1])
    layer = LAYERS[name]()
    of_layer(layer, torch.randn(1, channels_of(layer), 4, 4))
    assert bool(ran) is (name != "not by four")


@needs_kernel
@pytest.mark.parametrize("name", LAYERS)
def test_layer_accepts_any_strides(name: str) -> None:
    layer = LAYERS[name]()
    x = torch.randn(2, channels_of(layer), 12, 20)
    found = of_layer(layer, x.contiguous(memory_format=torch.channels_last))
    for actual, expected in zip(found, of_layer(layer, x), strict=True):
        assert_near(actual, expected)


@needs_kernel
@pytest.mark.parametrize("name", ["depthwise", "norm"])  # elsewhere torch's product sums the weight's gradient
def test_result_does_not_depend_on_the_number_of_threads(name: str, threads: None) -> None:
    layer, results = LAYERS[name](), []
    x = torch.randn(2, channels_of(layer), 12, 20)
    for count in (1, 2, 3, 2):
        torch.set_num_threads(count)
        results.append(of_layer(layer, x))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@needs_kernel
@pytest.mark.parametrize("name", LAYERS)
def test_layer_accepts_an_empty_batch(name: str) -> None:
    layer = LAYERS[name]()
    found = of_layer(layer, torch.randn(0, channels_of(layer), 4, 4))
    assert len(found[0]) == 0
    assert all(one.abs().sum() == 0 for one in found[2:])


@needs_kernel
@pytest.mark.parametrize("name", LAYERS)
def test_nan_spreads_as_far_as_in_torch(name: str) -> None:
    layer = LAYERS[name]()
    x = torch.randn(1, channels_of(layer), 8, 16)
    x[0, 0, 4, 5] = torch.nan
    found = of_layer(layer, x)
    with reference_ops():
        expected = of_layer(layer, x)
    assert all(torch.equal(a.isnan(), b.isnan()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", ["no compiler", "reference_ops", "double", "autocast"])
def test_layer_falls_back_to_torch(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in OPERATORS:
        monkeypatch.setattr(module, "launch", None)  # no kernel is called
    layer = LAYERS[name]()
    x = torch.randn(1, channels_of(layer), 4, 5)
    if way == "no compiler":
        monkeypatch.setattr(kernels, "kernel", lambda: None)
        of_layer(layer, x)
    elif way == "reference_ops":
        with reference_ops():
            of_layer(layer, x)
    elif way == "double":
        of_layer(layer.double(), x.double())
    else:
        with torch.autocast("cpu", torch.bfloat16):
            assert of_planes(layer, x).dtype == (torch.float32 if "norm" in name else torch.bfloat16)


def test_fake_tensors_pass_through() -> None:
    with FakeTensorMode():
        model = CCNet(CCNetConfig(units=1))
        assert model(torch.rand(1, 3, 16, 16)).shape == (1, 31, 16, 16)


def test_flop_counter_sees_torch_operators() -> None:
    layer = Pointwise(8, 16, bias=False)
    with FlopCounterMode(display=False) as counter:
        layer(torch.rand(1, 8, 4, 4))
    assert counter.get_total_flops() == 2 * 8 * 16 * 16


@pytest.mark.parametrize("layer", [Pointwise(8, 4), Depthwise(8)])
def test_unbatched_image_matches_torch(layer: nn.Module) -> None:
    x = torch.randn(8, 8, 5)
    torch.testing.assert_close(layer(x), layer(x[None])[0], rtol=1e-5, atol=1e-5)


# GELU in the depthwise kernel


@needs_kernel
@pytest.mark.parametrize("gelu_input", [False, True])
@pytest.mark.parametrize("gelu_output", [False, True])
@pytest.mark.parametrize("space", [(1, 1), (1, 7), (7, 1), (2, 3), (16, 16), (13, 70), (70, 33)], ids=str)
def test_depthwise_with_gelu_matches_the_reference_in_float64(
    gelu_input: bool, gelu_output: bool, space: tuple[int, int]
) -> None:
    x, weight, grad = 3 * torch.randn(2, 5, *space), torch.randn(5, 1, 3, 3), torch.randn(2, 5, *space)
    exact = with_gradients(
        lambda x, w: depthwise_reference(x, w, gelu_input, gelu_output), [x.double(), weight.double()], grad
    )
    found = with_gradients(lambda x, w: depthwise(x, w, gelu_input, gelu_output), [x, weight], grad)
    for actual, expected in zip(found, exact, strict=True):
        assert_near(actual, expected)


@needs_kernel
def test_gradient_of_gelu_is_exact_everywhere() -> None:
    """With a filter that copies its centre, the gradient is gelu'(x) gelu'(gelu(x))."""
    x = torch.linspace(-12, 12, 4001).reshape(1, 1, 1, -1)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    found = with_gradients(lambda x, w: depthwise(x, w, True, True), [x, weight])[1]

    def slope(at: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(at / math.sqrt(2))) + at * torch.exp(-at * at / 2) / math.sqrt(2 * math.pi)

    at = x.double()
    assert (found - slope(at) * slope(F.gelu(at))).abs().max().item() <= 1e-6


@needs_kernel
@pytest.mark.parametrize("value", [1e4, 1e30])
def test_depthwise_accepts_values_of_any_size(value: float) -> None:
    x = torch.full((1, 1, 3, 3), value)
    x[0, 0, 0] = -value
    weight = torch.full((1, 1, 3, 3), 0.1)
    found = with_gradients(lambda x, w: depthwise(x, w, True, True), [x, weight])
    torch.testing.assert_close(found, with_gradients(lambda x, w: depthwise_reference(x, w, True, True), [x, weight]))


@needs_kernel
@pytest.mark.parametrize("scale", [1e-6, 1, 1e6], ids=["below epsilon", "normal", "bright"])
@pytest.mark.parametrize("mean", [0, 100])
def test_norm_of_nearly_equal_channels(scale: float, mean: float) -> None:
    layer, x = ChannelNorm(32), scale * torch.randn(1, 32, 8, 9) + mean
    exact = of_layer(copy.deepcopy(layer).double(), x.double())
    wrong = 1e-5 if mean == 0 or scale > 1 else 0.1  # of a mean of 100, 1e-6 is below the last digit
    for actual, expected in zip(of_layer(layer, x), exact, strict=True):
        assert_near(actual, expected, wrong)


# Shapes that do not fit


@needs_kernel
@pytest.mark.parametrize("shape", [(3, 1, 3, 3), (2, 1, 3), (2, 2, 3, 3), (2, 1, 3, 2)])
def test_depthwise_refuses_a_weight_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        depthwise(torch.zeros(1, 2, 4, 4), torch.zeros(shape))


@needs_kernel
@pytest.mark.parametrize(
    ("shape", "groups"), [((4, 3, 1, 1), 1), ((4, 2, 1, 2), 1), ((4, 2, 1, 1), 2), ((5, 1, 1, 1), 2)]
)
def test_pointwise_refuses_a_weight_of_another_shape(shape: tuple[int, ...], groups: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        pointwise(torch.zeros(1, 2, 4, 4), torch.zeros(shape), groups=groups)


@needs_kernel
def test_pointwise_refuses_a_bias_of_another_length() -> None:
    with pytest.raises(ValueError, match="bias is"):
        pointwise(torch.zeros(1, 4, 4, 4), torch.zeros(8, 4, 1, 1), torch.zeros(1))
    with pytest.raises(RuntimeError):  # of another type, as in torch
        pointwise(torch.zeros(1, 4, 4, 4), torch.zeros(8, 4, 1, 1), torch.zeros(8).half())


def test_norm_refuses_other_channels() -> None:
    with pytest.raises(RuntimeError):
        ChannelNorm(4)(torch.zeros(1, 4, 4, 16))


@pytest.mark.parametrize("shape", [(1, 2, 3, 8), (1, 1, 4, 8)])
def test_matmul_refuses_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        matmul(torch.zeros(2, 4, 4), torch.zeros(shape))


# Blocks built from these layers


@needs_kernel
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("part", [FFN, GrSCM, PAF])
def test_block_matches_its_reference_ops(part: type[nn.Module], images: int) -> None:
    torch.manual_seed(0)
    config, width = CCNetConfig(), 32
    made = PAF(width, 8, config) if part is PAF else part(width, config)
    x = torch.randn(images, width, 16, 24)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = made

        def forward(self, x: Tensor) -> Tensor:
            if isinstance(made, GrSCM):
                return made(x, made.correlate(x))  # type: ignore[no-any-return]
            return made(x, x.flip(1)) if isinstance(made, PAF) else made(x)  # type: ignore[no-any-return]

    found = of_layer(Whole(), x)
    with reference_ops():
        expected = of_layer(Whole(), x)
    for actual, plainly in zip(found, expected, strict=True):
        assert_near(actual, plainly, 1e-5)
