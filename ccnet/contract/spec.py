"""What the model promises to everything that runs it: bands, tensor names, sizes, halo and value ranges; numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract.errors import CCNetError

BANDS_NM: tuple[int, ...] = tuple(range(400, 701, 10))
"""Centre wavelengths of the cube's 31 bands, ascending, in nm."""

RGB, CONTEXT, CUBE = "rgb", "context", "cube"
"""Tensor names of every graph and engine."""

SIZE_MULTIPLE = 16
"""Height and width of every tensor the network sees: two halvings (4) and PAF's patch grid (16)."""

HALO = 80
"""Pixels that a tile must see beyond what it keeps, so that tiled equals full frame to 1e-5."""

FRAME_SCALE: Mapping[str, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""Frame dtype → the fixed divisor that brings it to [0, 1]; never a per-image range."""


def camera_response(camera: Any) -> npt.NDArray[np.float32]:
    """The response (31, 3) in a camera's entry, as weights and manifests hold it; CCNetError where it is not one.

    camera: ``{"name": text, "response": 31 rows of [r, g, b]}``; each column sums to 1 (``ccnet.data.camera``).
    """
    if not isinstance(camera, dict) or camera.keys() != {"name", "response"}:
        raise CCNetError("camera is not a name and a response")
    if not isinstance(camera["name"], str) or not camera["name"].isprintable():
        raise CCNetError("camera's name is not plain text")
    try:
        table = np.array(camera["response"])
    except ValueError as error:
        raise CCNetError("camera's response has rows of different lengths") from error
    if table.dtype.kind not in "if" or table.shape != (len(BANDS_NM), 3):
        raise CCNetError(
            f"camera's response is {table.dtype} {table.shape}, expected {len(BANDS_NM)} rows of 3 numbers"
        )
    # NaN fails both comparisons
    if not (table.min() >= 0 and np.abs(table.sum(axis=0) - 1).max() <= 1e-3):
        raise CCNetError("camera's response is negative or not finite, or has columns that do not sum to 1")
    return table.astype(np.float32)


def padded_size(size: int, multiple: int = SIZE_MULTIPLE) -> int:
    """Smallest multiple of ``multiple`` (px) that holds ``size`` (px)."""
    return math.ceil(size / multiple) * multiple


def reflect_index(size: int, start: int, stop: int) -> npt.NDArray[np.intp]:
    """Source index in [0, size) of each position in [start, stop), mirrored about the edges' pixels.

    The one definition of the reflect padding, for torch and numpy alike; any overhang works, also for size 1.
    """
    period = max(2 * (size - 1), 1)
    distance = np.arange(start, stop) % period
    return np.minimum(distance, period - distance) if size > 1 else np.zeros_like(distance)
