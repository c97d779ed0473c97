"""NeSCM in ONNX, step by step like section III-C: the paper's loop, which ``ccnet bench`` compares with.

It is written out here since tracing the loop in PyTorch would take minutes.
"""

from __future__ import annotations

from typing import Any

from onnxscript import opset18 as op

Value = Any  # onnxscript's symbolic tensor


def nescm(x: Value, groups: int, forget: Value, forget_bias: Value, output: Value, output_bias: Value) -> Value:
    """Translate ``ccnet::nescm``: x (1, C, H, W), forget (2, n, 2n), output (2, n, n, 3, 3, 3) → (1, C, H, W)."""
    heads = int(forget.shape[1])
    steps = int(x.shape[1]) // heads
    group_bands = steps // groups
    plane = op.Shape(x, start=2)
    split = op.Reshape(x, op.Concat(_ints(1, groups, heads, group_bands), plane, axis=0))
    bands = op.Reshape(op.Transpose(split, perm=[0, 2, 1, 3, 4, 5]), op.Concat(_ints(1, heads, steps), plane, axis=0))
    padded = op.Pad(bands, _ints(0, 0, 1, 0, 0, 0, 0, 1, 0, 0))
    windows = [op.Slice(padded, _ints(step), _ints(step + 3), _ints(2)) for step in range(steps)]
    forward = _direction(windows, *_gates(0, heads, forget, forget_bias, output), output_bias)
    no_bias = op.Mul(output_bias, op.Constant(value_float=0.0))  # both directions' are in the first
    backward = _direction(windows[::-1], *_gates(1, heads, forget, forget_bias, output), no_bias)[::-1]
    features = op.Concat(*(op.Add(*pair) for pair in zip(forward, backward, strict=True)), axis=2)
    ungrouped = op.Reshape(features, op.Concat(_ints(1, heads, groups, group_bands), plane, axis=0))
    return op.Reshape(
        op.Transpose(ungrouped, perm=[0, 2, 1, 3, 4, 5]), op.Concat(_ints(1, heads * steps), plane, axis=0)
    )


def _gates(direction: int, heads: int, forget: Value, forget_bias: Value, output: Value) -> tuple[Value, Value, Value]:
    """Return a direction's weights in the shapes that 3-D convolutions take."""
    weight, bias, kernel = (op.Gather(tensor, _ints(direction), axis=0) for tensor in (forget, forget_bias, output))
    return (
        op.Reshape(weight, _ints(heads, 2 * heads, 1, 1, 1)),
        op.Reshape(bias, _ints(heads)),
        op.Reshape(kernel, _ints(heads, heads, 3, 3, 3)),
    )


def _direction(windows: list[Value], weight: Value, bias: Value, kernel: Value, output_bias: Value) -> list[Value]:
    """Return y_t of every step, each (1, n, 1, H, W)."""
    m = op.Mul(windows[0], op.Constant(value_float=0.0))
    features = []
    for x_t in windows:
        s_t = op.Sigmoid(op.Conv(op.Concat(m, x_t, axis=1), weight, bias, kernel_shape=[1, 1, 1]))  # Eq. 5
        m = op.Add(op.Mul(s_t, m), op.Mul(op.Sub(op.Constant(value_float=1.0), s_t), x_t))  # Eq. 6
        features_t = op.Add(op.Tanh(m), x_t)
        features.append(
            op.Conv(features_t, kernel, output_bias, kernel_shape=[3, 3, 3], pads=[0, 1, 1, 0, 1, 1])
        )  # Eq. 7
    return features


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))
