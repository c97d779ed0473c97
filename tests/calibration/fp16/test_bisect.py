"""The search for the nodes that cause the error of FP16 finds the nodes that a test planted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.helper import make_node
from onnx.numpy_helper import from_array

from ccnet.calibration.data import Feed
from ccnet.calibration.fp16.bisect import bisect, fp32_nodes
from ccnet.calibration.graph_runner import GraphRunner
from ccnet.contract import Manifest
from ccnet.export.graph.mixed_precision import is_kept_fp32, is_residual_sum
from ccnet.model import CCNet

GraphFixture = Callable[..., GraphRunner]
FeedFixture = Callable[..., Feed]


def test_fp32_nodes_are_read_from_the_mixed_graph(artifacts: tuple[CCNet, Path]) -> None:
    folder = artifacts[1]
    manifest = Manifest.read(folder)
    float_graph = ir.from_proto(onnx.load_model_from_string(manifest.find("decode").read(folder))).graph
    fp32_kept = set(fp32_nodes(manifest.find("decode", precision="fp16").read(folder)))
    names = {str(node.name) for node in float_graph}
    assert fp32_kept & names == {
        str(node.name) for node in float_graph if is_kept_fp32(node.name) or is_residual_sum(node)
    }


def test_node_that_overflows_is_named(graph: GraphFixture, feed: FeedFixture) -> None:
    found = bisect(
        graph(
            make_node("Mul", ["rgb", "half"], ["a"], name="first.part/Mul_0"),
            make_node("Mul", ["a", "large"], ["b"], name="second.part/Mul_0"),
            make_node("Mul", ["b", "small"], ["cube"], name="second.part/Mul_1"),
            half=0.5,
            large=1e4,
            small=1e-4,
        ),
        [feed(20)],
    )
    assert found.all.mrae == np.inf
    assert [group.name for group in found.named] == ["second.part/Mul_0"]
    assert 0 < found.rest.mrae < 1e-3


def planted(model: bytes, tensor: str, offset: float) -> GraphRunner:
    """Return a network that adds an offset to a tensor and subtracts it again: FP16 loses digits in between."""
    proto = onnx.load_model_from_string(model)
    at = next(index for index, node in enumerate(proto.graph.node) if tensor in node.output)
    for node in proto.graph.node:
        node.input[:] = ["planted" if name == tensor else name for name in node.input]
    proto.graph.node.insert(at + 1, make_node("Add", [tensor, "offset"], ["shifted"], name="culprit.here/Add_0"))
    proto.graph.node.insert(at + 2, make_node("Sub", ["shifted", "offset"], ["planted"], name="culprit.here/Sub_0"))
    proto.graph.initializer.append(from_array(np.float32(offset), "offset"))
    return GraphRunner(proto.SerializeToString())


def test_node_that_loses_digits_is_named(artifacts: tuple[CCNet, Path], noise: Feed) -> None:
    model = Manifest.read(artifacts[1]).find("decode").read(artifacts[1])
    found = bisect(planted(model, "units.0.enc1.intra.net.0/Conv_0", 1000), [noise], max_groups=12)
    assert found.groups[0].name == "culprit" and found.groups[0].nodes == 2 and found.groups[0].split
    assert [group.name for group in found.named] == ["culprit.here/Add_0"]
    assert found.named[0].share > 0.8
    assert found.rest.mrae < found.all.mrae / 2


def test_shares_of_a_sound_network_add_up(artifacts: tuple[CCNet, Path], noise: Feed) -> None:
    runner = GraphRunner(Manifest.read(artifacts[1]).find("decode").read(artifacts[1]))
    found = bisect(runner, [noise], max_groups=6)
    assert sum(group.share for group in found.groups if not group.split) == pytest.approx(1, abs=0.5)
    assert found.all.psnr > 60


def test_fp32_kept_nodes_add_no_error_but_their_casts(graph: GraphFixture, feed: FeedFixture) -> None:
    norm = make_node("ReduceL2", ["rgb"], ["n"], name="kept/ReduceL2_0", keepdims=1)
    runner = graph(norm, make_node("Div", ["rgb", "n"], ["cube"], name="rest/Div_0"))
    large = {"rgb": 20 * feed()["rgb"] + 10}
    assert bisect(runner, [large]).all.mrae > 0.5
    assert bisect(runner, [large], fp32_kept=["kept/ReduceL2_0"]).all.mrae < 1e-2


def test_graph_without_error_names_no_cause(graph: GraphFixture) -> None:
    runner = graph(make_node("Add", ["rgb", "rgb"], ["cube"], name="m/Add_0"))
    found = bisect(runner, [{"rgb": np.ones((1, 31, 4, 4), np.float32)}])
    assert found.named == () and found.all.max_abs == 0
