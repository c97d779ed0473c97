"""Quantised numbers, and the graph that quantises and dequantises: it computes what the emulation computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccnet.calibration.int8.histogram import Histogram
from ccnet.calibration.int8.qdq import activation_scale, channel_scales, insert_qdq, quantise_dequantise
from ccnet.calibration.int8.search import Int8Search
from ccnet.contract import CCNetError
from ccnet.export.engine.builder import BuildOptions, build_engine
from ccnet.runtime.backends import trt_api as trt


@given(st.floats(1e-4, 1e4), st.integers(0, 100))
def test_values_within_a_threshold_are_off_by_half_a_step_at_most(threshold: float, seed: int) -> None:
    step = activation_scale(threshold)
    x = np.random.default_rng(seed).uniform(-126 * step, 126 * step, 100).astype(np.float32)
    assert np.abs(quantise_dequantise(x, step) - x).max() <= 0.5001 * step
    assert quantise_dequantise(np.float32([1e9, -1e9]), step) == pytest.approx([127 * step, -128 * step])


def test_tensor_of_zeros_has_a_scale() -> None:
    assert activation_scale(0) > 0


def test_channels_of_a_weight_have_their_own_scales() -> None:
    normal = np.random.default_rng(0).normal(size=(3, 1, 3, 3)).astype(np.float32)
    weight = np.float32([1, 1e-3, 0])[:, None, None, None] * normal
    scales = channel_scales(weight)
    assert scales[:2] == pytest.approx(np.abs(weight).max((1, 2, 3))[:2] / 127, rel=1e-2)
    assert scales[2] > 0


def test_graph_computes_what_the_emulation_computed(trials: Int8Search, mixed: bytes) -> None:
    """Quantised node by node in float32, and as QuantizeLinear and DequantizeLinear in the mixed FP16 graph."""
    scales = trials.scales(Histogram.min_max)
    for layers in (trials.layers, trials.layers[1:-1]):
        trial = trials.judge("min-max", scales, layers)
        file = trials.judge_graph(trial, trials.graph(trial, scales, mixed))
        assert file.parity.mrae == pytest.approx(trial.parity.mrae, rel=0.1)
        assert file.parity.psnr == pytest.approx(trial.parity.psnr, abs=1)


def _is_computed(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> bool:
    """Return True if a convolution's weights depend on the frame, as those of GrSCM's product do."""
    return node.input[1] in producers and producers[node.input[1]].op_type == "Reshape"


def _is_nescm(node: onnx.NodeProto) -> bool:
    """Return True inside NeSCM, which the graph for engines writes otherwise than the graph that is searched."""
    return "nescm/" in node.name


def test_graph_is_symmetric_and_per_channel(trials: Int8Search, mixed: bytes) -> None:
    scales = trials.scales(Histogram.min_max)
    whole = trials.judge("min-max", scales, trials.layers)
    proto = onnx.load_model_from_string(trials.graph(whole, scales, mixed))
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in proto.graph.initializer}
    producers = {name: node for node in proto.graph.node for name in node.output}
    convolutions = [
        node
        for node in proto.graph.node
        if node.op_type == "Conv" and not _is_computed(node, producers) and not _is_nescm(node)
    ]
    assert len(convolutions) > 40
    for node in convolutions:
        x, weight = (producers[name] for name in node.input[:2])
        assert (x.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert weights[weight.input[0]].dtype == np.int8
        assert weights[weight.input[1]].shape == weights[weight.input[0]].shape[:1]
        assert weights[x.input[1]].shape == () and weights[x.input[1]].dtype == np.float16
    zeros = [weights[node.input[2]] for node in proto.graph.node if node.op_type.endswith("quantizeLinear")]
    assert not any(zero.any() for zero in zeros)
    assert not any(node.op_type == "QuantizeLinear" for node in proto.graph.node if node.input[0] in weights)


def test_graph_of_another_network_is_refused(mixed: bytes) -> None:
    with pytest.raises(CCNetError, match="no node 'elsewhere/Conv_0'"):
        insert_qdq(mixed, {"elsewhere/Conv_0": 1.0})


@pytest.mark.skipif("tensorrt_rtx" not in trt.available(), reason="tensorrt_rtx is not installed")
def test_tensorrt_rtx_builds_the_graph(trials: Int8Search, mixed: bytes, tmp_path: Path) -> None:
    """Build the first block, which has all kinds of nodes; the whole network takes a minute."""
    scales = trials.scales(Histogram.min_max)
    dense = [layer for layer in trials.layers if ".net." in layer.name or layer.name.endswith("to_v")]
    chosen = trials.judge("min-max", scales, dense)
    whole, path = tmp_path / "decode.int8.onnx", tmp_path / "first-block.onnx"
    whole.write_bytes(trials.graph(chosen, scales, mixed))
    onnx.utils.extract_model(str(whole), str(path), ["rgb", "context"], ["units.0.down1/Conv_0"])
    shapes = {"rgb": ((1, 3, 16, 16), (1, 3, 64, 64), (1, 3, 64, 64))}
    report = build_engine(path, tmp_path / "engine", BuildOptions(backend="tensorrt_rtx", shapes=shapes))
    assert report.bytes > 1e5
