"""The interface of the model: bands, tensor names, sizes, halo and value ranges."""

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

CUBE_SUM = "cube_sum"
"""Name of an output that engines of ``decode`` have beside the cube: its sum, finite only if all values are."""

SIZE_MULTIPLE = 16
"""Height and width of every input are multiples of it, px: two halvings (4) and the patch grid of PAF (16)."""

HALO = 80
"""Border that a tile needs on each side, px, so that the tiled cube equals the whole frame's to 1e-5."""

FRAME_SCALE: Mapping[str, float] = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""Frame dtype → fixed divisor that scales it to [0, 1]; never the range of an image."""


def camera_response(camera: Any) -> npt.NDArray[np.float32]:
    """Check the entry of a camera in weights or a manifest, and return its response.

    Args:
        camera: ``{"name": text, "response": 31 rows of [r, g, b]}``; each column sums to 1 (``ccnet.data.camera``).

    Returns:
        The response (31, 3) float32, bands ascending from 400 to 700 nm.

    Raises:
        CCNetError: The entry is not a camera; the message says why.
    """
    if not isinstance(camera, dict) or camera.keys() != {"name", "response"}:
        raise CCNetError("camera is not a name and a response")
    if not isinstance(camera["name"], str) or not camera["name"].isprintable():
        raise CCNetError("camera's name is not plain text")
    return response_table(camera["response"])


def response_table(rows: Any) -> npt.NDArray[np.float32]:
    """Check a camera's response, and return it as an array.

    Args:
        rows: 31 rows of [r, g, b], at least 0, bands ascending from 400 to 700 nm; each column sums to 1.

    Returns:
        The response (31, 3) float32.

    Raises:
        CCNetError: The rows are no response; the message says why.
    """
    try:
        table = np.array(rows)
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
    """Return the smallest multiple of ``multiple`` px that is at least ``size`` px."""
    return math.ceil(size / multiple) * multiple


def reflect_index(size: int, start: int, stop: int) -> npt.NDArray[np.intp]:
    """Return the source index of each position after reflect padding, the same for torch and numpy.

    Args:
        size: Length of the axis, px, at least 1.
        start: First position, px; may be negative.
        stop: Position after the last, px; may be beyond ``size``, by any number.

    Returns:
        Indices in [0, size), (stop - start,), mirrored about the pixels at both ends.
    """
    period = max(2 * (size - 1), 1)
    distance = np.arange(start, stop) % period
    return np.minimum(distance, period - distance) if size > 1 else np.zeros_like(distance)
