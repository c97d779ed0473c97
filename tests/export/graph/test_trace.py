"""The ONNX graphs: how nodes are named, what the files hold, and that they compute what PyTorch does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from ccnet.contract import CONTEXT, CUBE, MANIFEST_KEY, MANIFEST_NAME, RGB, Manifest
from ccnet.export.graph import cut
from ccnet.export.graph.serialize import stamp
from ccnet.export.graph.trace import OPSET, trace
from ccnet.model import CCNet
from ccnet.model.config import CCNetConfig
from ccnet.runtime.quality.tolerances import TOLERANCES

from .graphs import Artifacts, each_graph, each_kind, expected, feeds, load, modules


@each_graph
def test_nodes_and_tensors_are_named_after_modules(artifacts: Artifacts, name: str) -> None:
    model, proto = artifacts[0], load(artifacts[1], name)
    nodes = [node.name for node in proto.graph.node]
    assert len(set(nodes)) == len(nodes)
    outside = {"ccnet", RGB, CONTEXT, CUBE}  # the network itself, and its inputs and outputs
    assert modules(proto) <= {name for name, _ in model.named_modules()} | outside
    for node in proto.graph.node:
        module = node.name.partition("/")[0]
        assert module in outside or {out.partition("/")[0] for out in node.output} <= {module, *outside}


@each_graph
def test_graph_suits_the_oldest_supported_tensorrt(artifacts: Artifacts, name: str) -> None:
    proto = load(artifacts[1], name)
    assert {(one.domain, one.version) for one in proto.opset_import} == {("", OPSET)}
    assert proto.ir_version == 8  # opset 18's own
    assert not proto.functions
    dims = [dim.dim_param for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["", "", "16*h16", "16*w16"]


@each_graph
def test_graph_is_one_file_that_carries_its_manifest(artifacts: Artifacts, name: str) -> None:
    folder, proto = artifacts[1], load(artifacts[1], name)
    assert all(one.data_location == onnx.TensorProto.DEFAULT for one in proto.graph.initializer)
    inside = Manifest.from_json({entry.key: entry.value for entry in proto.metadata_props}[MANIFEST_KEY])
    outside = Manifest.read(folder)
    assert (inside.config, inside.weights_sha256) == (outside.config, outside.weights_sha256)
    assert {path.name for path in folder.iterdir()} == {MANIFEST_NAME, *(one.file for one in outside.artifacts)}


@pytest.mark.parametrize(("name", "most"), [("decode.fp32", 1666), ("full.fp32", 1900), ("decode.fp16", 6200)])
def test_one_unit_has_few_nodes(artifacts: Artifacts, name: str, most: int) -> None:
    """A graph of 1,666 nodes opens in 0.15 s. Only TensorRT runs decode.fp16; test_kernel_count counts its kernels."""
    assert len(load(artifacts[1], name).graph.node) <= most


@each_kind
@pytest.mark.parametrize("size", [(16, 16), pytest.param((48, 80), marks=pytest.mark.slow)], ids=["16x16", "48x80"])
def test_reference_evaluator_computes_the_result_of_pytorch(
    artifacts: Artifacts, kind: str, size: tuple[int, int]
) -> None:
    model, folder = artifacts
    rgb = np.random.default_rng(0).random((1, 3, *size), np.float32)
    cube, context = expected(model, rgb).values()
    (found,) = ReferenceEvaluator(load(folder, f"{kind}.fp32")).run(None, feeds(kind, rgb, context))
    limit = TOLERANCES["fp32"].max_abs
    np.testing.assert_allclose(found, context if kind == "encode" else cube, rtol=0, atol=limit)


def test_export_is_repeatable() -> None:
    model = CCNet(CCNetConfig(units=2)).eval()
    first, second = (stamp(cut.full(trace(model)), {}) for _ in range(2))
    assert first == second
