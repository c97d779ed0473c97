"""The compiled operators in ONNX Runtime: their results, the inputs that they refuse, and when they are selected."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

from ccnet.contract import CONTEXT, NATIVE_FORMAT, RGB, ArtifactFolder, CCNetError, Manifest
from ccnet.export.artifacts import export
from ccnet.model import CCNet
from ccnet.model.config import CCNetConfig
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends import select as backend
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, operators
from ccnet.runtime.quality.tolerances import TOLERANCES

pytestmark = pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")

Pair = tuple[OnnxRuntimeBackend, OnnxRuntimeBackend]


@pytest.fixture(scope="module")
def decoders(artifacts: tuple[CCNet, Path]) -> Pair:
    """Return backends of decode as unrolled graph and with the compiled operators."""
    folder = artifacts[1]
    manifest = Manifest.read(folder)
    unrolled, fused = (manifest.find("decode", format=format).read(folder) for format in ("onnx", NATIVE_FORMAT))
    return OnnxRuntimeBackend(unrolled), OnnxRuntimeBackend(fused)


def feeds(artifacts: tuple[CCNet, Path], height: int, width: int) -> dict[str, npt.NDArray[np.float32]]:
    random = np.random.default_rng(height * 1000 + width)
    rgb = random.random((1, 3, height, width), np.float32)
    return {RGB: rgb, CONTEXT: random.random((1, artifacts[0].context_size), np.float32) / 16}


# One patch, one row of patches, tiles of several heights and widths, and more than one row of each
@pytest.mark.parametrize(
    ("height", "width"), [(16, 16), (16, 400), (48, 32), (64, 144), (80, 272), (112, 128), (208, 304)]
)
def test_operators_compute_the_result_of_the_unrolled_graph(
    artifacts: tuple[CCNet, Path], decoders: Pair, height: int, width: int
) -> None:
    inputs = feeds(artifacts, height, width)
    expected, found = (next(iter(one.run(inputs).values())) for one in decoders)
    assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("scale", [0, 1e-20, 1, 1e4])
def test_operators_agree_with_the_graph_at_any_brightness(
    artifacts: tuple[CCNet, Path], decoders: Pair, scale: float
) -> None:
    inputs = feeds(artifacts, 48, 64)
    inputs[RGB] *= np.float32(scale)
    expected, found = (next(iter(one.run(inputs).values())) for one in decoders)
    assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


def test_operators_propagate_nan(artifacts: tuple[CCNet, Path], decoders: Pair) -> None:
    inputs = feeds(artifacts, 48, 64)
    inputs[RGB][0, 1, 20, 30] = np.nan
    expected, found = (np.isnan(next(iter(one.run(inputs).values()))) for one in decoders)
    assert expected.any()
    assert found[expected].all()


@pytest.mark.parametrize("channel", [0, 3, 31])
def test_pooling_propagates_nan(channel: int) -> None:
    """The mean and the maximum of a group are NaN if any of its channels is."""
    x = np.random.default_rng(0).random((2, 32, 8, 12), np.float32)
    x[1, channel, 3, 4] = np.nan
    kernel = np.zeros((2, 1, 1, 3, 3, 3), np.float32)
    kernel[1, 0, 0, 1, 1, 1] = 1  # a band reads the bands after it
    weights = {
        "forget": np.zeros((2, 1, 2), np.float32), "forget_bias": np.zeros((2, 1), np.float32), "output": kernel,
        "output_bias": np.zeros(1, np.float32),
    }  # fmt: skip
    node = onnx.helper.make_node("PooledNeSCM", ["x", *weights], ["y"], domain="ccnet", groups=4)
    graph = onnx.helper.make_graph(
        [node],
        "pooled",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 32, None, None])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(one, key) for key, one in weights.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ccnet", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with OnnxRuntimeBackend(model.SerializeToString()) as opened:
        found = np.isnan(opened.run({"x": x})["y"])
    assert found.shape == (2, 8, 8, 12)
    group = 2 * (channel // 8)
    assert found[1, group : group + 2, 3, 4].all()
    assert not found[0].any()


def test_each_part_becomes_one_node(artifacts: tuple[CCNet, Path]) -> None:
    folder = artifacts[1]
    model = onnx.load_model_from_string(Manifest.read(folder).find("decode", format=NATIVE_FORMAT).read(folder))
    counts = Counter(node.op_type for node in model.graph.node if node.domain)
    # The five blocks of the one unit, its way back up, and the skip around the units
    assert counts == {"GrSCM": 5, "PooledNeSCM": 5, "PAF": 5, "FFN": 5, "Join": 2, "FusedConv": 1}
    assert not {"Tanh", "LayerNormalization", "Softmax", "Erf", "ReduceMax", "ConvTranspose", "Concat"} & {
        node.op_type for node in model.graph.node
    }


@pytest.mark.parametrize("kind", ["encode", "full"])
def test_attention_is_computed_without_keys_and_queries(artifacts: tuple[CCNet, Path], kind: str) -> None:
    folder = artifacts[1]
    model = onnx.load_model_from_string(Manifest.read(folder).find(kind, format=NATIVE_FORMAT).read(folder))
    assert sum(node.op_type == "BandCosine" for node in model.graph.node) == 5
    assert not {"ReduceL2", "Clip"} & {node.op_type for node in model.graph.node}
    assert not [node.name for node in model.graph.node if ".to_k" in node.name or ".to_q" in node.name]


@pytest.mark.parametrize(
    ("changes", "nodes"),
    [
        ({"inter_spectral": "mha"}, {"GrSCM": 5, "FFN": 5, "Join": 2, "FusedConv": 1}),
        ({"fusion": "add"}, {"GrSCM": 5, "NeSCM": 5, "FFN": 5, "Join": 2, "FusedConv": 1}),  # no fusion, so no pooling
        # On the coarsest scale a patch has 2 px
        ({"patch": 8}, {"GrSCM": 5, "PooledNeSCM": 5, "FFN": 5, "PAF": 4, "Join": 2, "FusedConv": 1}),
        (
            {"groups": 32},
            {"GrSCM": 1, "PooledNeSCM": 5, "FFN": 5, "Join": 2, "FusedConv": 1},
        ),  # groups of 1, 2 and 4 bands
        ({"width": 68}, {"GrSCM": 1, "PAF": 5, "FFN": 5, "Join": 2, "FusedConv": 1}),
    ],
)
def test_unsupported_parts_stay_unfused(tmp_path: Path, changes: dict[str, Any], nodes: dict[str, int]) -> None:
    model = CCNet(CCNetConfig(units=1, **changes)).eval()
    manifest = export(model, tmp_path / "ablation")  # export compares it with PyTorch
    data = manifest.find("decode", format=NATIVE_FORMAT).read(tmp_path / "ablation")
    made = onnx.load_model_from_string(data)
    assert Counter(node.op_type for node in made.graph.node if node.domain) == nodes


@pytest.mark.parametrize(
    ("attention", "nodes"),
    [
        ("ccnet", {"GrSCM": 10, "PooledNeSCM": 10, "PAF": 10, "FFN": 10, "Join": 4, "FusedConv": 1}),
        ("mha", {"GrSCM": 10, "FFN": 10, "Join": 4, "FusedConv": 1}),
    ],
)
def test_units_are_repeated_with_their_own_weights(tmp_path: Path, attention: Any, nodes: dict[str, int]) -> None:
    model = CCNet(CCNetConfig(units=2, inter_spectral=attention)).eval()
    manifest = export(model, tmp_path / "two", input="uint8")  # export compares it with PyTorch
    made = onnx.load_model_from_string(manifest.find("decode", format=NATIVE_FORMAT).read(tmp_path / "two"))
    assert Counter(node.op_type for node in made.graph.node if node.domain) == nodes


def damaged(data: bytes, operator: str, index: int, shape: tuple[int, ...]) -> bytes:
    """Return the graph with an input of its first such operator replaced by ones of another shape."""
    model = ir.from_proto(onnx.load_model_from_string(data))
    node = next(node for node in model.graph if node.op_type == operator)
    name = "other"
    other = ir.val(name, const_value=ir.tensor(np.ones(shape, np.float32), name=name))
    model.graph.register_initializer(other)
    node.replace_input_with(index, other)
    return bytes(ir.to_proto(model).SerializeToString())


@pytest.mark.parametrize(
    ("operator", "index", "shape"),
    [
        ("GrSCM", 0, (1, 36, 48, 64)),
        ("GrSCM", 0, (32, 48, 64)),
        ("GrSCM", 1, (32, 16, 1, 1)),
        ("GrSCM", 1, (32, 8)),
        ("GrSCM", 2, (1, 32, 31)),
        ("GrSCM", 2, (2, 32, 32)),
        ("GrSCM", 2, (32, 32)),
        ("GrSCM", 3, (31,)),
        ("GrSCM", 4, (32, 1, 3, 2)),
        ("GrSCM", 5, (31, 1, 3, 3)),
        ("PooledNeSCM", 0, (1, 33, 48, 64)),
        ("PooledNeSCM", 0, (32, 48, 64)),
        ("PooledNeSCM", 1, (2, 3, 6)),
        ("PooledNeSCM", 1, (2, 64, 128)),
        ("PooledNeSCM", 2, (2, 2)),
        ("PooledNeSCM", 3, (2, 1, 1, 3, 3)),
        ("PooledNeSCM", 3, (2, 1, 1, 3, 3, 2)),
        ("PooledNeSCM", 4, (2,)),
        ("PooledNeSCM", 4, ()),
        ("PAF", 1, (1, 32, 48, 60)),
        ("PAF", 2, (1, 17, 48, 64)),
        ("PAF", 2, (1, 4, 48, 64)),
        ("PAF", 2, (8, 48, 64)),
        ("PAF", 3, (17, 2, 3, 3)),
        ("PAF", 3, (4, 2, 3, 2)),
        ("PAF", 4, (3,)),
        ("PAF", 5, (4, 5, 1, 1)),
        ("PAF", 6, (2, 2)),
        ("PAF", 7, (32, 31, 1, 1)),
        ("PAF", 8, (31,)),
        ("Join", 0, (1, 64, 25, 32)),
        ("Join", 1, (1, 128, 12, 15)),
        ("Join", 1, (2, 128, 12, 16)),
        ("Join", 1, (128, 12, 16)),
        ("Join", 2, (2, 2, 64, 127)),
        ("Join", 2, (4, 64, 128)),
        ("Join", 3, (64, 63)),
        ("Join", 4, (63,)),
        ("FFN", 1, (31,)),
        ("FFN", 2, (33,)),
        ("FFN", 3, (126, 32, 1, 1)),
        ("FFN", 3, (128, 32)),
        ("FFN", 4, (128, 9)),
        ("FFN", 5, (32, 127, 1, 1)),
        ("FFN", 5, (1, 1, 1, 1, 1, 1, 1)),
    ],
)
def test_invalid_shapes_are_refused(
    artifacts: tuple[CCNet, Path], operator: str, index: int, shape: tuple[int, ...]
) -> None:
    folder = artifacts[1]
    data = damaged(Manifest.read(folder).find("decode", format=NATIVE_FORMAT).read(folder), operator, index, shape)
    # ONNX Runtime itself refuses a shape that it can check when it loads the graph
    with pytest.raises(CCNetError), OnnxRuntimeBackend(data) as opened:
        opened.run(feeds(artifacts, 48, 64))


@pytest.mark.parametrize(
    ("operator", "key", "value"),
    [
        ("GrSCM", "groups", 0),
        ("GrSCM", "groups", 3),
        ("PooledNeSCM", "groups", 0),
        ("PAF", "patch", 3),
        ("FFN", "epsilon", -1.0),
    ],
)
def test_invalid_attributes_are_refused(artifacts: tuple[CCNet, Path], operator: str, key: str, value: float) -> None:
    folder = artifacts[1]
    model = onnx.load_model_from_string(Manifest.read(folder).find("decode", format=NATIVE_FORMAT).read(folder))
    node = next(node for node in model.graph.node if node.op_type == operator)
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute(key, value))
    with pytest.raises(CCNetError, match="do not fit"), OnnxRuntimeBackend(model.SerializeToString()) as opened:
        opened.run(feeds(artifacts, 48, 64))


def test_operators_are_selected_where_they_are_compiled(
    artifacts: tuple[CCNet, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ArtifactFolder.open(artifacts[1])
    assert backend.select(folder, "onnxruntime").decode.format == NATIVE_FORMAT
    assert backend.select(folder, "onnxruntime", "fp16").decode.format == "onnx"
    monkeypatch.setattr(backend, "operators", lambda: None)
    assert backend.select(folder, "onnxruntime").decode.format == "onnx"


def test_runtime_gives_the_cube_of_pytorch(artifacts: tuple[CCNet, Path]) -> None:
    import torch

    from ccnet.runtime.quality.tolerances import compare

    model, folder = artifacts
    frame = np.random.default_rng(5).random((64, 96, 3), np.float32)
    with Reconstructor.open(folder, input_space="camera") as run:
        assert run.selection.decode.format == NATIVE_FORMAT
        found = run(frame)
    with torch.inference_mode():
        expected = model(torch.from_numpy(frame.transpose(2, 0, 1)[None])).numpy()[0]
    assert not TOLERANCES["fp32"].broken_by(compare(expected, found))


def test_without_a_compiler_only_portable_graphs_are_exported(
    tmp_path: Path, network: CCNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccnet.export.artifacts.operators", lambda: None)
    manifest = export(network, tmp_path / "portable")
    assert {one.format for one in manifest.artifacts} == {"onnx"}
