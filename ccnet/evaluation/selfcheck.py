"""How well the reprojection residual (``ccnet.metrics.reprojection``) predicts the true error, where that is known.

Legend: a frame is (3, H, W), a cube (31, H, W), a response (31, 3); a map is (H, W), larger where worse.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from ccnet.data.masks import known_mean
from ccnet.metrics import MRAE_OFFSET
from ccnet.metrics.reprojection import residual

Cube = npt.NDArray[np.floating]
Map = npt.NDArray[np.float64]

BLOCK = 16
"""Side of the blocks whose means are ranked too, px: users look at regions, not pixels."""

WORST_SHARE = 0.1
"""Share of the pixels with the largest errors, which the residual should find."""

_NAN = float("nan")


def compare_residual_and_error(
    frame: Cube, truth: Cube, estimate: Cube, response: npt.NDArray[np.float32]
) -> dict[str, float]:
    """Compare how the residual and the true error of an estimate rank its pixels.

    Saturated pixels, and pixels and bands where the truth is NaN, are left out.

    Args:
        frame: Frame that the estimate was made from, (3, H, W).
        truth: True cube, (31, H, W).
        estimate: Estimated cube, (31, H, W).
        response: Response of the frame's camera, (31, 3).

    Returns:
        The values below; NaN where nothing can be ranked, because all pixels are equal or saturated, or there are
        fewer than two blocks. ERROR is ``relative`` (MRAE of a pixel, offset 0.02) or ``absolute`` (mean |Y - Ŷ| of a
        pixel).

        - ``score``: mean residual;
        - ``unseen``: see ``unseen_share``;
        - ``rho ERROR``, ``block rho ERROR``: Spearman's rank correlation, of pixels and of the means of 16×16 blocks;
        - ``auc ERROR``: probability that a pixel of the worst tenth has a larger residual than another pixel.
    """
    residuals = residual(frame, estimate, response).astype(np.float64)
    distance = np.abs(estimate.astype(np.float64) - truth)
    errors = {
        "relative": known_mean(distance / (np.abs(truth) + MRAE_OFFSET), 0),
        "absolute": known_mean(distance, 0),
    }
    residuals[np.isnan(truth).all(axis=0)] = np.nan
    valid = np.isfinite(residuals)
    result = {
        "score": float(residuals[valid].mean()) if valid.any() else _NAN,
        "unseen": unseen_share(truth, estimate, response),
    }
    for name, error in errors.items():
        result[f"rho {name}"] = rank_correlation(residuals[valid], error[valid])
        result[f"block rho {name}"] = rank_correlation(*_block_means(residuals, error))
        result[f"auc {name}"] = roc_area(residuals[valid], error[valid])
    return result


def unseen_share(truth: Cube, estimate: Cube, response: npt.NDArray[np.float32]) -> float:
    """Return the share of the squared error in the null space of the response, which no check of the frame can see."""
    error = estimate.reshape(len(estimate), -1).astype(np.float64) - truth.reshape(len(truth), -1)
    error[np.isnan(truth.reshape(error.shape))] = 0
    basis, _ = np.linalg.qr(response.astype(np.float64))  # (31, 3), orthonormal: spectra that the camera sees
    total = np.square(error).sum()
    return float(1 - np.square(basis.T @ error).sum() / total) if total else _NAN


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Return Spearman's rank correlation of two arrays; NaN if either is empty or constant."""
    if not a.size or np.ptp(a) == 0 or np.ptp(b) == 0:
        return _NAN
    return float(stats.spearmanr(a, b).statistic)


def roc_area(residuals: npt.NDArray[Any], error: npt.NDArray[Any], share: float = WORST_SHARE) -> float:
    """Return the area under the ROC curve of residuals that should find the largest errors.

    Args:
        residuals: Residual of each pixel, (N,).
        error: True error of each pixel, (N,).
        share: Share of the pixels that count as the worst.

    Returns:
        Area from 0 to 1; 0.5 is chance, NaN if no pixel is worse than the others.
    """
    if not error.size:
        return _NAN
    worst = error > np.quantile(error, 1 - share)
    if not worst.any() or worst.all():
        return _NAN
    u = stats.mannwhitneyu(residuals[worst], residuals[~worst], method="asymptotic").statistic
    return float(u / (np.count_nonzero(worst) * np.count_nonzero(~worst)))


def _block_means(residuals: Map, error: Map) -> tuple[Map, Map]:
    """Return the means over whole blocks that hold valid pixels, of the same pixels in both maps."""
    rows, columns = (size // BLOCK for size in residuals.shape)

    def block_sums(values: npt.NDArray[Any]) -> Map:
        whole = values[: rows * BLOCK, : columns * BLOCK].astype(np.float64)
        return np.asarray(whole.reshape(rows, BLOCK, columns, BLOCK).sum(axis=(1, 3)).ravel())

    valid = np.isfinite(residuals)
    counts = block_sums(valid)
    used = counts > 0
    first, second = (block_sums(np.where(valid, values, 0))[used] / counts[used] for values in (residuals, error))
    return first, second
