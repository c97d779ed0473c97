"""How far two cubes are apart, in spectral terms; numpy only.

Every function takes cubes (31, H, W), any float dtype, reflectance-like, and returns a float.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Cube = npt.NDArray[np.floating]

MRAE_OFFSET = 0.02
"""Added to the truth in MRAE's denominator where the data holds zeros (CAVE): |d| / (Y + 0.02)."""


def mrae(truth: Cube, estimate: Cube, offset: float = MRAE_OFFSET) -> float:
    """Mean relative absolute error, mean |Y - Ŷ| / (Y + offset); offset 0 is NTIRE's definition (Eq. 14)."""
    truth, estimate = _pair(truth, estimate)
    return float(np.mean(np.abs(truth - estimate) / (np.abs(truth) + offset)))


def rmse(truth: Cube, estimate: Cube) -> float:
    """Root mean square error over all pixels and bands."""
    truth, estimate = _pair(truth, estimate)
    return float(np.sqrt(np.mean((truth - estimate) ** 2)))


def psnr(truth: Cube, estimate: Cube) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1, from the error over all bands; inf where they are equal."""
    error = rmse(truth, estimate)
    return float(-20 * np.log10(error)) if error else float("inf")


def sam(truth: Cube, estimate: Cube) -> float:
    """Spectral angle, degrees, mean over the pixels where neither spectrum is black; 0 where all are."""
    truth, estimate = _pair(truth, estimate)
    norm_t, norm_e = np.linalg.norm(truth, axis=0), np.linalg.norm(estimate, axis=0)
    lit = (norm_t > 1e-6) & (norm_e > 1e-6)
    if not lit.any():
        return 0.0
    # The half-angle form is exact for tiny angles, where arccos of a rounded cosine is not
    unit_t, unit_e = truth[:, lit] / norm_t[lit], estimate[:, lit] / norm_e[lit]
    angle = 2 * np.arctan2(np.linalg.norm(unit_t - unit_e, axis=0), np.linalg.norm(unit_t + unit_e, axis=0))
    return float(np.degrees(angle).mean())


def max_abs(truth: Cube, estimate: Cube) -> float:
    """Largest absolute difference of any pixel and band."""
    truth, estimate = _pair(truth, estimate)
    return float(np.max(np.abs(truth - estimate)))


def _pair(truth: Cube, estimate: Cube) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if truth.shape != estimate.shape:
        raise ValueError(f"cubes have shapes {truth.shape} and {estimate.shape}, expected the same")
    return truth.astype(np.float64), estimate.astype(np.float64)
