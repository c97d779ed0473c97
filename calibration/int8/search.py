"""INT8 convolutions: what they cost in accuracy, layer by layer, and the graph that has them.

Weights are quantised per output channel, activations per tensor, both symmetrically, as TensorRT takes them; all other
nodes stay as they are. Layers are ranked by the error that each brings alone for its share of the work, on frames that
were calibrated on; then more and more of them go to INT8, judged on frames that were not. These trials quantise and
dequantise on the FP32 graph, node by node. What is written is the mixed FP16 graph with QuantizeLinear and
DequantizeLinear in front of the chosen convolutions, and it is that file which is accepted or rejected.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.calibration.fp16.bisect import worst
from ccnet.calibration.tensors import Array, Inputs, Tensors, part
from ccnet.contract import CUBE, Artifact, CCNetError, Manifest, sha256, write_atomic
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.quality.tolerances import TOLERANCES, Parity, compare

from .histogram import Histogram
from .qdq import along, channel_scales, quantised, scale, with_int8


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A module's convolutions. macs: multiply-adds on the first frame. error: mean squared, of it in INT8 alone."""

    name: str
    nodes: tuple[str, ...]
    macs: int
    error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Some layers in INT8. share: of the convolutions' multiply-adds. parity: to FP32, the worst of the held frames."""

    observer: str
    layers: tuple[str, ...]
    share: float
    parity: Parity

    @property
    def broken(self) -> list[str]:
        """What breaks the budget; empty if it is kept."""
        return TOLERANCES["int8"].broken_by(self.parity)


Scales = Mapping[str, float]
"""Tensor → the magnitude of a step."""

Feeds = Sequence[Mapping[str, Array]]
ProgressCallback = Callable[[str, int, int], None]
"""Called with what goes on, steps done and steps in all."""

SHARES = tuple(tenths / 10 for tenths in range(1, 11))
"""Of the multiply-adds that are tried in INT8."""


class Int8:
    """Computes a graph's nodes, the named convolutions in INT8 and the others as they are; for ``Tensors.run``."""

    def __init__(self, tensors: Tensors, names: Collection[str], scales: Scales) -> None:
        self._tensors, self._names, self._scales = tensors, frozenset(names), scales
        self._weights: dict[str, Array] = {}

    def __call__(self, node: Any, inputs: Inputs) -> list[Array]:
        if node.name not in self._names:
            return self._tensors.apply(node, inputs)
        tensor, name = node.input[:2]
        x, weight, *bias = inputs
        assert x is not None and weight is not None  # noqa: S101 - for the type checker
        if name not in self._weights:
            self._weights[name] = quantised(weight, along(channel_scales(weight), weight))
        return self._tensors.apply(node, [quantised(x, self._scales[tensor]), self._weights[name], *bias])


class Calibration:
    """Layers, histograms and reference cubes of a float32 ``decode``: all that trials of INT8 need."""

    def __init__(
        self, tensors: Tensors, seen: Feeds, held: Feeds, tell: ProgressCallback = lambda what, done, of: None
    ) -> None:
        """seen: frames to calibrate on. held: others, to judge by."""
        self._tensors, self._seen, self._held, self._tell = tensors, seen, held, tell
        self.histograms: dict[str, Histogram] = {}
        macs: dict[str, int] = {}
        for index, feed in enumerate(seen):
            tell("observe", index, len(seen))
            for node, inputs, outputs in tensors.run(feed):
                if node.op_type != "Conv" or node.input[1] not in tensors.weights:
                    continue
                self.histograms.setdefault(node.input[0], Histogram()).add(np.asarray(inputs[0]))
                if not index:
                    macs[node.name] = outputs[0].size * tensors.weights[node.input[1]][0].size
        self.layers = _layers(tensors, macs)
        self._references = [tensors.evaluate(feed)[CUBE][0] for feed in held]

    def scales(self, choose: Callable[[Histogram], float]) -> dict[str, float]:
        """By an observer."""
        return {name: scale(choose(histogram)) for name, histogram in self.histograms.items()}

    def rank(self, scales: Scales) -> list[Layer]:
        """Layers by the squared error that each brings alone for its multiply-adds, least first; on two frames."""
        feeds, ranked = self._seen[:2], []
        references = [self._tensors.evaluate(feed)[CUBE][0] for feed in feeds]
        for index, layer in enumerate(self.layers):
            self._tell("rank layers", index, len(self.layers))
            int8 = Int8(self._tensors, layer.nodes, scales)
            cubes = [self._tensors.evaluate(feed, int8)[CUBE][0] for feed in feeds]
            errors = [np.mean(np.square(a - b, dtype=np.float64)) for a, b in zip(cubes, references, strict=True)]
            ranked.append(replace(layer, error=float(np.mean(errors))))
        return sorted(ranked, key=lambda one: one.error / one.macs)

    def judge(self, observer: str, scales: Scales, layers: Sequence[Layer]) -> Variant:
        """These layers in INT8 on the frames that were held back."""
        int8 = Int8(self._tensors, _nodes(layers), scales)
        parities = [
            compare(reference, self._tensors.evaluate(feed, int8)[CUBE][0])
            for feed, reference in zip(self._held, self._references, strict=True)
        ]
        return Variant(
            observer=observer,
            layers=tuple(one.name for one in layers),
            share=sum(one.macs for one in layers) / sum(one.macs for one in self.layers),
            parity=worst(parities),
        )

    def graph(self, variant: Variant, scales: Scales, mixed: bytes) -> bytes:
        """The mixed FP16 graph with a variant's layers in INT8."""
        chosen = {node for one in self.layers if one.name in variant.layers for node in one.nodes}
        return with_int8(mixed, {n.name: scales[n.input[0]] for n in self._tensors.nodes if n.name in chosen})

    def judge_file(self, variant: Variant, model: bytes) -> Variant:
        """A variant with the parity of its graph as it will run, through the runtime's own backend."""
        with OnnxRuntimeBackend(model) as backend:
            cubes = [backend.run(feed)[CUBE][0] for feed in self._held]
        parities = map(compare, self._references, cubes)
        return replace(variant, parity=worst([*parities]))

    def variants(self, scales: Mapping[str, Scales]) -> Iterator[Variant]:
        """Each observer's scales with more and more layers, in the order of a ranking by the first of them."""
        ranked = self.rank(next(iter(scales.values())))
        prefixes = _prefixes(ranked)
        for index, (name, count) in enumerate(itertools.product(scales, prefixes)):
            self._tell("judge", index, len(scales) * len(prefixes))
            yield self.judge(name, scales[name], ranked[:count])


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was tried, the best of it, and the same with the parity of its graph.

    model: the graph. held: how many frames it was judged by.
    """

    variants: tuple[Variant, ...]
    best: Variant
    final: Variant
    model: bytes
    held: int


def quantise(
    folder: Path,
    feeds: Feeds,
    observers: Mapping[str, Callable[[Histogram], float]],
    tell: ProgressCallback = lambda what, done, of: None,
) -> Outcome:
    """Search an artifact folder's ``decode``; nothing is written. Every third frame is held back to judge by.

    CCNetError for a folder that is not whole, and for less than two frames.
    """
    if len(feeds) < 2:
        raise CCNetError("1 frame, expected at least 2 different ones: some are held back to judge by")
    manifest = Manifest.read(folder)
    mixed = manifest.find("decode", precision="fp16").read(folder)
    held, seen = feeds[::3], [feed for index, feed in enumerate(feeds) if index % 3]
    calibration = Calibration(Tensors(manifest.find("decode").read(folder)), seen, held, tell)
    scales = {name: calibration.scales(choose) for name, choose in observers.items()}
    variants = tuple(calibration.variants(scales))
    chosen = best(variants)
    model = calibration.graph(chosen, scales[chosen.observer], mixed)
    final = calibration.judge_file(chosen, model)
    return Outcome(variants=variants, best=chosen, final=final, model=model, held=len(held))


def best(variants: Iterable[Variant]) -> Variant:
    """The one with most in INT8 of those within the budget; if there is none, the one with the least error."""
    return max(variants, key=lambda one: (not one.broken, not one.broken and one.share, -one.parity.mrae))


def store(folder: Path, model: bytes, variant: Variant) -> Path:
    """Put the graph into an artifact folder and its manifest, in place of an INT8 graph before it."""
    manifest, path = Manifest.read(folder), folder / "decode.int8.onnx"
    write_atomic(path, model)
    details = {
        "observer": variant.observer,
        "layers": list(variant.layers),
        "share": variant.share,
        "mrae": variant.parity.mrae,
        "budget": variant.broken or "kept",
    }
    artifact = Artifact(
        file=path.name, kind="decode", format="onnx", precision="int8", sha256=sha256(path), details=details
    )
    manifest.with_artifact(artifact).write(folder)
    return path


def _layers(tensors: Tensors, macs: Mapping[str, int]) -> list[Layer]:
    modules: dict[str, list[str]] = {}
    for node in tensors.nodes:
        if node.name in macs:
            modules.setdefault(part(node), []).append(node.name)
    return [Layer(name=n, nodes=tuple(nodes), macs=sum(macs[one] for one in nodes)) for n, nodes in modules.items()]


def _prefixes(ranked: Sequence[Layer]) -> list[int]:
    """How many of the layers make up each of SHARES, at least one."""
    sums = np.cumsum([one.macs for one in ranked])
    return sorted({max(1, int(np.searchsorted(sums, share * sums[-1], side="right"))) for share in SHARES})


def _nodes(layers: Iterable[Layer]) -> list[str]:
    return [node for one in layers for node in one.nodes]
