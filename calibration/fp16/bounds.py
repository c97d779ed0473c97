"""Bound the magnitude of every tensor for any frame: carry bounds through a graph, node by node, from inputs up to 1.

Each bound follows from the bounds of a node's inputs by a rule that holds for all values within them:

- sums, products, convolutions: computed on magnitudes, |W| |x| + |b|; operators that move numbers move their bounds;
- sigmoid, tanh, erf: the function of the bound, so at most 1; softmax: 1; the norm of a layer with N values:
  √(N-1) |γ| + |β|;
- a cosine: x / ‖x‖ and the product of two of them are at most 1 (Cauchy-Schwarz), so σ cos + RSE is at most
  |σ| + |RSE|;
- a softmax's mean: no more than the largest value that it weighs.

Bounds are uniform in space, so they hold for frames of any size where nothing is summed over pixels, as in ``decode``;
in ``encode`` they hold for the size that they were computed for. They are bounds of real arithmetic, without rounding.
A chain of blocks multiplies them, so that deep in a network they are proved and far too large; ``ranges`` says which of
them decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ccnet.calibration.graph_runner import (
    Array,
    GraphRunner,
    NodeInputs,
    node_attribute,
    normalised_axes,
    require_module,
)

# fmt: off
_MONOTONE = {
    "Add", "Cast", "Concat", "Conv", "ConvTranspose", "Erf", "Expand", "Gather", "Identity", "MatMul", "Mul", "Pad",
    "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "Sigmoid", "Slice", "Split", "Squeeze", "Sum",
    "Tanh", "Transpose", "Unsqueeze",
}
# fmt: on
"""Operators whose result, computed on magnitudes, bounds the magnitude of their result."""

Bounds = dict[tuple[str, str], float]
"""(tensor, quantity) → bound, inf where none is known; the quantity is ``activation`` or, inside a norm, ``sum of
squares``."""


def bounds(runner: GraphRunner, feeds: Mapping[str, Array]) -> Bounds:
    """Bound every float32 tensor of a graph whose float32 inputs are in [-1, 1].

    Args:
        runner: Runs the float32 graph.
        feeds: Inputs of the wanted shapes and types; their values are not used.

    Returns:
        The bounds of all tensors.
    """
    largest = {name: np.full_like(array, 255 if array.dtype == np.uint8 else 1) for name, array in feeds.items()}
    propagation = _BoundPropagation(runner, largest)
    for _ in runner.run(largest, propagation.bound):
        pass
    return propagation.found


class _BoundPropagation:
    """The bounds found so far, and the rules: one method for each operator with a rule of its own."""

    def __init__(self, runner: GraphRunner, inputs: Mapping[str, Array]) -> None:
        self.found: Bounds = {(name, "activation"): 1.0 for name, array in inputs.items() if _is_float(array)}
        self._shapes = {name: array.shape for name, array in (*runner.weights.items(), *inputs.items())}
        self._runner = runner
        self._producers = {name: node for node in runner.nodes for name in node.output}
        self._rules: dict[str, Callable[..., Array]] = {
            "Clip": self._clip,
            "Div": self._div,
            "LayerNormalization": self._layer_norm,
            "MatMul": self._matmul,
            "Neg": lambda node, x: x,
            "Softmax": lambda node, x: np.ones_like(x),
            "Sub": lambda node, a, b: self._compute(node, "Add", a, b),
        }

    def bound(self, node: Any, inputs: NodeInputs) -> list[Array]:
        """Return a node's outputs: bounds for floats, and values for integers, which are computed from shapes."""
        magnitudes = [np.abs(array) if array is not None and _is_float(array) else array for array in inputs]
        if node.op_type in self._rules and _is_float(magnitudes[0]):
            outputs = [self._rules[node.op_type](node, *magnitudes)]
        else:
            outputs = self._runner.compute(node, magnitudes)
            if node.op_type not in _MONOTONE and any(map(_is_float, magnitudes)):
                outputs = [np.full_like(array, np.inf) if _is_float(array) else array for array in outputs]
        if node.op_type in ("Conv", "ConvTranspose"):  # borders sum over fewer pixels than the centre of a larger frame
            outputs = [np.broadcast_to(a.max((2, 3), keepdims=True), a.shape).copy() for a in outputs]
        outputs = [np.nan_to_num(a, nan=np.inf, posinf=np.inf) if _is_float(a) else a for a in outputs]  # 0·inf is NaN
        for name, array in zip(filter(None, node.output), outputs, strict=True):
            self._shapes[name] = array.shape
            if _is_float(array):
                self.found[name, "activation"] = float(array.max(initial=0))
                if node.op_type == "ReduceL2":
                    self.found[name, "sum of squares"] = float(array.max(initial=0)) ** 2
        return outputs

    def _clip(self, node: Any, x: Array, *limits: Array | None) -> Array:
        return np.asarray(np.maximum.reduce([x, *(np.full_like(x, limit) for limit in limits if limit is not None)]))

    def _div(self, node: Any, x: Array, divisor: Array) -> Array:
        if self._normalised_over(node.output[0]):
            return np.ones_like(x)
        if node.input[1] in self._runner.weights:
            return self._compute(node, "Div", x, divisor)
        return np.full(np.broadcast_shapes(x.shape, divisor.shape), np.inf, np.float32)

    def _layer_norm(self, node: Any, x: Array, scale: Array, shift: Array | None = None) -> Array:
        axes = normalised_axes(node, x)
        # The squares are of deviations from the mean, whose sum is no more than that of the values' squares
        self.found[node.output[0], "sum of squares"] = float(np.square(x, dtype=np.float64).sum(axes).max())
        count = np.prod([x.shape[axis] for axis in axes])
        bound = np.sqrt(count - 1) * scale + (0 if shift is None else shift)
        return np.broadcast_to(bound, x.shape).astype(np.float32)

    def _matmul(self, node: Any, a: Array, b: Array) -> Array:
        product, (left, right) = self._compute(node, "MatMul", a, b), node.input
        softmax = self._producer(left, "Softmax")
        if softmax is not None and node_attribute(softmax, "axis", -1) in (-1, a.ndim - 1):
            return np.array(np.broadcast_to(b.max(axis=-2, keepdims=True), product.shape))
        transpose = self._producer(right, "Transpose")
        last_two = [*range(a.ndim - 2), a.ndim - 1, a.ndim - 2]
        if transpose is None or node_attribute(transpose, "perm", []) != last_two:
            return product
        cosine = self._has_unit_rows(left) and self._has_unit_rows(transpose.input[0])
        return np.ones_like(product) if cosine else product

    def _has_unit_rows(self, name: str) -> bool:
        """Return True if each row along a tensor's last axis is x / ‖x‖, or a part of it.

        The last axis may be two axes of the normalised tensor that a Reshape joined.
        """
        reshape = self._producer(name, "Reshape")
        if reshape is None:
            return -1 in self._normalised_over(name)
        *rest, height, width = self._shapes[reshape.input[0]]
        joined = self._shapes[name] == (*rest, height * width)
        return joined and {-1, -2} <= self._normalised_over(reshape.input[0])

    def _normalised_over(self, name: str) -> set[int]:
        """Return the axes, counted from the end, over which a tensor is x / max(‖x‖, floor); empty if it is not."""
        division = self._producer(name, "Div")
        if division is None:
            return set()
        x, divisor = division.input
        floor, axes = self._producer(divisor, "Clip"), set[int]()
        only_floor = floor is not None and not any(floor.input[2:])  # a ceiling could be less than the norm
        norm = self._producer(floor.input[0], "ReduceL2") if only_floor else None
        while norm is not None and node_attribute(norm, "keepdims", 1):
            axes |= self._reduced_axes(norm)
            if norm.input[0] == x:
                return axes
            norm = self._producer(norm.input[0], "ReduceL2")
        return set()

    def _reduced_axes(self, norm: Any) -> set[int]:
        axes = self._runner.weights.get(norm.input[1]) if len(norm.input) > 1 else None
        rank = len(self._shapes[norm.input[0]])
        return {int(axis) % rank - rank for axis in (range(rank) if axes is None else axes)}

    def _producer(self, name: str, operator: str) -> Any:
        """Return the node that computes a tensor if it is of this operator, else None."""
        node = self._producers.get(name)
        return node if node is not None and node.op_type == operator else None

    def _compute(self, node: Any, operator: str, *inputs: Array) -> Array:
        """Compute an operator in the place of a node."""
        if node.op_type != operator:
            node = require_module("onnx").NodeProto(
                op_type=operator, name=node.name, input=node.input, output=node.output
            )
        return self._runner.compute(node, inputs)[0]


def _is_float(array: Any) -> bool:
    return array is not None and array.dtype == np.float32
