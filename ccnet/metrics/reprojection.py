"""Reprojection of a cube through the camera's response (Eq. 2), and its residual against the frame; numpy only.

The residual needs no ground truth and tests three of the 31 dimensions: an error that the response maps to zero (a
metamer) does not change it.

Legend: a cube is (31, H, W); a frame is (3, H, W), linear in [0, 1], in the camera's colours; a response is (31, 3)
with columns that sum to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import MRAE_OFFSET

Array = npt.NDArray[np.float32]

SATURATED = 0.999
"""Value of a channel from which Eq. 2 may have clipped, so that the amount of light is unknown."""


def reproject(cube: npt.NDArray[np.floating], response: Array) -> Array:
    """Return the frame (3, H, W) of a cube (31, H, W), by Eq. 2 without its clipping: I_c = Σ_λ S_c^λ H_λ."""
    return np.asarray(np.tensordot(response.T, cube, axes=1))


def residual(frame: npt.NDArray[Any], cube: npt.NDArray[np.floating], response: Array) -> Array:
    """Compute the reprojection residual of each pixel, mean over channels of |reprojected - frame| / (frame + 0.02).

    Args:
        frame: (3, H, W), linear in [0, 1].
        cube: (31, H, W).
        response: (31, 3).

    Returns:
        (H, W), relative like MRAE; NaN where a channel of the frame is saturated.

    Raises:
        ValueError: Frame and cube differ in size.
    """
    if frame.shape != (3, *cube.shape[1:]):
        raise ValueError(f"frame is {frame.shape}, expected (3, H, W) for a cube of {cube.shape}")
    relative = np.abs(reproject(cube, response) - frame) / (frame + np.float32(MRAE_OFFSET))
    return np.where(frame.max(axis=0) < SATURATED, relative.mean(axis=0), np.float32(np.nan))
