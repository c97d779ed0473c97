"""NeSCM in ONNX: its recurrence unrolled over the fixed sequence of bands, and its output gates as one convolution.

Channels are step-major here, (T, 4 streams, n heads): all that a step reads are adjacent channels, so a step is one
slice of every tensor, and all four streams advance in the same few nodes. A step carries the memory's distance from the
band that it reads, d_t = m_{t-1} - x_t, which is equivalent to the memory and takes one node less:

    s_t = sigmoid(W_m d_t + (W_m + W_x) x_t + b),    d_{t+1} = s_t d_t + (x_t - x_{t+1}),    m_t = s_t d_t + x_t

It has few nodes, each a large one, as suits a runtime that computes node by node; TensorRT has
``nescm_multiply_add``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxscript import opset18 as op

from ccnet.ops.scan import STREAMS

Value = Any  # onnxscript's symbolic tensor
Index = npt.NDArray[np.int64]
Channel = Callable[[Index, Index, Index], Index]

_SLOTS = ((0, -1), (0, 0), (1, 0), (3, 0), (2, 0), (2, 1))
"""For each slot of the directions' windows, forward first: the stream that it reads, and how many bands away."""


def read_index(heads: int, bands: int, groups: int) -> Index:
    """Return the plane that each (step, stream, head) reads.

    Planes are x's n·T channels, ordered group, head, band, and then a plane of zeros.
    """
    step, stream, head = np.ogrid[:bands, :STREAMS, :heads]
    position = step + stream % 2  # a leading slot is one band ahead
    band = np.where(stream // 2 == 0, position, bands - 1 - position)
    return np.where(position < bands, channel_index(head, band, heads, bands // groups), heads * bands).ravel()


def channel_index(head: Any, band: Any, heads: int, group_bands: int) -> Index:
    """Return the channel of a head's band, where a group has ``group_bands`` bands."""
    return (band // group_bands * heads + head) * group_bands + band % group_bands


def slot_index(heads: int, bands: int, channel: Channel) -> tuple[Index, npt.NDArray[np.float32]]:
    """Return the channel of the streams that each (band, slot, head) of the gates reads, and 0 for slots beyond an end.

    Args:
        heads: Number of heads.
        bands: Number of bands.
        channel: The streams' channel of a (step, stream, head).

    Returns:
        The channels, and (bands, slots · heads) of 0 and 1.
    """
    band, slot, head = np.ogrid[:bands, : len(_SLOTS), :heads]
    stream, away = (np.array(column)[slot] for column in zip(*_SLOTS, strict=True))
    centre = np.clip(band + away, 0, bands - 1)
    step = np.where(stream // 2 == 0, centre, bands - 1 - centre)
    index: Index = channel(step, stream, head)
    inside = np.broadcast_to(centre == band + away, index.shape)
    return index.ravel(), inside.reshape(bands, -1).astype(np.float32)


def nescm(x: Value, groups: int, forget: Value, forget_bias: Value, output: Value, output_bias: Value) -> Value:
    """Translate ``ccnet::nescm``: x (1, C, H, W), forget (2, n, 2n), output (2, n, n, 3, 3, 3) → (1, C, H, W)."""
    heads = int(forget.shape[1])
    bands = int(x.shape[1]) // heads
    streams = _scan(x, forget, forget_bias, heads, bands, groups)
    slots = slot_index(heads, bands, lambda step, stream, head: (step * STREAMS + stream) * heads + head)
    return output_gates(streams, slots, output, output_bias, heads, bands, groups)


def output_gates(
    streams: Value,
    slots: tuple[Index, npt.NDArray[np.float32]],
    output: Value,
    output_bias: Value,
    heads: int,
    bands: int,
    groups: int,
) -> Value:
    """Return the features (1, C, H, W) of all streams (1, T·4·n, H, W), see ``slot_index``; Eq. 7."""
    index, inside = slots
    # (direction, out, in, slot, 3, 3) → (out, slots of both directions · in, 3, 3) for every band
    kernel = op.Reshape(op.Transpose(output, perm=[1, 0, 3, 2, 4, 5]), _ints(1, heads, len(_SLOTS) * heads, 3, 3))
    mask = op.Constant(value_floats=inside.ravel().tolist())
    kernels = op.Mul(kernel, op.Reshape(mask, _ints(bands, 1, len(_SLOTS) * heads, 1, 1)))
    weight = op.Reshape(kernels, _ints(bands * heads, len(_SLOTS) * heads, 3, 3))
    bias = op.Tile(output_bias, _ints(bands))
    read = _gather(streams, index)
    features = op.Conv(read, weight, bias, group=bands, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    if heads == 1:
        return features
    order = np.empty(heads * bands, np.int64)
    band, head = np.ogrid[:bands, :heads]
    order[channel_index(head, band, heads, bands // groups)] = band * heads + head
    return _gather(features, order)


def gelu(x: Value, approximate: str = "none") -> Value:
    """Translate ``aten::gelu`` in the order that ONNX Runtime fuses into one node: ((x / √2).erf() + 1) · x · ½."""
    if approximate != "none":
        raise ValueError(f"GELU is approximated by {approximate!r}, expected 'none', as the paper's is")
    one, half, root = (op.Constant(value_float=value) for value in (1.0, 0.5, math.sqrt(2)))
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, root)), one)), half)


def _scan(x: Value, weight: Value, bias: Value, heads: int, bands: int, groups: int) -> Value:
    """Return tanh(m_t) + x_t, step-major: (1, T·4·n, H, W)."""
    step_channels = STREAMS * heads
    read, padded = read_index(heads, bands, groups), op.Pad(x, _ints(0, 0, 0, 0, 0, 1, 0, 0))
    steps = _gather(padded, read)
    # A direction's two streams share its gates: (2, n, 2n) → (4n, 2n, 1, 1)
    gates = op.Reshape(op.Gather(weight, _ints(0, 0, 1, 1), axis=0), _ints(step_channels, 2 * heads, 1, 1))
    w_m = op.Slice(gates, _ints(0), _ints(heads), _ints(1))
    w_x = op.Slice(gates, _ints(heads), _ints(2 * heads), _ints(1))
    b = op.Tile(op.Reshape(op.Gather(bias, _ints(0, 0, 1, 1), axis=0), _ints(step_channels)), _ints(bands))
    # The gates' x-part needs no memory: all steps at once
    tiled = op.Tile(op.Add(w_m, w_x), _ints(bands, 1, 1, 1))
    hoisted = op.Split(op.Conv(steps, tiled, b, group=bands * STREAMS, kernel_shape=[1, 1]), num_outputs=bands, axis=1)
    # Gathered again, not sliced from the steps: TensorRT makes 27 layers from a Slice, 3 from a Gather
    differences = op.Sub(_gather(padded, read[:-step_channels]), _gather(padded, read[step_channels:]))
    changes = op.Split(differences, num_outputs=bands - 1, axis=1)
    distance = op.Neg(_gather(padded, read[:step_channels]))  # m = 0 before the first band
    kept = []
    for step, gate_t in enumerate(hoisted):
        s_t = op.Sigmoid(op.Add(_mixed(distance, w_m, heads), gate_t))  # Eq. 5
        kept.append(op.Mul(s_t, distance))
        if step < bands - 1:
            distance = op.Add(kept[-1], changes[step])  # Eq. 6
    memories = op.Add(op.Concat(*kept, axis=1), steps)
    return op.Add(op.Tanh(memories), steps)


def _mixed(distance: Value, w_m: Value, heads: int) -> Value:
    """Return W_m d_t of all streams."""
    if heads == 1:
        return op.Mul(distance, op.Reshape(w_m, _ints(1, STREAMS, 1, 1)))
    return op.Conv(distance, w_m, group=STREAMS, kernel_shape=[1, 1])


def _gather(x: Value, index: Index) -> Value:
    return op.Gather(x, op.Constant(value_ints=index.tolist()), axis=1)


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))
