"""What FP16 cannot hold: the range of every float tensor of a graph on real frames, and a verdict on each.

FP16 ends at 65504; below 6.1e-5 it loses digits, or flushes to zero where the hardware does so, and below 6e-8 it has
nothing but zero. Lost digits of a small activation are harmless, for the sums that it enters are larger. They are not
where something is divided: a divisor, the floor that keeps it from zero, the sum of squares in it.

Where a bound is proved for any frame (``bounds``) and that decides, it is the bound; else it is what was seen, with
headroom.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ccnet.calibration.data import feeds_of
from ccnet.calibration.tensors import Array, Tensors, attribute, normalised_axes, part
from ccnet.contract import RGB, Manifest
from ccnet.runtime.io.frames import Frame

from .bounds import Bounds, bounds

Proof = Literal["proved", "measured"]
Verdict = Literal["fits", "overflow", "underflow"]
What = Literal["activation", "weight", "sum of squares", "divisor", "floor"]

HALF_MAX = float(np.finfo(np.float16).max)
HALF_NORMAL = float(np.finfo(np.float16).smallest_normal)
HALF_LEAST = float(np.finfo(np.float16).smallest_subnormal)

HEADROOM = 16
"""How much larger than on the calibration frames a tensor may become on others.

Black and white noise, the worst of the hostile frames tried, brought trained weights to 5 times what photographs did.
"""

_NEEDED = ("sum of squares", "divisor", "floor")
"""What is divided by, in the end: here a value too small for FP16 is lost to the result."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """A tensor, or what an operator computes inside, over all frames; magnitudes.

    largest, smallest: of what was seen; smallest is of what is not zero, inf if all is.
    bound: what it may reach on other frames. proof: ``proved`` for any frame, or ``measured``: HEADROOM times the
    largest seen, and for a sum of squares all of its terms as large as that.
    subnormal, flushed: fractions of values, zeros apart, that are below FP16's smallest normal number (6.1e-5) and
    smallest number (6e-8).
    """

    tensor: str
    module: str
    operator: str
    what: What
    largest: float
    smallest: float
    bound: float
    proof: Proof
    subnormal: float
    flushed: float

    @property
    def part(self) -> str:
        """The end of the module's name, which every block of the network shares: ``paf.unit``."""
        return ".".join(self.module.split(".")[-2:])

    @property
    def verdict(self) -> Verdict:
        if not self.bound <= HALF_MAX:  # NaN does not fit either
            return "overflow"
        return "underflow" if self.what in _NEEDED and self.smallest < HALF_NORMAL else "fits"

    @property
    def reason(self) -> str:
        """Why it does not fit; empty if it does."""
        if self.verdict == "overflow":
            return f"overflow: may reach {self.bound:.2g} > {HALF_MAX:.0f} ({self.proof})"
        if self.verdict == "underflow":
            what = "eps lost" if self.what == "floor" else "underflow"
            return f"{what}: {self.smallest:.2g} < {HALF_NORMAL:.2g}"
        return ""


def measure(folder: Path, frames: Sequence[Frame], kind: Literal["encode", "decode"] = "decode") -> list[Range]:
    """Ranges in one of an artifact folder's FP32 graphs, each frame under its own context.

    frames: (H, W, 3), sides multiples of the manifest's ``size_multiple``. CCNetError for a folder that is not whole.
    """
    manifest = Manifest.read(folder)
    given = feeds_of(folder, frames)
    model = manifest.find(kind).read(folder)
    if kind == "encode":
        given = [{RGB: feed[RGB]} for feed in given]
    return measure_graph(model, given, bounds(Tensors(model), _largest(given)))


def measure_graph(model: bytes, feeds: Sequence[Mapping[str, Array]], proved: Bounds | None = None) -> list[Range]:
    """Ranges in a float32 ONNX graph, over all feeds of its inputs; weights and inputs come first.

    proved: what is known to hold for all inputs there can be.
    """
    tensors = Tensors(model)
    known = proved or {}
    seen: dict[tuple[str, What], _Seen] = {}

    def see(name: str, what: What, node: Any, array: Array, measured: float, static: float) -> None:
        if array.dtype == np.float32:
            seen.setdefault((name, what), _Seen(*_origin(node), static)).add(array, measured)

    user = {name: node for node in reversed(tensors.nodes) for name in node.input}
    for name, array in tensors.weights.items():
        see(name, "weight", user.get(name), array, _peak(array), _peak(array))
    for feed in feeds:
        for name, array in feed.items():
            see(name, "activation", None, array, HEADROOM * _peak(array), known.get((name, "activation"), math.inf))
        for node, inputs, outputs in tensors.run(feed):
            for name, array in zip(filter(None, node.output), outputs, strict=True):
                static = known.get((name, "activation"), math.inf)
                see(name, "activation", node, array, HEADROOM * _peak(array), static)
            for what, array, measured, static in _inside(node, inputs, outputs, known):
                see(node.output[0], what, node, array, measured, static)
    return [one.range(tensor, what) for (tensor, what), one in seen.items()]


def unfit(ranges: Iterable[Range]) -> list[Range]:
    """Those that FP16 cannot hold."""
    return [one for one in ranges if one.verdict != "fits"]


@dataclass
class _Seen:
    """What has been seen so far."""

    module: str
    operator: str
    static: float
    largest: float = 0.0
    smallest: float = math.inf
    measured: float = 0.0
    values: int = 0
    subnormal: int = 0
    flushed: int = 0

    def add(self, array: Array, measured: float) -> None:
        magnitude = np.abs(array)
        small = magnitude[(magnitude < HALF_NORMAL) & (magnitude > 0)]
        least = (small if small.size else magnitude[magnitude > 0]).min(initial=np.inf)
        self.largest = float(np.maximum(self.largest, magnitude.max(initial=0)))  # NaN stays, which max() may drop
        self.smallest = min(self.smallest, float(least))
        self.measured = float(np.maximum(self.measured, measured))
        self.values += magnitude.size
        self.subnormal += small.size
        self.flushed += int(np.count_nonzero(small < HALF_LEAST))

    def range(self, tensor: str, what: What) -> Range:
        decides = self.static <= max(self.measured, HALF_MAX)  # also if looser than what was seen: it is certain
        return Range(
            tensor=tensor,
            module=self.module,
            operator=self.operator,
            what=what,
            largest=self.largest,
            smallest=self.smallest,
            bound=self.static if decides else self.measured,
            proof="proved" if decides else "measured",
            subnormal=self.subnormal / max(1, self.values),
            flushed=self.flushed / max(1, self.values),
        )


def _inside(
    node: Any, inputs: list[Array | None], outputs: list[Array], known: Bounds
) -> Iterator[tuple[What, Array, float, float]]:
    """What a node computes or needs beside its output, what that may reach by measure, and what by proof.

    In a layer's norm the squares are of deviations from the mean; they sum to no more than the squares of the values.
    Convolutions and products add up in FP32 in FP16 hardware, so that their outputs say all.
    """
    operator, x = node.op_type, inputs[0] if inputs else None
    if x is None or x.dtype != np.float32:
        return
    squares = known.get((node.output[0], "sum of squares"), math.inf)
    if operator == "ReduceL2":
        yield "sum of squares", outputs[0] ** 2, _squares(x, x.size // max(1, outputs[0].size)), squares
    elif operator == "LayerNormalization":
        axes = normalised_axes(node, x)
        count = math.prod(x.shape[a] for a in axes)
        yield "sum of squares", count * x.var(axis=axes), _squares(x, count), squares
        epsilon = np.float32(attribute(node, "epsilon", 1e-5))
        yield "floor", np.array(epsilon), float(epsilon), float(epsilon)
    elif operator == "Clip" and len(inputs) > 1 and inputs[1] is not None:
        yield "floor", inputs[1], _peak(inputs[1]), _peak(inputs[1])
    elif operator == "Div" and inputs[1] is not None:
        static = known.get((node.input[1], "activation"), math.inf)
        yield "divisor", inputs[1], HEADROOM * _peak(inputs[1]), static


def _largest(feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Inputs as high and wide as any of the feeds."""
    shapes = {name: np.max([feed[name].shape for feed in feeds], axis=0) for name in feeds[0]}
    return {name: np.empty(shape, feeds[0][name].dtype) for name, shape in shapes.items()}


def _squares(x: Array, count: int) -> float:
    return count * (HEADROOM * _peak(x)) ** 2


def _peak(x: Array) -> float:
    return float(np.abs(x).max(initial=0))


def _origin(node: Any) -> tuple[str, str]:
    return (part(node), node.op_type) if node is not None else ("", "")
