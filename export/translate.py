"""The scan operator in ONNX: NeSCM's recurrence unrolled over the fixed sequence of bands.

Channels are step-major here, (T, 4 streams, n heads): what one step reads is one run of channels, so a step is one
slice of every tensor and all four streams advance in the same few nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnxscript import opset18 as op

from ccnet.scan import STREAMS

Value = Any  # onnxscript's symbolic tensor
Index = npt.NDArray[np.int64]


def read_index(heads: int, bands: int) -> Index:
    """Which plane of x (n·T, then one of zeros) each (step, stream, head) reads."""
    step, stream, head = np.ogrid[:bands, :STREAMS, :heads]
    position = step + stream % 2  # a leading slot is one band ahead
    band = np.where(stream // 2 == 0, position, bands - 1 - position)
    index: Index = np.where(position < bands, head * bands + band, heads * bands)
    return index.ravel()


def write_index(heads: int, bands: int) -> Index:
    """Which step-major channel each (stream, head, band) of the result comes from."""
    stream, head, band = np.ogrid[:STREAMS, :heads, :bands]
    step = np.where(stream // 2 == 0, band, bands - 1 - band)
    index: Index = (step * STREAMS + stream) * heads + head
    return index.ravel()


def scan(x: Value, weight: Value, bias: Value) -> Value:
    """``ccnet::scan``: x (1, n, T, H, W), weight (2, n, 2n), bias (2, n) → (1, 4, n, T, H, W)."""
    heads, bands = int(x.shape[1]), int(x.shape[2])
    channels = STREAMS * heads  # of one step
    size = op.Shape(x, start=3)
    planes = op.Reshape(x, op.Concat(_ints(1, heads * bands), size, axis=0))
    zero_band = op.Pad(planes, _ints(0, 0, 0, 0, 0, 1, 0, 0))
    steps = op.Gather(zero_band, op.Constant(value_ints=read_index(heads, bands).tolist()), axis=1)

    # A direction's two streams share its gates: (2, n, 2n) → (4n, 2n, 1, 1)
    gates = op.Reshape(op.Gather(weight, _ints(0, 0, 1, 1), axis=0), _ints(channels, 2 * heads, 1, 1))
    w_m = op.Slice(gates, _ints(0), _ints(heads), _ints(1))
    w_x = op.Slice(gates, _ints(heads), _ints(2 * heads), _ints(1))
    b = op.Reshape(op.Gather(bias, _ints(0, 0, 1, 1), axis=0), _ints(channels))
    # The gates' x-part needs no memory: all steps at once
    hoisted = op.Conv(
        steps, op.Tile(w_x, _ints(bands, 1, 1, 1)), op.Tile(b, _ints(bands)), group=bands * STREAMS, kernel_shape=[1, 1]
    )

    memories: list[Value] = []
    reads = op.Split(steps, num_outputs=bands, axis=1)
    hoists = op.Split(hoisted, num_outputs=bands, axis=1)
    for x_t, gate_t in zip(reads, hoists, strict=True):
        memories.append(_step(memories[-1], x_t, gate_t, w_m, heads) if memories else _first(x_t, gate_t))
    u = op.Add(op.Tanh(op.Concat(*memories, axis=1)), steps)
    ordered = op.Gather(u, op.Constant(value_ints=write_index(heads, bands).tolist()), axis=1)
    return op.Reshape(ordered, op.Concat(_ints(1, STREAMS, heads, bands), size, axis=0))


def _first(x_t: Value, gate_t: Value) -> Value:
    """Eq. 5 and 6 for m = 0."""
    return op.Sub(x_t, op.Mul(op.Sigmoid(gate_t), x_t))


def _step(m: Value, x_t: Value, gate_t: Value, w_m: Value, heads: int) -> Value:
    if heads == 1:
        mixed = op.Mul(m, op.Reshape(w_m, _ints(1, STREAMS, 1, 1)))
    else:
        mixed = op.Conv(m, w_m, group=STREAMS, kernel_shape=[1, 1])
    s_t = op.Sigmoid(op.Add(mixed, gate_t))  # Eq. 5
    return op.Add(x_t, op.Mul(s_t, op.Sub(m, x_t)))  # Eq. 6


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))
