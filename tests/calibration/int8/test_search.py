"""The search for layers that tolerate INT8: how they are ranked, and which variant is the best."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from ccnet.calibration.graph_runner import GraphRunner
from ccnet.calibration.int8 import search as int8
from ccnet.calibration.int8.histogram import Histogram
from ccnet.calibration.int8.search import Int8Search, Layer, Variant, best_variant
from ccnet.contract import Manifest
from ccnet.model import CCNet
from ccnet.runtime.quality.tolerances import TOLERANCES, Parity


def test_layers_are_all_convolutions_with_weights(artifacts: tuple[CCNet, Path], trials: Int8Search) -> None:
    """NeSCM is left out, and GrSCM's product: a convolution by a matrix of the frame, about which nothing is known."""
    data = Manifest.read(artifacts[1]).find("decode").read(artifacts[1])
    weights = {weight.name for weight in onnx.load_model_from_string(data).graph.initializer}
    nodes = GraphRunner(data).nodes
    convolutions = {node.name for node in nodes if node.op_type == "Conv" and node.input[1] in weights}
    convolutions = {name for name in convolutions if "nescm/" not in name}
    assert {node for layer in trials.layers for node in layer.nodes} == convolutions
    ends = {layer.name: layer.macs for layer in trials.layers}
    assert ends["conv_in"] == 16 * 16 * 9 * 3 * 32


def test_layer_with_the_largest_error_is_ranked_last(trials: Int8Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "layers", trials.layers[:6])
    scales = trials.scales(Histogram.min_max)
    coarse = {name: 1e3 if name == "rgb" else step for name, step in scales.items()}
    assert trials.rank(coarse)[-1].name == "conv_in"


def variant(share: float, mrae: float, observer: str = "min-max") -> Variant:
    parity = Parity(mrae=mrae, sam=0, psnr=60, max_abs=0, mean_abs=0)
    return Variant(observer=observer, layers=("a",), share=share, parity=parity)


def test_best_variant_has_most_in_int8_within_the_budget() -> None:
    limit = TOLERANCES["int8"].mrae
    assert limit is not None
    good, better, worse = variant(0.2, limit / 9), variant(0.5, limit), variant(0.9, 1.1 * limit)
    assert best_variant([good, better, worse]) is better
    assert best_variant([worse, variant(1.0, 2 * limit)]) is worse
    assert best_variant([better, closer := variant(0.5, limit / 2, "entropy")]) is closer


def test_prefixes_end_with_all_layers() -> None:
    layers = [Layer(name=str(i), nodes=(), macs=1 + i) for i in range(20)]
    lengths = int8._prefix_lengths(layers)
    assert lengths == sorted(set(lengths)) and lengths[-1] == 20 and lengths[0] >= 1
