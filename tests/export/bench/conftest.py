"""The networks that the benchmarks compare, tiny and exported once."""

from __future__ import annotations

import pytest
import torch

from ccnet.export.bench.networks import Network, export_networks
from ccnet.model import CCNet
from ccnet.model.config import CCNetConfig


@pytest.fixture(scope="package")
def exported_networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Network]:
    torch.manual_seed(0)
    model = CCNet(CCNetConfig(units=1)).eval()
    return dict(export_networks(model, tmp_path_factory.mktemp("networks")))
