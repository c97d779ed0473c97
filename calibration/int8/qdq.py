"""INT8 in numbers and in a graph: whole steps of a scale, and the nodes that quantise and dequantise.

Weights have a scale for each output channel, activations one for each tensor, all symmetric, as TensorRT takes them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np

from ccnet.calibration.tensors import Array, load, module
from ccnet.contract import CCNetError

from .histogram import STEPS

OPSET, IR_VERSION = 19, 9
"""The oldest whose QuantizeLinear takes FP16. Of what the network uses, nothing else changed since opset 18."""

_LEAST = float(np.finfo(np.float16).smallest_subnormal)
"""Of a scale, which is kept in FP16."""


def scale(threshold: float) -> float:
    """Of STEPS steps to a threshold, in FP16's digits."""
    return max(float(np.float16(threshold / STEPS)), _LEAST)


def quantised(array: Array, step: Array | float) -> Array:
    """Rounded to whole steps and back."""
    return np.asarray(np.clip(np.rint(array / step), -STEPS - 1, STEPS) * step, np.float32)


def channel_scales(weight: Array) -> Array:
    """A step for each output channel (axis 0), in FP16's digits; (O,) float32."""
    peaks = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    return np.asarray(np.maximum(np.float16(peaks / STEPS), _LEAST), np.float32)


def with_int8(model: bytes, steps: Mapping[str, float]) -> bytes:
    """A mixed FP16 graph whose named convolutions take INT8; CCNetError where it is not one of this network.

    steps: of each convolution's input, by the convolution's name.
    """
    onnx = module("onnx")
    proto = load(model)
    insert = _Insert(proto, steps)
    nodes = [new for node in proto.graph.node for new in insert.before(node)]
    lacking = steps.keys() - {node.name for node in nodes}
    if lacking:
        raise CCNetError(f"the mixed graph has no node {min(lacking)!r}, as the FP32 graph has: export again")
    used = {name for node in nodes for name in node.input}
    weights = [one for one in (*proto.graph.initializer, *insert.weights) if one.name in used]
    for field, values in ((proto.graph.node, nodes), (proto.graph.initializer, weights)):
        del field[:]
        field.extend(values)
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    proto.ir_version = IR_VERSION
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


class _Insert:
    """Puts QuantizeLinear and DequantizeLinear in front of convolutions, once for each tensor and step."""

    def __init__(self, proto: Any, steps: Mapping[str, float]) -> None:
        self._onnx, self._steps = module("onnx"), steps
        self._given = {one.name: self._onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
        self._made: set[str] = set()
        self.weights: list[Any] = []

    def before(self, node: Any) -> Iterator[Any]:
        """The nodes that must come, and the node itself."""
        if node.name in self._steps:
            tensor, weight = node.input[:2]
            array = self._given[weight]
            step = np.asarray(self._steps[node.name], array.dtype)
            node.input[0] = yield from self._activation(tensor, step)
            node.input[1] = yield from self._weight(weight, array)
        yield node

    def _activation(self, tensor: str, step: Array) -> Generator[Any, None, str]:
        name = f"{tensor}/int8_{step:.3g}"
        if name not in self._made:
            self._made.add(name)
            scaling = [self._constant(f"{name}/scale", step), self._constant(f"{name}/zero", np.int8(0))]
            yield self._node("QuantizeLinear", [tensor, *scaling], name)
            yield self._node("DequantizeLinear", [name, *scaling], f"{name}/back")
        return f"{name}/back"

    def _weight(self, weight: str, array: Array) -> Generator[Any, None, str]:
        name = f"{weight}/int8"
        if name not in self._made:
            self._made.add(name)
            steps = channel_scales(array.astype(np.float32))
            whole = np.clip(np.rint(array / along(steps, array)), -STEPS, STEPS).astype(np.int8)
            scaling = [steps.astype(array.dtype), np.zeros(len(steps), np.int8)]
            inputs = [name, f"{name}/scale", f"{name}/zero"]
            for one, value in zip(inputs, [whole, *scaling], strict=True):
                self._constant(one, value)
            yield self._node("DequantizeLinear", inputs, f"{name}/back", axis=0)
        return f"{name}/back"

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: int) -> Any:
        return self._onnx.helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes)

    def _constant(self, name: str, value: Any) -> str:
        self.weights.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name


def along(scales: Array, weight: Array) -> Array:
    """The scales of a weight's output channels, (O,) → (O, 1, …)."""
    return scales.reshape(-1, *(1,) * (weight.ndim - 1))
