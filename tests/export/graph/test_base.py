"""A network with a per-pixel base: every graph of an export computes what PyTorch does, the base in decode and full."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from ccnet.contract import CONTEXT, CUBE, NATIVE_FORMAT, Manifest
from ccnet.export.artifacts import export
from ccnet.export.graph.fuse import FusePixelMLP
from ccnet.model import CCNet, CCNetConfig
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, operators
from ccnet.runtime.quality.tolerances import TOLERANCES
from tests.conftest import randomised

from .graphs import Artifacts, expected, feeds, load, modules, run


@pytest.fixture(scope="module")
def based(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """A tiny network with a base, and its export, which compares each graph with PyTorch before it is written."""
    torch.manual_seed(0)
    model, folder = randomised(CCNet(CCNetConfig(units=1, base="mlp"))), tmp_path_factory.mktemp("based")
    export(model, folder)
    return model, folder


def test_base_is_in_the_graphs_that_compute_a_cube(based: Artifacts) -> None:
    layers = {"base.0", "base.2", "base.4", "base.6"}
    for name in ("decode.fp32", "decode.fp16", "full.fp32"):
        assert layers <= modules(load(based[1], name)), name
    assert not layers & modules(load(based[1], "encode.fp32"))


def test_graphs_compute_the_cube_of_pytorch(based: Artifacts) -> None:
    rgb = np.random.default_rng(0).random((1, 3, 48, 32), np.float32)
    truth = expected(based[0], rgb)
    for name, tolerance in (("full.fp32", 1e-4), ("decode.fp32", 1e-4), ("decode.fp16", 2e-2)):
        cube = run(load(based[1], name), feeds(name.partition(".")[0], rgb, truth[CONTEXT]))
        assert np.abs(cube - truth[CUBE]).max() < tolerance, name
    assert np.abs(based[0].base(torch.from_numpy(rgb)).detach().numpy()).max() > 0.02  # a graph without it fails


@pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")
def test_base_is_one_operator_where_operators_are_compiled(based: Artifacts) -> None:
    """It adds to the cube, so that ONNX Runtime has no other maps of the base."""
    model, folder = based
    rgb = np.random.default_rng(0).random((1, 3, 48, 32), np.float32)
    truth = expected(model, rgb)
    for kind, count in (("encode", 0), ("decode", 1), ("full", 1)):
        graph = load(folder, f"{kind}.fp32.native").graph
        assert [node.op_type for node in graph.node if node.name.startswith("base")] == ["PixelMLP"] * count
        assert not count or (graph.node[-1].op_type, *graph.node[-1].output) == ("PixelMLP", CUBE)
        with OnnxRuntimeBackend(Manifest.read(folder).find(kind, format=NATIVE_FORMAT).read(folder)) as backend:
            found = backend.run(feeds(kind, rgb, truth[CONTEXT]))
        name = CUBE if count else CONTEXT
        np.testing.assert_allclose(found[name], truth[name], rtol=0, atol=TOLERANCES["fp32"].max_abs)


@pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")
def test_base_of_a_width_that_the_operator_does_not_take_keeps_its_layers(based: Artifacts) -> None:
    model, folder = based
    portable = ir.load(folder / "decode.fp32.onnx")
    assert not FusePixelMLP(CCNet(CCNetConfig(units=1, base="mlp", base_width=6)))(portable).modified
    assert FusePixelMLP(model)(portable).modified


def test_tiles_of_the_exported_network_are_the_whole_frame(based: tuple[CCNet, Path]) -> None:
    """Also of a size that is no multiple of 16, with the compiled operators where there are any."""
    frame = np.random.default_rng(1).random((75, 210, 3), np.float32)
    with Reconstructor.open(based[1], tile=192, input_space="camera") as reconstruct:
        cube = reconstruct(frame)
    with torch.inference_mode():
        truth = based[0](torch.from_numpy(np.ascontiguousarray(frame.transpose(2, 0, 1)))[None])[0].numpy()
    assert np.abs(cube - truth).max() < 10 * TOLERANCES["tiled"].max_abs
