"""An INT8 search on a tiny network, with its inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ccnet.calibration.data import Feed
from ccnet.calibration.graph_runner import GraphRunner
from ccnet.calibration.int8.search import Int8Search
from ccnet.contract import Manifest
from ccnet.model import CCNet


@pytest.fixture(scope="session")
def feeds(artifacts: tuple[CCNet, Path]) -> list[Feed]:
    size = Manifest.read(artifacts[1]).context_size
    rng = np.random.default_rng(0)
    feeds: list[Feed] = []
    for _ in range(3):
        colours = rng.random((1, 3, 4, 4), np.float32).repeat(4, 2).repeat(4, 3)
        feeds.append({"rgb": colours, "context": np.full((1, size), 0.125, np.float32)})
    return feeds


@pytest.fixture(scope="session")
def mixed(artifacts: tuple[CCNet, Path]) -> bytes:
    return Manifest.read(artifacts[1]).find("decode", precision="fp16").read(artifacts[1])


@pytest.fixture(scope="session")
def trials(artifacts: tuple[CCNet, Path], feeds: list[Feed]) -> Int8Search:
    runner = GraphRunner(Manifest.read(artifacts[1]).find("decode").read(artifacts[1]))
    return Int8Search(runner, feeds[1:], feeds[:1])
