"""The mixed FP16 graph: its types, its FP32-kept nodes, and its error against float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils
import onnx_ir as ir
import pytest
import skimage.data
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from ccnet.contract import CONTEXT, CUBE, RGB, CCNetError
from ccnet.export.graph import cut
from ccnet.export.graph import mixed_precision as precision
from ccnet.export.graph.mixed_precision import KEPT_FP32, is_kept_fp32, is_residual_sum, to_fp16
from ccnet.model import CCNet
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.quality.tolerances import TOLERANCES, compare

Artifacts = tuple[CCNet, Path]
Array = npt.NDArray[np.float32]
Run = Callable[[bytes, dict[str, npt.NDArray[Any]]], Array]

SIDE = 32  # px
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}


def in_reference(model: bytes, feeds: dict[str, npt.NDArray[Any]]) -> Array:
    """Run in true FP16, rounded after every operator, which overflows where ONNX Runtime computes in float32."""
    cube: Array = ReferenceEvaluator(onnx.load_from_string(model)).run(None, feeds)[0]
    return cube


def in_onnxruntime(model: bytes, feeds: dict[str, npt.NDArray[Any]]) -> Array:
    with OnnxRuntimeBackend(model) as backend:
        return backend.run(feeds)[CUBE]


each_kind = pytest.mark.parametrize("kind", ["decode", "full"])
each_evaluator = pytest.mark.parametrize("run", [in_reference, in_onnxruntime])


def photograph(name: str) -> Array:
    """Return a crop (SIDE, SIDE, 3) of a photograph of scikit-image."""
    crop: Array = np.float32(getattr(skimage.data, name)()[100 : 100 + SIDE, 100 : 100 + SIDE] / 255)
    return crop


def hostile(name: str) -> Array:
    """Return a synthetic frame (SIDE, SIDE, 3) of extreme values."""
    frame = np.zeros((SIDE, SIDE, 3), np.float32)
    if name == "white":
        frame[...] = 1
    if name == "checkerboard":
        frame[np.indices((SIDE, SIDE)).sum(0) % 2 == 1] = 1
    if name == "hot pixel":
        frame[SIDE // 2, SIDE // 2] = 1
    if name == "noise":
        frame[...] = np.random.default_rng(0).random(frame.shape)
    return frame


def decoded(artifacts: Artifacts, frame: Array, run: Run, kind: str = "decode") -> tuple[Array, Array]:
    """Return the cube of PyTorch and the cube of an FP16 graph, of ``decode`` under the same context."""
    model, folder = artifacts
    rgb = np.ascontiguousarray(frame.transpose(2, 0, 1)[None])
    with torch.inference_mode():
        cube, context = (tensor.numpy() for tensor in model.run(torch.from_numpy(rgb), None))
    feeds = {RGB: rgb, CONTEXT: context} if kind == "decode" else {RGB: rgb}
    return cube[0], run((folder / f"{kind}.fp16.onnx").read_bytes(), feeds)[0]


@each_evaluator
@each_kind
@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_photographs_cube_is_within_the_fp16_tolerance(artifacts: Artifacts, name: str, kind: str, run: Run) -> None:
    assert TOLERANCES["fp16"].broken_by(compare(*decoded(artifacts, photograph(name), run, kind))) == []


@pytest.mark.slow
@each_evaluator
@pytest.mark.parametrize("light", [1, 0.05], ids=["as it is", "dark"])
def test_shipped_weights_cube_is_within_the_fp16_tolerance(shipped: Artifacts, run: Run, light: float) -> None:
    frame = np.float32(light) * photograph("chelsea")
    assert TOLERANCES["fp16"].broken_by(compare(*decoded(shipped, frame, run))) == []


@pytest.mark.slow
def test_residual_sums_in_float32_reduce_the_error(
    benchmark_weights: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measure on a dark frame, where an absolute error is relatively largest."""
    frame = np.float32(0.05) * photograph("chelsea")
    cube, found = decoded(benchmark_weights, frame, in_reference)
    monkeypatch.setattr(precision, "is_residual_sum", lambda node: False)
    coarse = ir.to_proto(to_fp16(ir.load(benchmark_weights[1] / "decode.fp32.onnx"))).SerializeToString()
    cube, without = decoded(benchmark_weights, frame, lambda _, feeds: in_reference(coarse, feeds))
    assert compare(cube, found).mrae < 0.8 * compare(cube, without).mrae


@pytest.mark.slow
def test_only_fp32_kept_nodes_keep_the_attention(benchmark_weights: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attention in FP16: over a red frame of 160×160 px its sum of squares passes 65504. In true FP16 the
    cosines become 0 and the attention forgets them; ONNX Runtime sums in float32 and hides that until a GPU shows it.
    """
    attention = "units.0.enc1.inter/Softmax_0"
    whole = onnx.load(benchmark_weights[1] / "encode.fp32.onnx")
    first = onnx.utils.Extractor(whole).extract_model([RGB], [attention])
    mixed = ir.to_proto(to_fp16(ir.from_proto(first)))
    monkeypatch.setattr(precision, "KEPT_FP32", {})
    naive = ir.to_proto(to_fp16(ir.from_proto(first)))
    rgb = np.zeros((1, 3, 160, 160), np.float32)
    rgb[:, 0] = 1
    expected, kept, lost = (
        output_of_reference(model.SerializeToString(), {RGB: rgb}, attention) for model in (first, mixed, naive)
    )
    hidden = output_of_onnxruntime(naive.SerializeToString(), {RGB: rgb}, attention)
    assert np.abs(kept - expected).max() < 0.01
    assert np.abs(lost - expected).max() > 0.1
    assert np.abs(hidden - expected).max() < 0.01


def output_of_reference(model: bytes, feeds: dict[str, npt.NDArray[Any]], name: str) -> Array:
    found: Array = ReferenceEvaluator(onnx.load_from_string(model)).run([name], feeds)[0]
    return found


def output_of_onnxruntime(model: bytes, feeds: dict[str, npt.NDArray[Any]], name: str) -> Array:
    with OnnxRuntimeBackend(model) as backend:
        return backend.run(feeds)[name]


@each_evaluator
def test_tile_of_a_4k_frame_is_within_the_fp16_tolerance(artifacts: Artifacts, run: Run) -> None:
    frame = np.random.default_rng(0).random((2160, 3840, 3), np.float32)
    with Reconstructor.open(artifacts[1], input_space="camera") as reconstruct:
        context = reconstruct.encode(frame)
    rgb = np.ascontiguousarray(frame[-SIDE:, -SIDE:].transpose(2, 0, 1)[None])
    feeds = {RGB: rgb, CONTEXT: context}
    cube, found = (
        evaluate((artifacts[1] / f"decode.{name}.onnx").read_bytes(), feeds)[0]
        for evaluate, name in ((in_onnxruntime, "fp32"), (run, "fp16"))
    )
    assert TOLERANCES["fp16"].broken_by(compare(cube, found)) == []


@each_evaluator
@each_kind
@pytest.mark.parametrize("name", ["black", "white", "checkerboard", "hot pixel", "noise"])
def test_no_frame_overflows(artifacts: Artifacts, name: str, kind: str, run: Run) -> None:
    cube, found = decoded(artifacts, hostile(name), run, kind)
    assert np.isfinite(found).all()
    assert compare(cube, found).mean_abs <= TOLERANCES["fp16"].mean_abs


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor, inferred by ONNX without the types that the converter stored."""
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in inferred.initializer
    }


@each_kind
def test_only_fp32_kept_nodes_and_residual_sums_are_float32(artifacts: Artifacts, kind: str) -> None:
    path = artifacts[1] / f"{kind}.fp16.onnx"
    model = onnx.load(path)
    of = types(model)
    # A block has a sum in GrSCM, in PAF, and two around its halves; units and the network one each
    blocks, units = 5, 1
    sums = {node.name for node in ir.load(path).graph if is_residual_sum(node) and not is_kept_fp32(node.name)}
    assert len(sums) == 4 * blocks * units + units + 1
    for node in model.graph.node:
        if node.op_type == "Cast":
            continue
        inner = TensorProto.FLOAT if is_kept_fp32(node.name) or node.name in sums else TensorProto.FLOAT16
        assert {of[name] for name in (*node.input, *node.output) if name} & FLOATS <= {inner}, node.name
    modules = {node.name.partition("/")[0] for node in model.graph.node}
    found = {end for end in KEPT_FP32 if any(module.endswith(end) for module in modules)}
    optional = {"brightness", "scaling", "base"}  # tests/export/graph/test_brightness.py has the first two
    assert found == KEPT_FP32.keys() - optional - (set() if kind == "full" else {"grscm.unit", ".inter"})


def test_casts_exist_only_where_the_type_changes(artifacts: Artifacts) -> None:
    model = onnx.load(artifacts[1] / "decode.fp16.onnx")
    of = types(model)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len({(node.input[0], of[node.output[0]]) for node in casts}) == len(casts), "two casts do one's work"
    made_by_casts = {node.output[0] for node in casts}
    for node in casts:
        assert {of[node.input[0]], of[node.output[0]]} == FLOATS
        assert node.input[0] not in made_by_casts


@pytest.mark.parametrize("packed", [False, True], ids=["float32", "uint8"])
def test_inputs_and_outputs_keep_their_types(artifacts: Artifacts, packed: bool) -> None:
    model = ir.load(artifacts[1] / "decode.fp32.onnx")
    mixed = ir.to_proto(to_fp16(cut.with_uint8_frames(model) if packed else model)).graph
    of = {value.name: value.type.tensor_type.elem_type for value in (*mixed.input, *mixed.output)}
    frame = TensorProto.UINT8 if packed else TensorProto.FLOAT
    assert of == {RGB: frame, CONTEXT: TensorProto.FLOAT, CUBE: TensorProto.FLOAT}


def test_uint8_frames_become_fp16_at_once(artifacts: Artifacts) -> None:
    mixed = to_fp16(cut.with_uint8_frames(ir.load(artifacts[1] / "decode.fp32.onnx"))).graph
    frame = next(value for value in mixed.inputs if value.name == RGB)
    assert [use.node.outputs[0].dtype for use in frame.uses()] == [ir.DataType.FLOAT16]


def test_weight_beyond_the_fp16_range_is_refused(artifacts: Artifacts) -> None:
    model = ir.load(artifacts[1] / "decode.fp32.onnx")
    weight = next(value for name, value in model.graph.initializers.items() if name.endswith("conv_in.weight"))
    weight.const_value = ir.tensor(np.full(weight.const_value.shape.numpy(), 65520, np.float32), name=weight.name)
    with pytest.raises(CCNetError, match=r"reaches 65520, FP16 ends at 65504"):
        to_fp16(model)
