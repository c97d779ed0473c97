"""What no frame can exceed: magnitudes carried through a graph, node by node, from inputs that are at most 1.

Every bound follows from those of a node's inputs by a rule that holds for all values within them:

- sums, products, convolutions: of magnitudes, |W| |x| + |b|; whatever moves numbers moves their bounds;
- sigmoid, tanh, erf: of the bound, so at most 1; softmax: 1; a layer's norm of N values: √(N-1) |γ| + |β|;
- a cosine: x / ‖x‖ and the product of two of them are at most 1 (Cauchy-Schwarz), so σ cos + RSE at most |σ| + |RSE|;
- a softmax's mean: between what it weighs.

Bounds are uniform in space, so they hold for frames of any size where nothing is summed over pixels, as in ``decode``;
in ``encode`` for the size that they were made for. They are of real arithmetic: rounding is not in them. A chain of
blocks multiplies them, so that deep in a network they are proved and useless; ``ranges`` says which decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ccnet.calibration.tensors import Array, Inputs, Tensors, attribute, module, normalised_axes

# fmt: off
_MONOTONE = {
    "Add", "Cast", "Concat", "Conv", "ConvTranspose", "Erf", "Expand", "Gather", "Identity", "MatMul", "Mul", "Pad",
    "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "Sigmoid", "Slice", "Split", "Squeeze", "Sum",
    "Tanh", "Transpose", "Unsqueeze",
}
# fmt: on
"""Operators whose result, for magnitudes, bounds the magnitude of their result."""

Bounds = dict[tuple[str, str], float]
"""By tensor, and ``activation`` or, for what a norm sums up inside, ``sum of squares``; inf where nothing is known."""


def bounds(tensors: Tensors, feeds: Mapping[str, Array]) -> Bounds:
    """Bounds of every float32 tensor of a graph whose float32 inputs are in [-1, 1].

    feeds: inputs of the shapes that count; their values do not.
    """
    most = {name: np.full_like(array, 255 if array.dtype == np.uint8 else 1) for name, array in feeds.items()}
    proof = _Proof(tensors, most)
    for _ in tensors.run(most, proof.bound):
        pass
    return proof.found


class _Proof:
    """The bounds found so far, and the rules: a method for each operator that needs one of its own."""

    def __init__(self, tensors: Tensors, inputs: Mapping[str, Array]) -> None:
        self.found: Bounds = {(name, "activation"): 1.0 for name, array in inputs.items() if _is_float(array)}
        self._shapes = {name: array.shape for name, array in (*tensors.weights.items(), *inputs.items())}
        self._tensors = tensors
        self._makers = {name: node for node in tensors.nodes for name in node.output}
        self._rules: dict[str, Callable[..., Array]] = {
            "Clip": self._clip,
            "Div": self._div,
            "LayerNormalization": self._layer_norm,
            "MatMul": self._matmul,
            "Neg": lambda node, x: x,
            "Softmax": lambda node, x: np.ones_like(x),
            "Sub": lambda node, a, b: self._apply(node, "Add", a, b),
        }

    def bound(self, node: Any, inputs: Inputs) -> list[Array]:
        """A node's outputs: bounds for floats, values for what is computed of shapes."""
        most = [np.abs(array) if array is not None and _is_float(array) else array for array in inputs]
        if node.op_type in self._rules and _is_float(most[0]):
            outputs = [self._rules[node.op_type](node, *most)]
        else:
            outputs = self._tensors.apply(node, most)
            if node.op_type not in _MONOTONE and any(map(_is_float, most)):
                outputs = [np.full_like(array, np.inf) if _is_float(array) else array for array in outputs]
        if node.op_type in ("Conv", "ConvTranspose"):  # edges see fewer pixels, and a larger frame has more without
            outputs = [np.broadcast_to(a.max((2, 3), keepdims=True), a.shape).copy() for a in outputs]
        outputs = [np.nan_to_num(a, nan=np.inf, posinf=np.inf) if _is_float(a) else a for a in outputs]  # of 0·inf
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
        if self._unit(node.output[0]):
            return np.ones_like(x)
        if node.input[1] in self._tensors.weights:
            return self._apply(node, "Div", x, divisor)
        return np.full(np.broadcast_shapes(x.shape, divisor.shape), np.inf, np.float32)

    def _layer_norm(self, node: Any, x: Array, scale: Array, shift: Array | None = None) -> Array:
        axes = normalised_axes(node, x)
        # Of deviations from the mean, which are no more than those of the values
        self.found[node.output[0], "sum of squares"] = float(np.square(x, dtype=np.float64).sum(axes).max())
        count = np.prod([x.shape[axis] for axis in axes])
        bound = np.sqrt(count - 1) * scale + (0 if shift is None else shift)
        return np.broadcast_to(bound, x.shape).astype(np.float32)

    def _matmul(self, node: Any, a: Array, b: Array) -> Array:
        product, (left, right) = self._apply(node, "MatMul", a, b), node.input
        softmax = self._maker(left, "Softmax")
        if softmax is not None and attribute(softmax, "axis", -1) in (-1, a.ndim - 1):
            return np.array(np.broadcast_to(b.max(axis=-2, keepdims=True), product.shape))
        turned = self._maker(right, "Transpose")
        last_two = [*range(a.ndim - 2), a.ndim - 1, a.ndim - 2]
        if turned is None or attribute(turned, "perm", []) != last_two:
            return product
        cosine = self._is_unit_row(left) and self._is_unit_row(turned.input[0])
        return np.ones_like(product) if cosine else product

    def _is_unit_row(self, name: str) -> bool:
        """Whether all along a tensor's last axis is one x / ‖x‖, or part of one: of that axis, or of two made one."""
        flat = self._maker(name, "Reshape")
        if flat is None:
            return -1 in self._unit(name)
        *rest, height, width = self._shapes[flat.input[0]]
        return self._shapes[name] == (*rest, height * width) and {-1, -2} <= self._unit(flat.input[0])

    def _unit(self, name: str) -> set[int]:
        """The axes over which a tensor is x / max(‖x‖, floor), counted from the end; empty if it is not."""
        division = self._maker(name, "Div")
        if division is None:
            return set()
        x, divisor = division.input
        floor, axes = self._maker(divisor, "Clip"), set[int]()
        only_floor = floor is not None and not any(floor.input[2:])  # a ceiling could be less than the norm
        norm = self._maker(floor.input[0], "ReduceL2") if only_floor else None
        while norm is not None and attribute(norm, "keepdims", 1):
            axes |= self._axes(norm)
            if norm.input[0] == x:
                return axes
            norm = self._maker(norm.input[0], "ReduceL2")
        return set()

    def _axes(self, norm: Any) -> set[int]:
        given = self._tensors.weights.get(norm.input[1]) if len(norm.input) > 1 else None
        rank = len(self._shapes[norm.input[0]])
        return {int(axis) % rank - rank for axis in (range(rank) if given is None else given)}

    def _maker(self, name: str, operator: str) -> Any:
        """The node that makes a tensor, if it is of this operator."""
        node = self._makers.get(name)
        return node if node is not None and node.op_type == operator else None

    def _apply(self, node: Any, operator: str, *inputs: Array) -> Array:
        """The operator in the node's place, on bounds."""
        if node.op_type != operator:
            node = module("onnx").NodeProto(op_type=operator, name=node.name, input=node.input, output=node.output)
        return self._tensors.apply(node, inputs)[0]


def _is_float(array: Any) -> bool:
    return array is not None and array.dtype == np.float32
