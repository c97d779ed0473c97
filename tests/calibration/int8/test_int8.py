"""INT8: thresholds of known distributions, a graph that computes what the trials said, and accept or reject."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector

from ccnet.calibration.data import Feed
from ccnet.calibration.int8 import search as int8
from ccnet.calibration.int8.histogram import BINS, OBSERVERS, Histogram
from ccnet.calibration.int8.qdq import channel_scales, quantised, scale, with_int8
from ccnet.calibration.int8.search import Calibration, Layer, Variant, best
from ccnet.calibration.tensors import Array, Tensors
from ccnet.contract import CCNetError, Manifest
from ccnet.export.engine.builder import BuildOptions, build_engine
from ccnet.model import CCNet
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.quality.tolerances import TOLERANCES, Parity

# Observers


def histogram(*arrays: Array) -> Histogram:
    made = Histogram()
    for array in arrays:
        made.add(array)
    return made


def normal(count: int = 100_000, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def test_min_max_is_the_largest_magnitude() -> None:
    assert histogram(normal(), np.float32([-7.5, 3])).min_max() == 7.5


def test_a_percentile_of_even_values_is_known() -> None:
    made = histogram(np.linspace(-1, 1, 200_001, dtype=np.float32))
    assert made.percentile(90) == pytest.approx(0.9, abs=2 / BINS)
    assert made.percentile(100) == 1


def test_a_percentile_and_entropy_give_up_a_rare_outlier() -> None:
    made = histogram(normal(), np.float32([40]))
    assert made.min_max() == 40
    assert 3.5 < made.percentile() < 4.5
    assert 2 < made.entropy() < 8


def test_entropy_keeps_all_of_an_even_distribution() -> None:
    made = histogram(np.random.default_rng(0).uniform(-1, 1, 500_000).astype(np.float32))
    assert made.entropy() > 0.95


def test_entropy_is_near_what_onnxruntime_finds() -> None:
    values = np.random.default_rng(0).laplace(size=300_000).astype(np.float32)
    collector = HistogramCollector("entropy", True, 2 * BINS + 1, 128, 99.99, "same")
    counts, edges = np.histogram(values, 2 * BINS + 1, (-np.abs(values).max(), np.abs(values).max()))
    theirs = collector.get_entropy_threshold((counts, edges, values.min(), values.max(), np.abs(values).max()), 128)
    assert histogram(values).entropy() == pytest.approx(float(np.abs(theirs[1])), rel=0.35)


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=6), st.randoms())
def test_a_histogram_loses_nothing_and_knows_no_order(scales: list[float], random: Any) -> None:
    """Whatever comes first: bins widen, counts stay, thresholds differ by no more than the wider bins."""
    arrays = [np.float32(one) * normal(500, seed) for seed, one in enumerate(scales)]
    made = histogram(*arrays)
    random.shuffle(arrays)
    again = histogram(*arrays)
    assert made.counts.sum() == again.counts.sum() == 500 * len(arrays)
    assert made.min_max() == again.min_max()
    assert abs(made.percentile(90) - again.percentile(90)) <= 4 * made.peak / BINS
    for choose in OBSERVERS.values():
        assert 0 < choose(made) <= made.peak


def test_zeros_are_left_out_and_alone_are_harmless() -> None:
    made = histogram(np.zeros(1000, np.float32))
    assert [choose(made) for choose in OBSERVERS.values()] == [0, 0, 0]
    assert scale(0) > 0
    assert histogram(np.zeros(10**6, np.float32), np.linspace(0, 1, 101, dtype=np.float32)).percentile(50) > 0.4


# Quantising


@given(st.floats(1e-4, 1e4), st.integers(0, 100))
def test_values_within_a_threshold_are_off_by_half_a_step(threshold: float, seed: int) -> None:
    step = scale(threshold)
    x = np.random.default_rng(seed).uniform(-126 * step, 126 * step, 100).astype(np.float32)
    assert np.abs(quantised(x, step) - x).max() <= 0.5001 * step
    assert quantised(np.float32([1e9, -1e9]), step) == pytest.approx([127 * step, -128 * step])


def test_a_weights_channels_have_their_own_steps() -> None:
    weight = np.float32([1, 1e-3, 0])[:, None, None, None] * normal(27).reshape(3, 1, 3, 3)
    steps = channel_scales(weight)
    assert steps[:2] == pytest.approx(np.abs(weight).max((1, 2, 3))[:2] / 127, rel=1e-2)
    assert steps[2] > 0


# The network


@pytest.fixture(scope="module")
def feeds(artifacts: tuple[CCNet, Path]) -> list[Feed]:
    size = Manifest.read(artifacts[1]).context_size
    rng = np.random.default_rng(0)
    rows: list[Feed] = []
    for _ in range(3):
        colours = rng.random((1, 3, 4, 4), np.float32).repeat(4, 2).repeat(4, 3)
        rows.append({"rgb": colours, "context": np.full((1, size), 0.125, np.float32)})
    return rows


@pytest.fixture(scope="module")
def mixed(artifacts: tuple[CCNet, Path]) -> bytes:
    return Manifest.read(artifacts[1]).find("decode", precision="fp16").read(artifacts[1])


@pytest.fixture(scope="module")
def calibration(artifacts: tuple[CCNet, Path], feeds: list[Feed]) -> Calibration:
    tensors = Tensors(Manifest.read(artifacts[1]).find("decode").read(artifacts[1]))
    return Calibration(tensors, feeds[1:], feeds[:1])


def test_layers_are_all_convolutions(artifacts: tuple[CCNet, Path], calibration: Calibration) -> None:
    tensors = Tensors(Manifest.read(artifacts[1]).find("decode").read(artifacts[1]))
    convolutions = {node.name for node in tensors.nodes if node.op_type == "Conv"}
    assert {node for one in calibration.layers for node in one.nodes} == convolutions
    ends = {one.name: one.macs for one in calibration.layers}
    assert ends["conv_in"] == 16 * 16 * 9 * 3 * 32


def test_the_file_computes_what_the_trial_said(calibration: Calibration, mixed: bytes) -> None:
    """Quantised node by node in float32, and as QuantizeLinear and DequantizeLinear in the mixed FP16 graph."""
    scales = calibration.scales(Histogram.min_max)
    for layers in (calibration.layers, calibration.layers[1:-1]):
        trial = calibration.judge("min-max", scales, layers)
        file = calibration.judge_file(trial, calibration.graph(trial, scales, mixed))
        assert file.parity.mrae == pytest.approx(trial.parity.mrae, rel=0.1)
        assert file.parity.psnr == pytest.approx(trial.parity.psnr, abs=1)


def test_the_graph_is_symmetric_and_per_channel(calibration: Calibration, mixed: bytes) -> None:
    scales = calibration.scales(Histogram.min_max)
    whole = calibration.judge("min-max", scales, calibration.layers)
    proto = onnx.load_model_from_string(calibration.graph(whole, scales, mixed))
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    for node in convolutions:
        x, weight = (makers[name] for name in node.input[:2])
        assert (x.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert weights[weight.input[0]].dtype == np.int8
        assert weights[weight.input[1]].shape == weights[weight.input[0]].shape[:1]
        assert weights[x.input[1]].shape == () and weights[x.input[1]].dtype == np.float16
    zeros = [weights[node.input[2]] for node in proto.graph.node if node.op_type.endswith("quantizeLinear")]
    assert not any(zero.any() for zero in zeros)
    assert not any(node.op_type == "QuantizeLinear" for node in proto.graph.node if node.input[0] in weights)


def test_a_graph_of_another_network_is_refused(mixed: bytes) -> None:
    with pytest.raises(CCNetError, match="no node 'elsewhere/Conv_0'"):
        with_int8(mixed, {"elsewhere/Conv_0": 1.0})


def test_layers_are_ranked_by_what_they_break(calibration: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "layers", calibration.layers[:6])
    scales = calibration.scales(Histogram.min_max)
    coarse = {name: 1e3 if name == "rgb" else step for name, step in scales.items()}
    assert calibration.rank(coarse)[-1].name == "conv_in"


def variant(share: float, mrae: float, observer: str = "min-max") -> Variant:
    parity = Parity(mrae=mrae, sam=0, psnr=60, max_abs=0, mean_abs=0)
    return Variant(observer=observer, layers=("a",), share=share, parity=parity)


def test_the_best_variant_has_most_in_int8_within_the_budget() -> None:
    limit = TOLERANCES["int8"].mrae
    assert limit is not None
    good, better, worse = variant(0.2, limit / 9), variant(0.5, limit), variant(0.9, 1.1 * limit)
    assert best([good, better, worse]) is better
    assert best([worse, variant(1.0, 2 * limit)]) is worse
    assert best([better, closer := variant(0.5, limit / 2, "entropy")]) is closer


def test_prefixes_reach_the_whole() -> None:
    layers = [Layer(name=str(i), nodes=(), macs=1 + i) for i in range(20)]
    prefixes = int8._prefixes(layers)
    assert prefixes == sorted(set(prefixes)) and prefixes[-1] == 20 and prefixes[0] >= 1


@pytest.mark.skipif("tensorrt_rtx" not in trt.available(), reason="tensorrt_rtx is not installed")
def test_tensorrt_rtx_builds_it(calibration: Calibration, mixed: bytes, tmp_path: Path) -> None:
    """The first block, which has all kinds of nodes; the whole takes a minute."""
    scales = calibration.scales(Histogram.min_max)
    dense = [one for one in calibration.layers if ".net." in one.name or one.name.endswith("to_v")]
    chosen = calibration.judge("min-max", scales, dense)
    whole, path = tmp_path / "decode.int8.onnx", tmp_path / "first-block.onnx"
    whole.write_bytes(calibration.graph(chosen, scales, mixed))
    onnx.utils.extract_model(str(whole), str(path), ["rgb", "context"], ["units.0.down1/Conv_0"])
    shapes = {"rgb": ((1, 3, 16, 16), (1, 3, 64, 64), (1, 3, 64, 64))}
    report = build_engine(path, tmp_path / "engine", BuildOptions(backend="tensorrt_rtx", shapes=shapes))
    assert report.bytes > 1e5


# The command


@pytest.fixture
def folder(artifacts: tuple[CCNet, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifacts[1], tmp_path / "copy"))


def test_what_is_accepted_is_written_and_runs(
    folder: Path, photos: Path, tmp_path: Path, ccnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "SHARES", (0.1,))
    monkeypatch.setattr(Calibration, "rank", lambda self, scales: [one for one in self.layers if ".net." in one.name])
    arguments = ["calibrate", "int8", folder, "-f", photos, "--side", 16, "--observer", "min-max"]
    result = ccnet(*arguments, "--json", tmp_path / "int8.json", "--plot", tmp_path / "int8.png")
    assert result.code == 0, result.err
    assert "INT8 is accepted: " in result.out.splitlines()[-1]
    artifact = Manifest.read(folder).find("decode", precision="int8")
    artifact.read(folder)
    assert artifact.details["observer"] == "min-max" and artifact.details["budget"] == "kept"
    report = json.loads((tmp_path / "int8.json").read_text())
    assert report["file"]["broken"] == [] and report["held"] == 1
    assert (tmp_path / "int8.png").read_bytes().startswith(b"\x89PNG")
    frame = np.random.default_rng(0).random((32, 32, 3), np.float32)
    cubes = [run(folder, precision, frame) for precision in ("fp32", "int8")]
    assert np.abs(cubes[0] - cubes[1]).max() < 0.1


def run(folder: Path, precision: Any, frame: Array) -> Array:
    with Reconstructor.open(folder, input_space="camera", backend="onnxruntime", precision=precision) as reconstruct:
        return reconstruct(frame)


def test_what_is_rejected_leaves_the_folder_as_it_was(
    folder: Path, photos: Path, ccnet: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real budget, which all convolutions in INT8 break; and kept where that is asked for."""
    monkeypatch.setattr(int8, "SHARES", (1.0,))
    monkeypatch.setattr(Calibration, "rank", lambda self, scales: self.layers)  # all of them, so in any order
    before = {path: path.read_bytes() for path in folder.iterdir()}
    arguments = ["calibrate", "int8", folder, "-f", photos, "--side", 16, "--observer", "min-max"]
    result = ccnet(*arguments)
    assert result.code == 1 and "INT8 is rejected: mrae " in result.out.splitlines()[-1]
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    result = ccnet(*arguments, "--keep")
    assert result.code == 0 and "and is kept" in result.out.splitlines()[-1]
    assert Manifest.read(folder).find("decode", precision="int8").details["budget"] != "kept"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-f", "photos/astronaut.png"], "1 frame, expected at least 2"),
        (["-f", "photos", "-f", "photos/coffee.jpg"], "expected different frames"),
        (["-f", "photos", "--plot", "nowhere/plot.png"], "nowhere/plot.png: "),
        (["-f", "photos", "--plot", "plot.jpg"], "plot.jpg: "),
        (["-f", "photos", "--json", "photos"], "photos: cannot be written"),
        (["-f", "photos", "--observer", "mean"], "mean"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    folder: Path,
    photos: Path,
    ccnet: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    before = sorted(folder.iterdir())
    result = ccnet("calibrate", "int8", folder, "--side", "16", *arguments)
    assert result.code == 2 and words in result.err
    assert result.err.strip().count("\n") == 0
    assert sorted(folder.iterdir()) == before
