"""Search for the convolutions that tolerate INT8, and write the graph that has them in INT8.

Weights are quantised per output channel, activations per tensor, both symmetrically, as TensorRT takes them; all other
nodes stay as they are. Layers are ranked by the error that each of them alone brings for its share of the work, on the
calibration set; then more and more of them go to INT8, and are judged on the holdout. These trials quantise and
dequantise on the FP32 graph, node by node. The result is the mixed FP16 graph with QuantizeLinear and DequantizeLinear
in front of the chosen convolutions, and it is that graph which is accepted or rejected.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.calibration.graph_runner import Array, GraphRunner, NodeInputs, module_name
from ccnet.calibration.parity import worst_parity
from ccnet.contract import CUBE, Artifact, ArtifactFolder, CCNetError, sha256, write_atomic
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.io.artifact_lock import lock_artifacts
from ccnet.runtime.quality.tolerances import TOLERANCES, Parity, compare

from .histogram import Histogram
from .qdq import activation_scale, broadcast_channels, channel_scales, insert_qdq, quantise_dequantise

Scales = Mapping[str, float]
"""Tensor → scale, the magnitude of a step."""

Observers = Mapping[str, Callable[[Histogram], float]]
"""Name of an observer → the threshold that it chooses from a histogram."""

Feeds = Sequence[Mapping[str, Array]]

ProgressCallback = Callable[[str, int, int], None]
"""Called with the name of a phase, the steps done and the steps in all."""

SHARES = tuple(tenths / 10 for tenths in range(1, 11))
"""Shares of the multiply-adds to try in INT8."""


def ignore_progress(phase: str, done: int, total: int) -> None:
    """Do nothing, where nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The convolutions of a module.

    Attributes:
        name: Name of the module.
        nodes: Names of its convolutions.
        macs: Multiply-adds on the first frame.
        error: Mean squared error with this layer alone in INT8.
    """

    name: str
    nodes: tuple[str, ...]
    macs: int
    error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A graph with some layers in INT8.

    Attributes:
        observer: Name of the observer that chose the scales.
        layers: Names of the layers.
        share: Their share of the convolutions' multiply-adds.
        parity: Parity with FP32, the worst of the holdout.
    """

    observer: str
    layers: tuple[str, ...]
    share: float
    parity: Parity

    @property
    def broken(self) -> list[str]:
        """The limits of the budget that the variant breaks; empty if it keeps all."""
        return TOLERANCES["int8"].broken_by(self.parity)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The variants that were tried, the best of them, and its graph.

    Attributes:
        variants: All variants, judged by emulation on the FP32 graph.
        best: The best of them.
        final: The best with the parity that its graph has.
        model: The graph of the best, serialised.
        holdout_frames: How many frames judged it.
    """

    variants: tuple[Variant, ...]
    best: Variant
    final: Variant
    model: bytes
    holdout_frames: int


class Int8Emulator:
    """Computes some convolutions of a graph in INT8; a ``NodeFunction`` of ``GraphRunner.run``."""

    def __init__(self, runner: GraphRunner, int8_nodes: Collection[str], scales: Scales) -> None:
        self._runner, self._int8_nodes, self._scales = runner, frozenset(int8_nodes), scales
        self._weights: dict[str, Array] = {}

    def __call__(self, node: Any, inputs: NodeInputs) -> list[Array]:
        """Return the outputs of a node."""
        if node.name not in self._int8_nodes:
            return self._runner.compute(node, inputs)
        tensor, name = node.input[:2]
        x, weight, *bias = (array for array in inputs if array is not None)
        if name not in self._weights:
            scales = broadcast_channels(channel_scales(weight), weight)
            self._weights[name] = quantise_dequantise(weight, scales)
        return self._runner.compute(node, [quantise_dequantise(x, self._scales[tensor]), self._weights[name], *bias])


class Int8Search:
    """Layers, histograms and reference cubes of a float32 ``decode``, and the trials of INT8 that need them."""

    def __init__(
        self,
        runner: GraphRunner,
        calibration_set: Feeds,
        holdout: Feeds,
        on_progress: ProgressCallback = ignore_progress,
    ) -> None:
        """Run the calibration set and collect a histogram of each convolution's input.

        Args:
            runner: Runs the float32 graph.
            calibration_set: Inputs of the graph to choose scales and rank layers by, one mapping a frame.
            holdout: Inputs of other frames, to judge variants by.
            on_progress: Called before each step.
        """
        self._runner, self._calibration_set, self._holdout = runner, calibration_set, holdout
        self._on_progress = on_progress
        self.histograms: dict[str, Histogram] = {}
        macs: dict[str, int] = {}
        for index, feed in enumerate(calibration_set):
            on_progress("observe", index, len(calibration_set))
            for node, inputs, outputs in runner.run(feed):
                if node.op_type != "Conv" or node.input[1] not in runner.weights:
                    continue
                self.histograms.setdefault(node.input[0], Histogram()).add(np.asarray(inputs[0]))
                if not index:
                    macs[node.name] = outputs[0].size * runner.weights[node.input[1]][0].size
        self.layers = _layers(runner, macs)
        self._references = [runner.evaluate(feed)[CUBE][0] for feed in holdout]

    def scales(self, choose: Callable[[Histogram], float]) -> dict[str, float]:
        """Return the scale of each convolution's input for the thresholds that an observer chooses."""
        return {name: activation_scale(choose(histogram)) for name, histogram in self.histograms.items()}

    def rank(self, scales: Scales) -> list[Layer]:
        """Sort the layers by their error alone in INT8 for their multiply-adds.

        Args:
            scales: Scale of each convolution's input.

        Returns:
            The layers with their mean squared errors on two frames of the calibration set, best first.
        """
        feeds, ranked = self._calibration_set[:2], []
        references = [self._runner.evaluate(feed)[CUBE][0] for feed in feeds]
        for index, layer in enumerate(self.layers):
            self._on_progress("rank layers", index, len(self.layers))
            emulator = Int8Emulator(self._runner, layer.nodes, scales)
            cubes = [self._runner.evaluate(feed, emulator)[CUBE][0] for feed in feeds]
            errors = [np.mean(np.square(a - b, dtype=np.float64)) for a, b in zip(cubes, references, strict=True)]
            ranked.append(replace(layer, error=float(np.mean(errors))))
        return sorted(ranked, key=lambda layer: layer.error / layer.macs)

    def judge(self, observer: str, scales: Scales, layers: Sequence[Layer]) -> Variant:
        """Emulate layers in INT8 on the holdout."""
        emulator = Int8Emulator(self._runner, _nodes(layers), scales)
        parities = [
            compare(reference, self._runner.evaluate(feed, emulator)[CUBE][0])
            for feed, reference in zip(self._holdout, self._references, strict=True)
        ]
        return Variant(
            observer=observer,
            layers=tuple(layer.name for layer in layers),
            share=sum(layer.macs for layer in layers) / sum(layer.macs for layer in self.layers),
            parity=worst_parity(parities),
        )

    def graph(self, variant: Variant, scales: Scales, mixed: bytes) -> bytes:
        """Return the mixed FP16 graph with a variant's layers in INT8."""
        chosen = {node for layer in self.layers if layer.name in variant.layers for node in layer.nodes}
        return insert_qdq(mixed, {n.name: scales[n.input[0]] for n in self._runner.nodes if n.name in chosen})

    def judge_graph(self, variant: Variant, model: bytes) -> Variant:
        """Return a variant with the parity that its graph has in the runtime's own backend, on the holdout."""
        with OnnxRuntimeBackend(model) as backend:
            cubes = [backend.run(feed)[CUBE][0] for feed in self._holdout]
        parities = map(compare, self._references, cubes)
        return replace(variant, parity=worst_parity([*parities]))

    def variants(self, scales: Mapping[str, Scales]) -> Iterator[Variant]:
        """Judge each observer's scales with more and more layers, ranked with the scales of the first observer.

        Args:
            scales: Name of an observer → its scales.

        Yields:
            One variant for each observer and share.
        """
        ranked = self.rank(next(iter(scales.values())))
        lengths = _prefix_lengths(ranked)
        for index, (name, length) in enumerate(itertools.product(scales, lengths)):
            self._on_progress("judge", index, len(scales) * len(lengths))
            yield self.judge(name, scales[name], ranked[:length])


def search(
    folder: Path | ArtifactFolder,
    feeds: Feeds,
    observers: Observers,
    on_progress: ProgressCallback = ignore_progress,
) -> SearchResult:
    """Search the convolutions of an artifact folder's ``decode``; nothing is written.

    Args:
        folder: The artifact folder.
        feeds: Inputs of ``decode``, one mapping a frame. Every third frame is the holdout, the others are the
            calibration set.
        observers: The observers to try.
        on_progress: Called before each step.

    Returns:
        The variants and the graph of the best.

    Raises:
        CCNetError: There are fewer than two frames.
    """
    if len(feeds) < 2:
        raise CCNetError("1 frame, expected at least 2 different ones: some are held back to judge by")
    folder = ArtifactFolder.open(folder)
    mixed = folder.read(folder.find("decode", precision="fp16"))
    holdout, calibration_set = feeds[::3], [feed for index, feed in enumerate(feeds) if index % 3]
    runner = GraphRunner(folder.read(folder.find("decode")))
    trials = Int8Search(runner, calibration_set, holdout, on_progress)
    scales = {name: trials.scales(choose) for name, choose in observers.items()}
    variants = tuple(trials.variants(scales))
    chosen = best_variant(variants)
    model = trials.graph(chosen, scales[chosen.observer], mixed)
    final = trials.judge_graph(chosen, model)
    return SearchResult(variants=variants, best=chosen, final=final, model=model, holdout_frames=len(holdout))


def best_variant(variants: Iterable[Variant]) -> Variant:
    """Return the variant within the budget with most work in INT8; if there is none, that with the least error."""
    return max(
        variants, key=lambda variant: (not variant.broken, not variant.broken and variant.share, -variant.parity.mrae)
    )


def write_graph(folder: Path | ArtifactFolder, model: bytes, variant: Variant) -> Path:
    """Write the graph into an artifact folder and its manifest, in place of an older INT8 graph; return its path."""
    root = ArtifactFolder.open(folder).path
    path = root / "decode.int8.onnx"
    details = {
        "observer": variant.observer,
        "layers": list(variant.layers),
        "share": variant.share,
        "mrae": variant.parity.mrae,
        "budget": variant.broken or "kept",
    }
    with lock_artifacts(root):
        opened = ArtifactFolder.open(root)  # as it is now: the search took minutes
        write_atomic(path, model)
        opened.add(
            Artifact(
                file=path.name, kind="decode", format="onnx", precision="int8", sha256=sha256(path), details=details
            )
        )
    return path


def _layers(runner: GraphRunner, macs: Mapping[str, int]) -> list[Layer]:
    """Return the modules with convolutions, without NeSCM, which the graph for engines writes otherwise."""
    modules: dict[str, list[str]] = {}
    for node in runner.nodes:
        if node.name in macs and not module_name(node).endswith("nescm"):
            modules.setdefault(module_name(node), []).append(node.name)
    return [
        Layer(name=name, nodes=tuple(nodes), macs=sum(macs[node] for node in nodes)) for name, nodes in modules.items()
    ]


def _prefix_lengths(ranked: Sequence[Layer]) -> list[int]:
    """Return how many of the first layers make up each of SHARES, at least one."""
    sums = np.cumsum([layer.macs for layer in ranked])
    return sorted({max(1, int(np.searchsorted(sums, share * sums[-1], side="right"))) for share in SHARES})


def _nodes(layers: Iterable[Layer]) -> list[str]:
    return [node for layer in layers for node in layer.nodes]
