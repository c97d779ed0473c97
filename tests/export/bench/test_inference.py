"""``ccnet bench``: that its ways do the same work in turns, and what it writes; no times are judged."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from ccnet.contract import CCNetError
from ccnet.export.bench import inference as bench
from ccnet.export.bench import report as bench_report
from ccnet.export.bench.inference import FRAME, LOOP, MHA, OURS, PARTS, TORCH_LOOP, TORCH_MHA, Growth, Rates, Row
from ccnet.export.bench.training import Timing
from ccnet.model import CCNet
from ccnet.model.config import CCNetConfig
from ccnet.runtime.backends.onnxruntime import operators

LIMITS = Rates(copy=1e10, product=1e11)
compiled = pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bench.Network]:
    torch.manual_seed(0)
    model = CCNet(CCNetConfig(units=1)).eval()
    return dict(bench.networks(model, tmp_path_factory.mktemp("networks")))


@pytest.fixture(autouse=True)
def only_a_block_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_COMPILED", ("CSRM block",))  # of a network it takes a minute


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_all_ways_of_a_part_do_the_same_work(made: Mapping[str, bench.Network], part: str) -> None:
    row = bench.measure(made, part, (32, 48), 1, 1, LIMITS)
    assert row.difference is not None
    assert row.difference <= 1e-5
    assert {OURS, LOOP, TORCH_LOOP} <= row.ways.keys()
    assert (MHA in row.ways) is (TORCH_MHA in row.ways) is (part != "NeSCM")
    assert row.floor is not None
    assert row.floor > 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")
@pytest.mark.skipif(sys.platform == "win32", reason="signals have no stack of their own there")
def test_an_interrupt_after_openvino_is_one() -> None:
    """In a process of its own, which it ended by a segmentation fault."""
    code = """
import os, signal
from ccnet.export import bench
from ccnet.model.config import CCNetConfig
from ccnet.model import CCNet

signal.signal(signal.SIGINT, signal.default_int_handler)
model = CCNet(CCNetConfig(units=1)).eval()
graphs = bench._parts(model)
network = bench.Network(model=model, graphs=graphs, unrolled=graphs, folder=None, seconds=0)
works = [bench._openvino_work(bench._openvino(), network, "CSRM block", (32, 48), 1) for _ in range(2)]
while works:
    works.pop(0)()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    child = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True, check=False
    )
    assert child.stdout == "interrupted\n", child.stderr
    assert child.returncode == 0


def test_a_floor_counts_its_own_part_alone() -> None:
    model = CCNet(CCNetConfig(units=1)).eval()
    decode, full = (bench._floor(model, part, (32, 48), LIMITS) for part in ("decode", "full"))
    assert 0 < decode < full


@compiled
@pytest.mark.slow
def test_the_results_of_each_way(made: Mapping[str, bench.Network], monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways of ours give one result, all ways of MHA another."""
    kept: dict[str, np.ndarray] = {}
    turns = bench.take_turns

    def keep(works: Mapping[str, bench.Work], repeats: int) -> object:
        timings, results = turns(works, repeats)
        kept.update(results)
        return timings, results

    monkeypatch.setattr(bench, "take_turns", keep)
    bench.measure(made, "full", (32, 48), 1, 1, LIMITS)
    for way, result in kept.items():
        same = kept[MHA] if way.startswith("MHA") else kept[OURS]
        assert np.abs(result - same).max() <= 1e-5, way
    assert np.abs(kept[MHA] - kept[OURS]).max() > 1e-3


@compiled
@pytest.mark.slow
def test_a_frame_is_read_and_reconstructed(made: Mapping[str, bench.Network]) -> None:
    row = bench.measure(made, FRAME, (40, 56), 1, 1, LIMITS)
    assert row.ways.keys() == {OURS, LOOP, MHA}
    assert row.difference is not None
    assert row.difference <= 1e-5


@compiled
@pytest.mark.slow
def test_growth_is_measured_in_a_process_of_its_own(made: Mapping[str, bench.Network]) -> None:
    fat = np.ones(1 << 29, np.float32)  # 2 GB, which are not the frame's
    found = bench.growth(made["ours"], (512, 512), 1)
    del fat
    assert found.megapixels == pytest.approx(0.262, abs=1e-3)
    assert found.seconds > 0
    assert 50 < found.peak_mb < 2000
    assert found.per_megapixel == pytest.approx(found.seconds / found.megapixels)


def test_ways_take_turns_and_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    seconds = iter(range(1, 17))
    monkeypatch.setattr(bench, "_seconds", lambda work: (next(seconds), work()))

    def work(name: str) -> Callable[[], np.ndarray]:
        return lambda: (turns.append(name), np.zeros(1))[1]

    timings, results = bench.take_turns({"a": work("a"), "b": work("b")}, 8)
    assert turns[:2] == ["a", "b"]
    rounds = [turns[at : at + 2] for at in range(2, 2 + 2 * 8, 2)]
    assert all(sorted(one) == ["a", "b"] for one in rounds)
    assert ["a", "b"] in rounds
    assert ["b", "a"] in rounds
    assert {timings["a"].most, timings["b"].most} >= {16000}
    assert results.keys() == {"a", "b"}


def test_without_kernels_it_says_so(tmp_path: Path, network: CCNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "operators", lambda: None)
    with pytest.raises(CCNetError, match="C compiler"):
        next(bench.networks(network, tmp_path))


@pytest.fixture
def found() -> bench_report.Document:
    ways = {OURS: Timing(median=10, least=9, most=12), MHA: Timing(median=15, least=14, most=20)}
    rows = [Row(name="decode", size=(64, 80), ways=ways, floor=4, difference=2e-7)]
    rows += [Row(name=FRAME, size=(64, 80), ways={OURS: ways[OURS]}, floor=None, difference=None)]
    grown = [Growth(megapixels=2, seconds=9, peak_mb=800)]
    return bench_report.document(rows, grown, LIMITS, {"export, ours": 20.0}, {"repeats": 3, "threads": 2})


def test_the_tables_hold_ratios_and_ours(found: bench_report.Document) -> None:
    text = bench_report.markdown(found)
    assert "| decode | 64×80 | 10 (9 to 12) | 4 | 2e-07 | 1.50× |" in text
    assert "| frame | 64×80 | 10 (9 to 12) | – | – | – |" in text
    assert "| 2.00 | 9.0 | 4.50 | 800 |" in text
    assert "| export, ours | 20.0 |" in text
    assert json.loads(json.dumps(found))["rows"][0]["ratios"][MHA] == 1.5


def test_the_picture_is_one(found: bench_report.Document, tmp_path: Path) -> None:
    from PIL import Image

    bench_report.picture(found, tmp_path / "bench.png")
    with Image.open(tmp_path / "bench.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
