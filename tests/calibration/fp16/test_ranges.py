"""Ranges of hand-made graphs, where they are known, and of a network: they justify the FP32-kept nodes of an export."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import skimage.data
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from ccnet.calibration.fp16.ranges import FP16_MAX, HEADROOM, Range, measure, measure_graph, unfit
from ccnet.contract import MANIFEST_KEY, MANIFEST_NAME, Manifest, sha256
from ccnet.export.graph.cut import with_uint8_frames
from ccnet.export.graph.mixed_precision import is_kept_fp32
from ccnet.export.graph.serialize import stamp
from ccnet.model import CCNet
from ccnet.runtime.io.frames import Frame

SIDE = 32

IN_DECODE = {"paf.unit", "intra.norm"}
"""Modules of ``decode`` that are kept in FP32."""


def graph(*nodes: onnx.NodeProto, size: int = 4, **weights: list[float]) -> bytes:
    """Return a graph x (2, size) → y."""
    model = make_model(
        make_graph(
            nodes,
            "hand-made",
            [make_tensor_value_info("x", TensorProto.FLOAT, [2, size])],
            [make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [from_array(np.array(value, np.float32), name) for name, value in weights.items()],
        ),
        opset_imports=[make_opsetid("", 18)],
        ir_version=8,
    )
    return bytes(model.SerializeToString())


def ranges(model: bytes, *values: float) -> dict[tuple[str, str], Range]:
    """Return the ranges by tensor and quantity; x is (2, size), filled with each of the values in turn."""
    size = onnx.load_model_from_string(model).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    feeds = [{"x": np.full((2, size), value, np.float32)} for value in values]
    return {(tensor.tensor, tensor.what): tensor for tensor in measure_graph(model, feeds)}


def doubled() -> bytes:
    return graph(make_node("Add", ["x", "x"], ["y"], name="a.b.c/Add_0"))


def test_graph_within_range_fits() -> None:
    found = ranges(doubled(), 0.5, -3.0)
    y = found["y", "activation"]
    assert (y.largest, y.smallest, y.bound) == (6.0, 1.0, HEADROOM * 6.0)
    assert (y.module, y.part, y.operator) == ("a.b.c", "b.c", "Add")
    assert found["x", "activation"].largest == 3.0
    assert unfit(found.values()) == [] and y.reason == ""


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(FP16_MAX / HEADROOM / 2, "fits"), (FP16_MAX / HEADROOM / 1.9, "overflow"), (math.inf, "overflow")],
)
def test_activation_overflows_with_headroom(value: float, verdict: str) -> None:
    tensor = ranges(doubled(), value)["y", "activation"]
    assert tensor.verdict == verdict
    assert tensor.reason.startswith("overflow: may reach ") == (verdict == "overflow")


@pytest.mark.parametrize("values", [(math.nan, 1.0), (1.0, math.nan)])
def test_nan_never_fits(values: tuple[float, ...]) -> None:
    assert ranges(doubled(), *values)["y", "activation"].verdict == "overflow"


def test_small_activation_is_counted_and_harmless() -> None:
    tensor = ranges(doubled(), 0.0, 1.0, 1e-5, 1e-8)["y", "activation"]
    assert (tensor.subnormal, tensor.flushed) == (0.5, 0.25)
    assert tensor.smallest == np.float32(2e-8)
    assert tensor.verdict == "fits"


def test_zeros_have_no_smallest() -> None:
    assert ranges(doubled(), 0.0)["y", "activation"].smallest == math.inf


@pytest.mark.parametrize(("weight", "verdict"), [(65504.0, "fits"), (65600.0, "overflow"), (1e-7, "fits")])
def test_weight_needs_no_headroom(weight: float, verdict: str) -> None:
    found = ranges(graph(make_node("Mul", ["x", "w"], ["y"], name="m/Mul_0"), w=[weight]), 0.0)
    assert found["w", "weight"].verdict == verdict
    assert found["w", "weight"].module == "m"


@pytest.mark.parametrize(
    ("size", "value", "verdict"),
    [(4, 1.0, "fits"), (4, 9.0, "overflow"), (400, 1.0, "overflow"), (4, 3e-3, "underflow")],
)
def test_norm_holds_a_sum_of_squares(size: int, value: float, verdict: str) -> None:
    node = make_node("ReduceL2", ["x", "axes"], ["y"], name="m/ReduceL2_0")
    model = onnx.load_model_from_string(graph(node, size=size))
    model.graph.initializer.append(from_array(np.array([-1], np.int64), "axes"))
    found = ranges(model.SerializeToString(), value)
    squares = found["y", "sum of squares"]
    assert squares.largest == pytest.approx(size * value**2)
    assert squares.bound == pytest.approx(size * (HEADROOM * value) ** 2)
    assert squares.verdict == verdict
    assert found["y", "activation"].verdict == "fits"


@pytest.mark.parametrize(("attributes", "floor"), [({}, 1e-5), ({"epsilon": 1e-3}, 1e-3), ({"axis": 0}, 1e-5)])
def test_layer_norm_holds_squares_and_a_floor(attributes: dict[str, Any], floor: float) -> None:
    shape = (2, 4) if "axis" in attributes else (4,)
    node = make_node("LayerNormalization", ["x", "scale"], ["y"], name="m/LayerNormalization_0", **attributes)
    model = graph(node, scale=np.ones(shape).tolist())
    x = np.array([[1, 2, 3, 4], [1, 2, 3, 6]], np.float32)
    found = {(tensor.tensor, tensor.what): tensor for tensor in measure_graph(model, [{"x": x}])}
    squares, eps = found["y", "sum of squares"], found["y", "floor"]
    expected = ((x - x.mean()) ** 2).sum() if "axis" in attributes else 14.0
    assert squares.largest == pytest.approx(expected)
    assert squares.bound == math.prod(shape) * (HEADROOM * 6) ** 2
    assert eps.largest == pytest.approx(floor)
    assert eps.verdict == ("underflow" if floor < 6e-5 else "fits")
    assert eps.reason.startswith("eps lost") == (floor < 6e-5)


@pytest.mark.parametrize(("floor", "verdict"), [([1e-6], "underflow"), ([1e-4], "fits")])
def test_floor_of_a_clip_must_be_normal(floor: list[float], verdict: str) -> None:
    model = onnx.load_model_from_string(graph(make_node("Clip", ["x", "least"], ["y"], name="m/Clip_0")))
    model.graph.initializer.append(from_array(np.array(floor[0], np.float32), "least"))
    assert ranges(model.SerializeToString(), 1.0)["y", "floor"].verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(1.0, "fits"), (1e-5, "underflow")])
def test_divisor_must_be_normal(value: float, verdict: str) -> None:
    model = graph(make_node("Div", ["one", "x"], ["y"], name="m/Div_0"), one=[1.0])
    assert ranges(model, value)["y", "divisor"].verdict == verdict


# The network


def centre(picture: Any) -> Frame:
    top, left = (size // 2 - SIDE // 2 for size in picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + SIDE, left : left + SIDE])


def photographs() -> list[Frame]:
    return [centre(picture()) for picture in (skimage.data.astronaut, skimage.data.coffee, skimage.data.chelsea)]


def adversaries() -> Mapping[str, Frame]:
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    hot, noise = black.copy(), np.random.default_rng(0).integers(0, 2, black.shape, np.uint8)
    hot[SIDE // 2, SIDE // 2] = 255
    return {
        "all 0": black,
        "all 1": black + 255,
        "one hot pixel": hot,
        "checkerboard": black + 255 * (np.indices((SIDE, SIDE)).sum(0) % 2)[..., None].astype(np.uint8),
        "noise of the whole range": 255 * noise,
    }


@pytest.fixture(scope="module")
def photograph_ranges(artifacts: tuple[CCNet, Path]) -> list[Range]:
    return measure(artifacts[1], photographs())


@pytest.fixture(scope="module")
def adversary_ranges(artifacts: tuple[CCNet, Path]) -> list[Range]:
    return measure(artifacts[1], [*adversaries().values()])


def as_uint8(source: Path, folder: Path) -> Path:
    """Return the folder that an export with ``input="uint8"`` writes, from a folder with float32 frames."""
    manifest = replace(Manifest.read(source), input="uint8")
    exported = []
    for kind in ("encode", "decode"):
        artifact = manifest.find(kind)
        model = with_uint8_frames(ir.load(source / artifact.file))
        (folder / artifact.file).write_bytes(stamp(model, {MANIFEST_KEY: manifest.to_json()}))
        exported.append(replace(artifact, sha256=sha256(folder / artifact.file)))
    (folder / MANIFEST_NAME).write_text(replace(manifest, artifacts=tuple(exported)).to_json())
    return folder


def test_graphs_of_uint8_frames_have_the_same_ranges(artifacts: tuple[CCNet, Path], tmp_path: Path) -> None:
    frame = adversaries()["noise of the whole range"][:32, :32]
    floats = {tensor.tensor: tensor.largest for tensor in measure(artifacts[1], [frame]) if tensor.what == "activation"}
    bytes_ = {
        tensor.tensor: tensor.largest
        for tensor in measure(as_uint8(artifacts[1], tmp_path), [frame])
        if tensor.what == "activation"
    }
    assert bytes_["cube"] == pytest.approx(floats["cube"], rel=1e-4)
    assert len(bytes_.keys() - floats.keys()) == 3 and floats.keys() - bytes_.keys() == {"rgb"}


@pytest.mark.parametrize("frames", ["photograph_ranges", "adversary_ranges"])
def test_fp32_kept_modules_are_those_that_do_not_fit(
    artifacts: tuple[CCNet, Path], frames: str, request: pytest.FixtureRequest
) -> None:
    found: list[Range] = request.getfixturevalue(frames)
    kept = {tensor.module for tensor in found if is_kept_fp32(f"{tensor.module}/")}
    assert {tensor.module for tensor in unfit(found)} == kept
    assert {tensor.part for tensor in unfit(found)} == IN_DECODE


def test_every_fp32_kept_module_loses_a_floor_on_any_frames(photograph_ranges: list[Range]) -> None:
    lost = {tensor.part for tensor in photograph_ranges if tensor.what == "floor" and tensor.verdict == "underflow"}
    assert lost == IN_DECODE


def test_headroom_covers_adversarial_frames(photograph_ranges: list[Range], adversary_ranges: list[Range]) -> None:
    photo = {tensor.tensor: tensor.largest for tensor in photograph_ranges if tensor.what == "activation"}
    beyond = max(tensor.largest / photo[tensor.tensor] for tensor in adversary_ranges if tensor.what == "activation")
    assert 1 < beyond < HEADROOM


def test_every_float_tensor_of_decode_is_measured(
    artifacts: tuple[CCNet, Path], photograph_ranges: list[Range]
) -> None:
    folder = artifacts[1]
    model = onnx.load(folder / Manifest.read(folder).find("decode").file)
    values = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    floats = {name for name, kind in values.items() if kind == TensorProto.FLOAT} - {
        weight.name for weight in model.graph.initializer
    }
    assert {tensor.tensor for tensor in photograph_ranges if tensor.what == "activation"} == floats | {
        "rgb",
        "context",
        "cube",
    }
