"""The contract's halo, by measurement on the paper's network."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch

from ccnet.contract import HALO, SIZE_MULTIPLE
from ccnet.model import CCNet
from ccnet.runtime.parity import TOLERANCES

SIDE, OWN = 240, 64  # px, of the frame and of what a tile in its middle keeps


@pytest.mark.slow
def test_the_halo_is_the_smallest_on_the_grid_that_will_do(paper_network: CCNet) -> None:
    pixels = skimage.data.astronaut()[60 : 60 + SIDE, 120 : 120 + SIDE].transpose(2, 0, 1)[None]
    rgb = torch.from_numpy(np.ascontiguousarray(pixels / np.float32(255)))
    first = (SIDE - OWN) // 2 // SIZE_MULTIPLE * SIZE_MULTIPLE
    kept = slice(first, first + OWN)
    with torch.inference_mode():
        cube, context = paper_network.run(rgb, None)

        def error(halo: int) -> float:
            """Largest difference from the whole frame's cube in what the tile keeps."""
            seen = slice(first - halo, first + OWN + halo)
            tile = paper_network.decode(rgb[..., seen, seen], context)[..., halo : halo + OWN, halo : halo + OWN]
            return (tile - cube[..., kept, kept]).abs().max().item()

        limit = TOLERANCES["tiled"].max_abs
        assert limit is not None
        assert error(HALO) <= limit
        assert error(HALO - SIZE_MULTIPLE) > limit
