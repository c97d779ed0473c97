"""The normalisation of a frame's brightness: the cube is proportional to the frame, and the scale is in the context."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ccnet.model import CCNet, CCNetConfig
from ccnet.model.brightness import FLOOR, TARGET, FrameScale
from tests.conftest import randomised


@pytest.fixture(scope="module")
def normalising() -> CCNet:
    torch.manual_seed(0)
    return randomised(CCNet(CCNetConfig(units=1, base="mlp", base_width=16, normalise=True)))


@pytest.fixture(autouse=True)
def _inference() -> object:
    with torch.inference_mode():
        yield


def level(rgb: Tensor) -> float:
    return TARGET / float(FrameScale()(rgb))


@pytest.mark.parametrize("brightness", [2.0, 0.5, 0.25, 0.03])
@pytest.mark.parametrize("size", [(48, 32), (37, 53)])
def test_cube_is_proportional_to_the_frame(normalising: CCNet, brightness: float, size: tuple[int, int]) -> None:
    rgb = torch.rand(2, 3, *size)
    torch.testing.assert_close(normalising(brightness * rgb), brightness * normalising(rgb), rtol=1e-3, atol=1e-4)


def test_network_without_it_is_not_proportional() -> None:
    torch.manual_seed(0)
    network = randomised(CCNet(CCNetConfig(units=1)))
    rgb = torch.rand(1, 3, 32, 32)
    assert (network(0.25 * rgb) - 0.25 * network(rgb)).abs().max() > 0.01


def test_tiles_take_the_scale_of_the_context(normalising: CCNet) -> None:
    rgb = torch.rand(1, 3, 48, 64)
    rgb[..., :16] *= 0.1
    context = normalising.encode(rgb)
    assert context.shape == (1, normalising.context_size)
    assert normalising.context_size == CCNet(CCNetConfig(units=1)).context_size + 1
    torch.testing.assert_close(normalising.decode(rgb, context), normalising(rgb), rtol=1e-4, atol=1e-5)
    kept = normalising.decode(0.5 * rgb, context)  # a stream that keeps its context keeps the scale
    assert (kept - 0.5 * normalising(rgb)).abs().max() > 1e-3


def test_patches_take_the_scale_of_their_frame(normalising: CCNet) -> None:
    frames = torch.rand(2, 3, 32, 32) * torch.tensor([1.0, 0.2]).reshape(2, 1, 1, 1)
    scale = normalising.frame_scale(frames)
    torch.testing.assert_close(normalising(frames, scale), normalising(frames))
    assert (normalising(frames, 2 * scale) - normalising(frames)).abs().max() > 1e-3
    assert CCNet(CCNetConfig(units=1)).frame_scale(frames).eq(1).all()


def test_level_is_of_the_bright_surfaces() -> None:
    grey = torch.full((1, 3, 64, 64), 0.4)
    assert level(grey) == pytest.approx(0.4)
    background = grey.clone()
    background[..., 16:, :] = 0  # three quarters are black
    assert level(background) == pytest.approx(0.4 * 0.25 ** (1 / 8))
    hot = 0.1 * grey
    hot[..., 5, 5] = 1
    assert level(hot) < 0.042
    assert level(torch.nn.functional.avg_pool2d(torch.rand(1, 3, 64, 64), 2)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("dark", [0.0, FLOOR / 10])
def test_scale_of_a_dark_frame_is_bounded(normalising: CCNet, dark: float) -> None:
    frame = torch.full((1, 3, 32, 32), dark)
    assert float(FrameScale()(frame)) == pytest.approx(TARGET / FLOOR)
    assert normalising(frame).isfinite().all()
