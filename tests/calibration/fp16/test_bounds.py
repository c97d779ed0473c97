"""Bounds that hold for any frame: known bounds of hand-made graphs, and bounds that no hostile frame exceeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from ccnet.calibration.fp16.bounds import Bounds, bounds
from ccnet.calibration.fp16.ranges import FP16_MAX, measure
from ccnet.calibration.graph_runner import Array, GraphRunner
from ccnet.contract import Manifest
from ccnet.model import CCNet

SHAPE = (1, 2, 4, 4)


def bound(*nodes: onnx.NodeProto, shape: tuple[int, ...] = SHAPE, **weights: Any) -> float:
    """Return the bound of y in a graph x → y, x in [-1, 1]."""
    model = make_model(
        make_graph(
            nodes,
            "hand-made",
            [make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [from_array(np.asarray(value), name) for name, value in weights.items()],
        ),
        opset_imports=[make_opsetid("", 18)],
    )
    return bounds(GraphRunner(model.SerializeToString()), {"x": np.zeros(shape, np.float32)})["y", "activation"]


def floats(*values: Any) -> Array:
    return np.array(values, np.float32)


@pytest.mark.parametrize(("operator", "expected"), [("Sigmoid", 0.7311), ("Tanh", 0.7616), ("Erf", 0.8427)])
def test_saturating_functions_are_bounded_by_their_inputs(operator: str, expected: float) -> None:
    assert bound(make_node(operator, ["x"], ["y"])) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("operator", ["Exp", "Reciprocal", "Pow"])
def test_operator_without_a_rule_has_no_bound(operator: str) -> None:
    inputs = ["x", "x"] if operator == "Pow" else ["x"]
    assert bound(make_node(operator, inputs, ["y"])) == np.inf


def test_unbounded_input_has_no_bound_except_after_saturation() -> None:
    unbounded = make_node("Exp", ["x"], ["e"])
    assert bound(unbounded, make_node("Mul", ["e", "w"], ["y"]), w=floats(0)) == np.inf
    assert bound(unbounded, make_node("Tanh", ["e"], ["y"])) == 1


def test_convolution_reaches_its_bound() -> None:
    """An input with the signs of the weights reaches the bound: nothing smaller would be a bound."""
    weight = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
    found = bound(make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]), w=weight)
    assert found == pytest.approx(np.abs(weight).sum((1, 2, 3)).max(), rel=1e-6)


def test_layer_norm_is_bounded_for_any_input() -> None:
    nodes = make_node("Exp", ["x"], ["e"]), make_node("LayerNormalization", ["e", "scale", "shift"], ["y"])
    found = bound(*nodes, shape=(1, 1, 9), scale=floats(*[-2.0] * 9), shift=floats(*[0.5] * 9))
    assert found == pytest.approx(2 * np.sqrt(8) + 0.5)


def test_softmax_and_its_mean_are_bounded() -> None:
    softmax = make_node("Softmax", ["x"], ["s"], axis=-1)
    assert bound(make_node("Softmax", ["x"], ["y"], axis=-1)) == 1
    assert bound(softmax, make_node("MatMul", ["s", "v"], ["y"]), v=3 * np.ones((4, 5), np.float32)) == 3
    along_columns = make_node("Softmax", ["x"], ["s"], axis=2)
    assert bound(along_columns, make_node("MatMul", ["s", "v"], ["y"]), v=3 * np.ones((4, 5), np.float32)) == 12


def cosine(*, keep: int = 1, ceiling: bool = False, axis: int = -1, other: str = "x") -> list[onnx.NodeProto]:
    """Return unit(x) unit(x)ᵀ of 4×4 matrices, or a graph that only looks like it."""
    clip = ["n", "floor", "ceiling"] if ceiling else ["n", "floor"]
    return [
        make_node("ReduceL2", [other, "axes"], ["n"], keepdims=keep),
        make_node("Clip", clip, ["d"]),
        make_node("Div", ["x", "d"], ["u"]),
        make_node("Transpose", ["u"], ["t"], perm=[0, 1, 3, 2]),
        make_node("MatMul", ["u", "t"], ["y"]),
    ]


def test_cosine_is_at_most_one() -> None:
    assert bound(*cosine(), axes=np.array([-1]), floor=floats(1e-6)[0]) == 1
    assert bound(*cosine(), axes=np.array([3]), floor=floats(1e-6)[0]) == 1
    assert bound(*cosine(), axes=np.array([-1, -2]), floor=floats(1e-6)[0]) == 1


def test_graph_similar_to_a_cosine_gets_no_bound_of_one() -> None:
    floor = floats(1e-6)[0]
    assert bound(*cosine(), axes=np.array([-2]), floor=floor) == 4  # columns of length 1, but rows are multiplied
    assert bound(*cosine(ceiling=True), axes=np.array([-1]), floor=floor, ceiling=floats(1e-3)[0]) == np.inf
    assert bound(*cosine(other="w"), axes=np.array([-1]), floor=floor, w=np.ones(SHAPE, np.float32)) == np.inf


def test_bound_of_a_difference_is_that_of_a_sum() -> None:
    assert bound(make_node("Neg", ["x"], ["n"]), make_node("Sub", ["n", "five"], ["y"]), five=floats(5)) == 6


# The network


@pytest.fixture(scope="module")
def decode(artifacts: tuple[CCNet, Path]) -> GraphRunner:
    return GraphRunner(Manifest.read(artifacts[1]).find("decode").read(artifacts[1]))


@pytest.fixture(scope="module")
def size(artifacts: tuple[CCNet, Path]) -> int:
    """Return the length of a context."""
    return Manifest.read(artifacts[1]).context_size


@pytest.fixture(scope="module")
def proved(decode: GraphRunner, size: int) -> Bounds:
    """Return bounds computed for 32×32 px; they must hold for any size."""
    feeds = {"rgb": np.zeros((1, 3, 32, 32), np.float32), "context": np.zeros((1, size), np.float32)}
    return bounds(decode, feeds)


def exceeded(runner: GraphRunner, feed: Mapping[str, Array], proved: Bounds) -> list[str]:
    """Return the tensors that exceed their bounds by more than float32's rounding."""
    return [
        name
        for node, _, outputs in runner.run(feed)
        for name, array in zip(node.output, outputs, strict=True)
        if array.dtype == np.float32 and np.abs(array).max() > 1.0001 * proved[name, "activation"] + 1e-6
    ]


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    blocks=st.sampled_from([1, 2, 8, 48]),
    binary=st.booleans(),
    width=st.sampled_from([16, 48]),
    hard=st.booleans(),
)
def test_no_frame_exceeds_a_bound(
    decode: GraphRunner, proved: Bounds, size: int, seed: int, blocks: int, binary: bool, width: int, hard: bool
) -> None:
    """Decode noise of several grain sizes, grey or binary, under contexts that a softmax can produce."""
    rng = np.random.default_rng(seed)
    rgb = rng.random((1, 3, 48, width), np.float32)[..., ::blocks, ::blocks].repeat(blocks, 2).repeat(blocks, 3)
    rgb = rgb[..., :48, :width]
    logits = (100 if hard else 1) * rng.normal(size=(size // 8, 8))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    context = (weights / weights.sum(axis=1, keepdims=True)).reshape(1, -1).astype(np.float32)
    feed = {"rgb": np.rint(rgb) if binary else rgb, "context": context}
    assert not exceeded(decode, feed, proved)


def test_bound_that_is_too_small_is_exceeded(decode: GraphRunner, proved: Bounds, size: int) -> None:
    feed = {
        "rgb": np.ones((1, 3, 16, 16), np.float32),
        "context": np.full((1, size), 0.125, np.float32),
    }
    too_small = {key: value / 100 for key, value in proved.items()}
    assert exceeded(decode, feed, too_small)


def test_saturated_and_normalised_tensors_are_proved_to_fit(artifacts: tuple[CCNet, Path]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for kind in ("encode", "decode"):
        found = measure(artifacts[1], [noise], kind)
        for tensor in found:
            always = tensor.operator in ("Sigmoid", "Tanh", "Erf", "Softmax", "LayerNormalization")
            if tensor.what == "activation" and (always or ".intra.net." in tensor.tensor):
                assert (tensor.proof, tensor.verdict) == ("proved", "fits"), tensor.tensor
            assert tensor.largest <= 1.0001 * tensor.bound


def test_attention_logits_are_at_most_sigma_and_rse(artifacts: tuple[CCNet, Path]) -> None:
    model, folder = artifacts
    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    logits = [one for one in measure(folder, [frame], "encode") if one.tensor.endswith(".inter/Add_0")]
    unit: Any = model.units[0]
    attentions = [one.inter.grscm for one in (unit.enc1, unit.enc2, unit.bottleneck, unit.dec2, unit.dec1)]
    expected = sorted(float((one.sigma.abs() + one.rse.abs()).max().detach()) for one in attentions)
    assert sorted(one.bound for one in logits) == pytest.approx(expected, rel=1e-5)
    assert all(one.proof == "proved" and one.bound < FP16_MAX for one in logits)
