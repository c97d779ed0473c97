"""The per-pixel MLP as an opponent: the strongest method here that sees no neighbours, trained in about a minute."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ccnet.data.camera import Array
from ccnet.metrics import MRAE_OFFSET
from ccnet.model.base import PixelMLP

PASSES = 10
"""Most passes over all training pixels."""

MAX_STEPS, BATCH = 1600, 8192
"""Most Adam steps, and pixels a step."""

MAX_PIXELS = 1 << 21
"""Most training pixels, over all scenes; they are drawn at random from larger data sets."""

_LR, _FINAL_LR, _WARMUP = 1.5e-3, 1e-5, 100


class PixelMethod:
    """Method that estimates the spectrum of each pixel by a network.

    Args:
        network: Network without any operation across pixels.
    """

    def __init__(self, network: PixelMLP) -> None:
        self.network = network.eval()

    def __call__(self, frame: Array) -> Array:
        """Estimate the cube (31, H, W) of a frame (3, H, W)."""
        with torch.inference_mode():
            return np.asarray(self.network(torch.from_numpy(frame)[None])[0].numpy())


def fit_pixel_mlp(pairs: Iterable[tuple[Array, Array]], scenes: int, seed: int = 0) -> PixelMethod:
    """Train a ``PixelMLP`` on pixels of all scenes, on the CPU; the seed decides all random choices.

    Its loss is MRAE plus the root mean square error, since either alone neglects the other metric.

    Args:
        pairs: Frames (3, H, W) and cubes (31, H, W); iterated once.
        scenes: Number of pairs.
        seed: Seed of the weights, of the pixels and of their order.

    Returns:
        The trained network as a method.
    """
    generator = torch.Generator().manual_seed(seed)
    frames, cubes = _pixels(pairs, MAX_PIXELS // scenes, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PixelMLP()
    count = frames.shape[1]
    batch = min(BATCH, count)
    steps = min(MAX_STEPS, math.ceil(PASSES * count / batch))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for step in range(steps):
        rate = _FINAL_LR + (_LR - _FINAL_LR) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / min(_WARMUP, 1 + steps // 10))
        drawn = torch.randint(count, (batch,), generator=generator)
        truth, estimate = cubes[:, drawn], network(frames[:, drawn][None, :, :, None])[0, :, :, 0]
        known = ~truth.isnan()
        truth = truth.nan_to_num()
        difference = (estimate - truth) * known
        loss = (difference.abs() / (truth + MRAE_OFFSET)).mean() + difference.square().mean().sqrt()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return PixelMethod(network)


def _pixels(pairs: Iterable[tuple[Array, Array]], most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the pixels (3, N) and spectra (31, N) of all scenes, drawn at random from scenes of more than ``most``."""
    frames, cubes = [], []
    for arrays in pairs:
        frame, cube = (torch.from_numpy(array).flatten(1) for array in arrays)
        if frame.shape[1] > most:
            drawn = torch.randperm(frame.shape[1], generator=generator)[:most]
            frame, cube = frame[:, drawn], cube[:, drawn]
        frames.append(frame)
        cubes.append(cube)
    return torch.cat(frames, 1), torch.cat(cubes, 1)
