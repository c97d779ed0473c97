"""FP16 emulated node by node, and the search that names the nodes an error comes from: here, those planted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array
from onnx.reference import ReferenceEvaluator

from ccnet.calibration.data import Feed
from ccnet.calibration.fp16.bisect import bisect, fp32_nodes
from ccnet.calibration.fp16.emulate import Half
from ccnet.calibration.tensors import Tensors
from ccnet.contract import MANIFEST_NAME, CCNetError, Manifest
from ccnet.export.graph.mixed_precision import is_kept_fp32, is_residual_sum
from ccnet.model import CCNet
from ccnet.runtime.quality.tolerances import compare


def graph(*nodes: onnx.NodeProto, **weights: Any) -> Tensors:
    """rgb (1, 31, 4, 4) → cube of the same shape."""
    value = [make_tensor_value_info(name, TensorProto.FLOAT, [1, 31, 4, 4]) for name in ("rgb", "cube")]
    constants = [from_array(np.array(array, np.float32), name) for name, array in weights.items()]
    body = make_graph(nodes, "hand-made", value[:1], value[1:], constants)
    return Tensors(make_model(body, opset_imports=[make_opsetid("", 18)]).SerializeToString())


def feed(scale: float = 1.0) -> Feed:
    return {"rgb": np.random.default_rng(0).random((1, 31, 4, 4), np.float32) * np.float32(scale)}


def half(tensors: Tensors, given: Feed) -> Any:
    """The cube with all nodes in FP16."""
    return tensors.evaluate(given, Half(tensors, [node.name for node in tensors.nodes]))["cube"]


# FP16


def test_a_sum_of_squares_overflows_and_its_norm_would_not() -> None:
    tensors = graph(make_node("ReduceL2", ["rgb"], ["cube"], name="m/ReduceL2_0", keepdims=1))
    large = {"rgb": np.full((1, 31, 4, 4), 12.0, np.float32)}
    assert tensors.evaluate(large)["cube"].max() == pytest.approx(12 * np.sqrt(31 * 16))
    assert np.isinf(half(tensors, large)).all()


def test_a_norms_squares_vanish() -> None:
    tensors = graph(make_node("ReduceL2", ["rgb"], ["cube"], name="m/ReduceL2_0", keepdims=1))
    assert half(tensors, {"rgb": np.full((1, 31, 4, 4), 1e-4, np.float32)}).max() == 0


@pytest.mark.parametrize(("deviation", "finite"), [(1.0, True), (200.0, False)])
def test_a_layer_norm_in_fp16(deviation: float, finite: bool) -> None:
    node = make_node("LayerNormalization", ["rgb", "scale", "shift"], ["cube"], name="m/LayerNormalization_0")
    tensors = graph(node, scale=[1, 2, 3, 4], shift=[0.1, 0, 0, 0])
    x = deviation * np.tile(np.float32([-1, 1, -1, 1]), (1, 31, 4, 1))
    found = half(tensors, {"rgb": x})
    expected = tensors.evaluate({"rgb": x})["cube"]
    if finite:
        np.testing.assert_allclose(found, expected, rtol=2e-3)
    else:
        assert not np.allclose(found, expected, rtol=0.1)  # 4 · 200² > 65504: the deviation is infinite


@pytest.mark.parametrize("operator", ["Add", "Mul", "Div", "Sub"])
def test_one_operation_is_ieee_arithmetic(operator: str) -> None:
    tensors = graph(make_node(operator, ["rgb", "w"], ["cube"], name="m/Op_0"), w=np.linspace(0.1, 3, 4))
    exact = {"rgb": feed(100)["rgb"].astype(np.float16).astype(np.float32)}
    w = np.linspace(0.1, 3, 4).astype(np.float32).astype(np.float16)
    numpy = {"Add": np.add, "Mul": np.multiply, "Div": np.divide, "Sub": np.subtract}[operator]
    np.testing.assert_array_equal(half(tensors, exact), numpy(exact["rgb"].astype(np.float16), w))


def test_the_emulation_errs_as_the_reference_evaluator_does(artifacts: tuple[CCNet, Path], photo: Feed) -> None:
    """ONNX's own evaluator has true FP16 semantics, and takes ten times as long. ONNX Runtime errs less."""
    folder = artifacts[1]
    manifest = Manifest.read(folder)
    tensors = Tensors(manifest.find("decode").read(folder))
    mixed = manifest.find("decode", precision="fp16").read(folder)
    kept = fp32_nodes(mixed)
    found = bisect(tensors, [photo], kept=kept, most=1)
    (cube,) = ReferenceEvaluator(onnx.load_model_from_string(mixed)).run(None, dict(photo))
    true = compare(tensors.evaluate(photo)["cube"][0], cube[0])
    assert found.all.mrae == pytest.approx(true.mrae, rel=0.25)
    assert found.all.psnr == pytest.approx(true.psnr, abs=2)


def test_the_islands_are_read_from_the_mixed_graph(artifacts: tuple[CCNet, Path]) -> None:
    folder = artifacts[1]
    manifest = Manifest.read(folder)
    graph = ir.from_proto(onnx.load_model_from_string(manifest.find("decode").read(folder))).graph
    kept = set(fp32_nodes(manifest.find("decode", precision="fp16").read(folder)))
    names = {str(node.name) for node in graph}
    assert kept & names == {str(node.name) for node in graph if is_kept_fp32(node.name) or is_residual_sum(node)}


# The search


@pytest.fixture(scope="module")
def photo(artifacts: tuple[CCNet, Path]) -> Feed:
    size = Manifest.read(artifacts[1]).context_size
    rng = np.random.default_rng(0)
    return {"rgb": rng.random((1, 3, 16, 16), np.float32), "context": np.full((1, size), 0.125, np.float32)}


def test_a_node_that_overflows_is_named() -> None:
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
    assert [one.name for one in found.named] == ["second.part/Mul_0"]
    assert 0 < found.rest.mrae < 1e-3


def planted(model: bytes, tensor: str, offset: float) -> Tensors:
    """A network that adds an offset to a tensor and takes it away again, at once: FP16 loses digits in between."""
    proto = onnx.load_model_from_string(model)
    at = next(index for index, node in enumerate(proto.graph.node) if tensor in node.output)
    for node in proto.graph.node:
        node.input[:] = ["planted" if name == tensor else name for name in node.input]
    proto.graph.node.insert(at + 1, make_node("Add", [tensor, "offset"], ["shifted"], name="culprit.here/Add_0"))
    proto.graph.node.insert(at + 2, make_node("Sub", ["shifted", "offset"], ["planted"], name="culprit.here/Sub_0"))
    proto.graph.initializer.append(from_array(np.float32(offset), "offset"))
    return Tensors(proto.SerializeToString())


def test_a_node_that_loses_digits_is_named(artifacts: tuple[CCNet, Path], photo: Feed) -> None:
    model = Manifest.read(artifacts[1]).find("decode").read(artifacts[1])
    found = bisect(planted(model, "units.0.enc1.intra.net.0/Conv_0", 1000), [photo], most=12)
    assert found.groups[0].name == "culprit" and found.groups[0].nodes == 2 and found.groups[0].split
    assert [one.name for one in found.named] == ["culprit.here/Add_0"]
    assert found.named[0].share > 0.8
    assert found.rest.mrae < found.all.mrae / 2


def test_shares_of_a_sound_network_add_up(artifacts: tuple[CCNet, Path], photo: Feed) -> None:
    tensors = Tensors(Manifest.read(artifacts[1]).find("decode").read(artifacts[1]))
    found = bisect(tensors, [photo], most=6)
    assert sum(one.share for one in found.groups if not one.split) == pytest.approx(1, abs=0.5)
    assert found.all.psnr > 60


def test_kept_nodes_bring_no_error_but_their_casts() -> None:
    norm = make_node("ReduceL2", ["rgb"], ["n"], name="kept/ReduceL2_0", keepdims=1)
    tensors = graph(norm, make_node("Div", ["rgb", "n"], ["cube"], name="rest/Div_0"))
    large = {"rgb": 20 * feed()["rgb"] + 10}
    assert bisect(tensors, [large]).all.mrae > 0.5
    assert bisect(tensors, [large], kept=["kept/ReduceL2_0"]).all.mrae < 1e-2


def test_a_graph_without_error_names_nobody() -> None:
    tensors = graph(make_node("Add", ["rgb", "rgb"], ["cube"], name="m/Add_0"))
    found = bisect(tensors, [{"rgb": np.ones((1, 31, 4, 4), np.float32)}])
    assert found.named == () and found.all.max_abs == 0


# The command


def test_the_command_reports_and_writes(
    artifacts: tuple[CCNet, Path], photos: Path, tmp_path: Path, ccnet: Callable[..., Any]
) -> None:
    out = tmp_path / "bisect.json"
    result = ccnet(
        "calibrate", "bisect", artifacts[1], "-f", photos, "--side", 16, "--groups", 6, "--most", 1, "--json", out
    )
    assert result.code == 0, result.err
    assert "all in FP16, on 1 frame: MRAE" in result.out and "the cause: " in result.out
    report = json.loads(out.read_text())
    assert report["islands"] is True and len(report["groups"]) >= 4
    assert {one["name"] for one in report["named"]} <= {one["name"] for one in report["groups"]}


@pytest.mark.parametrize("command", ["bisect", "int8", "ranges"])
def test_a_hostile_graph_is_one_line(
    artifacts: tuple[CCNet, Path], photos: Path, tmp_path: Path, ccnet: Callable[..., Any], command: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(artifacts[1], folder)
    file = Manifest.read(folder).find("decode").file
    data = bytearray((folder / file).read_bytes())
    data[len(data) // 2 :] = b"\xff" * (len(data) - len(data) // 2)
    (folder / file).write_bytes(data)
    result = ccnet("calibrate", command, folder, "-f", photos, "--side", 16)
    assert result.code == 2 and result.err.strip().count("\n") == 0 and file in result.err


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (make_node("NoSuchOperator", ["rgb"], ["cube"], name="m/Bad_0"), "'m/Bad_0' .NoSuchOperator. cannot be run"),
        (make_node("Add", ["rgb", "nothing"], ["cube"], name="m/Add_0"), "uses 'nothing', which nothing before"),
        (make_node("Reshape", ["rgb", "rgb"], ["cube"], name="m/Reshape_0"), "'m/Reshape_0' .Reshape. cannot be run"),
    ],
)
def test_a_graph_that_cannot_run_names_the_node(node: onnx.NodeProto, words: str) -> None:
    with pytest.raises(CCNetError, match=words) as caught:
        graph(node).evaluate(feed())
    assert "\n" not in str(caught.value)


def test_weights_in_another_file_are_refused() -> None:
    tensors = graph(make_node("Add", ["rgb", "w"], ["cube"], name="m/Add_0"), w=1)
    weight = tensors.proto.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(CCNetError, match="keeps tensors in another file"):
        Tensors(tensors.proto.SerializeToString())


@pytest.mark.parametrize(
    "change", [{"dims": [3]}, {"data_type": 0}, {"data_type": 77}], ids=["size", "no type", "type"]
)
def test_damaged_weights_are_refused(change: dict[str, Any]) -> None:
    proto = graph(make_node("Add", ["rgb", "w"], ["cube"], name="m/Add_0"), w=1).proto
    weight = proto.graph.initializer[0]
    weight.ClearField(next(iter(change)))
    weight.MergeFrom(TensorProto(**change))
    with pytest.raises(CCNetError) as caught:
        Tensors(proto.SerializeToString())
    assert "\n" not in str(caught.value)


def test_the_folder_stays_as_it_is(artifacts: tuple[CCNet, Path]) -> None:
    assert {path.name for path in artifacts[1].iterdir()} == {
        MANIFEST_NAME,
        *(one.file for one in Manifest.read(artifacts[1]).artifacts),
    }
