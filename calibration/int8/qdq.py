"""Quantise to INT8, in numbers and in a graph: steps of a scale, and the nodes that quantise and dequantise (Q/DQ).

Weights have a scale for each output channel, activations a scale for each tensor. All are symmetric, as TensorRT takes
them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np

from ccnet.calibration.graph_runner import Array, load_model, require_module
from ccnet.contract import CCNetError

from .histogram import STEPS

OPSET, IR_VERSION = 19, 9
"""The oldest versions whose QuantizeLinear takes FP16. No other operator of the network changed since opset 18."""

_SMALLEST_SCALE = float(np.finfo(np.float16).smallest_subnormal)
"""Scales are kept in FP16."""


def activation_scale(threshold: float) -> float:
    """Return the scale that divides a threshold into STEPS steps, rounded to FP16."""
    return max(float(np.float16(threshold / STEPS)), _SMALLEST_SCALE)


def channel_scales(weight: Array) -> Array:
    """Return the scale of each output channel (axis 0) of a weight, rounded to FP16: (O,) float32."""
    peaks = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    return np.asarray(np.maximum(np.float16(peaks / STEPS), _SMALLEST_SCALE), np.float32)


def broadcast_channels(scales: Array, weight: Array) -> Array:
    """Reshape the scales of a weight's output channels to broadcast over it: (O,) → (O, 1, …)."""
    return scales.reshape(-1, *(1,) * (weight.ndim - 1))


def quantise_dequantise(array: Array, scale: Array | float) -> Array:
    """Round to whole steps of a scale within INT8's range, and return them as float32 values."""
    return np.asarray(np.clip(np.rint(array / scale), -STEPS - 1, STEPS) * scale, np.float32)


def insert_qdq(model: bytes, scales: Mapping[str, float]) -> bytes:
    """Convert convolutions of a mixed FP16 graph to INT8.

    Args:
        model: The serialised mixed graph.
        scales: Name of each convolution to convert → scale of its input.

    Returns:
        The graph with QuantizeLinear and DequantizeLinear in front of the convolutions.

    Raises:
        CCNetError: The graph has no node of such a name.
    """
    onnx = require_module("onnx")
    proto = load_model(model)
    inserter = _QdqInserter(proto, scales)
    nodes = [new for node in proto.graph.node for new in inserter.expand(node)]
    missing = scales.keys() - {node.name for node in nodes}
    if missing:
        raise CCNetError(f"the mixed graph has no node {min(missing)!r}, as the FP32 graph has: export again")
    used = {name for node in nodes for name in node.input}
    weights = [weight for weight in (*proto.graph.initializer, *inserter.weights) if weight.name in used]
    for field, values in ((proto.graph.node, nodes), (proto.graph.initializer, weights)):
        del field[:]
        field.extend(values)
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    proto.ir_version = IR_VERSION
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


class _QdqInserter:
    """Puts QuantizeLinear and DequantizeLinear in front of convolutions, once for each tensor and scale.

    Attributes:
        weights: The initializers that the new nodes need.
    """

    def __init__(self, proto: Any, scales: Mapping[str, float]) -> None:
        self._onnx, self._scales = require_module("onnx"), scales
        self._arrays = {weight.name: self._onnx.numpy_helper.to_array(weight) for weight in proto.graph.initializer}
        self._quantised: set[str] = set()
        self.weights: list[Any] = []

    def expand(self, node: Any) -> Iterator[Any]:
        """Yield the nodes to put in front of a node, and the node itself with its new inputs."""
        if node.name in self._scales:
            tensor, weight = node.input[:2]
            array = self._arrays[weight]
            scale = np.asarray(self._scales[node.name], array.dtype)
            node.input[0] = yield from self._activation(tensor, scale)
            node.input[1] = yield from self._weight(weight, array)
        yield node

    def _activation(self, tensor: str, scale: Array) -> Generator[Any, None, str]:
        name = f"{tensor}/int8_{scale:.3g}"
        if name not in self._quantised:
            self._quantised.add(name)
            scaling = [self._constant(f"{name}/scale", scale), self._constant(f"{name}/zero", np.int8(0))]
            yield self._node("QuantizeLinear", [tensor, *scaling], name)
            yield self._node("DequantizeLinear", [name, *scaling], f"{name}/back")
        return f"{name}/back"

    def _weight(self, weight: str, array: Array) -> Generator[Any, None, str]:
        name = f"{weight}/int8"
        if name not in self._quantised:
            self._quantised.add(name)
            scales = channel_scales(array.astype(np.float32))
            steps = np.clip(np.rint(array / broadcast_channels(scales, array)), -STEPS, STEPS).astype(np.int8)
            scaling = [scales.astype(array.dtype), np.zeros(len(scales), np.int8)]
            inputs = [name, f"{name}/scale", f"{name}/zero"]
            for constant, value in zip(inputs, [steps, *scaling], strict=True):
                self._constant(constant, value)
            yield self._node("DequantizeLinear", inputs, f"{name}/back", axis=0)
        return f"{name}/back"

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: int) -> Any:
        return self._onnx.helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes)

    def _constant(self, name: str, value: Any) -> str:
        self.weights.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name
