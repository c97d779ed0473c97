"""FP16 as hardware computes it, emulated on a float32 graph: the graph stays, and what nodes give is rounded.

A node in FP16 has FP16 weights and gives FP16 outputs; products and convolutions sum up in FP32, as tensor cores do.
For one operation that is exact IEEE arithmetic, since float32 has more than twice FP16's digits. Norms and means are
several operations: their squares, sums and floors are rounded one by one, so that what overflows or vanishes inside
them is seen, also where a library would sum them in FP32. Not emulated: the order of sums, sums kept in FP16, hardware
that flushes subnormal numbers, and softmax, which is taken as one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ccnet.calibration.tensors import Array, Inputs, Tensors, attribute, normalised_axes

# fmt: off
MOVERS = {
    "Concat", "Expand", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}
# fmt: on
"""Operators that only move numbers: what they give has the digits of what they get."""


def rounded(array: Array) -> Array:
    """To the nearest FP16 number; beyond 65504 that is infinite."""
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)


class Half:
    """Computes a graph's nodes, those that are named in FP16 and the others in float32; for ``Tensors.run``."""

    def __init__(self, tensors: Tensors, names: Collection[str], cast: Collection[str] = ()) -> None:
        """names: of the nodes in FP16. cast: of values in float32, which a node in FP16 gets by a cast, as weights."""
        self._tensors, self._names = tensors, frozenset(names)
        self._cast = frozenset(cast) | tensors.weights.keys()

    def __call__(self, node: Any, inputs: Inputs) -> list[Array]:
        if node.name not in self._names:
            return self._tensors.apply(node, inputs)
        given = [
            rounded(array) if array is not None and name in self._cast else array
            for name, array in zip(node.input, inputs, strict=True)
        ]
        if node.op_type in _INSIDE and given[0] is not None and given[0].dtype == np.float32:
            with np.errstate(all="ignore"):  # what overflows here is what is looked for
                return [_INSIDE[node.op_type](node, *given)]
        outputs = self._tensors.apply(node, given)
        return outputs if node.op_type in MOVERS else [rounded(array) for array in outputs]


def _norm(node: Any, x: Array, axes: Array | None = None) -> Array:
    return rounded(np.sqrt(_sum(node, rounded(x * x), axes)))


def _mean(node: Any, x: Array, axes: Array | None = None) -> Array:
    total = _sum(node, x, axes)
    return rounded(total / np.float32(x.size / max(1, total.size)))


def _sum(node: Any, x: Array, axes: Array | None) -> Array:
    keep = attribute(node, "keepdims", 1)
    over = None if axes is None else tuple(int(axis) for axis in axes)
    return rounded(np.asarray(x.sum(axis=over, keepdims=bool(keep), dtype=np.float32)))


def _layer_norm(node: Any, x: Array, scale: Array, shift: Array | None = None) -> Array:
    axes = normalised_axes(node, x)
    epsilon = rounded(np.float32(attribute(node, "epsilon", 1e-5)))
    count = np.float32(np.prod([x.shape[axis] for axis in axes]))

    def mean(values: Array) -> Array:
        return rounded(rounded(values.sum(axis=axes, keepdims=True, dtype=np.float32)) / count)

    centred = rounded(x - mean(x))
    deviation = rounded(np.sqrt(rounded(mean(rounded(centred * centred)) + epsilon)))
    result = rounded(rounded(centred / deviation) * scale)
    return result if shift is None else rounded(result + shift)


_INSIDE: dict[str, Callable[..., Array]] = {
    "LayerNormalization": _layer_norm,
    "ReduceL2": _norm,
    "ReduceMean": _mean,
    "ReduceSum": lambda node, x, axes=None: _sum(node, x, axes),
}
