"""Fixtures for all tests: seeds, markers, the command line, small networks and the folder of real data."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hypothesis
import numpy as np
import pytest
import torch

from ccnet.contract import BENCHMARK_WEIGHTS, SHIPPED_WEIGHTS
from ccnet.contract.machine import available_cores
from ccnet.export.artifacts import export
from ccnet.model import CCNet
from ccnet.model.checkpoint import checkpoint_camera, load_checkpoint
from ccnet.model.config import CCNetConfig
from ccnet.runtime.cli import main as cli
from ccnet.runtime.gpu.cuda import has_gpu

REPOSITORY = Path(__file__).resolve().parents[1]

# A busy machine must not decide whether a test passes
hypothesis.settings.register_profile("ccnet", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ccnet")


def pytest_configure() -> None:
    take_share_of_cores()
    torch.set_num_threads(min(2, available_cores()))  # small planes gain nothing from more


def take_share_of_cores() -> None:
    """Keep a process of ``pytest -n`` to cores of its own, since threads that spin for one core lose its time."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[int(worker.removeprefix("gw")) :: workers]
        os.sched_setaffinity(0, cores or os.sched_getaffinity(0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"artifacts", "shipped"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)  # these fixtures run an export, which takes time
    if has_gpu():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU with its driver; there is none"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


class Result(NamedTuple):
    """Exit code and output of a call of the command line."""

    code: int
    out: str
    err: str


@pytest.fixture
def ccnet(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """ccnet("check", folder, …): run the command line in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["ccnet", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Result(int(end.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def tiny() -> CCNetConfig:
    """The smallest network that has all parts of the paper's."""
    return CCNetConfig(units=1)


@pytest.fixture
def network(tiny: CCNetConfig) -> CCNet:
    """A tiny network with random weights."""
    return randomised(CCNet(tiny))


@pytest.fixture(scope="session")
def paper_network() -> CCNet:
    """The paper's network with random weights; tests must not change it."""
    torch.manual_seed(1)
    return randomised(CCNet())


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[CCNet, Path]:
    """A tiny network with random weights and the folder that it was exported to; tests must not change either."""
    torch.manual_seed(0)
    model, folder = randomised(CCNet(CCNetConfig(units=1))), tmp_path_factory.mktemp("artifacts")
    export(model, folder)
    return model, folder


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[CCNet, Path]:
    """The network with the weights that the package ships, and its export; tests must not change either."""
    if not SHIPPED_WEIGHTS.is_file():
        pytest.skip(f"the package ships no weights: {SHIPPED_WEIGHTS} is missing")
    return exported(SHIPPED_WEIGHTS, tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="session")
def benchmark_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[CCNet, Path]:
    """The paper's network with trained weights, and its export; tests must not change either."""
    return exported(BENCHMARK_WEIGHTS, tmp_path_factory.mktemp("benchmark"))


def exported(weights: Path, folder: Path) -> tuple[CCNet, Path]:
    """Return the network of weights, and the folder after its export into it."""
    model = load_checkpoint(weights)
    export(model, folder, camera=checkpoint_camera(weights))
    return model, folder


def randomised(model: CCNet) -> CCNet:
    """Return the model in eval mode, with random values in weights that start as zeros or ones (RSE, σ, LayerNorm)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".rse", ".sigma")) or ".norm." in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real cubes, frames and cameras beside the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder}")
    return folder
