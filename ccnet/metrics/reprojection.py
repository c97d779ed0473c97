"""Is a cube what its frame says? The cube through the camera's response (Eq. 2) against the frame; numpy only.

It needs no ground truth, and so sees three of the 31 dimensions: an error that the response maps to nothing (a metamer)
is invisible to it. Legend: a cube is (31, H, W), a frame (3, H, W) linear in [0, 1] and of the camera, a response
(31, 3) with columns that sum to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import MRAE_OFFSET

Array = npt.NDArray[np.float32]

SATURATED = 0.999
"""Where a channel of the frame reaches this, Eq. 2 has clipped: how much light there was is not known."""


def reproject(cube: npt.NDArray[np.floating], response: Array) -> Array:
    """Eq. 2 without its clipping: I_c = Σ_λ S_c^λ H_λ; cube (31, H, W) → frame (3, H, W)."""
    frame: Array = np.tensordot(response.T, cube, axes=1)
    return frame


def residual(frame: npt.NDArray[Any], cube: npt.NDArray[np.floating], response: Array) -> Array:
    """(H, W): |reprojected - frame| / (frame + 0.02), mean over the channels, as MRAE is; NaN where saturated."""
    if frame.shape != (3, *cube.shape[1:]):
        raise ValueError(f"frame is {frame.shape}, expected (3, H, W) for a cube of {cube.shape}")
    relative = np.abs(reproject(cube, response) - frame) / (frame + np.float32(MRAE_OFFSET))
    mean: Array = np.where(frame.max(axis=0) < SATURATED, relative.mean(axis=0), np.float32(np.nan))
    return mean
