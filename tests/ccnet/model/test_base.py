"""The per-pixel base: proportional to brightness, added to the network's output, absent from the paper's network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ccnet.model import CCNet, CCNetConfig
from ccnet.model.base import PixelMLP
from ccnet.model.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(autouse=True)
def _inference() -> object:
    with torch.inference_mode():
        yield


def test_base_sees_each_pixel_by_itself() -> None:
    mlp, rgb = PixelMLP(), torch.rand(1, 3, 5, 7)
    alone = mlp(rgb[:, :, 2:3, 4:5])
    torch.testing.assert_close(mlp(rgb)[:, :, 2:3, 4:5], alone)
    assert alone.shape == (1, 31, 1, 1)


@pytest.mark.parametrize("factor", [0.0, 0.25, 3.0])
def test_base_is_proportional_to_brightness(factor: float) -> None:
    mlp, rgb = PixelMLP(), torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(mlp(factor * rgb), factor * mlp(rgb))


def test_network_adds_its_output_to_the_base(network: CCNet) -> None:
    based = CCNet(CCNetConfig(units=1, base="mlp")).eval()
    missing = based.load_state_dict(network.state_dict(), strict=False).missing_keys
    assert missing == [f"base.{layer}.weight" for layer in (0, 2, 4, 6)]
    rgb = torch.rand(2, 3, 17, 31)
    assert based.base is not None
    torch.testing.assert_close(based(rgb), network(rgb) + based.base(rgb))
    context = based.encode(rgb)
    torch.testing.assert_close(context, network.encode(rgb))
    torch.testing.assert_close(based.decode(rgb, context), based(rgb), atol=1e-5, rtol=1e-4)


def test_checkpoint_keeps_the_base(tmp_path: Path) -> None:
    path = tmp_path / "based.safetensors"
    based = CCNet(CCNetConfig(units=1, base="mlp"))
    save_checkpoint(path, based)
    found = load_checkpoint(path)
    assert found.config == based.config
    rgb = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(found(rgb), based.eval()(rgb))
