"""Measure the range of every float tensor of a graph on real frames, and judge whether FP16 can hold it.

FP16 ends at 65504. Below 6.1e-5 it loses digits, or flushes to zero if the hardware does so, and below 6e-8 it has
nothing but zero. Lost digits of a small activation are harmless, since the sums that it enters are larger. They are not
harmless where a division follows: in a divisor, in the floor that keeps it from zero, in the sum of squares inside it.

If a bound is proved for any frame (``bounds``) and decides, it is the bound; else the bound is the largest measured
value with headroom.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ccnet.calibration.data import decode_feeds
from ccnet.calibration.graph_runner import Array, GraphRunner, module_name, node_attribute, normalised_axes
from ccnet.contract import RGB, ArtifactFolder
from ccnet.runtime.io.frames import Frame

from .bounds import Bounds, bounds

Proof = Literal["proved", "measured"]
Verdict = Literal["fits", "overflow", "underflow"]
Quantity = Literal["activation", "weight", "sum of squares", "divisor", "floor"]

FP16_MAX = float(np.finfo(np.float16).max)
FP16_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
FP16_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)

HEADROOM = 16
"""How much larger than on the calibration frames a tensor may become on others.

Black and white noise, the worst of the hostile frames tried, brought trained weights to 5 times what photographs did.
"""

_DIVISION_INPUTS = ("sum of squares", "divisor", "floor")
"""Quantities that end up in a divisor, where a value too small for FP16 spoils the result."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The magnitudes of a tensor, or of a quantity that an operator computes inside, over all frames.

    Attributes:
        tensor: Name of the tensor, or of the output of the operator.
        module: Module of the network that it belongs to.
        operator: Operator that computes it; empty for an input.
        what: The quantity.
        largest: Largest measured magnitude.
        smallest: Smallest measured magnitude that is not zero; inf if all are.
        bound: Magnitude that it may reach on other frames.
        proof: ``proved`` if the bound holds for any frame; ``measured`` if it is HEADROOM times the largest magnitude,
            or, for a sum of squares, the sum of terms that are all that large.
        subnormal: Fraction of values below FP16's smallest normal number (6.1e-5), zeros not counted.
        flushed: Fraction of values below FP16's smallest number (6e-8), zeros not counted.
    """

    tensor: str
    module: str
    operator: str
    what: Quantity
    largest: float
    smallest: float
    bound: float
    proof: Proof
    subnormal: float
    flushed: float

    @property
    def part(self) -> str:
        """The end of the module's name, which is the same in every block of the network: ``paf.unit``."""
        return ".".join(self.module.split(".")[-2:])

    @property
    def verdict(self) -> Verdict:
        """``fits`` if FP16 holds the range, else the way in which it does not."""
        if not self.bound <= FP16_MAX:  # NaN does not fit either
            return "overflow"
        return "underflow" if self.what in _DIVISION_INPUTS and self.smallest < FP16_SMALLEST_NORMAL else "fits"

    @property
    def reason(self) -> str:
        """The figures behind a verdict; empty if the range fits."""
        if self.verdict == "overflow":
            return f"overflow: may reach {self.bound:.2g} > {FP16_MAX:.0f} ({self.proof})"
        if self.verdict == "underflow":
            what = "eps lost" if self.what == "floor" else "underflow"
            return f"{what}: {self.smallest:.2g} < {FP16_SMALLEST_NORMAL:.2g}"
        return ""


def measure(
    folder: Path | ArtifactFolder, frames: Sequence[Frame], kind: Literal["encode", "decode"] = "decode"
) -> list[Range]:
    """Measure the ranges in an FP32 graph of an artifact folder, each frame under its own context.

    Args:
        folder: The artifact folder.
        frames: (H, W, 3), sides multiples of the manifest's ``size_multiple``.
        kind: The graph.

    Returns:
        The range of every float32 tensor.
    """
    folder = ArtifactFolder.open(folder)
    feeds = decode_feeds(folder, frames)
    model = folder.read(folder.find(kind))
    if kind == "encode":
        feeds = [{RGB: feed[RGB]} for feed in feeds]
    return measure_graph(model, feeds, bounds(GraphRunner(model), _largest_shapes(feeds)))


def measure_graph(model: bytes, feeds: Sequence[Mapping[str, Array]], proved: Bounds | None = None) -> list[Range]:
    """Measure the ranges in a float32 ONNX graph over all feeds of its inputs.

    Args:
        model: The serialised graph.
        feeds: Inputs of the graph, one mapping a frame.
        proved: Bounds that hold for any input.

    Returns:
        The ranges; those of weights and inputs come first.
    """
    runner = GraphRunner(model)
    known = proved or {}
    found: dict[tuple[str, Quantity], _RangeAccumulator] = {}

    def add(name: str, what: Quantity, node: Any, array: Array, measured: float, proof: float) -> None:
        if array.dtype == np.float32:
            found.setdefault((name, what), _RangeAccumulator(*_origin(node), proof)).add(array, measured)

    user = {name: node for node in reversed(runner.nodes) for name in node.input}
    for name, array in runner.weights.items():
        add(name, "weight", user.get(name), array, _peak(array), _peak(array))
    for feed in feeds:
        for name, array in feed.items():
            add(name, "activation", None, array, HEADROOM * _peak(array), known.get((name, "activation"), math.inf))
        for node, inputs, outputs in runner.run(feed):
            for name, array in zip(filter(None, node.output), outputs, strict=True):
                proof = known.get((name, "activation"), math.inf)
                add(name, "activation", node, array, HEADROOM * _peak(array), proof)
            for what, array, measured, proof in _internal_quantities(node, inputs, outputs, known):
                add(node.output[0], what, node, array, measured, proof)
    return [accumulator.range(tensor, what) for (tensor, what), accumulator in found.items()]


def unfit(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges that FP16 cannot hold."""
    return [tensor for tensor in ranges if tensor.verdict != "fits"]


@dataclass
class _RangeAccumulator:
    """The range of a tensor over the frames so far."""

    module: str
    operator: str
    proof: float
    largest: float = 0.0
    smallest: float = math.inf
    measured: float = 0.0
    values: int = 0
    subnormal: int = 0
    flushed: int = 0

    def add(self, array: Array, measured: float) -> None:
        magnitude = np.abs(array)
        small = magnitude[(magnitude < FP16_SMALLEST_NORMAL) & (magnitude > 0)]
        smallest = (small if small.size else magnitude[magnitude > 0]).min(initial=np.inf)
        self.largest = float(np.maximum(self.largest, magnitude.max(initial=0)))  # NaN stays, which max() may drop
        self.smallest = min(self.smallest, float(smallest))
        self.measured = float(np.maximum(self.measured, measured))
        self.values += magnitude.size
        self.subnormal += small.size
        self.flushed += int(np.count_nonzero(small < FP16_SMALLEST))

    def range(self, tensor: str, what: Quantity) -> Range:
        # A proved bound decides also if it is looser than the measured one: it is certain
        decides = self.proof <= max(self.measured, FP16_MAX)
        return Range(
            tensor=tensor,
            module=self.module,
            operator=self.operator,
            what=what,
            largest=self.largest,
            smallest=self.smallest,
            bound=self.proof if decides else self.measured,
            proof="proved" if decides else "measured",
            subnormal=self.subnormal / max(1, self.values),
            flushed=self.flushed / max(1, self.values),
        )


def _internal_quantities(
    node: Any, inputs: list[Array | None], outputs: list[Array], known: Bounds
) -> Iterator[tuple[Quantity, Array, float, float]]:
    """Yield what a node computes or needs beside its output, with its measured and its proved bound.

    In a layer's norm the squares are of deviations from the mean; they sum to no more than the squares of the values.
    Convolutions and products sum in FP32 on FP16 hardware, so that their outputs suffice.
    """
    operator, x = node.op_type, inputs[0] if inputs else None
    if x is None or x.dtype != np.float32:
        return
    squares = known.get((node.output[0], "sum of squares"), math.inf)
    if operator == "ReduceL2":
        yield "sum of squares", outputs[0] ** 2, _sum_of_squares(x, x.size // max(1, outputs[0].size)), squares
    elif operator == "LayerNormalization":
        axes = normalised_axes(node, x)
        count = math.prod(x.shape[a] for a in axes)
        yield "sum of squares", count * x.var(axis=axes), _sum_of_squares(x, count), squares
        epsilon = np.float32(node_attribute(node, "epsilon", 1e-5))
        yield "floor", np.array(epsilon), float(epsilon), float(epsilon)
    elif operator == "Clip" and len(inputs) > 1 and inputs[1] is not None:
        yield "floor", inputs[1], _peak(inputs[1]), _peak(inputs[1])
    elif operator == "Div" and inputs[1] is not None:
        proof = known.get((node.input[1], "activation"), math.inf)
        yield "divisor", inputs[1], HEADROOM * _peak(inputs[1]), proof


def _largest_shapes(feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return empty inputs as high and as wide as any of the feeds."""
    shapes = {name: np.max([feed[name].shape for feed in feeds], axis=0) for name in feeds[0]}
    return {name: np.empty(shape, feeds[0][name].dtype) for name, shape in shapes.items()}


def _sum_of_squares(x: Array, count: int) -> float:
    return count * (HEADROOM * _peak(x)) ** 2


def _peak(x: Array) -> float:
    return float(np.abs(x).max(initial=0))


def _origin(node: Any) -> tuple[str, str]:
    return (module_name(node), node.op_type) if node is not None else ("", "")
