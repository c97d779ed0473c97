"""``ccnet bench``: its variants do the same work; no test depends on a time."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from ccnet.contract import CCNetError
from ccnet.export.bench import inference, networks, roofline
from ccnet.export.bench.inference import FUSED, LOOP, MHA, TORCH_LOOP, TORCH_MHA
from ccnet.export.bench.networks import PARTS, Network, export_networks, function_of, inputs_of, module_of
from ccnet.export.bench.roofline import Rates
from ccnet.model import CCNet
from ccnet.model.config import CCNetConfig
from ccnet.runtime.backends.onnxruntime import operators

RATES = Rates(copy=1e10, product=1e11)
compiled = pytest.mark.skipif(not operators(), reason="the kernels are not compiled here: no C compiler")


@pytest.fixture(autouse=True)
def only_a_block_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_COMPILED_PARTS", ("CSRM block",))  # a network takes a minute


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_all_variants_of_a_part_do_the_same_work(exported_networks: Mapping[str, Network], part: str) -> None:
    row = inference.measure(exported_networks, part, (32, 48), 1, 1, RATES)
    assert row.difference is not None
    assert row.difference <= 1e-5
    assert {FUSED, LOOP, TORCH_LOOP} <= row.timings.keys()
    assert (MHA in row.timings) is (TORCH_MHA in row.timings) is (part != "NeSCM")
    assert row.roofline is not None
    assert row.roofline > 0


@compiled
@pytest.mark.slow
def test_variants_of_each_network_compute_the_same_result(
    exported_networks: Mapping[str, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All variants of CCNet compute one result, all variants of MHA another."""
    kept: dict[str, np.ndarray] = {}
    take_turns = inference.take_turns

    def keep(works: Mapping[str, inference.Work], repeats: int) -> object:
        timings, results = take_turns(works, repeats)
        kept.update(results)
        return timings, results

    monkeypatch.setattr(inference, "take_turns", keep)
    inference.measure(exported_networks, "full", (32, 48), 1, 1, RATES)
    for variant, result in kept.items():
        same = kept[MHA] if variant.startswith("MHA") else kept[FUSED]
        assert np.abs(result - same).max() <= 1e-5, variant
    assert np.abs(kept[MHA] - kept[FUSED]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")
@pytest.mark.skipif(sys.platform == "win32", reason="signals have no stack of their own there")
def test_interrupt_after_openvino_is_a_keyboard_interrupt() -> None:
    """Interrupt a separate process, because the interrupt used to end it with a segmentation fault."""
    code = """
import os, signal
from ccnet.export.bench import inference, networks
from ccnet.model.config import CCNetConfig
from ccnet.model import CCNet

signal.signal(signal.SIGINT, signal.default_int_handler)
model = CCNet(CCNetConfig(units=1)).eval()
graphs = networks._trace_parts(model)
network = networks.Network(model=model, graphs=graphs, unrolled=graphs, folder=None, seconds=0)
works = [
    inference._openvino_work(inference._openvino(), network, "CSRM block", (32, 48), 1) for _ in range(2)
]
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


def test_roofline_counts_only_its_own_part() -> None:
    model = CCNet(CCNetConfig(units=1)).eval()
    decode, full = (
        roofline.roofline(
            function_of(model, part), module_of(model, part), [*inputs_of(model, part, (32, 48)).values()], RATES
        )
        for part in ("decode", "full")
    )
    assert 0 < decode < full


def test_export_of_networks_without_kernels_is_refused(
    tmp_path: Path, network: CCNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "operators", lambda: None)
    with pytest.raises(CCNetError, match="C compiler"):
        next(export_networks(network, tmp_path))
