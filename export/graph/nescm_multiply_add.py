"""NeSCM in ONNX for TensorRT: its recurrence unrolled over the fixed sequence of bands, as multiply-adds.

All four streams of a head advance together: a tensor of a step has a channel for each stream, and a Concat of x's
planes makes what a step reads. A step carries the memory's distance from the band that it reads, d_t = m_{t-1} - x_t:

    s_t = sigmoid(W_m d_t + (W_m + W_x) x_t + b),    m_t = s_t d_t + x_t,    d_{t+1} = m_t - x_{t+1}

TensorRT fuses elementwise nodes to kernels of many steps. So the graph has five times the nodes of ``nescm_unrolled``,
which a runtime that computes node by node opens slowly, and the engine half the kernels:

- the products with W are n² multiply-adds of heads, since a convolution would end a kernel at each step;
- what a step reads is concatenated at the step. Gathered before the first step, it would be stored four times, once for
  each stream, in memory;
- height and width are a single axis in the scan. TensorRT's builder compares all uses of a free size with each other,
  which was almost half of its time with two of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxscript import opset18 as op

from ccnet.ops.scan import STREAMS

from .nescm_unrolled import channel_index, output_gates, slot_index

Value = Any  # onnxscript's symbolic tensor
Index = npt.NDArray[np.int64]


def bands_read(bands: int) -> Index:
    """Return the band that each step and stream reads, ``bands`` where that is beyond the last: (T, 4)."""
    step, stream = np.ogrid[:bands, :STREAMS]
    position = step + stream % 2  # a leading slot is one band ahead
    band = np.where(stream // 2 == 0, position, bands - 1 - position)
    return np.where(position < bands, band, bands)


def nescm(x: Value, groups: int, forget: Value, forget_bias: Value, output: Value, output_bias: Value) -> Value:
    """Translate ``ccnet::nescm``: x (1, C, H, W), forget (2, n, 2n), output (2, n, n, 3, 3, 3) → (1, C, H, W)."""
    heads = int(forget.shape[1])
    bands = int(x.shape[1]) // heads
    flat = _scan(op.Reshape(x, _ints(0, 0, -1)), forget, forget_bias, heads, bands, groups)
    streams = op.Reshape(flat, op.Concat(_ints(1, STREAMS * heads * bands), op.Shape(x, start=2), axis=0))
    slots = slot_index(heads, bands, lambda step, stream, head: (step * heads + head) * STREAMS + stream)
    return output_gates(streams, slots, output, output_bias, heads, bands, groups)


def _scan(x: Value, weight: Value, bias: Value, heads: int, bands: int, groups: int) -> Value:
    """Return tanh(m_t) + x_t, step-major: x (1, C, H·W) → (1, T·n·4, H·W)."""
    w_m, w_x = (op.Slice(weight, _ints(first), _ints(first + heads), _ints(2)) for first in (0, heads))
    of_memory, of_band = (_entries(w, heads * heads) for w in (w_m, op.Add(w_m, w_x)))
    biases = _entries(bias, heads)
    memories: list[Value] = []
    streams = []
    for bands_t in _steps(x, heads, bands, groups):
        if memories:
            distances = [op.Sub(m, x_t) for m, x_t in zip(memories, bands_t, strict=True)]
        else:
            distances = [op.Neg(x_t) for x_t in bands_t]  # m = 0 before the first band
        mixed = _multiply_add(of_memory, distances, _multiply_add(of_band, bands_t, biases))
        gates = [op.Sigmoid(a) for a in mixed]  # Eq. 5
        memories = [op.Add(op.Mul(*pair), x_t) for *pair, x_t in zip(gates, distances, bands_t, strict=True)]  # Eq. 6
        streams += [op.Add(op.Tanh(m), x_t) for m, x_t in zip(memories, bands_t, strict=True)]
    return op.Concat(*streams, axis=1)


def _steps(x: Value, heads: int, bands: int, groups: int) -> Iterator[list[Value]]:
    """Yield the bands that each step reads, a tensor (1, 4, H·W) for each head."""
    planes = list(op.Split(x, num_outputs=heads * bands, axis=1))
    zeros = op.Mul(planes[0], op.Constant(value_float=0.0))
    for of_streams in bands_read(bands).tolist():
        channels = [[channel_index(head, band, heads, bands // groups) for band in of_streams] for head in range(heads)]
        inside = [band < bands for band in of_streams]
        yield [
            op.Concat(*(planes[at] if known else zeros for at, known in zip(row, inside, strict=True)), axis=1)
            for row in channels
        ]


def _entries(weight: Value, count: int) -> list[Value]:
    """Return each number of a direction's weight for all four streams: (2, …) → (1, 4, 1) each."""
    # A direction's two streams share its weights
    flat = op.Reshape(op.Gather(weight, _ints(0, 0, 1, 1), axis=0), _ints(1, STREAMS, count))
    # Slices, as a Split is not folded into constants
    return [op.Slice(flat, _ints(at), _ints(at + 1), _ints(2)) for at in range(count)]


def _multiply_add(weights: list[Value], xs: list[Value], sums: list[Value]) -> list[Value]:
    """Return sums + W x, for each head that W has a row of."""
    added = list(sums)
    for at, weight in enumerate(weights):
        row, column = divmod(at, len(xs))
        added[row] = op.Add(added[row], op.Mul(xs[column], weight))
    return added


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))
