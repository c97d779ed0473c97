"""The halo of the contract, measured on the paper's network."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from ccnet.contract import HALO, SIZE_MULTIPLE
from ccnet.model import CCNet
from ccnet.model.checkpoint import load_checkpoint
from ccnet.runtime.quality.tolerances import TOLERANCES

KEPT = 128  # px, rows that the tile above the cut keeps
LIMIT = TOLERANCES["tiled"].max_abs


def error(network: CCNet, rgb: Tensor, halo: int) -> float:
    """Return the largest difference between the whole cube and a tile with ``halo`` rows beyond its kept part."""
    with torch.inference_mode():
        cube, context = network.run(rgb, None)
        tile = network.decode(rgb[..., : KEPT + halo, :], context)
        return (tile - cube[..., : KEPT + halo, :])[..., :KEPT, :].abs().max().item()


def photograph(rows: slice, columns: slice) -> Tensor:
    pixels = skimage.data.coffee()[rows, columns].transpose(2, 0, 1)[None]
    return torch.from_numpy(np.ascontiguousarray(pixels / np.float32(255)))


@pytest.mark.slow
def test_halo_is_large_enough_and_32_px_less_is_not() -> None:
    """Trained weights needed 64 or 80 px on this crop; one step is a margin for later weights."""
    rgb, network = photograph(slice(0, 272), slice(16, 224)), load_checkpoint()
    assert LIMIT is not None
    assert error(network, rgb, HALO) <= LIMIT < error(network, rgb, HALO - 2 * SIZE_MULTIPLE)


@pytest.mark.slow
def test_halo_is_large_enough_for_random_weights(paper_network: CCNet) -> None:
    assert LIMIT is not None
    assert error(paper_network, photograph(slice(60, 300), slice(120, 248)), HALO) <= LIMIT
