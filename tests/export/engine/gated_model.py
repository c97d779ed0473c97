"""A small network with everything that a builder handles: types, free sizes, uint8 frames, a context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ccnet.contract import CCNetError
from ccnet.export.engine.report import EngineReport, Range

FLOAT, HALF, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


CONTEXT = 8


PLANAR: Mapping[str, Range] = {"rgb": ((1, 3, 16, 16), (1, 3, 64, 64), (1, 3, 128, 96))}


PACKED: Mapping[str, Range] = {"rgb": ((1, 16, 16, 3), (1, 64, 64, 3), (1, 128, 96, 3))}


Build = Callable[..., EngineReport]


def model(
    work: int = FLOAT, *, size: tuple[Any, Any] = ("H", "W"), packed: bool = False, cast_first: bool = True
) -> onnx.ModelProto:
    """Return a graph (rgb, context) → cube that computes in type ``work``: a gated convolution scaled by the context.

    packed: rgb is UINT8 (1, H, W, 3), Cast before it is transposed or after.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    number = np.float16 if work == HALF else np.float32
    rng = np.random.default_rng(0)

    def constant(name: str, value: Any, dtype: Any = number) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(name: str, operator: str, *inputs: str, outputs: tuple[str, ...] = (), **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, outputs or (name,), name=name, **attributes))
        return name

    x = "rgb"
    if packed and not cast_first:
        x = node("planar", "Transpose", x, perm=[0, 3, 1, 2])
    x = node("typed", "Cast", x, to=work)
    if packed and cast_first:
        x = node("planar", "Transpose", x, perm=[0, 3, 1, 2])
    if packed:
        x = node("scaled", "Div", x, constant("full", 255))
    x = node("embed", "Conv", x, constant("kernel", rng.normal(size=(8, 3, 3, 3))), pads=[1, 1, 1, 1])
    node("halves", "Split", x, outputs=("value", "gate"), axis=1, num_outputs=2)
    x = node("gated", "Mul", "value", node("open", "Sigmoid", "gate"))
    matrix = node("matrix", "Reshape", "context", constant("rows", [1, 4, 2, 1], np.int64))
    scale = node("scale", "ReduceMean", matrix, constant("axis", [2], np.int64), keepdims=1)
    x = node("applied", "Mul", x, node("typed_scale", "Cast", scale, to=work))
    node("cube", "Cast", x, to=FLOAT)
    rgb = (UINT8, [1, *size, 3]) if packed else (FLOAT, [1, 3, *size])
    graph = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("rgb", *rgb), helper.make_tensor_value_info("context", FLOAT, [1, CONTEXT])],
        [helper.make_tensor_value_info("cube", FLOAT, [1, 4, *size])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def refusal(call: Callable[..., Any], *args: Any, folder: Path, **options: Any) -> str:
    """Return the message of the CCNetError that the call must raise; only the model may lie in the folder."""
    with pytest.raises(CCNetError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    assert {path.name for path in folder.iterdir()} <= {"model.onnx"}
    return str(caught.value)
