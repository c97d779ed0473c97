"""Metrics of two cubes; numpy only.

Every metric takes the truth Y and the estimate Ŷ, (31, H, W) of reflectance in any float dtype, computes in float64 and
returns a float, or an array with a value for each band. ``known``, (31, H, W), says where the truth has data: other
values do not count, and NaN is the metric of nothing. docs/metrics.md has the formulas and other definitions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Cube = npt.NDArray[np.floating]
Bands = npt.NDArray[np.float64]
Known = npt.NDArray[np.bool_] | None

MRAE_OFFSET = 0.02
"""Added to the truth in MRAE's denominator where the data holds zeros (CAVE): |d| / (Y + 0.02)."""

LIT = 0.05
"""Mean reflectance over the bands above which a pixel is lit; MRAE's largest terms lie in the dark background."""


def mrae(truth: Cube, estimate: Cube, offset: float = MRAE_OFFSET, known: Known = None) -> float:
    """Return the mean relative absolute error, mean |Y - Ŷ| / (Y + offset).

    Args:
        truth: Y, (31, H, W).
        estimate: Ŷ, (31, H, W).
        offset: Added to the denominator; 0 is NTIRE's definition (Eq. 14).
        known: Where the truth has data; None is everywhere.

    Returns:
        The error; inf if a denominator is 0, since NTIRE's definition is undefined where the truth holds zeros.
    """
    return _mean_of_bands(band_mrae(truth, estimate, offset, known), known)


def band_mrae(truth: Cube, estimate: Cube, offset: float = MRAE_OFFSET, known: Known = None) -> Bands:
    """Return the MRAE of each band, (31,); its mean over the bands with data is the MRAE of the cube."""
    truth, estimate = _as_float64(truth, estimate)
    base = np.abs(truth) + offset
    relative = np.divide(np.abs(truth - estimate), base, out=np.full_like(base, np.inf), where=base > 0)
    return _means(relative, known)


def rmse(truth: Cube, estimate: Cube, known: Known = None) -> float:
    """Return the root mean square error over all pixels and bands."""
    return float(np.sqrt(_mean_of_bands(band_rmse(truth, estimate, known) ** 2, known)))


def band_rmse(truth: Cube, estimate: Cube, known: Known = None) -> Bands:
    """Return the RMSE of each band, (31,)."""
    truth, estimate = _as_float64(truth, estimate)
    return np.asarray(np.sqrt(_means((truth - estimate) ** 2, known)))


def psnr(truth: Cube, estimate: Cube, known: Known = None) -> float:
    """Return the peak signal-to-noise ratio, dB, for a peak of 1; inf if the cubes are equal."""
    error = rmse(truth, estimate, known)
    return float(-20 * np.log10(error)) if error else float("inf")


def best_factor(truth: Cube, estimate: Cube, known: Known = None) -> float:
    """Return the factor of the estimate that minimises its squared error, Σ Y·Ŷ / Σ Ŷ²; 1 for a black estimate.

    Where a frame's exposure is not known, as a photograph's, the error that is left after it is the one to judge.
    """
    truth, estimate = _as_float64(truth, estimate)
    if known is not None:
        truth, estimate = np.where(known, truth, 0), np.where(known, estimate, 0)
    energy = np.sum(estimate**2)
    return float(np.sum(truth * estimate) / energy) if energy else 1.0


def sam(truth: Cube, estimate: Cube, known: Known = None) -> float:
    """Return the spectral angle, degrees, mean over pixels where neither spectrum is black; 0 if there are none."""
    truth, estimate = _as_float64(truth, estimate)
    if known is not None:
        truth, estimate = np.where(known, truth, 0), np.where(known, estimate, 0)
    norm_t, norm_e = np.linalg.norm(truth, axis=0), np.linalg.norm(estimate, axis=0)
    lit = (norm_t > 1e-6) & (norm_e > 1e-6)
    if not lit.any():
        return 0.0
    # The half-angle form is exact for tiny angles, unlike the arccos of a rounded cosine
    unit_t, unit_e = truth[:, lit] / norm_t[lit], estimate[:, lit] / norm_e[lit]
    angle = 2 * np.arctan2(np.linalg.norm(unit_t - unit_e, axis=0), np.linalg.norm(unit_t + unit_e, axis=0))
    return float(np.degrees(angle).mean())


def max_abs(truth: Cube, estimate: Cube) -> float:
    """Return the largest absolute difference of any pixel and band."""
    truth, estimate = _as_float64(truth, estimate)
    return float(np.max(np.abs(truth - estimate)))


def ntire_crop(cube: Cube) -> Cube:
    """Crop a cube to the part that NTIRE 2022 evaluates: 128 px less on every side of 482×512 px.

    At other sizes the margin is a quarter of the longer side, as 128 is of 512; a side that is at most half as long as
    the longer side loses a quarter of its own length on both ends. Source: CROP in Conf.py of the challenge's toolbox,
    NTIRE2022_spectral.

    Args:
        cube: (bands, H, W).

    Returns:
        A view of the centre of the cube.
    """
    longest = max(cube.shape[1:])
    margins = [(longest if side > longest // 2 else side) // 4 for side in cube.shape[1:]]
    rows, columns = (slice(margin, side - margin) for margin, side in zip(margins, cube.shape[1:], strict=True))
    return cube[:, rows, columns]


def _means(values: Bands, known: Known) -> Bands:
    """Return the mean of each band, (31,), over the pixels with data; NaN for a band without any."""
    if known is None:
        return np.asarray(values.mean(axis=(1, 2)))
    count = np.count_nonzero(known, axis=(1, 2))
    return np.asarray(np.where(known, values, 0).sum(axis=(1, 2)) / np.where(count, count, np.nan))


def _mean_of_bands(values: Bands, known: Known) -> float:
    """Return the mean over the bands with data; NaN if there are none."""
    used = values if known is None else values[known.any(axis=(1, 2))]
    return float(np.mean(used)) if used.size else float("nan")


def _as_float64(truth: Cube, estimate: Cube) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if truth.shape != estimate.shape:
        raise ValueError(f"cubes have shapes {truth.shape} and {estimate.shape}, expected the same")
    return truth.astype(np.float64), estimate.astype(np.float64)
