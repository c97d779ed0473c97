"""Manifests that lie about engines: an engine that does not fit this machine is never loaded."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ccnet.contract import CCNetError, Manifest
from ccnet.export.engine.plan import plan
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends import select as backend
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.cli.contents import describe_file
from ccnet.runtime.tiles.resident import opening

from .artifacts import RTX

LIES: list[object] = [
    None,
    True,
    "yes",
    0,
    -1,
    1.5,
    1 << 70,
    "",
    "10.3.0",
    "1.7.1.116",
    "RTX 4090 (sm_89)",
    "x\x1b[31m",
    [],
    [16, 64],
]
LIES += [[64], ["a", "b"], [None, None], {}, {"HALF": "x"}, {"HALF": [1]}]


DETAILS = ("version", "gpu", "compatible", "stripped", "window", "types", "layers", "inputs", "structure")


@pytest.mark.usefixtures("pretended")
def test_hundred_false_engine_entries_are_one_line_each(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version, another GPU, or words that make no sense: what does not fit this machine is never loaded."""
    loaded: list[str] = []
    times = 0

    def load(data: bytes, **options: Any) -> Any:
        loaded.append("it is loaded")
        raise CCNetError(loaded[-1])

    monkeypatch.setattr(backend, "TensorRTBackend", load)
    monkeypatch.setattr(backend, "Engine", load)
    monkeypatch.setattr(opening, "Device", lambda index: nullcontext())
    monkeypatch.setattr(trt, "title", lambda name: f"{name} 1.7.1")
    rng, honest = np.random.default_rng(0), Manifest.read(work)
    for _ in range(100):
        decode = honest.find("decode", format="tensorrt_rtx", precision="fp16")  # which is opened first
        lies = {str(key): LIES[rng.integers(len(LIES))] for key in rng.choice(DETAILS, int(rng.integers(1, 4)))}
        lying = replace(decode, details={**decode.details, **lies})
        honest.with_artifact(lying).write(work)
        loaded.clear()
        for ask in (
            lambda: Reconstructor.open(work, backend="tensorrt-rtx"),
            lambda: describe_file(work),
            lambda: plan(work, RTX),
        ):
            try:
                ask()
            except CCNetError as error:
                assert len(str(error).splitlines()) == 1
        about = lying.details
        fits = about["version"] == "1.7.1.116" and (not about["gpu"] or about["gpu"] == "RTX 4090 (sm_89)")
        may_load = fits or about["compatible"] is True
        # Limits of a tile that make no sense are found before an engine is loaded
        assert bool(loaded) == may_load or ("window" in lies and not loaded), lies
        times += bool(loaded)
    assert 20 < times < 80
