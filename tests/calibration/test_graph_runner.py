"""Graphs that run node by node: every tensor is computed once, and every damaged graph gives a one-line error."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from ccnet.calibration.data import Feed
from ccnet.calibration.graph_runner import GraphRunner
from ccnet.contract import CCNetError

GraphFixture = Callable[..., GraphRunner]
FeedFixture = Callable[..., Feed]


def chain(*nodes: onnx.NodeProto) -> bytes:
    """Return a graph x (2, 4) → y."""
    values = [make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [2, 4]), ("y", None))]
    body = make_graph(nodes, "hand-made", values[:1], values[1:])
    return bytes(make_model(body, opset_imports=[make_opsetid("", 18)], ir_version=8).SerializeToString())


def test_each_tensor_comes_once_and_is_dropped_after_its_last_use() -> None:
    links = [make_node("Add", [f"t{i}", "t0" if i % 2 else "x"], [f"t{i + 1}"], name=f"m/Add_{i}") for i in range(10)]
    model = chain(make_node("Identity", ["x"], ["t0"]), *links, make_node("Identity", ["t10"], ["y"]))
    values, alive = [], []
    for node, inputs, outputs in GraphRunner(model).run({"x": np.ones((2, 4), np.float32)}):
        values.append((node.output[0], float(outputs[0].max())))
        alive.append(weakref.ref(outputs[0]))
        del inputs, outputs
    assert values == [(f"t{i}", i + 1) for i in range(11)] + [("y", 11)]
    assert sum(reference() is not None for reference in alive) <= 1


def test_damaged_model_is_refused() -> None:
    with pytest.raises(CCNetError, match="not a whole ONNX model"):
        GraphRunner(chain(make_node("Add", ["x", "x"], ["y"]))[:-7])


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (make_node("NoSuchOperator", ["rgb"], ["cube"], name="m/Bad_0"), "'m/Bad_0' .NoSuchOperator. cannot be run"),
        (make_node("Add", ["rgb", "nothing"], ["cube"], name="m/Add_0"), "uses 'nothing', which no earlier node"),
        (make_node("Reshape", ["rgb", "rgb"], ["cube"], name="m/Reshape_0"), "'m/Reshape_0' .Reshape. cannot be run"),
    ],
)
def test_graph_that_cannot_run_names_the_node(
    graph: GraphFixture, feed: FeedFixture, node: onnx.NodeProto, words: str
) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        graph(node).evaluate(feed())
    assert "\n" not in str(caught.value)


def test_weights_in_another_file_are_refused(graph: GraphFixture) -> None:
    runner = graph(make_node("Add", ["rgb", "w"], ["cube"], name="m/Add_0"), w=1)
    weight = runner.proto.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(CCNetError, match="keeps tensors in another file"):
        GraphRunner(runner.proto.SerializeToString())


@pytest.mark.parametrize(
    "change", [{"dims": [3]}, {"data_type": 0}, {"data_type": 77}], ids=["size", "no type", "type"]
)
def test_damaged_weights_are_refused(graph: GraphFixture, change: dict[str, Any]) -> None:
    proto = graph(make_node("Add", ["rgb", "w"], ["cube"], name="m/Add_0"), w=1).proto
    weight = proto.graph.initializer[0]
    weight.ClearField(next(iter(change)))
    weight.MergeFrom(TensorProto(**change))
    with pytest.raises(CCNetError) as caught:
        GraphRunner(proto.SerializeToString())
    assert "\n" not in str(caught.value)
