"""A network that normalises its frame: every graph of an export computes what PyTorch does, and is equivariant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from ccnet.contract import CONTEXT, CUBE, RGB
from ccnet.export.artifacts import export
from ccnet.export.graph import cut
from ccnet.export.graph.trace import trace
from ccnet.model import CCNet, CCNetConfig
from ccnet.runtime import Reconstructor
from ccnet.runtime.quality.tolerances import TOLERANCES
from tests.conftest import randomised

from .graphs import Artifacts, expected, feeds, load, modules, run


@pytest.fixture(scope="module")
def normalising(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """A tiny network with a small base, and its export, which compares each graph with PyTorch."""
    torch.manual_seed(0)
    config = CCNetConfig(units=1, base="mlp", base_width=16, normalise=True)
    model, folder = randomised(CCNet(config)), tmp_path_factory.mktemp("normalising")
    export(model, folder)
    return model, folder


def test_scale_is_computed_where_the_context_is(normalising: Artifacts) -> None:
    for name in ("encode.fp32", "full.fp32", "full.fp16"):
        assert "brightness" in modules(load(normalising[1], name)), name
    for name in ("decode.fp32", "decode.fp16"):
        assert "brightness" not in modules(load(normalising[1], name)), name
        assert "scaling" in modules(load(normalising[1], name)), name


def test_scale_is_the_first_number_of_the_context(normalising: Artifacts) -> None:
    model, folder = normalising
    rgb = np.random.default_rng(0).random((1, 3, 48, 32), np.float32) * np.float32(0.1)
    context = run(load(folder, "encode.fp32"), feeds("encode", rgb, None))
    scale = model.frame_scale(torch.from_numpy(rgb))
    np.testing.assert_allclose(context[0, 0], scale.item(), rtol=1e-5)
    assert context.shape == (1, model.context_size)


@pytest.mark.parametrize("brightness", [1, 0.02])
def test_graphs_compute_the_cube_of_pytorch(normalising: Artifacts, brightness: float) -> None:
    rgb = np.random.default_rng(0).random((1, 3, 48, 32), np.float32) * np.float32(brightness)
    truth = expected(normalising[0], rgb)
    for name, tolerance in (("full.fp32", 1e-4), ("decode.fp32", 1e-4), ("decode.fp16", 2e-2), ("full.fp16", 2e-2)):
        cube = run(load(normalising[1], name), feeds(name.partition(".")[0], rgb, truth[CONTEXT]))
        assert np.abs(cube - truth[CUBE]).max() < tolerance * brightness, name


@pytest.mark.parametrize("kind", ["decode", "full"])
def test_fp16_keeps_the_scaling_in_fp32(normalising: Artifacts, kind: str) -> None:
    graph = load(normalising[1], f"{kind}.fp16").graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    nodes = [node for node in graph.node if node.op_type != "Cast"]
    scaling = [node for node in nodes if node.name.startswith("scaling/")]
    assert [node.op_type for node in scaling] == ["Mul", "Div"]
    factor = [node for node in nodes if node.name.startswith("brightness/")]
    assert bool(factor) == (kind == "full")
    assert {types[node.output[0]] for node in scaling + factor} == {onnx.TensorProto.FLOAT}


def test_fp16_scales_a_dim_frame_as_a_gpu_would(normalising: Artifacts) -> None:
    """In true FP16, rounded after every operator: eighth powers of dim pixels would be 0 there."""
    rgb = np.random.default_rng(0).random((1, 3, 32, 32), np.float32) * np.float32(0.05)
    truth = expected(normalising[0], rgb)
    (cube,) = ReferenceEvaluator(load(normalising[1], "full.fp16")).run(None, {RGB: rgb})
    assert np.abs(cube - truth[CUBE]).max() < 0.02 * 0.05


def test_units_share_the_scale() -> None:
    model = randomised(CCNet(CCNetConfig(units=2, normalise=True)))
    rgb = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    truth = expected(model, rgb)
    for name, graph in ((CONTEXT, cut.encode(traced := trace(model))), (CUBE, cut.full(traced))):
        found = run(ir.to_proto(graph), {RGB: rgb})
        np.testing.assert_allclose(found, truth[name], rtol=0, atol=TOLERANCES["fp32"].max_abs)


def test_tiles_of_a_dim_frame_are_the_whole_frame_dimmed(normalising: tuple[CCNet, Path]) -> None:
    """Also of a size that is no multiple of 16, with the compiled operators where there are any."""
    frame = np.random.default_rng(1).random((75, 210, 3), np.float32)
    with torch.inference_mode():
        truth = normalising[0](torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None])[0].numpy()
    for tile in (192, None):
        with Reconstructor.open(normalising[1], tile=tile, input_space="camera") as reconstruct:
            cube = reconstruct(frame * np.float32(0.25))
        assert np.abs(4 * cube - truth).max() < 10 * TOLERANCES["tiled"].max_abs
