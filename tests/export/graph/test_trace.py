"""The ONNX graphs: what they are called, what they hold, and that they compute what PyTorch does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import onnxscript.evaluator
import onnxscript.tensor
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from ccnet.contract import CONTEXT, CUBE, HALO, MANIFEST_KEY, MANIFEST_NAME, RGB, Manifest
from ccnet.export.graph import cut, nescm_unrolled
from ccnet.export.graph.serialize import stamp
from ccnet.export.graph.trace import OPSET, trace
from ccnet.model import CCNet
from ccnet.model.blocks import NeSCM
from ccnet.model.config import CCNetConfig
from ccnet.runtime.quality.tolerances import TOLERANCES

Artifacts = tuple[CCNet, Path]
Array = npt.NDArray[np.float32]

each_graph = pytest.mark.parametrize("name", ["encode.fp32", "decode.fp32", "decode.fp16", "full.fp32"])
each_kind = pytest.mark.parametrize("kind", ["encode", "decode", "full"])


def load(folder: Path, name: str) -> onnx.ModelProto:
    return onnx.load(folder / f"{name}.onnx")


def modules(model: onnx.ModelProto) -> set[str]:
    """The modules that a graph's nodes are called after."""
    return {node.name.partition("/")[0] for node in model.graph.node}


def expected(model: CCNet, rgb: Array) -> dict[str, Array]:
    """Cube and context as PyTorch computes them."""
    with torch.inference_mode():
        cube, context = model.run(torch.from_numpy(rgb), None)
    return {CUBE: cube.numpy(), CONTEXT: context.numpy()}


def feeds(kind: str, rgb: npt.NDArray[Any], context: Array) -> dict[str, npt.NDArray[Any]]:
    return {RGB: rgb, CONTEXT: context} if kind == "decode" else {RGB: rgb}


def run(model: onnx.ModelProto, given: dict[str, npt.NDArray[Any]]) -> Array:
    """A graph's only output, by ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: Array = session.run(None, given)[0]
    return result


@each_graph
def test_nodes_and_tensors_are_called_after_modules(artifacts: Artifacts, name: str) -> None:
    model, proto = artifacts[0], load(artifacts[1], name)
    nodes = [node.name for node in proto.graph.node]
    assert len(set(nodes)) == len(nodes)
    outside = {"ccnet", RGB, CONTEXT, CUBE}  # of the network itself, and what is put around it
    assert modules(proto) <= {name for name, _ in model.named_modules()} | outside
    for node in proto.graph.node:
        module = node.name.partition("/")[0]
        assert module in outside or {out.partition("/")[0] for out in node.output} <= {module, *outside}


@each_graph
def test_a_graph_is_what_the_oldest_tensorrt_parses(artifacts: Artifacts, name: str) -> None:
    proto = load(artifacts[1], name)
    assert {(one.domain, one.version) for one in proto.opset_import} == {("", OPSET)}
    assert proto.ir_version == 8  # opset 18's own
    assert not proto.functions
    dims = [dim.dim_param for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["", "", "16*h16", "16*w16"]


@each_graph
def test_a_graph_is_one_file_that_carries_its_manifest(artifacts: Artifacts, name: str) -> None:
    folder, proto = artifacts[1], load(artifacts[1], name)
    assert all(one.data_location == onnx.TensorProto.DEFAULT for one in proto.graph.initializer)
    inside = Manifest.from_json({entry.key: entry.value for entry in proto.metadata_props}[MANIFEST_KEY])
    outside = Manifest.read(folder)
    assert (inside.config, inside.weights_sha256) == (outside.config, outside.weights_sha256)
    assert {path.name for path in folder.iterdir()} == {MANIFEST_NAME, *(one.file for one in outside.artifacts)}


def test_the_context_is_what_parts_encode_from_decode(artifacts: Artifacts) -> None:
    folder = artifacts[1]
    ends = {
        kind: ([value.name for value in proto.input], [value.name for value in proto.output])
        for kind in ("encode", "decode", "full")
        for proto in [load(folder, f"{kind}.fp32").graph]
    }
    assert ends == {"encode": ([RGB], [CONTEXT]), "decode": ([RGB, CONTEXT], [CUBE]), "full": ([RGB], [CUBE])}
    computed = {
        f"units.0.{block}.inter.grscm.{part}" for block in ("enc1", "dec1") for part in ("to_q", "to_k", "unit")
    }
    assert computed <= modules(load(folder, "full.fp32"))
    assert not computed & modules(load(folder, "decode.fp32")), "decode sums over all pixels"
    after = {"conv_out", "units.0.dec1.intra.net.0", "units.0.dec1.inter.nescm"}  # the last attention
    assert after <= modules(load(folder, "decode.fp32"))
    assert not after & modules(load(folder, "encode.fp32")), "encode computes what no attention needs"


def test_decode_is_local(artifacts: Artifacts) -> None:
    """Under one context, what lies beyond the halo changes next to nothing, and beyond two of them not a bit."""
    rgb = np.random.default_rng(0).random((1, 3, 16, 3 * HALO), np.float32)
    context = expected(artifacts[0], rgb)[CONTEXT]
    changed = rgb.copy()
    changed[..., :16] = 1 - changed[..., :16]
    decode = load(artifacts[1], "decode.fp32")
    before, after = (run(decode, feeds("decode", one, context)) for one in (rgb, changed))
    reached = np.abs(before - after).max((0, 1, 2))
    assert reached[16 : 16 + HALO].max() > 1e-3
    assert reached[16 + HALO :].max() <= TOLERANCES["tiled"].max_abs
    assert not reached[16 + 2 * HALO :].any()


def test_a_unit_has_few_nodes(artifacts: Artifacts) -> None:
    assert len(load(artifacts[1], "decode.fp16").graph.node) <= 5000 / 3  # the paper's network has three units


@pytest.mark.slow
def test_the_papers_network_has_few_nodes(shipped: Artifacts) -> None:
    assert len(load(shipped[1], "decode.fp16").graph.node) <= 5000


@each_kind
@pytest.mark.parametrize("size", [(16, 16), pytest.param((48, 80), marks=pytest.mark.slow)], ids=["16x16", "48x80"])
def test_the_reference_evaluator_computes_what_pytorch_does(
    artifacts: Artifacts, kind: str, size: tuple[int, int]
) -> None:
    model, folder = artifacts
    rgb = np.random.default_rng(0).random((1, 3, *size), np.float32)
    cube, context = expected(model, rgb).values()
    (found,) = ReferenceEvaluator(load(folder, f"{kind}.fp32")).run(None, feeds(kind, rgb, context))
    limit = TOLERANCES["fp32"].max_abs
    np.testing.assert_allclose(found, context if kind == "encode" else cube, rtol=0, atol=limit)


@each_kind
def test_uint8_frames_give_what_floats_give(artifacts: Artifacts, kind: str) -> None:
    model, folder = artifacts
    frame = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    rgb = np.ascontiguousarray(frame.transpose(0, 3, 1, 2) / np.float32(255))
    context = expected(model, rgb)[CONTEXT]
    packed = ir.to_proto(cut.with_uint8_frames(ir.load(folder / f"{kind}.fp32.onnx")))
    onnx.checker.check_model(packed, full_check=True)
    found = run(packed, feeds(kind, frame, context))
    assert np.array_equal(found, run(load(folder, f"{kind}.fp32"), feeds(kind, rgb, context)))


@each_kind
def test_uint8_is_cast_before_it_is_transposed(artifacts: Artifacts, kind: str) -> None:
    """TensorRT's parser refuses a UINT8 Transpose."""
    packed = cut.with_uint8_frames(ir.load(artifacts[1] / f"{kind}.fp32.onnx")).graph
    frame = next(value for value in packed.inputs if value.name == RGB)
    assert frame.dtype == ir.DataType.UINT8
    assert [use.node.op_type for use in frame.uses()] == ["Cast"]
    assert {value.dtype for node in packed for value in node.inputs if value and node.op_type == "Transpose"} == {
        ir.DataType.FLOAT
    }


@pytest.mark.parametrize("width", [32, 40])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_translation_is_the_papers_loop(heads: int, width: int) -> None:
    """Operator by operator, as the reference evaluator defines them; float64 in the loop."""
    module = NeSCM(heads * width, CCNetConfig(width=width))
    x = torch.randn(1, heads * width, 3, 5)
    cmus = (module.forward_cmu, module.backward_cmu)
    weights = (
        torch.stack([cmu.forget.weight.flatten(1) for cmu in cmus]),
        torch.stack([cmu.forget.bias for cmu in cmus]),
        torch.stack([cmu.output.weight for cmu in cmus]),
        cmus[0].output.bias + cmus[1].output.bias,
    )
    given, *rest = (onnxscript.tensor.Tensor(tensor.detach().numpy()) for tensor in (x, *weights))
    with onnxscript.evaluator.default_as(onnxscript.evaluator.OnnxReferenceRuntimeEvaluator()):
        found = nescm_unrolled.nescm(given, 4, *rest)
    with torch.inference_mode():
        expected = module.double().reference_loop(x.double())
    np.testing.assert_allclose(found.value, expected.numpy(), rtol=0, atol=TOLERANCES["scan"].max_abs)


def test_an_export_is_the_same_each_time() -> None:
    model = CCNet(CCNetConfig(units=2)).eval()
    first, second = (stamp(cut.full(trace(model)), {}) for _ in range(2))
    assert first == second
