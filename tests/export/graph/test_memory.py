"""Passes that lower the memory of a tile: what they move and replace, and that no number changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ccnet.contract import CONTEXT, NATIVE_FORMAT, RGB, Manifest
from ccnet.export.graph.memory import RecomputeEmbedding, RunGrSCMFirst, bytes_per_pixel
from ccnet.model import CCNet
from ccnet.model.config import CCNetConfig
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, operators


@pytest.fixture
def portable(artifacts: tuple[CCNet, Path]) -> ir.Model:
    folder = artifacts[1]
    return ir.load(folder / Manifest.read(folder).find("decode", format="onnx").file)


def decoded(model: ir.Model, size: int) -> Any:
    random = np.random.default_rng(0)
    feeds = {RGB: random.random((1, 3, 48, 64), np.float32), CONTEXT: random.random((1, size), np.float32) / 16}
    with OnnxRuntimeBackend(ir.to_proto(model).SerializeToString()) as backend:
        return backend.run(feeds)["cube"]


def test_skip_computes_the_embedding_again(artifacts: tuple[CCNet, Path], portable: ir.Model) -> None:
    size = artifacts[0].context_size
    before = decoded(portable, size)
    assert RecomputeEmbedding()(portable).modified
    nodes = {str(node.name): node for node in portable.graph}
    assert "ccnet/Add_0" not in nodes
    embedding, again = nodes["conv_in/Conv_0"], nodes["ccnet/FusedConv_0"]
    assert again.inputs[:2] == embedding.inputs[:2]
    assert again.inputs[3] is nodes["units.0/Add_0"].outputs[0]
    np.testing.assert_allclose(decoded(portable, size), before, atol=1e-6)
    assert not RecomputeEmbedding()(portable).modified


@pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")
def test_grscm_is_behind_nescm_in_the_file(artifacts: tuple[CCNet, Path]) -> None:
    """ONNX Runtime runs it first for that."""
    folder = artifacts[1]
    found = Manifest.read(folder).find("decode", format=NATIVE_FORMAT)
    names = [str(node.name) for node in ir.load(folder / found.file).graph]
    blocks = [name.removesuffix(".paf/PAF_0") for name in names if name.endswith(".paf/PAF_0")]
    assert len(blocks) == 5
    for block in blocks:
        pooled, attended, fused = (
            names.index(f"{block}.{part}_0") for part in ("nescm/PooledNeSCM", "grscm/GrSCM", "paf/PAF")
        )
        assert pooled < attended == fused - 1
    assert found.details["bytes_per_pixel"] == bytes_per_pixel("decode", CCNetConfig())


def test_graphs_without_fused_parts_stay_as_they_are(portable: ir.Model) -> None:
    names = [node.name for node in portable.graph]
    assert not RunGrSCMFirst()(portable).modified
    assert [node.name for node in portable.graph] == names


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"units": 1}, True),
        ({"base": "mlp", "base_width": 48, "normalise": True}, True),
        ({"base": "mlp"}, False),
        ({"width": 64}, False),
    ],
)
def test_memory_is_stated_for_the_networks_of_the_shipped_weights(changes: dict[str, Any], known: bool) -> None:
    config = CCNetConfig(**changes)
    assert [bytes_per_pixel(kind, config) is not None for kind in ("decode", "full", "encode")] == [known, known, False]
