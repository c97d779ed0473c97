"""The graph for TensorRT's plugin: right in FP32, where ONNX Runtime has the operator, and typed in mixed FP16."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ccnet.contract import CONTEXT, NATIVE_DOMAIN, PLUGIN_FORMAT, RGB, Manifest
from ccnet.export.artifacts import export
from ccnet.export.graph import cut
from ccnet.export.graph.fuse import fuse_pooled_nescm
from ccnet.export.graph.mixed_precision import to_fp16
from ccnet.export.graph.serialize import stamp
from ccnet.export.graph.trace import trace
from ccnet.model import CCNet
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, operators

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not operators(), reason="the kernels are not compiled here")]


@pytest.fixture(scope="module")
def graphs(artifacts: tuple[CCNet, Path]) -> tuple[ir.Model, ir.Model]:
    """Return decode in FP32, and the same with fused nodes for the plugin."""
    model, _ = artifacts
    decode = cut.decode(trace(model), model.context_shapes)
    return decode, fuse_pooled_nescm(decode, model)


def test_fused_graph_computes_what_the_unrolled_one_does(
    artifacts: tuple[CCNet, Path], graphs: tuple[ir.Model, ir.Model]
) -> None:
    random = np.random.default_rng(0)
    feeds = {
        RGB: random.random((1, 3, 48, 80), np.float32),
        CONTEXT: random.random((1, artifacts[0].context_size), np.float32) / 16,
    }
    expected, found = (next(iter(OnnxRuntimeBackend(stamp(graph, {})).run(feeds).values())) for graph in graphs)
    assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


def test_plugin_reads_fp16_features_and_float_weights(graphs: tuple[ir.Model, ir.Model]) -> None:
    mixed = to_fp16(graphs[1])
    nodes = [node for node in mixed.graph if node.domain == NATIVE_DOMAIN]
    assert Counter(node.op_type for node in nodes) == {"PooledNeSCM": 5}  # the tiny network has one unit
    for node in nodes:
        x, *weights = [value for value in node.inputs if value is not None]
        assert x.dtype == node.outputs[0].dtype == ir.DataType.FLOAT16
        assert len(weights) == 4
        assert {weight.dtype for weight in weights} == {ir.DataType.FLOAT}
        assert all(weight.is_initializer() for weight in weights)
    assert len(mixed.graph) < len(to_fp16(graphs[0]).graph) / 3


def test_export_writes_it_beside_the_others_when_asked(artifacts: tuple[CCNet, Path], tmp_path: Path) -> None:
    manifest = export(artifacts[0], tmp_path, plugin=True)
    entry = manifest.find("decode", format=PLUGIN_FORMAT, precision="fp16")
    assert entry.file == "decode.fp16.plugin.onnx"
    assert {node.domain for node in onnx.load(tmp_path / entry.file).graph.node} == {"", NATIVE_DOMAIN}
    plain = Manifest.read(artifacts[1])
    assert {artifact.file for artifact in manifest.artifacts} - {entry.file} == {a.file for a in plain.artifacts}
