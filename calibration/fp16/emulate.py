"""Emulate FP16 as hardware computes it: run a float32 graph and round what its nodes compute.

A node in FP16 has FP16 weights and FP16 outputs; products and convolutions sum in FP32, as tensor cores do. For a
single operation that is exact IEEE arithmetic, since float32 has more than twice FP16's digits. Norms and means are
several operations: their squares, sums and floors are rounded one by one, so that an overflow or underflow inside them
shows, also where a library would sum them in FP32. Not emulated: the order of sums, sums kept in FP16, hardware that
flushes subnormal numbers, and softmax, which counts as one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ccnet.calibration.graph_runner import Array, GraphRunner, NodeInputs, node_attribute, normalised_axes

# fmt: off
DATA_MOVEMENT = {
    "Concat", "Expand", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}
# fmt: on
"""Operators that only move numbers, so that their outputs need no rounding."""


def round_to_fp16(array: Array) -> Array:
    """Round float32 values to the nearest FP16 number, infinite beyond 65504; return other types as they are."""
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)


class Fp16Emulator:
    """Computes some nodes of a graph in FP16 and the others in float32; a ``NodeFunction`` of ``GraphRunner.run``."""

    def __init__(self, runner: GraphRunner, fp16_nodes: Collection[str], cast_values: Collection[str] = ()) -> None:
        """Choose the nodes.

        Args:
            runner: Runs the float32 graph.
            fp16_nodes: Names of the nodes to compute in FP16.
            cast_values: Float32 values that a node in FP16 gets through a Cast; weights always are.
        """
        self._runner, self._fp16_nodes = runner, frozenset(fp16_nodes)
        self._cast_values = frozenset(cast_values) | runner.weights.keys()

    def __call__(self, node: Any, inputs: NodeInputs) -> list[Array]:
        """Return the outputs of a node."""
        if node.name not in self._fp16_nodes:
            return self._runner.compute(node, inputs)
        arguments = [
            round_to_fp16(array) if array is not None and name in self._cast_values else array
            for name, array in zip(node.input, inputs, strict=True)
        ]
        if node.op_type in _REDUCTIONS and arguments[0] is not None and arguments[0].dtype == np.float32:
            with np.errstate(all="ignore"):  # overflow is what the emulation is to show
                return [_REDUCTIONS[node.op_type](node, *arguments)]
        outputs = self._runner.compute(node, arguments)
        return outputs if node.op_type in DATA_MOVEMENT else [round_to_fp16(array) for array in outputs]


def _norm(node: Any, x: Array, axes: Array | None = None) -> Array:
    return round_to_fp16(np.sqrt(_sum(node, round_to_fp16(x * x), axes)))


def _mean(node: Any, x: Array, axes: Array | None = None) -> Array:
    total = _sum(node, x, axes)
    return round_to_fp16(total / np.float32(x.size / max(1, total.size)))


def _sum(node: Any, x: Array, axes: Array | None = None) -> Array:
    keep = node_attribute(node, "keepdims", 1)
    over = None if axes is None else tuple(int(axis) for axis in axes)
    return round_to_fp16(np.asarray(x.sum(axis=over, keepdims=bool(keep), dtype=np.float32)))


def _layer_norm(node: Any, x: Array, scale: Array, shift: Array | None = None) -> Array:
    axes = normalised_axes(node, x)
    epsilon = round_to_fp16(np.float32(node_attribute(node, "epsilon", 1e-5)))
    count = np.float32(np.prod([x.shape[axis] for axis in axes]))

    def mean(values: Array) -> Array:
        return round_to_fp16(round_to_fp16(values.sum(axis=axes, keepdims=True, dtype=np.float32)) / count)

    centred = round_to_fp16(x - mean(x))
    deviation = round_to_fp16(np.sqrt(round_to_fp16(mean(round_to_fp16(centred * centred)) + epsilon)))
    result = round_to_fp16(round_to_fp16(centred / deviation) * scale)
    return result if shift is None else round_to_fp16(result + shift)


_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "LayerNormalization": _layer_norm,
    "ReduceL2": _norm,
    "ReduceMean": _mean,
    "ReduceSum": _sum,
}
"""Operator → its computation with every step rounded."""
