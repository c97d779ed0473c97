"""FP16 emulated node by node: exact for single operations, with overflow and underflow inside norms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node
from onnx.reference import ReferenceEvaluator

from ccnet.calibration.data import Feed
from ccnet.calibration.fp16.bisect import bisect, fp32_nodes
from ccnet.calibration.fp16.emulate import Fp16Emulator
from ccnet.calibration.graph_runner import GraphRunner
from ccnet.contract import Manifest
from ccnet.model import CCNet
from ccnet.runtime.quality.tolerances import compare

GraphFixture = Callable[..., GraphRunner]
FeedFixture = Callable[..., Feed]


def run_in_fp16(runner: GraphRunner, inputs: Feed) -> Any:
    """Return the cube with all nodes in FP16."""
    return runner.evaluate(inputs, Fp16Emulator(runner, [node.name for node in runner.nodes]))["cube"]


def test_sum_of_squares_overflows_though_its_norm_would_fit(graph: GraphFixture) -> None:
    runner = graph(make_node("ReduceL2", ["rgb"], ["cube"], name="m/ReduceL2_0", keepdims=1))
    large = {"rgb": np.full((1, 31, 4, 4), 12.0, np.float32)}
    assert runner.evaluate(large)["cube"].max() == pytest.approx(12 * np.sqrt(31 * 16))
    assert np.isinf(run_in_fp16(runner, large)).all()


def test_squares_of_a_small_norm_underflow(graph: GraphFixture) -> None:
    runner = graph(make_node("ReduceL2", ["rgb"], ["cube"], name="m/ReduceL2_0", keepdims=1))
    assert run_in_fp16(runner, {"rgb": np.full((1, 31, 4, 4), 1e-4, np.float32)}).max() == 0


@pytest.mark.parametrize(("deviation", "finite"), [(1.0, True), (200.0, False)])
def test_layer_norm_in_fp16_is_finite_unless_its_squares_overflow(
    graph: GraphFixture, deviation: float, finite: bool
) -> None:
    node = make_node("LayerNormalization", ["rgb", "scale", "shift"], ["cube"], name="m/LayerNormalization_0")
    runner = graph(node, scale=[1, 2, 3, 4], shift=[0.1, 0, 0, 0])
    x = deviation * np.tile(np.float32([-1, 1, -1, 1]), (1, 31, 4, 1))
    found = run_in_fp16(runner, {"rgb": x})
    expected = runner.evaluate({"rgb": x})["cube"]
    if finite:
        np.testing.assert_allclose(found, expected, rtol=2e-3)
    else:
        assert not np.allclose(found, expected, rtol=0.1)  # 4 · 200² > 65504: the deviation is infinite


@pytest.mark.parametrize("operator", ["Add", "Mul", "Div", "Sub"])
def test_single_operation_is_ieee_arithmetic(graph: GraphFixture, feed: FeedFixture, operator: str) -> None:
    runner = graph(make_node(operator, ["rgb", "w"], ["cube"], name="m/Op_0"), w=np.linspace(0.1, 3, 4))
    exact = {"rgb": feed(100)["rgb"].astype(np.float16).astype(np.float32)}
    w = np.linspace(0.1, 3, 4).astype(np.float32).astype(np.float16)
    numpy = {"Add": np.add, "Mul": np.multiply, "Div": np.divide, "Sub": np.subtract}[operator]
    np.testing.assert_array_equal(run_in_fp16(runner, exact), numpy(exact["rgb"].astype(np.float16), w))


def test_emulation_has_the_error_of_the_reference_evaluator(artifacts: tuple[CCNet, Path], noise: Feed) -> None:
    """ONNX's own evaluator has true FP16 semantics, and takes ten times as long. ONNX Runtime errs less."""
    folder = artifacts[1]
    manifest = Manifest.read(folder)
    runner = GraphRunner(manifest.find("decode").read(folder))
    mixed = manifest.find("decode", precision="fp16").read(folder)
    fp32_kept = fp32_nodes(mixed)
    found = bisect(runner, [noise], fp32_kept=fp32_kept, max_groups=1)
    (cube,) = ReferenceEvaluator(onnx.load_model_from_string(mixed)).run(None, dict(noise))
    true = compare(runner.evaluate(noise)["cube"][0], cube[0])
    assert found.all.mrae == pytest.approx(true.mrae, rel=0.25)
    assert found.all.psnr == pytest.approx(true.psnr, abs=2)
